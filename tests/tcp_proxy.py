"""A TCP proxy whose open connections can go silent while new ones work, as behind a NAT that forgot them."""

import socket
import threading
from contextlib import suppress

_CHUNK = 65536


class TcpProxy:
    """Forwards each connection to a server, until it is silenced: then it stays open and carries nothing.

    Attributes:
        host: `HOST:PORT` where it listens.
        connections: how many connections were made.
    """

    def __init__(self, target: str) -> None:
        """Listen on a free port of the loopback interface.

        Args:
            target: `HOST:PORT` of the server.
        """
        name, _, port = target.rpartition(":")
        self._target = (name, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._silent = threading.Event()  # of the connections that are open now
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Make all open connections silent; new ones work."""
        self._silent.set()
        self._silent = threading.Event()

    def refuse(self) -> None:
        """Refuse new connections; those that are open stay."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def open_connections(self) -> int:
        """Return how many connections the client has not closed."""
        return sum(client.fileno() != -1 for client in self._sockets)

    def close_connections(self) -> None:
        """Close all open connections; new ones work."""
        for client in list(self._sockets):
            _close(client)

    def stop(self) -> None:
        """Close everything."""
        self._listener.close()  # no error if it is closed already
        self.close_connections()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:  # the server does not listen
                    _close(client)
                    continue
                self.connections += 1
                self._sockets.append(client)
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._forward, args=(source, sink, self._silent), daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket, silent: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                if not silent.is_set():
                    sink.sendall(data)
        _close(source)
        _close(sink)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
