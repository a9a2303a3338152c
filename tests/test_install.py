"""How ./run.sh and ./test.sh make .venv: in a project of two small packages, without a network."""

import base64
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

LIMIT = 120  # seconds


def wheel(folder: Path, name: str) -> str:
    """Build a package of one empty module; return its line in a lock."""
    file = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    contents = {
        f"{name}.py": "",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},"
        for path, text in contents.items()
    ]
    with zipfile.ZipFile(file, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return f"{name}==1.0 --hash=sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}\n"


class Project:
    """A project with the set-up of this one, and with locks of its own."""

    def __init__(self, folder: Path) -> None:
        """Copy the set-up into a folder."""
        self.folder = folder
        (folder / "local").mkdir()
        for name in ("install.py", "venv.sh"):
            shutil.copy(ROOT / "local" / name, folder / "local")
        self.lines = {name: wheel(folder, name) for name in ("first", "second")}
        self.lock(local=self.lines["first"], dev="".join(self.lines.values()))

    def lock(self, **locks: str) -> None:
        """Write the lock of `local` or `dev`."""
        for name, text in locks.items():
            (self.folder / f"requirements-{name}.txt").write_text(text)

    def start(self, command: str, **environ: str) -> subprocess.Popen[str]:
        """Run a bash command after the set-up was sourced, as ./run.sh does; packages come from the folder."""
        offline = {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.folder)}
        # "PYTHON" only for the first time: afterwards, .venv keeps its interpreter.
        if (self.folder / ".venv/bin/python").exists():
            del offline["PYTHON"]
        return subprocess.Popen(
            ["bash", "-euc", f"source local/venv.sh; {command}"],
            cwd=self.folder,
            env={name: value for name, value in {**os.environ, **offline, **environ}.items() if value},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str, **environ: str) -> tuple[int, str]:
        """Run a command to its end; return its exit status and standard error."""
        with self.start(command, **environ) as process:
            _, errors = process.communicate(timeout=LIMIT)
        return process.returncode, errors

    def inode(self) -> int:
        """Return what changes when .venv is made again."""
        return (self.folder / ".venv").stat().st_ino


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose .venv has the packages of `local`."""
    project = Project(tmp_path_factory.mktemp("project"))
    assert project.run("ensure_venv local; .venv/bin/python -c 'import first'")[0] == 0
    return project


Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(made: Project) -> Iterator[Start]:
    """Return a function that starts a command in the project; what still runs at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def start_command(command: str) -> subprocess.Popen[str]:
        processes.append(made.start(command))
        return processes[-1]

    yield start_command
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=LIMIT)


def line(process: subprocess.Popen[str]) -> str:
    """Return the next line of standard error."""
    assert process.stderr
    return process.stderr.readline()


def test_a_second_run_does_nothing(made: Project) -> None:
    """If .venv is up to date, nothing is installed or said."""
    before = made.inode()

    assert made.run("ensure_venv local") == (0, "")
    assert made.inode() == before


def test_packages_of_a_missing_index_are_one_line(made: Project) -> None:
    """If nothing can be downloaded, the exit status is 1, one line says what to check, and .venv stays usable."""
    closed = "http://127.0.0.1:9/simple"

    status, errors = made.run("ensure_venv dev", PIP_NO_INDEX="", PIP_FIND_LINKS="", PIP_INDEX_URL=closed)

    assert status == 1
    assert errors.splitlines()[1:] == [
        "The packages cannot be downloaded: check the network and the package index. The output: .venv/install.log"
    ]
    assert made.run("ensure_venv local") == (0, "")


def test_tests_only_add_packages(made: Project, start: Start) -> None:
    """While ./run.sh uses .venv, ./test.sh adds what it needs to it."""
    before, user = made.inode(), start("ensure_venv local; echo ready >&2; exec sleep 600")
    assert line(user) == "ready\n"

    status, errors = made.run("ensure_venv dev; .venv/bin/python -c 'import first, second'")

    assert status == 0, errors
    assert made.inode() == before


def test_a_run_after_the_tests_does_nothing(tmp_path: Path) -> None:
    """What ./test.sh installs includes what ./run.sh needs, which then says nothing."""
    project = Project(tmp_path)
    assert project.run("ensure_venv dev")[0] == 0

    assert project.run("ensure_venv local") == (0, "")


def test_a_set_up_waits_for_another(made: Project, start: Start) -> None:
    """While another run installs packages, a run says so and waits."""
    (made.folder / ".venv/stamp-local").unlink(missing_ok=True)
    with (made.folder / "local/install.py").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        waiting = start("ensure_venv local")
        said, status = line(waiting), waiting.poll()

    assert said == "Another run sets up .venv: waiting until it is done ...\n"
    assert status is None
    waiting.communicate(timeout=LIMIT)
    assert waiting.returncode == 0


def test_changed_locks_make_it_again_but_not_under_a_run(made: Project, start: Start) -> None:
    """If a lock has changed, .venv is made again from scratch, as soon as no run uses it."""
    before, user = made.inode(), start("ensure_venv local; echo ready >&2; exec sleep 600")
    assert line(user) == "ready\n"
    made.lock(local=made.lines["second"])

    waiting = start("ensure_venv local; .venv/bin/python -c 'import second'")
    said, kept = line(waiting), made.inode()
    os.killpg(user.pid, signal.SIGKILL)
    waiting.communicate(timeout=LIMIT)

    assert "another run uses .venv: waiting" in said
    assert kept == before
    assert waiting.returncode == 0
    assert made.run("! .venv/bin/python -c 'import first' 2>/dev/null") == (0, "")


def test_ctrl_c_ends_the_set_up(tmp_path: Path) -> None:
    """Ctrl-C ends the set-up with exit status 130 and one line; the next run finishes it."""
    project = Project(tmp_path)

    with project.start("ensure_venv local") as process:
        first = line(process)
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=LIMIT)

    assert first.startswith("Making .venv")
    assert (process.returncode, errors) == (130, "Interrupted: the next run continues.\n")
    assert project.run("ensure_venv local; .venv/bin/python -c 'import first'")[0] == 0


def test_two_first_runs_make_it_once(tmp_path: Path) -> None:
    """Of two first runs at the same time, one makes .venv, and both can use it."""
    project = Project(tmp_path)
    command = "ensure_venv local; .venv/bin/python -c 'import first'"

    with project.start(command) as one, project.start(command) as other:
        said = [process.communicate(timeout=LIMIT)[1] for process in (one, other)]

    assert (one.returncode, other.returncode) == (0, 0), said
    assert "".join(said).count("Making .venv") == 1
