"""Lists, creates, updates and exercises Data Connectors through DT's REST API, with the `disruptive` package."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from disruptive.requests import DTRequest

from dtcloud.connector import ACTIVE, SYSTEM_DISABLED, DataConnector, metrics_of, read
from dtcloud.errors import explained

LIMIT = 10  # Data Connectors in a project
CREATE_TIMEOUT = 60.0  # seconds; DT may take longer than the 3 s that the package waits


class DataConnectorError(Exception):
    """Raised if DT's API refuses a request or cannot be reached; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted state of the Data Connectors of an endpoint.

    Attributes:
        url: the endpoint that receives the events.
        name: the display name of a new one.
        secret: the signature secret; None leaves that of an existing one as it is, and makes a new one without.
        labels: the keys of the labels that are sent with each event; None leaves them as they are.
        event_types: the types of the events that are sent, empty for all types; None leaves them as they are.
    """

    url: str
    name: str
    secret: str | None = field(repr=False)
    labels: Sequence[str] | None
    event_types: Sequence[str] | None


def connectors(project: str) -> list[DataConnector]:
    """List the Data Connectors of a project; one of another type than HTTP_PUSH has no URL.

    Raises:
        DataConnectorError: DT's API does not return them.
    """
    with explained(DataConnectorError):
        # The package keeps the page token of an earlier call in its own default for `params`.
        found = DTRequest.paginated_get(f"/projects/{project}/dataconnectors", "dataConnectors", params={})
        return [read(each) for each in found]


def create(project: str, wanted: Wanted) -> DataConnector:
    """Create a Data Connector, in a single attempt: another one after a slow answer would create a second connector.

    Raises:
        DataConnectorError: DT's API refuses the request, or does not answer.
    """
    secret = {"signatureSecret": wanted.secret} if wanted.secret else {}
    body = {
        "type": "HTTP_PUSH",
        "status": ACTIVE,
        "displayName": wanted.name,
        "httpConfig": {"url": wanted.url, **secret},
        "labels": list(wanted.labels or ()),
        "events": list(wanted.event_types or ()),
    }
    with explained(DataConnectorError):
        request = DTRequest("POST", f"/projects/{project}/dataconnectors", body=body, request_timeout=CREATE_TIMEOUT)
        request.request_attempts = 0  # the package counts only the repetitions, and refuses 0 as an argument
        return read(request._send_request())  # noqa: SLF001 - the public methods repeat a request at least once


def update(present: DataConnector, change: Mapping[str, Any]) -> DataConnector:
    """Change a Data Connector.

    Args:
        present: the connector.
        change: the fields to change, as `difference` returns them.

    Raises:
        DataConnectorError: DT's API refuses the request.
    """
    with explained(DataConnectorError):
        return read(DTRequest.patch(present.path, body=dict(change)))


def difference(present: DataConnector, wanted: Wanted) -> dict[str, Any]:
    """Return the fields to change, in the form of DT's API; empty if there is nothing to change."""
    change: dict[str, Any] = {}
    if wanted.secret and present.secret != wanted.secret:
        change["httpConfig"] = {**present.config, "signatureSecret": wanted.secret}
    if wanted.labels is not None and set(present.labels) != set(wanted.labels):
        change["labels"] = list(wanted.labels)
    if wanted.event_types is not None and set(present.event_types) != set(wanted.event_types):
        change["events"] = list(wanted.event_types)
    # DT disables a connector after days of failures: enable it. One that a user disabled stays disabled.
    if present.status == SYSTEM_DISABLED:
        change["status"] = ACTIVE
    return change


def delete(connector: DataConnector) -> None:
    """Delete a Data Connector.

    Raises:
        DataConnectorError: DT's API refuses the request.
    """
    with explained(DataConnectorError):
        DTRequest.delete(connector.path)


def sync(connector: DataConnector) -> None:
    """Make a Data Connector send the newest event of each type of every device again.

    Raises:
        DataConnectorError: DT's API refuses the request.
    """
    with explained(DataConnectorError):
        DTRequest.post(f"{connector.path}:sync")


def metrics(connector: DataConnector) -> Mapping[str, Any]:
    """Return what DT counted in the last 3 hours: `successCount`, `errorCount`, `latency99p`.

    Raises:
        DataConnectorError: DT's API does not return them.
    """
    with explained(DataConnectorError):
        return metrics_of(DTRequest.get(f"{connector.path}:metrics"))
