"""The system on one machine: what a person sees, and how it ends."""

import asyncio
import io
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from google.cloud import firestore
from rich.cells import cell_len
from rich.console import Console

from local.__main__ import main
from local.function import local_environ
from local.processes import ProcessError, free_port, port_is_free, running
from local.reader import BATCH, Reader
from local.rows import Row, make_row
from local.system import DATABASE_FILE
from local.table import Table
from local.view import View
from tests.events import DATA
from tests.signing import sign
from viewer.values import describe

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0  # seconds until a test that waits has failed
CLOSED_PROXY = "http://127.0.0.1:9"
# As on a machine without a network: every download goes through a proxy that is not there.
NO_NETWORK = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), CLOSED_PROXY)


def test_nothing_can_reach_the_cloud() -> None:
    """Whatever the environment says, the function uses the Firestore of this machine."""
    environ = local_environ({"K_SERVICE": "x", "LOG_LEVEL": "ERROR", "RETENTION_DAYS": "9"}, host="h:1", secret="s")

    assert environ["FIRESTORE_EMULATOR_HOST"] == "h:1"
    assert environ["GOOGLE_CLOUD_PROJECT"].startswith("demo-")
    assert environ["RETENTION_DAYS"] == "9"
    assert environ["LOG_LEVEL"] == "INFO"
    assert "K_SERVICE" not in environ


class TestProcesses:
    """Child processes: ready before use, stopped with their whole group."""

    def test_a_group_that_ignores_sigterm_is_killed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A process that ignores SIGTERM, and its child, are killed after the grace period."""
        monkeypatch.setattr("local.processes.GRACE", 0.2)
        log = tmp_path / "log"
        script = "trap '' TERM; sleep 600 & echo $!; while :; do sleep 600; done"

        with running(
            "It", ["sh", "-c", script], log=log, environ=dict(os.environ), ready=lambda: bool(log.read_text())
        ) as process:
            group = {process.popen.pid, int(log.read_text())}

        assert eventually(lambda: not any(map(alive, group)))

    def test_a_process_that_ends_at_once_is_reported(self, tmp_path: Path) -> None:
        """The error names the process, its exit status, its log and the last line of the log."""
        with pytest.raises(ProcessError, match=r"^It ended with status 3\. Its log: .*log \(last line: sorry\)$"):
            running(
                "It", ["sh", "-c", "echo sorry; exit 3"], log=tmp_path / "log", environ={}, ready=lambda: False
            ).__enter__()

    def test_a_port_is_free_or_not(self) -> None:
        """A port on which a server listens is not free, and free_port does not return it."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]

            assert not port_is_free(port)
            assert free_port() != port
        assert port_is_free(port)


