"""What the platform and strangers do to the function's process."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from local.processes import ROOT, accepts, free_port, stop
from tests import signing
from tests.conftest import Documents, StartFunction
from tests.events import encode, envelope
from tests.function import COMMAND, Function, post_all

MEBIBYTE = 1024 * 1024


def deliver(process: Function, **headers: str) -> int:
    """Deliver a new event; return the status."""
    body = encode(envelope())
    headers = {"X-Dt-Signature": signing.sign(body), **headers}
    return httpx.post(process.url, content=body, headers=headers, timeout=30).status_code


def worker_of(process: Function) -> psutil.Process:
    """Return the gunicorn worker."""
    (worker,) = psutil.Process(process.pid).children()
    return worker


@pytest.mark.parametrize("first", ["master", "worker"])
def test_frozen_instance_goes_on_with_the_same_worker(
    function: StartFunction, stored: Documents, tmp_path: Path, first: str
) -> None:
    """After a freeze that is longer than the request time-out, the same worker serves, and no delivery is lost."""
    process = function(CLOUD_RUN_TIMEOUT_SECONDS="1")
    before = deliver(process)
    worker = worker_of(process)
    master = psutil.Process(process.pid)
    order = [master, worker] if first == "master" else [worker, master]

    for frozen in order:
        frozen.send_signal(signal.SIGSTOP)
    time.sleep(3)
    order[0].send_signal(signal.SIGCONT)
    time.sleep(1.5)  # the first one runs while the other one is still frozen
    order[1].send_signal(signal.SIGCONT)
    after = [deliver(process) for _ in range(20)]
    time.sleep(1.5)  # gunicorn looks at its workers once a second

    assert [before, *after] == [200] * 21
    assert len(stored()) == 21
    assert worker_of(process).pid == worker.pid
    assert "TIMEOUT" not in (tmp_path / "function.log").read_text()


def test_execution_ids_do_not_enter_the_log(function: StartFunction, stored: Documents, tmp_path: Path) -> None:
    """With LOG_EXECUTION_ID on, a line is valid JSON of bounded length, without the header of a stranger."""
    process = function(LOG_EXECUTION_ID="true")
    header = "i" * 60_000

    statuses = [deliver(process, **{"Function-Execution-Id": header}) for _ in range(3)]

    assert statuses == [200] * 3
    assert len(stored()) == 3
    lines = (tmp_path / "function.log").read_text().splitlines()
    assert [json.loads(line)["outcome"] for line in lines if line.startswith("{")] == ["stored"] * 3
    assert max(map(len, lines)) < 2_000


@pytest.mark.parametrize("output", ["/dev/full", "a pipe without a reader"])
def test_output_that_cannot_be_written_changes_no_answer(
    environ: dict[str, str], stored: Documents, output: str
) -> None:
    """When standard output is full or has no reader, each delivery is answered and stored as usual."""
    reader, writer = os.pipe() if output != "/dev/full" else (None, os.open(output, os.O_WRONLY))
    if reader is not None:
        os.close(reader)
    port = free_port()
    settings = {**os.environ, **environ, "FUNCTION_USE_ASGI": "true", "PORT": str(port)}
    process = subprocess.Popen(COMMAND, env=settings, cwd=ROOT, stdout=writer, start_new_session=True)
    try:
        os.close(writer)
        deadline = time.monotonic() + 60
        while not accepts(port) and time.monotonic() < deadline:
            time.sleep(0.05)
        bodies = [encode(envelope()) for _ in range(20)]
        statuses = asyncio.run(post_all(f"http://127.0.0.1:{port}/", bodies))
        alive = process.poll() is None
    finally:
        stop(process)

    assert (statuses, alive) == ([200] * 20, True)
    assert len(stored()) == 20


def announced(port: int) -> socket.socket:
    """Send the head of an unsigned request with a body of 1 MiB; return the open connection."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.sendall(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {MEBIBYTE}\r\n\r\n".encode())
    return connection


def status_of(connection: socket.socket) -> int:
    """Return the status of the answer."""
    received = b""
    while b"\r\n" not in received:
        received += connection.recv(4096) or b"\r\n"
    return int(received.split()[1])


def test_unsigned_half_sent_bodies_occupy_nothing(function: StartFunction) -> None:
    """1,000 unsigned requests whose bodies have half arrived are answered before the rest; memory stays bounded."""
    process = function()
    deliver(process)
    port = int(process.url.rpartition(":")[2].strip("/"))
    half = b"x" * (MEBIBYTE // 2)

    with ExitStack() as connections:
        opened = [connections.enter_context(announced(port)) for _ in range(1000)]
        for connection in opened:
            connection.setblocking(False)  # noqa: FBT003 - as the socket module has it
            with suppress(OSError):  # the server has answered and reads no further
                connection.send(half)
            connection.settimeout(60)
        statuses = {status_of(connection) for connection in opened}
        memory = worker_of(process).memory_info().rss
        honest = deliver(process)

    assert statuses == {400}
    assert honest == 200
    assert memory < 200 * MEBIBYTE


def test_many_bombs_beside_an_honest_delivery(function: StartFunction, stored: Documents) -> None:
    """20 signed bodies of 340,000 tiny values are quarantined; an honest delivery beside them is stored."""
    process = function()
    bombs = [encode({"event": {"eventId": f"bomb{number}", "data": [-1] * 340_000}}) for number in range(20)]

    statuses = asyncio.run(post_all(process.url, [*bombs, encode(envelope())]))

    assert statuses == [400] * 20 + [200]
    assert len(stored()) == 1


@pytest.mark.parametrize("surplus", [" ", "\t", " \t "])
def test_white_space_after_the_token_is_ignored(function: StartFunction, surplus: str) -> None:
    """White space at the end of the header's value does not make a signature invalid, whatever the server keeps."""
    process = function()

    assert raw_delivery(process, lambda token: f"X-Dt-Signature: {token}{surplus}\r\n") == 200


def raw_delivery(process: Function, header_lines: Callable[[str], str]) -> int:
    """Deliver a new event with header lines as they are given; return the status."""
    body = encode(envelope())
    lines = header_lines(signing.sign(body))
    head = f"POST / HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
    port = int(process.url.rpartition(":")[2].strip("/"))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        return status_of(connection)


@pytest.fixture
def without_httptools(tmp_path: Path) -> str:
    """Return a PYTHONPATH on which httptools cannot be imported, as when it is not installed."""
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "httptools.py").write_text("raise ImportError\n")
    return str(tmp_path / "hidden")


def test_without_httptools_an_offer_of_http_2_does_not_cost_the_body(
    function: StartFunction, stored: Documents, without_httptools: str
) -> None:
    """Without httptools, a client that offers h2c, as Java's does, is served by HTTP/1.1, with its body."""
    process = function(PYTHONPATH=without_httptools)
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n"

    assert raw_delivery(process, lambda token: f"X-Dt-Signature: {token}\r\n{offer}") == 200
    assert len(stored()) == 1


def test_without_httptools_headers_are_bounded(function: StartFunction, without_httptools: str) -> None:
    """Without httptools, a client that sends 10 MiB of tiny header lines is refused, and its lines are not kept."""
    process = function(PYTHONPATH=without_httptools)
    deliver(process)
    port = int(process.url.rpartition(":")[2].strip("/"))
    lines = b"a:\r\n" * (10 * MEBIBYTE // 4)

    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n")
            status = status_of(connection)
        except OSError:
            status = 400  # the server has closed the connection before it has read everything
    memory = worker_of(process).memory_info().rss

    assert status == 400
    assert deliver(process) == 200
    assert memory < 150 * MEBIBYTE
