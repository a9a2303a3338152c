"""The benchmarks: they run end to end, their contenders verify and store events, and their figures are right."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from io import StringIO
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.cloud import firestore
from google.cloud.firestore_v1.types import BatchWriteRequest, BatchWriteResponse, CommitRequest, CommitResponse, Write
from rich.console import Console

from benchmarks.__main__ import main
from benchmarks.contenders import CONTENDERS
from benchmarks.plot import draw
from benchmarks.report import ratio, show
from benchmarks.serving import serve, sign
from local.emulator import speaks_http2
from local.processes import ROOT, free_port, running
from tests.events import encode, envelope

STORING = [one for one in CONTENDERS.values() if one.kind in ("asgi", "wsgi") and not one.name.startswith("empty")]
SVG = "{http://www.w3.org/2000/svg}"
FIGURES = ("events", "rate", "p50", "p99", "cpu", "client_cpu", "client_share")
SINGLE = {
    "store": "20ms",
    "contender": "documented",
    "concurrency": 80,
    "rate": 1e3,
    "p50": 1.0,
    "p99": 9.0,
    "cpu": 2.0,
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], ET.Element]:
    """Run a small benchmark, and return its output, its raw figures and its plot."""
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--contenders", "ours,empty_async"]
    command += ["--seconds", "60", "--soak-events", "300"]
    command += ["--json", str(folder / "bench.json"), "--plot", str(folder / "bench.svg")]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300)
    plot = ET.fromstring((folder / "bench.svg").read_text())  # noqa: S314 - written by this test
    return finished.stdout, json.loads((folder / "bench.json").read_text()), plot


def test_every_request_of_a_run_is_measured(quick: tuple[str, dict[str, Any], ET.Element]) -> None:
    """Each contender has every figure at each concurrency, of exactly the requested number of events."""
    _, figures, _ = quick

    samples = {(one["contender"], one["concurrency"]): one for one in figures["samples"]}

    assert set(samples) == {(name, level) for name in ("ours", "empty_async") for level in (1, 16)}
    for one in samples.values():
        assert one["events"] == 200
        assert all(one[name] >= 0 for name in FIGURES)
        assert 0 < one["p50"] <= one["p99"]
    assert samples["ours", 16]["cpu"] > 0


def test_a_run_measures_start_memory_imports_and_soak(quick: tuple[str, dict[str, Any], ET.Element]) -> None:
    """A run also measures the time to the first 200, memory, imports by package, and the slices of the soak."""
    output, figures, _ = quick

    for name in ("ours", "empty_async"):
        (start,) = (one for one in figures["starts"] if one["contender"] == name)
        (memory,) = (one for one in figures["memory"] if one["contender"] == name)
        (imports,) = (one for one in figures["imports"] if one["contender"] == name)
        assert start["ms"] > 0
        assert 10 < memory["idle"] <= memory["peak"]
        assert imports["ms"] >= sum(imports["packages"].values()) > 0
        assert name in output
    assert [one["process"] for one in figures["soak"]] == ["ageing", "new", "old"]
    assert {one["events"] for one in figures["soak"]} == {300}
    assert "old process / new process" in output


def test_the_tables_fit_in_80_columns() -> None:
    """In 80 columns, no value of all contenders and several rounds is cut off or wrapped."""
    load = {"rate": 2345.0, "p50": 31.2, "p99": 1470.0, "cpu": 0.44, "client_cpu": 0.07, "client_share": 0.12}
    memory, used = {"idle": 50.0, "now": 172.0, "peak": 121.0}, {"now": 172.0, "peak": 121.0}
    rounds = [{name: value * factor for name, value in load.items()} for factor in (0.8, 1, 1.2)]
    figures: dict[str, Any] = {
        "samples": [
            {"store": "20ms", "contender": name, "concurrency": 250, **row} for name in CONTENDERS for row in rounds
        ],
        "memory": [{"contender": name, **memory} for name in CONTENDERS],
        "starts": [{"contender": name, "ms": ms} for name in CONTENDERS for ms in (1429, 1396, 1469)],
        "imports": [],
        "soak": [{"process": process, "events": 10_000, **load, **used} for process in ("ageing", "old", "new")],
    }

    output = StringIO()
    show(figures, Console(file=output, width=80))

    lines = output.getvalue().splitlines()
    assert "…" not in output.getvalue()
    for name in CONTENDERS:
        throughput, cpu, start = (line.split() for line in lines if line.startswith(f"{name} "))
        assert throughput[1:3] == ["2345", "(1876-2814)"]
        assert throughput[-2:] == ["1470", "(1176-1764)"]
        assert cpu[1:3] == ["0.44", "(0.35-0.53)"]
        assert start[1:3] == ["1429", "(1396-1469)"]


def test_the_plot_shows_each_contender(quick: tuple[str, dict[str, Any], ET.Element]) -> None:
    """The plot is well-formed SVG with a curve per contender for throughput, p50, p99 and CPU, and a legend."""
    _, _, plot = quick

    curves = _curves(plot)
    words = {text.text for text in plot.iter(f"{SVG}text")}

    figures = ("rate", "p50", "p99", "cpu")
    assert set(curves) == {f"instant {name} {figure}" for name in ("ours", "empty_async") for figure in figures}
    assert set(curves.values()) == {2}
    assert {"ours", "empty_async"} <= words


def test_a_plot_of_a_single_concurrency_is_drawn() -> None:
    """A single level of concurrency, which spans no range, still makes a plot, with one point per curve."""
    plot = ET.fromstring(draw({"samples": [SINGLE]}))  # noqa: S314 - drawn by this test

    assert _curves(plot) == {f"20ms documented {figure}": 1 for figure in ("rate", "p50", "p99", "cpu")}
    assert "documented (reference)" in {text.text for text in plot.iter(f"{SVG}text")}


def test_the_same_figures_make_the_same_plot() -> None:
    """The SVG contains neither a date nor a random id, so that it changes only with the figures."""
    assert draw({"samples": [SINGLE]}) == draw({"samples": [SINGLE]})


def _curves(plot: ET.Element) -> dict[str, int]:
    """Return the number of points of each curve, by the curve's id."""
    groups = (group for group in plot.iter(f"{SVG}g") if " " in group.get("id", ""))
    return {group.get("id", ""): len(list(group.iter(f"{SVG}use"))) for group in groups}