def shown(log: Path, project: str) -> tuple[View, str]:
    """Show a log on a terminal of 80 columns and 10 lines; return the view and what it printed."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=10, legacy_windows=False)

    async def show() -> View:
        view = View(console, log, Reader(firestore.AsyncClient(project), "events"))
        view.live()
        await view.catch_up()
        return view

    view = asyncio.run(show())
    return view, console.file.getvalue()  # type: ignore[attr-defined]


NAMES = ["Fridge 1", "Meeting room on the second floor, door to the garden 12", "冷蔵庫 冷蔵庫 冷蔵庫 冷蔵庫 7"]
REASON = "the claim checksum does not match the body; DT-Asymmetric-Signature is missing"


def rows() -> list[Row]:
    """Make a row of each event type, with short and long names, and refusals."""
    now = datetime.now(UTC)
    stored = [
        make_row(
            {"outcome": outcome, "latencyMs": latency},
            {"eventType": event_type, "data": DATA[event_type], "labels": {"name": name}},
            now,
        )
        for outcome, latency in (("stored", 3.2), ("already_stored", 12345.6))
        for name in NAMES
        for event_type in DATA
    ]
    refused = [
        make_row({"outcome": outcome, "latencyMs": 0.3, "reason": REASON}, None, now)
        for outcome in ("unverified", "quarantined", "unavailable")
    ]
    new = {"eventType": "aTypeOfTomorrow", "data": {"aTypeOfTomorrow": {"text": "words that fill a line " * 4}}}
    return [*stored, *refused, make_row({"outcome": "stored", "latencyMs": 5.0}, new, now)]


class TestTable:
    """The layout of rows, in terminals of 60 to 200 columns."""

    @pytest.mark.parametrize("width", [60, 71, 72, 80, 100, 120, 200])
    def test_each_line_fits_and_loses_nothing(self, width: int) -> None:
        """No line is wider than the terminal; values, with their units, and reasons are complete, word by word."""
        table = Table()
        for row in rows():
            cells, below = table.lay_out(row, width)

            assert max(map(cell_len, ("".join(cells.values()).rstrip(), *below))) <= width
            words = f"{cells['value']} {' '.join(below)}".split()
            assert words == f"{row.value} {row.detail}".split()
            assert (cells["time"].strip(), cells["outcome"].strip()) == (row.time, row.outcome)

    @pytest.mark.parametrize("width", [60, 80, 120])
    def test_names_keep_both_ends(self, width: int) -> None:
        """A long name is shortened in the middle: sensors often differ by the number at the end."""
        row = make_row({"outcome": "stored"}, {"eventType": "touch", "labels": {"name": NAMES[1]}}, datetime.now(UTC))

        cells, _ = Table().lay_out(row, width)

        assert re.fullmatch(r"Meet.*….*12", cells["device"].strip())

    def test_columns_take_their_width_from_their_content(self) -> None:
        """A wide terminal shows names in full, and columns do not shrink again: rows stay below one another."""
        table = Table()
        first, long, last = (
            Row("08:30:00", name, "touch", "touched", "stored", "1.0 ms") for name in ("A", "B" * 30, "C")
        )

        widths = [{name: len(cell) for name, cell in table.lay_out(row, 200)[0].items()} for row in (first, long, last)]

        assert widths[0]["device"] < 30
        assert widths[1]["device"] == 32
        assert widths[1] == widths[2]


class TestRows:
    """How an event is shown in the terminal."""

    @pytest.mark.parametrize(
        ("event_type", "text"),
        [
            ("touch", "touched"),
            ("temperature", "27 °C"),
            ("objectPresent", "NOT_PRESENT"),
            ("humidity", "17 %RH, 22.45 °C"),
            ("objectPresentCount", "4176 in total"),
            ("touchCount", "469 in total"),
            ("waterPresent", "PRESENT"),
            ("networkStatus", "45 %, -83 dBm"),
            ("batteryStatus", "100 %"),
            ("labelsChanged", "+key=value key=new -key1 -key2"),
            ("connectionStatus", "ETHERNET"),
            ("ethernetStatus", "10.0.0.1"),
            ("cellularStatus", "80 %"),
            ("co2", "617 ppm"),
            ("pressure", "94936 Pa"),
            ("motion", "MOTION_DETECTED"),
            ("deskOccupancy", "NOT_OCCUPIED"),
            ("contact", "OPEN"),
            ("probeWireStatus", "THREE_WIRE"),
        ],
    )
    def test_each_type_has_its_unit(self, event_type: str, text: str) -> None:
        """A value is shown as stored, with the unit of its type."""
        assert describe({"eventType": event_type, "data": DATA[event_type]}) == text

    @pytest.mark.parametrize(
        ("data", "text"),
        [(None, ""), ({"new": 1}, '{"new": 1}'), ([1], "[1]"), ({"temperature": 5}, '{"temperature": 5}')],
    )
    def test_unknown_data_is_shown_as_json(self, data: Any, text: str) -> None:
        """Data of an unknown shape is shown as JSON."""
        assert describe({"eventType": "temperature", "data": data}) == text

    def test_an_event_cannot_control_the_terminal(self) -> None:
        """Control characters in a label are replaced with question marks."""
        document = {"eventType": "touch", "data": {"touch": {}}, "labels": {"name": "\x1b[31mred\n"}}

        row = make_row({"outcome": "stored", "latencyMs": 1.5}, document, datetime.now(UTC))

        assert (row.device, row.latency) == ("?[31mred?", "1.5 ms")

    def test_a_terminal_gets_colour(
        self, tmp_path: Path, embedded_host: str, project: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """An event logged as stored but missing in Firestore is NOT FOUND, in red; no other line is shown."""
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", embedded_host)
        line = {"outcome": "stored", "eventId": "lost", "latencyMs": 1.0, "eventType": "temperature"}
        (tmp_path / "log").write_text(f"a server's own words\n{json.dumps(line)}\nan unfinished li")

        view, text = shown(tmp_path / "log", project)

        assert view.outcomes == {"NOT FOUND": 1}
        assert "\x1b[31mNOT FOUND" in text
        assert len(text.splitlines()) == 2

    def test_the_header_comes_again_after_a_screenful(
        self, tmp_path: Path, embedded_host: str, project: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On a terminal of 10 lines, the header comes again before it has scrolled away."""
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", embedded_host)
        line = json.dumps({"outcome": "unverified", "latencyMs": 1.0, "reason": "why"})
        (tmp_path / "log").write_text(f"{line}\n" * 20)

        _, text = shown(tmp_path / "log", project)

        headers = [number for number, each in enumerate(text.splitlines()) if "TIME" in each]
        assert headers[0] == 0
        assert len(headers) > 3
        assert max(b - a for a, b in pairwise(headers)) < 10

    def test_the_final_check_reads_more_events_than_one_request_holds(
        self, embedded_host: str, project: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The final check reads every event, and reports a missing one and an id that was sent twice."""
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", embedded_host)
        keys = [f"e{number}" for number in range(BATCH + 1)]
        batch = firestore.Client(project=project).batch()
        for key in keys:
            batch.set(batch._client.document("events", key), {"eventId": key})
        batch.commit()

        async def look(*more: str) -> list[str]:
            return await Reader(firestore.AsyncClient(project), "events").problems([*keys, *more])

        assert asyncio.run(look()) == []
        assert asyncio.run(look("e0", "gone")) == ["event e0 was sent 2 times", "event gone is missing"]


def alive(pid: int) -> bool:
    """Tell whether a process runs; a zombie does not."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def family(pid: int) -> list[int]:
    """Return a process's descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [descendant for child in map(int, children) for descendant in (child, *family(child))]


def eventually(true: Callable[[], bool]) -> bool:
    """Wait up to PATIENCE for a condition, and return whether it became true."""
    limit = time.monotonic() + PATIENCE
    while not (done := true()) and time.monotonic() < limit:
        time.sleep(0.05)
    return done


class Run:
    """The system as a user starts it, with its own state folder and port."""

    def __init__(self, state: Path, *arguments: str, command: tuple[str, ...] = (), **environ: str) -> None:
        """Start it, with standard output and standard error in files."""
        own = ("FIRESTORE_EMULATOR_HOST", "DT_SIGNATURE_SECRET")  # and NiceGUI reads pytest's variables
        kept = {k: v for k, v in os.environ.items() if k not in own and not k.startswith("PYTEST")}
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.output, self.errors = state / "output", state / "errors"
        state.mkdir(exist_ok=True)
        options = ["--state", str(state), *(() if "--port" in arguments else ("--port", str(self.port))), *arguments]
        with self.output.open("wb") as output, self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [*(command or (sys.executable, "-m", "local")), *options],
                cwd=ROOT,
                env={**kept, **environ},
                stdout=output,
                stderr=errors,
            )

    def rows(self) -> list[str]:
        """Return the rows of stored events so far."""
        lines = self.output.read_text().splitlines()
        return [line for line in lines if "  stored  " in line or "  already_stored  " in line]

    def wait(self) -> int:
        """Wait for the exit status."""
        return self.process.wait(PATIENCE)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Return a function that starts a system, which is killed after the test."""
    runs: list[Run] = []

    def start(*arguments: str, **options: Any) -> Run:
        runs.append(Run(tmp_path / f"state{len(runs)}", *arguments, **options))
        return runs[-1]

    yield start
    for started in runs:
        started.process.kill()
        started.process.wait()


@pytest.mark.usefixtures("emulator_host")
def test_run_on_the_emulator(run: Callable[..., Run]) -> None:
    """`./run.sh --events 5` starts an emulator, prints five plain rows, finds five documents and exits with 0."""
    system = run("--events", "5", "--store", "emulator", command=("./run.sh",))

    status = system.wait()

    output = system.output.read_text()
    assert (status, system.errors.read_text()) == (0, "")
    assert len(system.rows()) == 5
    assert "Firestore  Firestore emulator" in output
    assert "All 5 events are in Firestore, each once." in output
    assert "\x1b" not in output


def test_run_without_gcloud_java_and_network(run: Callable[..., Run], tmp_path: Path) -> None:
    """It works on the embedded store, says so, and what it shows is in the SQLite file, also of the next run."""
    environ = {**NO_NETWORK, "PATH": "/usr/bin-without-gcloud-and-java", "HOME": str(tmp_path)}

    first = run("--events", "5", "--seed", "1", **environ)
    status = first.wait()
    second = run("--events", "4", "--state", str(first.output.parent), **environ)
    second_status = second.wait()

    assert (status, second_status) == (0, 0), first.errors.read_text() + second.errors.read_text()
    assert "IN USE: the embedded store" in first.output.read_text()
    assert len(first.rows()) == 5
    with closing(sqlite3.connect(first.output.parent / "firestore.sqlite3")) as database:
        documents = database.execute("SELECT count(*) FROM documents WHERE collection = 'events'").fetchone()
    assert documents == (9,)


def test_a_lost_and_a_rewritten_event_are_reported(
    run: Callable[..., Run], firestore_host: str, database: firestore.Client, project: str
) -> None:
    """If one document is deleted and another one is written again, `--events` reports both and exits with 1."""
    environ = {"FIRESTORE_EMULATOR_HOST": firestore_host, "GOOGLE_CLOUD_PROJECT": project}
    system = run("--events", "30", "--rate", "10", "--store", "emulator", **environ)

    eventually(lambda: len(list(database.collection("events").limit(2).stream())) == 2)
    lost, rewritten = database.collection("events").limit(2).stream()
    lost.reference.delete()
    rewritten.reference.update({"data": "from another writer"})
    status = system.wait()

    assert status == 1
    assert f"event {lost.id} is missing" in system.output.read_text()
    assert f"event {rewritten.id} was written more than once" in system.output.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(run: Callable[..., Run], number: signal.Signals) -> None:
    """After Ctrl-C and SIGTERM no process and no open port is left; the totals are printed, the exit status is 0."""
    system = run("--store", "embedded", "--rate", "50")
    assert eventually(lambda: len(system.rows()) > 2)
    processes = family(system.process.pid)

    system.process.send_signal(number)
    status = system.wait()

    assert (status, system.errors.read_text()) == (0, "")
    assert len(processes) >= 3  # the embedded store, the function's master and its worker
    assert eventually(lambda: not any(map(alive, processes)))
    assert port_is_free(system.port)
    assert re.search(r"^\d+ requests in .* stored", system.output.read_text(), re.MULTILINE)


def test_an_interrupted_count_is_no_success(run: Callable[..., Run]) -> None:
    """A run with `--events` that is interrupted prints a message and exits with 1."""
    system = run("--store", "embedded", "--events", "5000", "--rate", "20")
    assert eventually(lambda: len(system.rows()) > 2)

    system.process.send_signal(signal.SIGINT)

    assert system.wait() == 1
    assert system.errors.read_text() == "./run.sh: Stopped before all 5000 events were acknowledged.\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can signal a child when its parent dies")
