"""DT's identity provider on this machine: the discovery document and the key set that verify public-key signatures."""

import json
import threading
import time
from collections.abc import Mapping
from enum import StrEnum
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from simulator.keys import Keys
from simulator.public_key import SigningKey

DISCOVERY_PATH = "/.well-known/openid-configuration"
KEYS_PATH = "/keys"


class IdentityFault(StrEnum):
    """How an identity provider fails."""

    SLOW = "slow"
    FAILING = "failing"
    EMPTY = "empty"
    GARBAGE = "garbage"


class IdentityProvider:
    """Serves the public keys on 127.0.0.1, while it is used as a context manager.

    Attributes:
        issuer: its URL, the `iss` of the tokens.
        keys: the newest one signs; all are published.
        fault: how it fails at present; None if it does not.
        requests: how many it has received.
    """

    def __init__(self, port: int = 0, *, delay: float = 5.0, keys: Keys | None = None) -> None:
        """Initialize, with a new key.

        Args:
            port: TCP port; 0 for a free one.
            delay: seconds before each answer while the fault is `SLOW`.
            keys: where the keys are; None keeps them in memory.

        Raises:
            OSError: the port is in use, or the keys cannot be written.
        """
        self._server = ThreadingHTTPServer(("127.0.0.1", port), type("Handler", (_Handler,), {"provider": self}))
        self._server.daemon_threads = True
        self._server.block_on_close = False  # a slow answer does not delay the end
        self._delay = delay
        self.issuer = f"http://127.0.0.1:{self._server.server_port}"
        self.keys = keys or Keys()
        self.keys.create(self.issuer)
        self.fault: IdentityFault | None = None
        self.requests = 0

    def __enter__(self) -> Self:
        """Start to listen."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()

    @property
    def key(self) -> SigningKey:
        """The key that signs new tokens."""
        return self.keys.newest()

    def rotate(self) -> None:
        """Sign with a new key from now on; the one before it stays published."""
        self.keys.rotate()

    def respond(self, path: str) -> tuple[HTTPStatus, bytes]:
        """Return the status and the body of the answer to a GET."""
        self.requests += 1
        if self.fault is IdentityFault.SLOW:
            time.sleep(self._delay)
        elif self.fault is IdentityFault.FAILING:
            return HTTPStatus.INTERNAL_SERVER_ERROR, b""
        elif self.fault is IdentityFault.GARBAGE:
            return HTTPStatus.OK, b'{"keys": [{'
        document = self._documents().get(path)
        return (HTTPStatus.OK, json.dumps(document).encode()) if document else (HTTPStatus.NOT_FOUND, b"")

    def _documents(self) -> Mapping[str, Any]:
        keys = [] if self.fault is IdentityFault.EMPTY else [key.public_jwk() for key in self.keys.read()]
        discovery = {
            "issuer": self.issuer,
            "jwks_uri": self.issuer + KEYS_PATH,
            "id_token_signing_alg_values_supported": ["ES256"],
        }
        return {DISCOVERY_PATH: discovery, KEYS_PATH: {"keys": keys}}


class _Handler(BaseHTTPRequestHandler):
    provider: IdentityProvider

    def do_GET(self) -> None:
        status, body = self.provider.respond(self.path)
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        except OSError:
            self.close_connection = True  # a slow answer is one that the client no longer waits for

    def log_message(self, *_: object) -> None:
        pass
