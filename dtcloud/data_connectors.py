"""Finds, creates and updates Data Connectors through DT's REST API."""

from dataclasses import dataclass, field
from typing import Any, Literal

from disruptive import DataConnector
from disruptive.errors import DTApiError


class DataConnectorError(Exception):
    """Raised if DT's API refuses a request; the text gives the reason."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted state of a Data Connector.

    Attributes:
        name: the display name of a new one.
        url: the endpoint that receives the events.
        secret: the signature secret.
        labels: the keys of the labels that are sent with each event.
        event_types: the types of the events that are sent; empty for all types.
    """

    name: str
    url: str
    secret: str = field(repr=False)
    labels: list[str]
    event_types: list[str]


def ensure(project: str, wanted: Wanted) -> tuple[str, Literal["created", "updated", "unchanged"]]:
    """Create a Data Connector, or update the one with the same endpoint or else the same name.

    Args:
        project: DT's project id.
        wanted: the state that the connector must have.

    Returns:
        The connector's display name, and what was done.

    Raises:
        DataConnectorError: DT's API refuses a request.
    """
    config = DataConnector.HttpPushConfig(wanted.url, wanted.secret)
    filters: dict[str, Any] = {"event_types": wanted.event_types, "labels": wanted.labels}
    try:
        present = _find(project, wanted)
        if present is None:
            DataConnector.create_data_connector(project, config, display_name=wanted.name, **filters)
            return wanted.name, "created"
        if _is_current(present, wanted):
            return present.display_name, "unchanged"
        config.headers = present.config.headers if present.config else None
        # DT disables a connector after days of failures: enable it. One that a user disabled stays disabled.
        status = "ACTIVE" if present.status == "SYSTEM_DISABLED" else None
        DataConnector.update_data_connector(present.data_connector_id, project, config=config, status=status, **filters)
    except DTApiError as error:
        raise DataConnectorError(f"DT's API refused the request ({type(error).__name__}): {error}") from None
    return present.display_name, "updated"


def _find(project: str, wanted: Wanted) -> DataConnector | None:
    connectors = [(each, each.config) for each in DataConnector.list_data_connectors(project)]
    by_url = [each for each, config in connectors if config and config.url == wanted.url]
    by_name = [each for each, config in connectors if config and each.display_name == wanted.name]
    return next(iter(by_url + by_name), None)


def _is_current(present: DataConnector, wanted: Wanted) -> bool:
    return (
        present.status != "SYSTEM_DISABLED"
        and present.config is not None
        and (present.config.url, present.config.signature_secret) == (wanted.url, wanted.secret)
        and set(present.event_types) == set(wanted.event_types)
        and set(present.labels) == set(wanted.labels)
    )
