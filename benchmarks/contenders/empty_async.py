"""An empty asynchronous function: the cost of functions-framework itself."""

import functions_framework.aio
from starlette.requests import Request


@functions_framework.aio.http
async def dataconnector_endpoint(_request: Request) -> str:
    """Acknowledge and do nothing."""
    return "OK"