@pytest.mark.parametrize("contender", STORING, ids=lambda one: one.name)
def test_a_contender_does_what_it_is_compared_for(
    contender: Any, emulator_host: str, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each contender that stores events stores a signed one with its data, and refuses one whose signature is wrong."""
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", project)
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator_host)
    signed, forged = encode(envelope(eventId="signed")), encode(envelope(eventId="forged"))

    with serve(contender, emulator_host, tmp_path) as served:
        headers = {**sign(contender, signed), "Content-Type": "application/json"}
        answers = [httpx.post(f"http://{served.host}/", content=body, headers=headers) for body in (signed, forged)]

    events = firestore.Client(project=project).collection("events")
    stored = events.document("signed").get().to_dict() or {}
    assert [answer.status_code for answer in answers] == [200, 400]
    assert stored["data"] == envelope()["event"]["data"]
    assert stored["labels"] == envelope()["labels"]
    assert not events.document("forged").get().exists


def test_the_instant_store_answers_every_write(tmp_path: Path) -> None:
    """A Commit of one write has one result; a BatchWrite has a result and an OK status for each of its writes."""
    host = f"127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "benchmarks.instant_store", str(port), "0"]
    service = "/google.firestore.v1.Firestore"

    with (
        running("instant store", command, log=tmp_path / "log", environ={}, ready=lambda: speaks_http2(host)),
        grpc.insecure_channel(host) as channel,
    ):
        commit = channel.unary_unary(f"{service}/Commit", CommitRequest.serialize, CommitResponse.deserialize)
        batch = channel.unary_unary(
            f"{service}/BatchWrite", BatchWriteRequest.serialize, BatchWriteResponse.deserialize
        )
        committed = commit(CommitRequest(writes=[Write()]))
        written = batch(BatchWriteRequest(writes=[Write(), Write(), Write()]))

    assert len(committed.write_results) == 1
    assert committed.commit_time
    assert len(written.write_results) == 3
    assert [status.code for status in written.status] == [0, 0, 0]


def test_a_ratio_is_computed_within_each_round() -> None:
    """A round that is slow as a whole does not change the ratio; it is None if the other was not measured."""
    ours, other, third = ([{"cpu": value * slow} for slow in (1, 9, 1)] for value in (2.0, 3.0, 1.0))

    assert ratio(ours, [other, third], "cpu") == 0.5
    assert ratio(ours, [other, []], "cpu") is None


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--contenders", "nobody"], "--contenders"),
        (["--store", "disk"], "--store"),
        (["--concurrency", "1,0"], "--concurrency"),
        (["--events", "many"], "--events"),
        (["--json", "/no/such/folder/file"], "--json"),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one line names the argument."""
    status = main(arguments)

    lines = capsys.readouterr().err.splitlines()
    assert status == 2
    assert len(lines) == 1
    assert complaint in lines[0]
