"""Receives the events of a Disruptive Technologies Data Connector and stores each once in Firestore."""

import os
import sys
import time
from typing import Any

import functions_framework.aio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from receiver import log
from receiver.errors import Refusal, TooLarge, Unstorable, Unverified, WrongMethod
from receiver.event import parse_event
from receiver.settings import SettingsError, read_settings
from receiver.signature import verify
from receiver.store import Store, time_limit

MAX_BODY_BYTES = 1024 * 1024

try:
    settings = read_settings(os.environ)
except SettingsError as error:
    sys.exit(str(error))
store = Store(settings)


@functions_framework.aio.http
async def dataconnector_endpoint(request: Request) -> Response:
    """Answer one delivery: 200 only after the event is in Firestore, and one line in the log in every case.

    Args:
        request: the sender's POST.

    Returns:
        The answer; whatever is not 200 makes the sender try again.
    """
    started = time.monotonic()
    line = log.trace(request.headers, settings.project)
    try:
        created = await receive(request, line)
        line |= log.stored(created=created)
        answer = PlainTextResponse("OK")
    except Exception as error:  # noqa: BLE001 - the one place that turns an error into a status
        refusal = error if isinstance(error, Refusal) else log.failed(error)
        line |= log.refused(refusal)
        allow = {"Allow": "POST"} if isinstance(refusal, WrongMethod) else None
        answer = PlainTextResponse(refusal.answer, refusal.status, allow)
    line["latencyMs"] = round((time.monotonic() - started) * 1000, 1)
    log.write(line, settings.log_level)
    return answer


async def receive(request: Request, line: dict[str, Any]) -> bool:
    """Take one delivery from its method to its commit.

    Args:
        request: the sender's request.
        line: the log line, which learns what is known of the event.

    Returns:
        True when the event was stored, False when it was stored already.

    Raises:
        Refusal: the delivery cannot be acknowledged.
    """
    if request.method != "POST":
        raise WrongMethod(f"{request.method[:10]} in place of POST")
    body = await read_body(request)
    token = request.headers.get("x-dt-signature")
    verify(body, token, secrets=settings.secrets, leeway=settings.leeway, now=time.time())
    async with time_limit():
        try:
            event = parse_event(body)
            line |= log.about(event, time.time())
            return await store.create(event)
        except Unstorable as error:
            await store.quarantine(body, error.reason)
            raise


async def read_body(request: Request) -> bytes:
    """Read the body as it comes, and no further than the limit, whatever length it announces.

    Args:
        request: the sender's request.

    Returns:
        The whole body.

    Raises:
        TooLarge: the body exceeds 1 MiB.
        Unverified: the sender went away before its end.
    """
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY_BYTES:
                raise TooLarge(f"the body exceeds {MAX_BODY_BYTES} bytes")
    except ClientDisconnect:
        raise Unverified("the sender closed the connection before the end of the body") from None
    return bytes(body)
