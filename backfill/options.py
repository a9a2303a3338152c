"""The options that the commands share, and what is read from them before anything is fetched."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import click

import command_line
from backfill.time_window import TimeWindow, parse_option
from command_line.firestore import database_settings, project_of_credentials
from receiver.settings import Settings

SETTINGS = {  # the function's, and their options
    "GOOGLE_CLOUD_PROJECT": "--google-project",
    "FIRESTORE_DATABASE": "--database",
    "EVENTS_COLLECTION": "--collection",
    "DEVICES_COLLECTION": "--devices",
    "RETENTION_DAYS": "--retention-days",
}
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def dt_id(text: str) -> str:
    """Return an id of DT's; an option's `type`.

    Raises:
        ValueError: it is not one.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise ValueError(f"must be an id as DT Studio shows it, not {text!r}")
    return text


def _setting(variable: str, metavar: str, default: str) -> Decorator:
    text = f"[default: {default}]"
    return click.option(SETTINGS[variable], variable, metavar=metavar, help=text, envvar=variable, show_envvar=True)


def options(*decorators: Decorator) -> Decorator:
    """Return one decorator for several options, which the help lists in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


dt_project = click.option("--dt-project", metavar="ID", required=True, type=dt_id, help="DT's project id.")
selection = options(
    click.option("--until", metavar="TIME", help="Likewise.  [default: now]"),
    click.option("--device", "devices", metavar="ID", type=dt_id, multiple=True, help="Only this device; repeatable."),
    click.option(
        "--event-type", "event_types", metavar="TYPE", multiple=True, help="Only this event type; repeatable."
    ),
)
since = click.option(
    "--since", metavar="TIME", required=True, help="3d, 12h, a date (midnight UTC), or an RFC 3339 time."
)
labels = click.option(
    "--labels", metavar="A,B", type=command_line.items, help="The labels chosen on the Data Connector.  [default: all]"
)
database = options(
    _setting("GOOGLE_CLOUD_PROJECT", "ID", "that of the credentials"),
    _setting("FIRESTORE_DATABASE", "ID", "(default)"),
    _setting("EVENTS_COLLECTION", "ID", "events"),
)
devices_collection = _setting("DEVICES_COLLECTION", "ID", "no documents of devices")
retention = _setting("RETENTION_DAYS", "N", "documents are kept for ever")


def read_window(since: str, until: str | None) -> TimeWindow:
    """Return the window of --since and --until.

    Raises:
        click.UsageError: they are wrong.
    """
    try:
        return TimeWindow.parse(since, until, datetime.now(UTC))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def read_time(option: str, text: str) -> datetime:
    """Return the time that an option names.

    Raises:
        click.UsageError: it names none.
    """
    try:
        return parse_option(option, text, datetime.now(UTC))
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def read_database_settings(given: Mapping[str, Any]) -> Settings:
    """Return the function's settings; no secret is needed, since nothing is verified.

    Raises:
        click.UsageError: one is wrong, or Google's credentials are missing.
    """
    settings = database_settings({name: given.get(name) or "" for name in SETTINGS}, SETTINGS)
    if settings.emulator_host:
        return settings
    found = project_of_credentials()
    if not (project := settings.project or found):
        raise click.UsageError("the credentials name no project: set --google-project or GOOGLE_CLOUD_PROJECT")
    return replace(settings, project=project)
