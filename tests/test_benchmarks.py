"""The benchmark: it runs end to end, its contenders do what they are compared for, and its figures add up."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.cloud import firestore
from google.cloud.firestore_v1.types import BatchWriteRequest, BatchWriteResponse, CommitRequest, CommitResponse, Write

from benchmarks.__main__ import main
from benchmarks.contenders import CONTENDERS
from benchmarks.plot import draw
from benchmarks.report import ratio
from benchmarks.run import Side, serve
from local.emulator import speaks_http2
from local.processes import ROOT, free_port, running
from tests import signing
from tests.events import encode, envelope

STORING = [one for one in CONTENDERS.values() if one.kind in ("asgi", "wsgi") and not one.name.startswith("empty")]
FIGURES = ("events", "rate", "p50", "p99", "cpu", "client_cpu", "client_share")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any], ET.Element]:
    """Return the terminal output, the raw figures and the plot of a small run."""
    folder = tmp_path_factory.mktemp("benchmark")
    command = [sys.executable, "-m", "benchmarks", "--quick", "--contenders", "ours,empty_async"]
    command += ["--soak-events", "300", "--json", str(folder / "bench.json"), "--plot", str(folder / "bench.svg")]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    plot = ET.fromstring((folder / "bench.svg").read_text())  # noqa: S314 - our own file
    return finished.stdout, json.loads((folder / "bench.json").read_text()), plot


def test_every_request_of_a_run_is_measured(quick: tuple[str, dict[str, Any], ET.Element]) -> None:
    """Each contender has all figures at each concurrency, over exactly the events that were asked for."""
    _, figures, _ = quick

    samples = {(one["contender"], one["concurrency"]): one for one in figures["samples"]}

    assert set(samples) == {(name, level) for name in ("ours", "empty_async") for level in (1, 16)}
    for one in samples.values():
        assert one["events"] == 200
        assert all(one[name] >= 0 for name in FIGURES)
        assert 0 < one["p50"] <= one["p99"]
    assert samples["ours", 16]["cpu"] > 0


def test_a_run_tells_start_memory_imports_and_soak(quick: tuple[str, dict[str, Any], ET.Element]) -> None:
    """Beside the load there are the time to the first 200, memory, imports by package, and the soak's slices."""
    output, figures, _ = quick

    for name in ("ours", "empty_async"):
        (start,) = (one for one in figures["starts"] if one["contender"] == name)
        (memory,) = (one for one in figures["memory"] if one["contender"] == name)
        (imports,) = (one for one in figures["imports"] if one["contender"] == name)
        assert start["ms"] > 0
        assert 10 < memory["rest"] <= memory["peak"]
        assert imports["ms"] >= sum(imports["packages"].values()) > 0
        assert name in output
    assert [one["process"] for one in figures["soak"]] == ["ageing", "fresh", "old"]
    assert {one["events"] for one in figures["soak"]} == {300}
    assert "old process / fresh process" in output


def test_the_plot_shows_each_contender(quick: tuple[str, dict[str, Any], ET.Element]) -> None:
    """The plot is well-formed SVG with a line for throughput, p50 and p99 of each contender, and a legend."""
    _, _, plot = quick

    lines = plot.findall("{http://www.w3.org/2000/svg}polyline")
    words = [text.text for text in plot.findall("{http://www.w3.org/2000/svg}text")]

    assert len(lines) == 6
    assert all(len((line.get("points") or "").split()) == 2 for line in lines)
    assert {"ours", "empty_async"} <= set(words)


def test_a_plot_of_a_single_concurrency_is_drawn() -> None:
    """One level of concurrency, which has no extent, still makes a plot."""
    sample = {"store": "20ms", "contender": "ours", "concurrency": 80, "rate": 1000.0, "p50": 1.0, "p99": 10.0}

    plot = ET.fromstring(draw({"samples": [sample]}))  # noqa: S314 - our own text

    assert len(plot.findall("{http://www.w3.org/2000/svg}circle")) == 3


@pytest.mark.parametrize("contender", STORING, ids=lambda one: one.name)
def test_a_contender_does_what_it_is_compared_for(
    contender: Any, emulator_host: str, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is compared stores a signed event, with its data, and refuses a body that the signature is not for."""
    if contender.missing:
        pytest.skip(f"needs {contender.missing}")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", project)
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", emulator_host)
    signed, forged = encode(envelope(eventId="signed")), encode(envelope(eventId="forged"))

    with serve(contender, Side("emulator", emulator_host, tmp_path)) as served:
        headers = {"X-Dt-Signature": signing.sign(signed), "Content-Type": "application/json"}
        answers = [httpx.post(f"http://{served.host}/", content=body, headers=headers) for body in (signed, forged)]

    events = firestore.Client(project=project).collection("events")
    stored = events.document("signed").get().to_dict() or {}
    assert [answer.status_code for answer in answers] == [200, 400]
    assert stored["data"] == envelope()["event"]["data"]
    assert stored["labels"] == envelope()["labels"]
    assert not events.document("forged").get().exists


def test_the_stand_in_answers_as_many_writes_as_it_was_sent(tmp_path: Path) -> None:
    """A Commit of one write has one result; a BatchWrite has a result and an OK status for each of its writes."""
    host = f"127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "benchmarks.instant", f"--port={port}"]
    service = "/google.firestore.v1.Firestore"

    with (
        running("stand-in", command, log=tmp_path / "log", environ={}, ready=lambda: speaks_http2(host)),
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


def test_a_ratio_is_made_round_by_round() -> None:
    """A disturbance that slows a whole round leaves the ratio as it is; with nobody to compare with there is none."""
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
    """What cannot be measured is said in one line that names the argument."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    said = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2
    assert len(said) == 1
    assert complaint in said[0]
