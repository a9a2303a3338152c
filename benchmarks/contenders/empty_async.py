"""The floor of an asynchronous function as functions-framework serves it."""

import functions_framework.aio
from starlette.requests import Request


@functions_framework.aio.http
async def dataconnector_endpoint(_request: Request) -> str:
    """Acknowledge and do nothing."""
    return "OK"
