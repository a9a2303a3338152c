"""The function as a real process, and clients that deliver to it."""

import asyncio
import json
import os
import signal
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from local.function import FRAMEWORK
from local.processes import ROOT, accepts, free_port, running
from tests import signing

COMMAND = [*FRAMEWORK, "--target=dataconnector_endpoint", "--host=127.0.0.1"]


class Function:
    """A functions-framework process and its workers, which listen at `url`."""

    def __init__(self, environ: dict[str, str], log: Path, source: Path = ROOT / "main.py") -> None:
        """Start it on a free port."""
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}/"
        self._environ = {**os.environ, "FUNCTION_USE_ASGI": "true", **environ, "PORT": str(self._port)}
        self._command = [*COMMAND, f"--source={source}"]
        self._log = log
        self._life = ExitStack()
        self.start()

    def start(self) -> None:
        """Start it, also after `kill`, and wait until it listens."""
        process = running(
            "function", self._command, log=self._log, environ=self._environ, ready=lambda: accepts(self._port)
        )
        self._process = self._life.enter_context(process)

    @property
    def pid(self) -> int:
        """Process id of the gunicorn master."""
        return self._process.popen.pid

    def kill(self) -> None:
        """Kill it and its workers with SIGKILL."""
        os.killpg(self._process.popen.pid, signal.SIGKILL)
        self._life.close()

    def log_lines(self) -> list[dict[str, Any]]:
        """Return the JSON lines of the log."""
        return [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]

    def outcomes(self) -> Counter[str]:
        """Return how often each outcome is in the log."""
        return Counter(line["outcome"] for line in self.log_lines())

    def reasons(self) -> Counter[str]:
        """Return how often each reason for a refusal is in the log."""
        return Counter(line["reason"] for line in self.log_lines() if "reason" in line)


async def post(client: httpx.AsyncClient, url: str, body: bytes) -> int:
    """Deliver once, and return the status, or 0 if there was no response."""
    try:
        response = await client.post(url, content=body, headers={"X-Dt-Signature": signing.sign(body)})
    except httpx.TransportError:
        return 0
    return response.status_code


async def post_all(url: str, bodies: list[bytes]) -> list[int]:
    """Deliver all bodies concurrently, and return the statuses."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=30, limits=limits) as client:
        return list(await asyncio.gather(*(post(client, url, body) for body in bodies)))
