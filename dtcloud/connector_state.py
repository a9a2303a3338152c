"""The state of the Data Connector that delivers to an endpoint: read, and switched on again."""

from dataclasses import dataclass, field
from typing import Any

from dtcloud.data_connectors import is_same_endpoint
from dtcloud.rest import Api, ApiError

ACTIVE, SYSTEM_DISABLED = "ACTIVE", "SYSTEM_DISABLED"


@dataclass(frozen=True, slots=True)
class Connector:
    """A Data Connector that sends HTTP requests.

    Attributes:
        path: its resource name, with a slash in front.
        name: its display name.
        status: `ACTIVE`, `USER_DISABLED` or `SYSTEM_DISABLED`.
        secret: the signature secret; empty if it has none.
        labels: the keys of the labels that are sent with each event.
        event_types: the types of the events that are sent; empty for all types.
    """

    path: str
    name: str
    status: str
    secret: str = field(repr=False)
    labels: frozenset[str]
    event_types: tuple[str, ...]


async def find_connector(api: Api, project: str, endpoint: str) -> Connector | None:
    """Return the project's Data Connector that delivers to an endpoint; None if there is none.

    Of several, one that is not active comes first.

    Raises:
        ApiError: DT's API does not return the Data Connectors.
    """
    answer = await api.get(f"/projects/{project}/dataconnectors")  # at most 10 a project, on one page
    try:
        found = [_connector(raw) for raw in answer["dataConnectors"] if is_same_endpoint(_url(raw), endpoint)]
    except (KeyError, TypeError, AttributeError):
        raise ApiError("DT's answer describes a Data Connector in an unknown form") from None
    return min(found, key=lambda connector: connector.status == ACTIVE, default=None)


async def read_metrics(api: Api, connector: Connector) -> dict[str, Any]:
    """Return `successCount`, `errorCount` and `latency99p` of the last 3 hours.

    Raises:
        ApiError: DT's API does not return them.
    """
    metrics = (await api.get(f"{connector.path}:metrics")).get("metrics")
    if not isinstance(metrics, dict):
        raise ApiError("DT's answer has no metrics of the Data Connector")
    return {name: metrics[name] for name in ("successCount", "errorCount", "latency99p") if name in metrics}


async def enable(api: Api, connector: Connector) -> str:
    """Switch a Data Connector on, and return its new status.

    Raises:
        ApiError: DT's API refuses.
    """
    return str((await api.patch(connector.path, {"status": ACTIVE})).get("status", "unknown"))


def _url(raw: dict[str, Any]) -> str:
    return str((raw.get("httpConfig") or {}).get("url", ""))


def _connector(raw: dict[str, Any]) -> Connector:
    config = raw["httpConfig"]
    return Connector(
        path="/" + raw["name"],
        name=str(raw.get("displayName", "")),
        status=str(raw["status"]),
        secret=str(config.get("signatureSecret") or ""),
        labels=frozenset(raw.get("labels") or ()),
        event_types=tuple(raw.get("events") or ()),
    )
