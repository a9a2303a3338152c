"""Answers only browsers that opened this machine's own address."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


class LoopbackOnly:
    """Refuses a request or WebSocket whose Host, or Origin if there is one, is not this machine.

    Otherwise a website could read the page: by a name of its own that resolves to 127.0.0.1 (DNS rebinding), or by a
    WebSocket, which browsers open across origins.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Guard an ASGI application."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403."""
        if scope["type"] in ("http", "websocket") and not is_own(Headers(scope=scope)):
            if scope["type"] == "websocket":
                await receive()
                await send({"type": "websocket.close", "code": 1008})  # the server answers 403
            else:
                await PlainTextResponse("Open the page by 127.0.0.1 or localhost.", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def is_own(headers: Headers) -> bool:
    """Return whether the Host, and the Origin if there is one, are this machine and the same port."""
    host, origin = headers.get("host", ""), headers.get("origin")
    if _name(f"//{host}") not in _HOSTS:
        return False
    return origin is None or (_name(origin) in _HOSTS and urlsplit(origin).netloc == host)


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
