"""Finds, creates, updates and exercises Data Connectors through DT's REST API.

The `disruptive` package sends the requests. Its own class for a Data Connector cannot read one without a signature
secret or headers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from disruptive.requests import DTRequest

from dtcloud.errors import explained

LIMIT = 10  # Data Connectors in a project
CREATE_TIMEOUT = 60.0  # seconds; DT may take longer than the 3 s that the package waits

_PORTS = {"http": 80, "https": 443}


class DataConnectorError(Exception):
    """Raised if DT's API refuses a request or cannot be reached; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class DataConnector:
    """A Data Connector that sends events by HTTP, as DT's API describes it.

    Attributes:
        path: of the resource: `/projects/P/dataconnectors/ID`.
        name: the display name.
        status: `ACTIVE`, `USER_DISABLED` or `SYSTEM_DISABLED`.
        config: URL, and signature secret and headers where they are set.
        labels: the keys of the labels that are sent with each event.
        event_types: the types of the events that are sent; empty for all types.
    """

    path: str
    name: str
    status: str
    config: Mapping[str, Any] = field(repr=False)
    labels: Sequence[str]
    event_types: Sequence[str]


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
    """List the Data Connectors of a project, those of other types than HTTP_PUSH without a URL.

    Raises:
        DataConnectorError: DT's API does not return them.
    """
    with explained(DataConnectorError):
        # The package keeps the page token of an earlier call in its own default for `params`.
        found = DTRequest.paginated_get(f"/projects/{project}/dataconnectors", "dataConnectors", params={})
    return [_read(each) for each in found]


def of_endpoint(found: Sequence[DataConnector], url: str) -> list[DataConnector]:
    """Return the Data Connectors that send to an endpoint."""
    return [each for each in found if is_same_endpoint(each.config.get("url") or "", url)]


def is_same_endpoint(one: str, other: str) -> bool:
    """Tell whether two URLs have the same scheme, host, port and path, with or without a slash at the end."""
    try:
        return _endpoint(one) == _endpoint(other)
    except ValueError:  # a port that is no number
        return False


def create(project: str, wanted: Wanted) -> DataConnector:
    """Create a Data Connector, in a single attempt: another one after a slow answer would create a second connector.

    Raises:
        DataConnectorError: DT's API refuses the request, or does not answer.
    """
    secret = {"signatureSecret": wanted.secret} if wanted.secret else {}
    body = {
        "type": "HTTP_PUSH",
        "status": "ACTIVE",
        "displayName": wanted.name,
        "httpConfig": {"url": wanted.url, **secret},
        "labels": list(wanted.labels or ()),
        "events": list(wanted.event_types or ()),
    }
    with explained(DataConnectorError):
        request = DTRequest("POST", f"/projects/{project}/dataconnectors", body=body, request_timeout=CREATE_TIMEOUT)
        request.request_attempts = 0  # the package counts only the repetitions, and refuses 0 as an argument
        return _read(request._send_request())  # noqa: SLF001 - the public methods repeat a request at least once


def update(present: DataConnector, change: Mapping[str, Any]) -> DataConnector:
    """Change a Data Connector.

    Args:
        present: the connector.
        change: the fields to change, as `difference` returns them.

    Raises:
        DataConnectorError: DT's API refuses the request.
    """
    with explained(DataConnectorError):
        return _read(DTRequest.patch(present.path, body=dict(change)))


def difference(present: DataConnector, wanted: Wanted) -> dict[str, Any]:
    """Return the fields to change, in the form of DT's API; empty if there is nothing to change."""
    change: dict[str, Any] = {}
    if wanted.secret and present.config.get("signatureSecret") != wanted.secret:
        change["httpConfig"] = {**present.config, "signatureSecret": wanted.secret}
    if wanted.labels is not None and set(present.labels) != set(wanted.labels):
        change["labels"] = list(wanted.labels)
    if wanted.event_types is not None and set(present.event_types) != set(wanted.event_types):
        change["events"] = list(wanted.event_types)
    # DT disables a connector after days of failures: enable it. One that a user disabled stays disabled.
    if present.status == "SYSTEM_DISABLED":
        change["status"] = "ACTIVE"
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
        counted: Mapping[str, Any] = DTRequest.get(f"{connector.path}:metrics")["metrics"]
    return counted


def _read(raw: Mapping[str, Any]) -> DataConnector:
    return DataConnector(
        path=f"/{raw['name']}",
        name=raw.get("displayName") or raw["name"].rpartition("/")[2],
        status=raw.get("status") or "",
        config={key: value for key, value in (raw.get("httpConfig") or {}).items() if value},
        labels=raw.get("labels") or (),
        event_types=raw.get("events") or (),
    )


def _endpoint(url: str) -> tuple[str, str | None, int | None, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme), parts.path.rstrip("/")
