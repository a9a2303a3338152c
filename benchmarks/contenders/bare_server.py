"""A server that looks for the end of a request and no further: what the load generator can reach."""

import asyncio
import sys

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
_END = b"}"  # of a body; a request comes in one piece or two


class _Bare(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(_END):
            self._transport.write(_ANSWER)


async def serve(port: int) -> None:
    """Answer at a TCP port of 127.0.0.1 until the process is ended."""
    server = await asyncio.get_running_loop().create_server(_Bare, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