def test_even_sigkill_leaves_nothing_behind(run: Callable[..., Run]) -> None:
    """The processes that a run has started end with it, even if it is killed."""
    system = run("--store", "embedded", "--rate", "50")
    assert eventually(lambda: len(system.rows()) > 2)
    processes = family(system.process.pid)

    system.process.kill()
    system.wait()

    assert len(processes) >= 3
    assert eventually(lambda: not any(map(alive, processes)))


@pytest.mark.parametrize(("index", "name"), [(0, "The function"), (1, r"Firestore \(embedded\)")])
def test_a_process_that_dies_ends_the_run(run: Callable[..., Run], index: int, name: str) -> None:
    """The exit status is 1, one line names the process and its log, and the other processes are stopped."""
    system = run("--store", "embedded", "--rate", "50")
    assert eventually(lambda: len(system.rows()) > 2)
    processes = family(system.process.pid)
    direct = [
        int(pid) for pid in Path(f"/proc/{system.process.pid}/task/{system.process.pid}/children").read_text().split()
    ]

    os.kill(direct[index], signal.SIGKILL)
    status = system.wait()

    assert status == 1
    assert re.fullmatch(rf"\./run\.sh: {name} was ended by SIGKILL\. Its log: .*\n", system.errors.read_text())
    assert eventually(lambda: not any(map(alive, processes)))


