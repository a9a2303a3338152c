"""An HTTP server on 127.0.0.1 that answers in JSON; the base of fake APIs."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class LocalServer:
    """An HTTP server on 127.0.0.1.

    Attributes:
        url: the base URL.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        """Listen on a free port; a request is handled by a `handler`, whose attribute `owner` is this server."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (handler,), {"owner": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class JsonServer(LocalServer):
    """Listens for requests; a subclass answers them."""

    def __init__(self) -> None:
        """Listen on a free port."""
        super().__init__(_Handler)

    def respond(self, method: str, target: str, body: bytes) -> tuple[int, Any]:
        """Return the status and the JSON value of the response to a request."""
        raise NotImplementedError


class _Handler(BaseHTTPRequestHandler):
    owner: JsonServer

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, value = self.owner.respond(self.command, self.path, body)
        text = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        pass
