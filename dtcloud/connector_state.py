"""The state of the Data Connector that delivers to an endpoint: read, and switched on again."""

from typing import Any

from dtcloud.connector import ACTIVE, DataConnector, metrics_of, of_endpoint, read
from dtcloud.errors import explained
from dtcloud.rest import Api, ApiError


async def find_connector(api: Api, project: str, endpoint: str) -> DataConnector | None:
    """Return the project's Data Connector that delivers to an endpoint; None if there is none.

    Of several, one that is not active comes first.

    Raises:
        ApiError: DT's API does not return the Data Connectors.
    """
    answer = await api.get(f"/projects/{project}/dataconnectors")  # at most 10 a project, on one page
    with explained(ApiError):
        found = of_endpoint(map(read, answer["dataConnectors"]), endpoint)
    return min(found, key=lambda connector: connector.status == ACTIVE, default=None)


async def read_metrics(api: Api, connector: DataConnector) -> dict[str, Any]:
    """Return `successCount`, `errorCount` and `latency99p` of the last 3 hours.

    Raises:
        ApiError: DT's API does not return them.
    """
    answer = await api.get(f"{connector.path}:metrics")
    with explained(ApiError):
        return metrics_of(answer)


async def enable(api: Api, connector: DataConnector) -> str:
    """Switch a Data Connector on, and return its new status.

    Raises:
        ApiError: DT's API refuses.
    """
    return str((await api.patch(connector.path, {"status": ACTIVE})).get("status", "unknown"))