def test_a_chosen_port_that_is_busy_is_named(run: Callable[..., Run]) -> None:
    """If the chosen port is in use, the exit status is 2, and one line names it and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        system = run("--events", "1", "--port", str(port))
        status = system.wait()

    assert status == 2
    assert (
        system.errors.read_text()
        == f"./run.sh: Port {port} is in use or not permitted: choose another one with --port, or omit it."
        " See ./run.sh --help.\n"
    )


def test_a_folder_that_cannot_be_used_is_named(run: Callable[..., Run], tmp_path: Path) -> None:
    """If the folder cannot be used, the exit status is 2, and one line names it and says what to do."""
    (tmp_path / "file").write_text("no folder")

    system = run("--events", "1", "--state", str(tmp_path / "file"))
    status = system.wait()

    assert status == 2
    assert re.fullmatch(
        rf"\./run\.sh: The folder {tmp_path}/file cannot be used \(.+\): .*\n", system.errors.read_text()
    )


def test_a_busy_default_port_moves(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """If the default port is in use, a free one is used, and a line says so."""
    from local import system  # noqa: PLC0415 - the test changes its default port

    with socket.create_server(("127.0.0.1", 0)) as server:
        busy = server.getsockname()[1]
        monkeypatch.setattr(system, "DEFAULT_PORT", busy)

        port = system._port(None)

    assert port != busy
    assert capsys.readouterr().out == f"Port {busy} is in use: the function listens on {port} instead.\n"


def test_a_closed_pipe_ends_the_run(tmp_path: Path) -> None:
    """`./run.sh | head` ends without a traceback."""
    script = f"{sys.executable} -m local --store embedded --port {free_port()} --state {tmp_path} | head -n 1"

    ended = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    assert ended.stdout.startswith("Firestore ")
    assert ended.stderr == ""


def test_serve_prints_how_to_send_an_event(run: Callable[..., Run]) -> None:
    """The printed commands run as they are; a second run with the same folder is refused."""
    system = run("--serve", "--store", "embedded")
    assert eventually(lambda: "TIME" in system.output.read_text())
    commands = [line for line in system.output.read_text().splitlines() if line.startswith("  ")]

    sent = subprocess.run(
        ["bash", "-euc", "\n".join(commands)], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    second = run("--serve", "--state", str(system.output.parent))
    shown = eventually(lambda: len(system.rows()) == 2)

    assert sent.returncode == 0, sent.stderr
    assert shown
    assert "21.5 °C" in system.rows()[0]
    assert "hello" in system.rows()[1]
    assert second.wait() == 2
    assert "Another run uses the folder" in second.errors.read_text()


def test_your_own_code_finds_the_store(run: Callable[..., Run]) -> None:
    """`eval "$(./run.sh --env)"` sets the variables by which Firestore's own client reads the store that runs."""
    system = run("--store", "embedded")
    assert eventually(lambda: bool(system.rows()))
    read = "from google.cloud import firestore; print(len(list(firestore.Client().collection('events').stream())))"
    script = f'eval "$(./run.sh --env --state {system.output.parent})"; "{sys.executable}" -c "{read}"'

    done = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 0


