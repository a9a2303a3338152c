"""Requests that take long: a body that arrives byte by byte, and a delivery to an instance without CPU."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests import signing
from tests.conftest import ROOT, Documents
from tests.events import encode, envelope
from tests.function import Function, post, post_all

ANSWER_SECONDS = 30  # a bound for each wait, far above what an answer takes


@pytest.fixture
def function(environ: dict[str, str], tmp_path: Path) -> Iterator[Function]:
    """Return the function's process, which waits for 1 s for a body and has served one delivery."""
    source = tmp_path / "impatient.py"
    source.write_text(
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "import main\nmain.BODY_SECONDS = 1.0\nfrom main import dataconnector_endpoint\n"
    )
    process = Function(environ | {"CLOUD_RUN_TIMEOUT_SECONDS": "1"}, tmp_path / "function.log", source)
    assert asyncio.run(post_all(process.url, [encode(envelope())])) == [200]
    yield process
    process.kill()


def test_body_that_drips_ends_the_request(function: Function, stored: Documents) -> None:
    """A signed body of which a chunk arrives every 0.1 s gets 400 once the limit for the whole body has passed."""
    body = encode(envelope())
    url = httpx.URL(function.url)
    head = f"POST / HTTP/1.1\r\nHost: x\r\nX-Dt-Signature: {signing.sign(body)}\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def drip() -> bytes:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            writer.write(head.encode())
            answer = asyncio.create_task(reader.readline())
            for byte in body:  # some 500, which would take 50 s
                writer.write(b"1\r\n%c\r\n" % byte)
                if (await asyncio.wait([answer], timeout=0.1))[0]:
                    break
            writer.transport.abort()
            return await answer

    assert asyncio.run(drip()) == b"HTTP/1.1 400 Bad Request\r\n"
    assert function.reasons() == {"the body did not arrive within 1 s": 1}
    assert len(stored()) == 1
    assert asyncio.run(post_all(function.url, [encode(envelope())])) == [200]


def test_delivery_to_a_frozen_instance_is_answered(function: Function, stored: Documents, tmp_path: Path) -> None:
    """A delivery that arrives while master and worker have no CPU is answered 200 by the same worker afterwards."""
    master = psutil.Process(function.pid)
    (worker,) = master.children()

    async def run() -> int:
        async with httpx.AsyncClient(timeout=ANSWER_SECONDS) as client:
            for one in (worker, master):
                one.send_signal(signal.SIGSTOP)
            delivery = asyncio.create_task(post(client, function.url, encode(envelope())))
            await asyncio.sleep(3)  # longer than CLOUD_RUN_TIMEOUT_SECONDS
            for one in (master, worker):
                one.send_signal(signal.SIGCONT)
                await asyncio.sleep(1.5)  # gunicorn's master examines its workers once a second
            return await delivery

    assert asyncio.run(run()) == 200
    assert master.children() == [worker]
    assert "TIMEOUT" not in (tmp_path / "function.log").read_text()
    assert len(stored()) == 2
