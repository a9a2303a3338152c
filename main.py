"""Receives the events of a Disruptive Technologies Data Connector and stores each once in Firestore."""

import asyncio
import gc
import os
import sys
import time
from functools import partial
from typing import Any

import functions_framework.aio
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response

from receiver import log
from receiver.authentication import authenticate, proofs
from receiver.batching import Outcome
from receiver.errors import Refusal, TooLarge, Unprocessable, Unverified, WrongMethod
from receiver.event import parse_event
from receiver.settings import SettingsError, read_settings
from receiver.store import Store, new_deadline

MAX_BODY_BYTES = 1024 * 1024
BODY_SECONDS = 10.0
ANSWER_SECONDS = 9.5  # the sender waits for 10

try:
    settings = read_settings(os.environ)
except SettingsError as error:
    sys.exit(str(error))
PROOFS = proofs(settings)
store = Store(settings)
create = store.create
if settings.devices_collection:
    from receiver.devices import Devices  # a cold start without devices does not load them

    create = Devices(settings.devices_collection, store).create
OK = PlainTextResponse("OK")

# gunicorn kills a worker that has not reported for this long, and would kill one whose CPU Cloud Run has withdrawn for
# longer as soon as it gets its next request. functions-framework reads the variable after it has loaded this module.
os.environ["CLOUD_RUN_TIMEOUT_SECONDS"] = "0"
# What has been imported stays until the process ends: the collector need not look at it again and again.
gc.freeze()
gc.set_threshold(50_000)
if settings.short_secrets:
    log.write(log.short_secrets(settings.short_secrets), settings.log_level, log.START)


@functions_framework.aio.http
async def dataconnector_endpoint(request: Request) -> Response:
    """Answer one delivery: 200 only after the event is in Firestore. Each delivery is one line in the log.

    Returns:
        The answer; any status but 200 makes the sender try again.
    """
    started = time.monotonic()
    line = log.trace(request.headers, settings.project)
    try:
        line |= log.stored(await receive(request, line))
        answer: Response = OK
    except Refusal as refusal:
        line |= log.refused(refusal)
        answer = refused(refusal)
    except Exception as error:  # noqa: BLE001 - any unforeseen exception is a 500 with a fixed text
        failure = log.failed(error)
        line |= log.refused(failure)
        answer = refused(failure)
    line["latencyMs"] = round((time.monotonic() - started) * 1000, 1)
    log.write(line, settings.log_level)
    return answer


async def receive(request: Request, line: dict[str, Any]) -> Outcome:
    """Process one delivery from its method to its commit.

    Args:
        request: the sender's request.
        line: the log line, to which the names of the event are added.

    Raises:
        Refusal: the delivery cannot be acknowledged.
    """
    if request.method != "POST":
        raise WrongMethod(f"{request.method[:10]} instead of POST")
    began = asyncio.get_running_loop().time()
    body, line["proof"], seconds = await authenticate(request.headers, partial(read_body, request), PROOFS)
    end = min(new_deadline() - seconds, began + ANSWER_SECONDS)
    try:
        event = parse_event(body)
        line |= log.about(event.fields, time.time())
        return await create(event, end)
    except Unprocessable as error:
        line |= log.about(error.fields, time.time())
        await store.quarantine(body, error.reason, end)
        raise


async def read_body(request: Request) -> bytes:
    """Read the body up to the limit, whatever length it announces, and not for longer than `BODY_SECONDS`.

    Raises:
        TooLarge: the body exceeds 1 MiB.
        Unverified: the body did not arrive in full.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES:
        raise TooLarge(f"the announced length exceeds {MAX_BODY_BYTES} bytes")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    raise TooLarge(f"the body exceeds {MAX_BODY_BYTES} bytes")
    except ClientDisconnect:
        raise Unverified("the sender closed the connection before the end of the body") from None
    except TimeoutError:
        raise Unverified(f"the body did not arrive within {BODY_SECONDS:g} s") from None
    return bytes(body)


def refused(refusal: Refusal) -> Response:
    """Return the answer to a delivery that is not acknowledged."""
    headers = {"Allow": "POST"} if isinstance(refusal, WrongMethod) else None
    return PlainTextResponse(refusal.answer, refusal.status, headers)