def test_without_a_system_there_are_no_variables(
    run: Callable[..., Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If no system runs, also if one was killed, --env prints nothing on standard output; the exit status is 2."""
    system = run("--serve", "--store", "embedded")
    assert eventually(lambda: "TIME" in system.output.read_text())
    system.process.kill()
    system.wait()

    statuses = [main(["--env", "--state", str(folder)]) for folder in (tmp_path / "none", system.output.parent)]

    output, errors = capsys.readouterr()
    assert statuses == [2, 2]
    assert output == ""
    assert errors.splitlines() == [
        f"./run.sh: No system runs with the folder {folder}: start ./run.sh, or name its folder with --state."
        " See ./run.sh --help."
        for folder in (tmp_path / "none", system.output.parent)
    ]


def test_env_builds_nothing(tmp_path: Path) -> None:
    """In a fresh clone, --env makes no .venv: one line says that no system runs, and the exit status is 2."""
    (tmp_path / "local").mkdir()
    for name in ("run.sh", "local/venv.sh", "local/install.py"):
        shutil.copy(ROOT / name, tmp_path / name)

    done = subprocess.run(["./run.sh", "--env"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert not (tmp_path / ".venv").exists()


def test_fresh_deletes_the_documents(run: Callable[..., Run]) -> None:
    """The embedded store keeps its documents, and says where; --fresh deletes them before the run."""
    first = run("--events", "5", "--store", "embedded")
    assert first.wait() == 0
    folder = first.output.parent
    said = first.output.read_text()

    second = run("--events", "4", "--store", "embedded", "--fresh", "--state", str(folder))

    assert second.wait() == 0
    assert f"The documents stay in {folder}/firestore.sqlite3 (" in said
    with closing(sqlite3.connect(folder / "firestore.sqlite3")) as database:
        documents = database.execute("SELECT count(*) FROM documents WHERE collection = 'events'").fetchone()
    assert documents == (4,)


def test_a_named_emulator_must_answer(run: Callable[..., Run]) -> None:
    """If FIRESTORE_EMULATOR_HOST does not answer, the exit status is 2, and one line says what to do."""
    system = run("--events", "1", FIRESTORE_EMULATOR_HOST="127.0.0.1:9")

    assert system.wait() == 2
    assert system.errors.read_text() == (
        "./run.sh: No Firestore emulator answers at 127.0.0.1:9: start it, or correct or unset FIRESTORE_EMULATOR_HOST."
        " See ./run.sh --help.\n"
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("RETENTION_DAYS", "1"), ("DT_SIGNATURE_SECRET", "'quoted'"), ("DEVICES_COLLECTION", "events")],
)
def test_a_wrong_setting_of_the_function_is_named(run: Callable[..., Run], name: str, value: str) -> None:
    """For a setting that the function would refuse, the exit status is 2, and one line names it."""
    system = run("--events", "1", "--store", "embedded", **{name: value})

    assert system.wait() == 2
    assert re.fullmatch(rf"\./run\.sh: {name} must .*\n", system.errors.read_text())


def test_a_wrong_setting_deletes_nothing(run: Callable[..., Run], tmp_path: Path) -> None:
    """--fresh beside a wrong setting leaves the documents as they are."""
    file = tmp_path / DATABASE_FILE
    file.write_text("documents")

    system = run("--events", "1", "--store", "embedded", "--fresh", "--state", str(tmp_path), RETENTION_DAYS="1")

    assert system.wait() == 2
    assert file.read_text() == "documents"


def test_the_documents_of_a_named_emulator_stay(run: Callable[..., Run], embedded_host: str, project: str) -> None:
    """An emulator that the user started goes on, with its documents, and the end of the run says so."""
    system = run("--events", "2", FIRESTORE_EMULATOR_HOST=embedded_host, GOOGLE_CLOUD_PROJECT=project)

    assert system.wait() == 0, system.errors.read_text()
    assert f"The documents stay in the emulator at {embedded_host}" in system.output.read_text()


def test_a_tunnel_reaches_the_function_and_not_the_viewer(run: Callable[..., Run]) -> None:
    """With the Host header of a tunnel, the function stores a signed event, and the viewer answers 403."""
    system = run("--serve", "--store", "embedded")
    assert eventually(lambda: "TIME" in system.output.read_text())
    (viewer,) = re.findall(r"^Viewer +(\S+)$", system.output.read_text(), re.MULTILINE)
    settings = json.loads((system.output.parent / "settings.json").read_text())
    body, tunnel = b'{"event":{"eventId":"tunnelled","eventType":"touch"}}', {"Host": "some-words.tunnel.example"}
    token = sign(body, settings["DT_SIGNATURE_SECRET"])

    stored = httpx.post(system.url, content=body, headers={**tunnel, "X-Dt-Signature": token})
    assert eventually(lambda: not port_is_free(int(viewer.rstrip("/").rpartition(":")[2])))
    refused = httpx.get(viewer, headers=tunnel)

    assert (stored.status_code, refused.status_code) == (200, 403)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--events", "0"),
        ("--rate", "nan"),
        ("--port", "65536"),
        ("--store", "cloud"),
        ("--serve", "--events", "1"),
        ("--env", "--serve"),
    ],
)
def test_a_wrong_argument_is_named(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """For a wrong argument the exit status is 2, and one line names the argument."""
    status = main(arguments)

    errors = capsys.readouterr().err
    assert status == 2
    assert arguments[0] in errors
    assert errors.count("\n") == 1


def test_help_has_examples() -> None:
    """`--help` has examples, in lines of at most 80 columns."""
    command = [sys.executable, "-m", "local", "--help"]

    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout

    assert "./run.sh --events 50" in shown
    assert max(map(len, shown.splitlines())) <= 80
