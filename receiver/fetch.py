"""Fetches a small document by HTTP, without a thread that could outlive its time limit.

asyncio's streams end at once when they are cancelled, however slowly a server answers. `urllib.request` in a thread
could not be ended, would obey proxies named in the environment, and limits each read, not all of them together.
"""

import asyncio
import ssl
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import certifi
import h11

MAX_BYTES = 64 * 1024
_SECOND_ADDRESS = 0.25  # seconds after which the next address of the host is tried as well


class FetchError(Exception):
    """Raised if the server's answer is not the document; the text is for the log."""


async def fetch(url: str) -> bytes:
    """Fetch what a URL names, without following redirects. The caller sets the time limit.

    Args:
        url: begins with `https://` or `http://`.

    Raises:
        FetchError: the status is not 200, or the body exceeds `MAX_BYTES`.
        OSError, ValueError, h11.ProtocolError: the URL, the connection or the answer is not valid.
    """
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    context = await asyncio.to_thread(_tls) if secure else None  # it reads a file of 200 kB, the first time
    port = parts.port or (443 if secure else 80)
    # uvloop, which uvicorn takes where it is installed, does not know the argument.
    own_loop = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)
    delay: dict[str, Any] = {"happy_eyeballs_delay": _SECOND_ADDRESS} if own_loop else {}
    reader, writer = await asyncio.open_connection(parts.hostname, port, ssl=context, **delay)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        client = h11.Connection(h11.CLIENT)
        headers = [("Host", parts.netloc.rpartition("@")[2]), ("Accept", "application/json"), ("Connection", "close")]
        writer.write(client.send(h11.Request(method="GET", target=target, headers=headers)) or b"")
        client.send(h11.EndOfMessage())
        return await _read(client, reader)
    finally:
        writer.transport.abort()  # close() would wait for the server's part of closing TLS


async def _read(client: h11.Connection, reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while not isinstance(event := client.next_event(), h11.EndOfMessage):
        if event is h11.NEED_DATA:
            client.receive_data(await reader.read(MAX_BYTES))
        elif isinstance(event, h11.Response) and event.status_code != 200:  # noqa: PLR2004 - OK
            raise FetchError(f"status {event.status_code}")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BYTES:
                raise FetchError(f"more than {MAX_BYTES} bytes")
    return bytes(body)


@cache
def _tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())  # an image need not bring certificates of its own
    return context
