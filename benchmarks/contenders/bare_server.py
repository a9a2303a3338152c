"""A server that only looks for the end of each request: the most that the load generator can measure."""

import asyncio
import sys

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"
_END = b"}"  # of every body; a request arrives in one or two pieces


class _Bare(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data.endswith(_END):
            self._transport.write(_ANSWER)


async def serve(port: int) -> None:
    """Answer on a TCP port of 127.0.0.1 until the process ends."""
    server = await asyncio.get_running_loop().create_server(_Bare, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
