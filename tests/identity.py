"""A fake identity provider on 127.0.0.1 whose every answer a test can change."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests import signing

DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"

Answer = Callable[[BaseHTTPRequestHandler], None]


class Identity:
    """Serves a discovery document and a key set.

    Attributes:
        issuer: its URL.
        answers: by path, the JSON value or what writes the answer.
        requests: the paths that were asked for.
        hosts: the header Host of each request.
        open: how many connections are not closed yet.
    """

    def __init__(self) -> None:
        """Listen on a free port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"identity": self}))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self.answers: dict[str, Any] = {
            DISCOVERY: {"issuer": self.issuer, "jwks_uri": self.issuer + KEYS},
            KEYS: {"keys": [signing.jwk()]},
        }
        self.requests: list[str] = []
        self.hosts: list[str] = []
        self.open = 0
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    def fetches(self) -> int:
        """Return how often the keys were fetched."""
        return self.requests.count(DISCOVERY)


def raw(data: bytes, *, wait: float = 0.0) -> Answer:
    """Return an answer of exactly these bytes, after a wait in seconds."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(wait)
        handler.wfile.write(data)

    return write


def dripping(data: bytes, *, pause: float) -> Answer:
    """Return an answer that comes byte by byte, with a pause in seconds after each."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        for byte in data:
            handler.wfile.write(bytes([byte]))
            time.sleep(pause)

    return write


def response(body: bytes, status: str = "200 OK", headers: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a response of HTTP/1.1."""
    lines = [f"{name}: {value}" for name, value in ({"Content-Length": str(len(body))} | dict(headers or {})).items()]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


class _Handler(BaseHTTPRequestHandler):
    identity: Identity

    def do_GET(self) -> None:
        self.identity.requests.append(self.path)
        self.identity.hosts.append(self.headers["Host"])
        self.identity.open += 1
        answer = self.identity.answers.get(self.path, raw(response(b"", "404 Not Found")))
        try:
            (answer if callable(answer) else raw(response(json.dumps(answer).encode())))(self)
        except OSError:
            pass  # the client has closed the connection
        finally:
            self.identity.open -= 1
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
