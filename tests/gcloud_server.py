"""Runs the genuine gcloud without starting it for each call: forks a process that has already loaded it.

gcloud spends most of a call on imports, and the tests of deploy.sh call it a few hundred times. The command `gcloud`
that `install` writes passes its arguments, environment and standard streams to a fork, which runs gcloud's own `main`.
A fork reports the modules that it had to import, and the server imports them for the next ones. This file is run by
gcloud's own Python.
"""

import array
import contextlib
import importlib
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

_CLIENT = """\
#!{python} -ISE
import array, json, os, socket, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv) + "\\n")
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    task = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
    fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))]
    server.sendmsg([len(task).to_bytes(4, "big")], fds)
    server.sendall(task)
    sys.exit(int(server.recv(4) or b"70"))
"""


def install(folder: Path, address: Path, log: Path) -> None:
    """Write the command `gcloud` into a folder.

    Args:
        folder: a folder on the PATH.
        address: the server's socket.
        log: a file to which each command line is appended, as JSON.
    """
    command = folder / "gcloud"
    command.write_text(_CLIENT.format(python=sys.executable, address=str(address), log=str(log)))
    command.chmod(0o755)


def serve(sdk: str, address: str) -> None:
    """Serve until killed.

    Args:
        sdk: gcloud's root folder.
        address: the socket to listen on.
    """
    sys.path[:0] = [f"{sdk}/lib", f"{sdk}/lib/third_party"]
    gcloud_main = __import__("googlecloudsdk.gcloud_main").gcloud_main
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    _resolve_regions()
    modules = Path(f"{address}.modules")
    modules.touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            _preload(modules)
            with connection:
                if os.fork() == 0:
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    _run(gcloud_main, connection, modules)


def _resolve_regions() -> None:
    """Let europe-west1-127.0.0.1 be 127.0.0.1: for Cloud Run, gcloud puts the region before the host of the API."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(host, str) and host.endswith("-127.0.0.1"):
            host = "127.0.0.1"
        return resolve(host, *arguments, **options)

    socket.getaddrinfo = getaddrinfo


def _preload(modules: Path) -> None:
    names = modules.read_text().split()
    for name in names:
        if name not in sys.modules:
            # A module may need another one first, and the parts of gcloud's commands have no name to import them by.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    os.truncate(modules, 0)


def _run(gcloud_main: Any, connection: socket.socket, modules: Path) -> None:
    loaded = set(sys.modules)
    header, rights, *_ = connection.recvmsg(4, socket.CMSG_SPACE(12))
    fds = array.array("i", rights[0][2])
    with connection.makefile("rb") as stream:
        arguments, environ, folder = json.loads(stream.read(int.from_bytes(header, "big")))
    for target, fd in enumerate(fds):
        os.dup2(fd, target)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    sys.argv = ["gcloud", *arguments]
    status = _main(gcloud_main)
    sys.stdout.flush()
    sys.stderr.flush()
    with modules.open("a") as file:
        file.writelines(f"{name}\n" for name in sys.modules if name not in loaded and "__calliope__" not in name)
    connection.sendall(str(status).encode())
    os._exit(0)


def _main(gcloud_main: Any) -> int:
    try:
        gcloud_main.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - a fork must never return to the server's loop
        traceback.print_exc()
        return 70
    return 0


if __name__ == "__main__":
    serve(*sys.argv[1:])
