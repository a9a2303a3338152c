"""`python -m deploy.data_connector`: creates, updates or deletes the Data Connector of an endpoint, and proves it.

The secret and the access token are read from standard input, so that they are on no command line. deploy.sh runs it.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

import command_line
from deploy.smoke_test import SmokeTestError, database_time, wait_for_event
from dtcloud import data_connectors, emulator
from dtcloud.account import MissingCredentials, sign_in
from dtcloud.connector import METRICS, USER_DISABLED, DataConnector, of_endpoint
from dtcloud.data_connectors import DataConnectorError, Wanted

_EXAMPLE = (
    "python -m deploy.data_connector --project bhmh0143iktucae701vg \\",
    "    --url https://x.run.app --labels name,room < secret.txt",
    "python -m deploy.data_connector --project bhmh0143iktucae701vg \\",
    "    --url https://x.run.app --no-secret",
    "python -m deploy.data_connector --project bhmh0143iktucae701vg \\",
    "    --url https://x.run.app --disconnect",
)
_FIELDS = {"labels": "labels", "events": "event types", "status": "status", "httpConfig": "signature secret"}


def _items_or(word: str) -> Any:
    """Return an option type that reads a comma-separated list; this word means an empty one."""

    def read(text: str) -> list[str]:
        return [] if text == word else command_line.items(text)

    return read


@click.command(epilog=command_line.examples(*_EXAMPLE))
@click.option("--project", metavar="ID", required=True, help="DT's project id.")
@click.option("--url", required=True, help="URL of the endpoint.")
@click.option("--name", default="dataconnector-endpoint", show_default=True, help="Display name of a new connector.")
@click.option(
    "--labels", metavar="A,B", type=_items_or("none"), help="Labels to send with each event, or none. [as they are]"
)
@click.option("--event-types", metavar="A,B", type=_items_or("all"), help="Event types to send, or all. [as they are]")
@click.option("--no-secret", is_flag=True, help="Create it without a signature secret; leave an existing one alone.")
@click.option("--prove", is_flag=True, help="Make DT send an event, and wait until it is in Firestore.")
@click.option("--documents", metavar="URL", help="For --prove: the collection, in Firestore's REST API.")
@click.option(
    "--patience", type=command_line.POSITIVE, default=120, show_default=True, metavar="SECONDS",
    help="For --prove: wait this long for the event.",
)  # fmt: skip
@click.option("--disconnect", is_flag=True, help="Delete the Data Connectors of this endpoint.")
def command(project: str, **options: Any) -> None:
    """Create the Data Connector of an endpoint, or update each one that sends to it.

    A connector is recognized by its URL, never by its name. The signature secret is the first line of standard input;
    with --prove, an access token for Firestore's REST API is the line above it. DT_SERVICE_ACCOUNT_KEY_ID,
    DT_SERVICE_ACCOUNT_SECRET and DT_SERVICE_ACCOUNT_EMAIL hold the key of a DT service account (DT Studio, API
    Integrations) with the role Project Developer or higher. DT_API_URL, DT_TOKEN_URL and DT_EMULATOR_URL replace DT's
    own API, for example in a test.
    """
    if options["prove"] and not options["documents"]:
        raise click.UsageError("--prove needs --documents")
    try:
        sign_in(os.environ)
        if options["disconnect"]:
            _disconnect(project, options["url"])
        else:
            _connect(project, options)
    except MissingCredentials as error:
        raise click.UsageError(str(error)) from None
    except (DataConnectorError, SmokeTestError, emulator.EmulatorError) as error:
        raise click.ClickException(str(error)) from None


def _disconnect(project: str, url: str) -> None:
    found = of_endpoint(data_connectors.connectors(project), url)
    for each in found:
        data_connectors.delete(each)
        click.echo(f"The Data Connector {each.name} is deleted.")
    if not found:
        click.echo("No Data Connector of this project sends to the endpoint.")


def _connect(project: str, options: dict[str, Any]) -> None:
    lines = [] if options["no_secret"] and not options["prove"] else [line.strip() for line in sys.stdin]
    lines = [line for line in lines if line]
    token = lines.pop(0) if options["prove"] and lines else ""
    if options["prove"] and not token:
        raise click.UsageError("standard input holds no access token")
    if not options["no_secret"] and not lines:
        raise click.UsageError("standard input holds no signature secret; --no-secret connects without one")
    secret = None if options["no_secret"] else lines[0]
    wanted = Wanted(options["url"], options["name"], secret, options["labels"], options["event_types"])
    connected = _ensure(project, wanted)
    if options["prove"]:
        _prove(project, connected, options["documents"], token, options["patience"])


def _ensure(project: str, wanted: Wanted) -> list[DataConnector]:
    """Create or update, say what was changed, and return the connectors of the endpoint."""
    found = data_connectors.connectors(project)
    mine = of_endpoint(found, wanted.url)
    if not mine:
        if len(found) >= data_connectors.LIMIT:
            names = ", ".join(each.name for each in found)
            raise DataConnectorError(
                f"the project has {len(found)} Data Connectors, and DT allows {data_connectors.LIMIT}: "
                f"delete one in DT Studio ({names})"
            )
        created = data_connectors.create(project, wanted)
        click.echo(f"The Data Connector {created.name} is created.")
        return [created]
    if len(mine) > 1:
        click.echo(f"{len(mine)} Data Connectors send to this endpoint; an event that both send is stored once.")
    return [_update(each, wanted) for each in mine]


def _update(present: DataConnector, wanted: Wanted) -> DataConnector:
    change = data_connectors.difference(present, wanted)
    if change:
        updated = data_connectors.update(present, change)
        click.echo(f"The Data Connector {present.name} is updated:")
        for key in change:
            click.echo(f"  {_FIELDS[key]}: {_shown(key, present)} → {_shown(key, updated)}")
    else:
        updated = present
        click.echo(f"The Data Connector {present.name} is unchanged.")
    if updated.status == USER_DISABLED:
        click.echo("  A user disabled it (USER_DISABLED), so it sends nothing: enable it in DT Studio.")
    return updated


def _shown(key: str, connector: DataConnector) -> str:
    """Return a field of a connector, without its secret."""
    if key == "httpConfig":
        return "set" if connector.secret else "none"
    if key == "status":
        return connector.status
    return ", ".join(connector.labels) or "none" if key == "labels" else ", ".join(connector.event_types) or "all"


# --- proof -----------------------------------------------------------------------------------------------------------


def _prove(project: str, connected: Sequence[DataConnector], documents: str, token: str, patience: float) -> None:
    """Make DT send an event, wait until it is in Firestore, and print what DT counted."""
    enabled = [each for each in connected if each.status != USER_DISABLED]
    if not enabled:
        raise DataConnectorError("the Data Connector is disabled, so that DT sends nothing: enable it in DT Studio")
    failure = None
    try:
        click.echo(_send(project, enabled, documents, token, patience))
    except SmokeTestError as error:
        failure = error
    for each in enabled:
        click.echo(_counted(each))
    if failure:
        raise failure


def _send(project: str, enabled: Sequence[DataConnector], documents: str, token: str, patience: float) -> str:
    """Publish an event by an emulated sensor, or else let DT send the newest events again; return what arrived."""
    if not any(not each.event_types or emulator.EVENT_TYPE in each.event_types for each in enabled):
        return _sync(enabled, documents, token, patience)
    try:
        sensor = emulator.create(project, "deploy.sh --prove")
    except emulator.EmulatorError as error:
        click.echo(f"DT made no emulated sensor: {error}.")
        return _sync(enabled, documents, token, patience)
    try:
        emulator.touch(sensor)
        click.echo(f"The emulated sensor {sensor.device_id} published an event; waiting for it in Firestore …")
        target = f"projects/{sensor.project_id}/devices/{sensor.device_id}"
        return wait_for_event(documents, token, patience, target)
    finally:
        emulator.delete(sensor)


def _sync(enabled: Sequence[DataConnector], documents: str, token: str, patience: float) -> str:
    since = database_time(documents, token)
    for each in enabled:
        data_connectors.sync(each)
    click.echo("DT sends the newest events of all sensors again; waiting for one that was not stored before …")
    return wait_for_event(documents, token, patience, since=since)


def _counted(connector: DataConnector) -> str:
    counted = data_connectors.metrics(connector)
    success, errors, latency = (counted.get(name, "?") for name in METRICS)
    return (
        f"DT's count of the last 3 hours for {connector.name}: {success} delivered, {errors} failed, 99 % answered "
        f"within {latency}."
    )


if __name__ == "__main__":
    sys.exit(command_line.run(command, name="python -m deploy.data_connector"))
