"""`python -m backfill quarantine`: shows what lies in quarantine, and stores what this version can store."""

import asyncio
import heapq
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from google.cloud import firestore
from rich.table import Table

import command_line
from backfill import options
from backfill.database import FAILURES, open_database, reason
from backfill.markers import Markers
from backfill.tables import print_table
from backfill.writers import STAMP, Create, creator
from receiver.errors import Unavailable, Unprocessable
from receiver.event import Event, parse_event
from receiver.settings import Settings
from receiver.store import Store, new_deadline

_NAME = "python -m backfill quarantine"
_MOST_LISTED = 100  # bodies
_PAGE = 50  # documents of up to 1 MiB
_KEY_CHARACTERS = 12
_NEVER = datetime.min.replace(tzinfo=UTC)


@click.group(
    epilog=command_line.examples(
        f"{_NAME} list", f"{_NAME} show 5f2b", f"{_NAME} retry", f"{_NAME} retry 5f2b 90ac --devices devices"
    )
)
def quarantine() -> None:
    """Show the quarantine, and store what this version can store.

    The quarantine holds the bodies of authentic requests that could not be stored as a document.
    """


def _key(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{1,64}", text):
        raise ValueError(f"must be the beginning of a key in the list, not {text!r}")
    return text


@quarantine.command("list", epilog=command_line.examples(f"{_NAME} list", f"{_NAME} list --all"))
@click.option("--all", "resolved_too", is_flag=True, help="Also what has been resolved.")
@options.database
def list_command(*, resolved_too: bool, **given: Any) -> int:
    """List the quarantine by reason and time: the number of bodies, and the newest ones."""
    return _run(_list, given, resolved_too)


@quarantine.command(epilog=command_line.examples(f"{_NAME} show 5f2b"))
@click.argument("key", type=_key)
@options.database
def show(*, key: str, **given: Any) -> int:
    """Print a body as it was received. KEY is the beginning of its key in the list."""
    return _run(_show, given, key)


@quarantine.command(epilog=command_line.examples(f"{_NAME} retry", f"{_NAME} retry 5f2b"))
@click.argument("keys", nargs=-1, type=_key)
@options.database
@options.devices_collection
@options.retention
def retry(*, keys: Sequence[str], **given: Any) -> int:
    """Store the bodies that this version can store, and mark them as resolved.

    An event is created as by the function, unless its document exists. KEYS are beginnings of keys in the list; without
    them, all that is not resolved is tried. An event that `forget` has deleted is left out.

    Exit status: 0 nothing is left; 1 some bodies still cannot be stored, or Firestore failed; 2 a wrong argument.
    """
    return _run(_retry, given, keys)


def _run(work: Callable[..., Coroutine[Any, Any, int]], given: Mapping[str, Any], argument: Any) -> int:
    settings = options.read_database_settings(given)
    try:
        return asyncio.run(work(settings, argument))
    except FAILURES as error:
        raise click.ClickException(reason(error)) from None


async def _entries(settings: Settings, *, key: str = "", fields: Sequence[str] | None = None) -> AsyncIterator[Any]:
    """Yield the documents whose key begins with `key`, in the order of their keys."""
    collection = open_database(settings).collection(f"{settings.collection}_quarantine")
    query = collection.order_by("__name__").limit(_PAGE)
    query = query.select(fields) if fields else query
    if key:
        first, last = collection.document(key), collection.document(key + "~")
        query = query.where(filter=firestore.FieldFilter("__name__", ">=", first))
        query = query.where(filter=firestore.FieldFilter("__name__", "<", last))
    page = [each async for each in query.stream()]
    while page:
        for entry in page:
            yield entry
        page = [each async for each in query.start_after(page[-1]).stream()]


def _received(entry: Mapping[str, Any]) -> datetime:
    time = entry.get("receivedAt") or entry.get(STAMP)
    return time if isinstance(time, datetime) else _NEVER


async def _list(settings: Settings, resolved_too: bool) -> int:  # noqa: FBT001 - called by `_run` alone
    counts: Counter[str] = Counter()
    times: dict[str, tuple[datetime, datetime]] = {}
    newest: list[tuple[datetime, str, str, str]] = []
    async for entry in _entries(settings, fields=["reason", "receivedAt", STAMP, "resolvedAt", "resolvedAs"]):
        fields = entry.to_dict()
        if fields.get("resolvedAt") and not resolved_too:
            continue
        time, why = _received(fields), str(fields.get("reason"))
        counts[why] += 1
        first, last = times.get(why, (time, time))
        times[why] = min(first, time), max(last, time)
        heapq.heappush(newest, (time, why, entry.id[:_KEY_CHARACTERS], str(fields.get("resolvedAs", ""))))
        if len(newest) > _MOST_LISTED:
            heapq.heappop(newest)
    if not counts:
        click.echo("Nothing is in quarantine.")
        return 0
    by_reason = [(why, str(counts[why]), _text(times[why][0]), _text(times[why][1])) for why in sorted(counts)]
    _print_table(("reason", "bodies", "first (UTC)", "last (UTC)"), by_reason)
    bodies = sorted((why, _text(time), key, resolved) for time, why, key, resolved in newest)
    _print_table(("reason", "received (UTC)", "key", "resolved as"), bodies)
    return 0


def _text(time: datetime) -> str:
    return "no time" if time == _NEVER else f"{time:%Y-%m-%d %H:%M:%S}"


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(*headings)
    for row in rows:
        table.add_row(*row)
    print_table(table)


async def _show(settings: Settings, key: str) -> int:
    found: list[Any] = []
    async for entry in _entries(settings, key=key):
        if found:
            raise click.UsageError(f"several keys in quarantine begin with {key!r}")
        found.append(entry)
    if not found:
        raise click.UsageError(f"no key in quarantine begins with {key!r}")
    fields = found[0].to_dict()
    resolved = f", resolved as {fields['resolvedAs']}" if fields.get("resolvedAt") else ""
    click.echo(f"{found[0].id}: {fields.get('reason')} {_text(_received(fields))} UTC{resolved}", err=True)
    click.echo(fields["body"])
    return 0


async def _retry(settings: Settings, keys: Sequence[str]) -> int:
    create = creator(Store(settings, stamp=STAMP), settings)
    markers = Markers(settings)
    stored, failures = 0, 0
    for key in keys or [""]:
        async for entry in _entries(settings, key=key):
            fields = entry.to_dict()
            if fields.get("resolvedAt"):
                continue
            why = await _try_again(entry.reference, fields.get("body", b""), create, markers)
            stored, failures = stored + (not why), failures + bool(why)
            if why:
                click.echo(f"{entry.id[:_KEY_CHARACTERS]}: {why}", err=True)
    click.echo(f"{stored} bodies stored, {failures} still in quarantine.")
    return int(failures > 0)


async def _try_again(reference: Any, body: bytes, create: Create, markers: Markers) -> str:
    """Store a body and mark its entry as resolved; return why not, or an empty string."""
    try:
        event = parse_event(body)
        if await _is_forgotten(event, markers):
            return "The event was deleted by forget."
        await create(event, new_deadline())
    except (Unprocessable, Unavailable) as error:
        return error.reason
    await reference.update({"resolvedAt": firestore.SERVER_TIMESTAMP, "resolvedAs": event.event_id})
    return ""


async def _is_forgotten(event: Event, markers: Markers) -> bool:
    time = event.fields.get("timestamp")
    device = str(event.fields.get("targetName")).rpartition("/")[2]
    return (await markers.forgotten(device, [time if isinstance(time, datetime) else None]))[0]
