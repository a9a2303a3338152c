"""Makes .venv and installs the locked packages into it. Uses the standard library only.

`local/venv.sh` runs this file as a script, with the Python that .venv is made from, or, to see whether there is
anything to do, with the one in .venv.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
LOCKS = {"local": ROOT / "requirements-local.txt", "dev": ROOT / "requirements-dev.txt"}

_USERS = 8  # the file descriptor that local/venv.sh opens: locked as long as a process uses .venv
_NOT_READY = 3  # exit status of --check
_INTERRUPTED = 130
# With these settings pip has an index or a way to it that uv would not know of.
_OF_PIP_ALONE = frozenset({"client-cert", "index-url", "no-index", "proxy", "trusted-host"})
_UV_INDEX = frozenset({"UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_CONFIG_FILE"})
_SHOWN = re.compile(r"^\s*(Downloading|Installing|Installed|Building|Built) ")
_UNREACHABLE = re.compile(
    r"error sending request|Failed to (fetch|download)|Retrying \(|from versions: none|timed? ?out", re.IGNORECASE
)
_PAUSE = 1.0  # seconds between two lines of progress

Say = Callable[[str], None]


class InstallError(Exception):
    """Raised if packages cannot be installed; the text is one line."""


def main(arguments: Sequence[str]) -> int:
    """Make .venv ready for the packages of a lock.

    Args:
        arguments: `local` or `dev`, after `--check` if nothing must be changed.

    Returns:
        The exit status: 3 if --check finds that something is missing, 130 after Ctrl-C.
    """
    name = arguments[-1]
    try:
        if "--check" in arguments:
            return 0 if _share() and _is_ready(name) else _release()
        _make_ready(name, _say)
    except InstallError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("Interrupted: the next run continues.")
        return _INTERRUPTED
    return 0


def add_package(name: str, say: Say) -> None:
    """Install one package of requirements-dev.txt, with what is locked for it, into the running virtual environment.

    Raises:
        InstallError: it cannot be installed.
    """
    if sys.prefix == sys.base_prefix:
        raise InstallError(f"{name} is not installed")
    with _exclusive(say):
        _install(Path(sys.prefix), _entry(name), say)


def _make_ready(name: str, say: Say) -> None:
    with _exclusive(say):
        if not _is_ready(name):
            if not _can_be_extended():
                _wait_for_users(say)
                _create(say)
            say(f"Installing the packages of {LOCKS[name].name} into .venv, once ...")
            started = time.monotonic()
            _install(VENV, LOCKS[name].read_text(), say)
            for each in {name, "local"}:  # each lock holds that of ./run.sh
                _stamp(each).write_text(_state(each))
            say(f".venv is ready after {time.monotonic() - started:.0f} s.")
        _share()


def _stamp(name: str) -> Path:
    return VENV / f"stamp-{name}"


def _state(name: str) -> str:
    return f"{sys.version}\n{hashlib.sha256(LOCKS[name].read_bytes()).hexdigest()}\n"


def _is_ready(name: str) -> bool:
    """Tell whether .venv was made by this Python and has the packages of a lock."""
    return (VENV / "bin/python").exists() and _stamp(name).exists() and _stamp(name).read_text() == _state(name)


def _can_be_extended() -> bool:
    """Tell whether all that .venv has is still as locked, so that packages need only be added."""
    made = [name for name in LOCKS if _stamp(name).exists()]
    return bool(made) and all(map(_is_ready, made))


def _share() -> bool:
    """Lock .venv as long as the shell that called, or the program that it becomes, runs: others must not remove it."""
    with suppress(OSError):  # not every file system has locks
        try:
            fcntl.flock(_USERS, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def _release() -> int:
    """Let another run change .venv; return the exit status that asks the shell to have it made ready."""
    with suppress(OSError):
        fcntl.flock(_USERS, fcntl.LOCK_UN)
    return _NOT_READY


def _wait_for_users(say: Say) -> None:
    _lock(_USERS, "The locks or Python have changed, and another run uses .venv: waiting until that ends ...", say)


@contextmanager
def _exclusive(say: Say) -> Iterator[None]:
    with Path(__file__).open() as file:
        _lock(file.fileno(), "Another run sets up .venv: waiting until it is done ...", say)
        yield


def _lock(descriptor: int, message: str, say: Say) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(message)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError:
        return


def _create(say: Say) -> None:
    say(f"Making .venv with Python {sys.version.split()[0]} ...")
    if VENV.is_symlink():
        VENV.unlink()
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    _run([sys.executable, "-m", "venv", str(VENV)], VENV, say)


def _install(venv: Path, requirements: str, say: Say) -> None:
    file = venv / "requirements.txt"
    file.write_text(requirements)
    environ = _environ()
    command = ["install", "--require-hashes", "-r", str(file)]
    pip = [str(venv / "bin/python"), "-m", "pip"]
    if _pip_alone(pip, environ):
        _run([*pip, *command], venv, say, environ)
        return
    if not (venv / "bin/uv").exists():
        file.write_text(_entry("uv"))
        with suppress(InstallError):  # no uv for this platform: pip installs the same packages
            _run([*pip, *command, "--only-binary=:all:"], venv, say, environ)
        file.write_text(requirements)
    if (venv / "bin/uv").exists():
        pip, command = [str(venv / "bin/uv"), "pip"], [*command, "--python", str(venv / "bin/python")]
    _run([*pip, *command], venv, say, environ)


def _environ() -> dict[str, str]:
    """Return the environment, with short waits for machines without a network, where the user has chosen none."""
    environ = {"PIP_RETRIES": "1", "UV_HTTP_RETRIES": "1", **os.environ}
    environ |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    if "PIP_CERT" in environ:
        environ.setdefault("SSL_CERT_FILE", environ["PIP_CERT"])
    return environ


def _pip_alone(pip: Sequence[str], environ: Mapping[str, str]) -> bool:
    if _UV_INDEX & environ.keys():
        return False
    listed = subprocess.run([*pip, "config", "list"], env=environ, capture_output=True, text=True, check=False).stdout
    return bool(_OF_PIP_ALONE & set(re.findall(r"^[^.=]*\.([a-z-]+)=", listed, re.MULTILINE)))


def _entry(name: str) -> str:
    """Return the lines of a package in requirements-dev.txt; the packages that go through here require no others."""
    (entry,) = re.findall(rf"^{name}==.*?(?=^\S|\Z)", LOCKS["dev"].read_text(), re.MULTILINE | re.DOTALL)
    return str(entry)


def _run(command: Sequence[str], venv: Path, say: Say, environ: Mapping[str, str] | None = None) -> None:
    """Run an installer, show some lines of its progress, and write all of its output to a log."""
    log, lines, shown = venv / "install.log", list[str](), 0.0
    with log.open("a", encoding="utf-8") as file, _started(command, environ) as process:
        for line in process.stdout or ():
            file.write(line)
            lines.append(line.strip())
            if _SHOWN.match(line) and time.monotonic() - shown >= _PAUSE:
                say(f"  {line.strip()}")
                shown = time.monotonic()
    if process.returncode:
        raise InstallError(_failure(lines, os.path.relpath(log)))


def _started(command: Sequence[str], environ: Mapping[str, str] | None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )


def _failure(lines: Sequence[str], log: str) -> str:
    if any(map(_UNREACHABLE.search, lines)):
        return f"The packages cannot be downloaded: check the network and the package index. The output: {log}"
    errors = [line for line in lines if line.lower().startswith("error")] or lines or ["no output"]
    return f"The packages cannot be installed ({errors[0][:200]}). The output: {log}"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
