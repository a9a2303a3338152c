"""A Data Connector as DT's API describes it, and the endpoint that it sends to.

The class of the `disruptive` package cannot read one without a signature secret or headers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

ACTIVE, USER_DISABLED, SYSTEM_DISABLED = "ACTIVE", "USER_DISABLED", "SYSTEM_DISABLED"
METRICS = ("successCount", "errorCount", "latency99p")  # of the last 3 hours

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class DataConnector:
    """A Data Connector.

    Attributes:
        path: of the resource: `/projects/P/dataconnectors/ID`.
        name: the display name.
        status: `ACTIVE`, `USER_DISABLED` or `SYSTEM_DISABLED`; empty if DT does not say.
        config: URL, and signature secret and headers where they are set; empty if it does not send by HTTP.
        labels: the keys of the labels that are sent with each event.
        event_types: the types of the events that are sent; empty for all types.
    """

    path: str
    name: str
    status: str
    config: Mapping[str, Any] = field(repr=False)
    labels: Sequence[str]
    event_types: Sequence[str]

    @property
    def url(self) -> str:
        """The endpoint; empty if it does not send by HTTP."""
        return str(self.config.get("url", ""))

    @property
    def secret(self) -> str:
        """The signature secret; empty if it has none."""
        return str(self.config.get("signatureSecret", ""))


def read(raw: Mapping[str, Any]) -> DataConnector:
    """Read a Data Connector as DT's API returns it.

    Raises:
        KeyError, TypeError or AttributeError: it is not one.
    """
    return DataConnector(
        path=f"/{raw['name']}",
        name=raw.get("displayName") or raw["name"].rpartition("/")[2],
        status=raw.get("status") or "",
        config={key: value for key, value in (raw.get("httpConfig") or {}).items() if value},
        labels=tuple(raw.get("labels") or ()),
        event_types=tuple(raw.get("events") or ()),
    )


def metrics_of(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of `METRICS` that an answer of DT's API has.

    Raises:
        KeyError, TypeError or AttributeError: it has none.
    """
    return {name: value for name, value in answer["metrics"].items() if name in METRICS}


def of_endpoint(found: Iterable[DataConnector], url: str) -> list[DataConnector]:
    """Return the Data Connectors that send to an endpoint: same scheme, host, port and path, but for a last slash."""
    return [each for each in found if _is_same_endpoint(each.url, url)]


def _is_same_endpoint(one: str, other: str) -> bool:
    try:
        return _endpoint(one) == _endpoint(other)
    except ValueError:  # a port that is no number
        return False


def _endpoint(url: str) -> tuple[str, str | None, int | None, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme), parts.path.rstrip("/")
