"""The viewer in a real browser, against a real Firestore."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from google.cloud import firestore
from playwright.sync_api import Browser, Page, expect

import local.viewer
from local.processes import Process, accepts, free_port, running
from tests.browser import find_browser, running_browser
from tests.conftest import Endpoint
from tests.events import encode, envelope
from tests.viewer import running_viewer, store

PATIENCE = 20_000  # milliseconds until a test that waits has failed
OPTIONS = """(() => {
  const element = document.querySelector(".chart");
  return (element && getElement(Number(element.id.slice(1)))?.chart?.getOption()) ?? {};
})()"""  # of the chart, in JavaScript


class Viewer(NamedTuple):
    """A running viewer: its address, and the settings of the function whose documents it shows."""

    url: str
    environ: dict[str, str]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Return a browser; without Chromium and Chrome skip the test, but fail in CI."""
    path = find_browser()
    if path is None:
        assert os.environ.get("CI") != "true", "Chromium or Chrome is missing"
        pytest.skip("no Chromium or Chrome: apt-get install chromium")
    with running_browser(path) as running_one:
        yield running_one


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """Return a page of the browser, in which no script may fail."""
    errors: list[str] = []
    context = browser.new_context(timezone_id="Asia/Tokyo", locale="en-GB", accept_downloads=True)
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    yield opened
    context.close()
    assert errors == []


@pytest.fixture(scope="module")
def viewer(firestore_host: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """Return a viewer of a project of its own, whose devices have documents."""
    environ = {
        "FIRESTORE_EMULATOR_HOST": firestore_host,
        "GOOGLE_CLOUD_PROJECT": f"demo-{uuid.uuid4().hex[:12]}",
        "DEVICES_COLLECTION": "devices",
    }
    with running_viewer(tmp_path_factory.mktemp("viewer") / "log", **environ) as url:
        yield Viewer(url, environ)


@pytest.fixture
def function(viewer: Viewer, start: Callable[..., Endpoint]) -> Endpoint:
    """Return the function that writes what the viewer shows."""
    return start(**viewer.environ)


def body_of(name: str, event_type: str = "temperature", at: datetime | None = None, **changes: Any) -> dict[str, Any]:
    """Return the body of an event of a device of this name, by default of now."""
    time = (at or datetime.now(UTC)).isoformat()
    body = envelope(event_type, targetName=f"projects/p/devices/{name}", timestamp=time, **changes)
    return body | {"labels": {"name": name}}


def temperature(value: float, **more: Any) -> dict[str, Any]:
    """Return the data of a temperature."""
    return {"temperature": {"value": value, **more}}


def history(viewer: Viewer, name: str) -> str:
    """Return the address of a sensor's history."""
    return f"{viewer.url}history?sensor=projects/p/devices/{name}"


def test_a_delivered_event_appears(viewer: Viewer, function: Endpoint, page: Page) -> None:
    """A delivered event appears on the open page without a reload, and the next one replaces its value."""
    page.goto(viewer.url)
    function.deliver(encode(body_of("Oven", data=temperature(181.5))))

    row = page.locator(".sensor", has_text="Oven")
    expect(row).to_contain_text("181.5 °C", timeout=PATIENCE)
    expect(row).to_contain_text("just now")

    function.deliver(encode(body_of("Oven", data=temperature(182.5))))
    expect(row).to_contain_text("182.5 °C", timeout=PATIENCE)
    expect(page.locator(".foot")).to_contain_text("documents read")


def test_a_label_is_text(viewer: Viewer, function: Endpoint, page: Page) -> None:
    """Markup in a label is shown as it is, on each page, and does not become a part of the page."""
    name = "<img src=x onerror=alert(1)>{{ 7 * 7 }}"
    body = body_of("markup", data={"motion": {"state": name}}, eventType="motion") | {"labels": {"name": name}}
    function.deliver(encode(body))

    for path in ("", "history?sensor=projects/p/devices/markup", "deliveries"):
        page.goto(viewer.url + path)
        expect(page.get_by_text(name).first).to_be_visible(timeout=PATIENCE)
        assert page.locator("img[src=x]").count() == 0


def test_a_narrow_page_shows_all(viewer: Viewer, browser: Browser) -> None:
    """On a page of 390 pixels no text lies outside, however long the name of a sensor or its id is."""
    body = body_of("d" * 60, data=temperature(4)) | {"labels": {"name": "Fridge" * 20}}
    _store(viewer, [body])
    narrow = browser.new_page(viewport={"width": 390, "height": 844})

    for path in ("", f"history?sensor={body['event']['targetName']}", "deliveries"):
        narrow.goto(viewer.url + path)
        expect(narrow.get_by_text("Fridge" * 20).first).to_be_visible(timeout=PATIENCE)
        outside = "[...document.querySelectorAll('main *')].filter(each => each.getBoundingClientRect().right > 390)"
        assert narrow.evaluate(f"{outside}.map(each => each.className)") == []
    narrow.close()


@pytest.mark.parametrize("path", ["", "deliveries"])
def test_nothing_false_is_shown_at_first(viewer: Viewer, page: Page, path: str) -> None:
    """Before the page is connected, it does not say that there are no sensors or no events."""
    page.route_web_socket(re.compile(".*"), lambda connection: connection.close())

    page.goto(viewer.url + path)

    expect(page.get_by_text("documents read")).to_be_visible()
    for text in ("No sensor has sent", "No sensor matches", "No event is stored"):
        assert not page.get_by_text(text).is_visible(), text


def test_a_silent_sensor_is_marked(viewer: Viewer, function: Endpoint, page: Page) -> None:
    """A sensor whose last event is older than an hour is marked as silent; another one is not."""
    function.deliver(encode(body_of("Attic", at=datetime.now(UTC) - timedelta(hours=2, minutes=5))))
    function.deliver(encode(body_of("Hall", at=datetime.now(UTC) - timedelta(minutes=55))))

    page.goto(viewer.url)

    expect(page.locator(".sensor", has_text="Attic").locator(".mark")).to_have_text("silent for 2 h", timeout=PATIENCE)
    expect(page.locator(".sensor", has_text="Hall")).to_contain_text("55 min ago", timeout=PATIENCE)
    expect(page.locator(".sensor", has_text="Hall").locator(".mark")).to_have_count(0)


def test_sensors_are_searched(viewer: Viewer, function: Endpoint, page: Page) -> None:
    """A search shows only the sensors that match, and says when none does."""
    for name in ("Needle", "Haystack"):
        function.deliver(encode(body_of(name)))
    page.goto(viewer.url)
    search = page.get_by_placeholder("Search by name or id")

    search.fill("nEEd")

    expect(page.locator(".sensor")).to_have_count(1, timeout=PATIENCE)
    expect(page.locator(".sensor")).to_contain_text("Needle")
    search.fill("no such sensor")
    expect(page.get_by_text("No sensor matches.")).to_be_visible(timeout=PATIENCE)


def test_the_chart_has_its_points(viewer: Viewer, page: Page) -> None:
    """The chart has a point for each sample, a back-filled one at its own time; a click on a row shows the JSON."""
    now = datetime.now(UTC)
    times = [now - timedelta(minutes=minutes) for minutes in (50, 30, 10)]
    old = [{"value": value, "sampleTime": at.isoformat()} for value, at in zip((4, 5), times[:2], strict=True)]
    bodies = [
        body_of("Fridge", at=times[2], data=temperature(6)),
        body_of("Fridge", at=now, data=temperature(5, samples=old, isBackfilled=True)),
    ]
    _store(viewer, bodies)

    page.goto(history(viewer, "Fridge") + "&hours=1")

    page.wait_for_function(f"() => {OPTIONS}.series?.[0]?.data.length === 3")
    points = page.evaluate(f"{OPTIONS}.series[0].data")
    assert points == [[_ms(at), value] for at, value in zip(times, (4, 5, 6), strict=True)]
    page.locator("tbody tr", has_text="6 °C").click()
    shown = json.loads(page.locator("pre.json").inner_text())
    assert shown["eventId"] == bodies[0]["event"]["eventId"]


def test_states_are_bands(viewer: Viewer, page: Page) -> None:
    """A state lasts until the next event; the one before the span begins with the span; CSV has the same bands."""
    now = datetime.now(UTC)
    states = [("OPEN", 90), ("CLOSED", 40), ("OPEN", 20)]
    _store(
        viewer,
        [
            body_of("Door", "contact", now - timedelta(minutes=minutes), data={"contact": {"state": state}})
            for state, minutes in states
        ],
    )

    page.goto(history(viewer, "Door") + "&hours=1")

    page.wait_for_function(f"() => {OPTIONS}.series?.[0]?.data.length === 3")
    names = page.evaluate(f"{OPTIONS}.series[0].data.map(each => each.name)")
    assert names == ["Open, 20 min", "Closed, 20 min", "Open, 20 min"]
    with page.expect_download() as download:
        page.get_by_text("Download CSV").click()
    lines = download.value.path().read_text().splitlines()
    assert [line.split(",")[2] for line in lines] == ["state", "OPEN", "CLOSED", "OPEN"]
    page.get_by_text("24 h").click()
    page.wait_for_function(f"() => {OPTIONS}.series?.[0]?.data[0]?.name === 'Open, 50 min'")


def test_history_grows(viewer: Viewer, function: Endpoint, page: Page) -> None:
    """A new event is added to the open chart and table, whose times are in the browser's zone."""
    at = datetime.now(UTC) - timedelta(minutes=3)
    _store(viewer, [body_of("Boiler", at=at, data=temperature(60))])
    page.goto(history(viewer, "Boiler"))
    in_tokyo = (at + timedelta(hours=9)).strftime("%d/%m/%Y, %H:%M:%S")
    expect(page.locator("tbody tr").first).to_contain_text(in_tokyo, timeout=PATIENCE)

    function.deliver(encode(body_of("Boiler", data=temperature(61))))

    expect(page.locator("tbody tr").first).to_contain_text("61 °C", timeout=PATIENCE)
    page.wait_for_function(f"() => {OPTIONS}.series?.[0]?.data.length === 2")


def test_the_quarantine_shows_its_reason(viewer: Viewer, function: Endpoint, page: Page) -> None:
    """The page Deliveries shows an event that was refused while it is open: reason and body; and the latest events."""
    page.goto(viewer.url + "deliveries")
    function.deliver(b'{"event": {"eventId": "a/b"}}')
    function.deliver(encode(body_of("Delivered", data=temperature(1.25))))

    row = page.locator(".quarantine tbody tr")
    expect(row).to_contain_text("no eventId that is a valid document key", timeout=PATIENCE)
    expect(page.locator(".latest tbody tr", has_text="Delivered")).to_contain_text("1.25 °C", timeout=PATIENCE)
    row.click()
    expect(page.locator("pre.json")).to_have_text('{"event": {"eventId": "a/b"}}', timeout=PATIENCE)


def test_only_this_machine_is_asked(viewer: Viewer, page: Page) -> None:
    """No page loads anything from elsewhere: scripts, styles, fonts and pictures come from the viewer."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda one: asked.append(one.url.replace("ws://", "http://")))

    for path in ("", "history?sensor=projects/p/devices/Fridge", "deliveries"):
        page.goto(viewer.url + path)
        expect(page.locator(".foot")).to_contain_text("documents read", timeout=PATIENCE)
        page.wait_for_load_state("networkidle")

    assert len(asked) > 10
    assert [url for url in asked if not url.startswith((viewer.url, "data:", "blob:"))] == []


def _embedded(port: int, folder: Path) -> AbstractContextManager[Process]:
    command = [sys.executable, "-m", "local.embedded", f"--port={port}", f"--file={folder / 'store.sqlite3'}"]
    return running(
        "The store", command, log=folder / "store.log", environ=dict(os.environ), ready=lambda: accepts(port)
    )


def test_the_store_goes_away_and_comes_back(tmp_path: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Firestore the page says so and shows what it knows; it says what to do where nothing is stored."""
    port = free_port()
    environ = {"FIRESTORE_EMULATOR_HOST": f"127.0.0.1:{port}", "GOOGLE_CLOUD_PROJECT": "demo-away"}
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", environ["FIRESTORE_EMULATOR_HOST"])

    with running_viewer(tmp_path / "log", **environ) as url:
        page.goto(url)
        banner = page.locator(".banner")
        expect(banner).to_contain_text("Firestore does not answer", timeout=PATIENCE)
        with _embedded(port, tmp_path):
            expect(banner).to_be_hidden(timeout=PATIENCE)
            expect(page.locator(".empty").first).to_contain_text("python -m simulator send temperature")
            store(firestore.Client(project="demo-away"), [body_of("Freezer", data=temperature(-18))])
            expect(page.locator(".sensor")).to_contain_text("-18 °C", timeout=PATIENCE)
        expect(banner).to_contain_text("Firestore does not answer", timeout=PATIENCE)
        expect(page.locator(".sensor")).to_contain_text("-18 °C")
        with _embedded(port, tmp_path):
            expect(banner).to_be_hidden(timeout=PATIENCE)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:{port}"}, 200),
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "127.0.0.1:{port}", "Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Host": "evil.example:{port}"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "["}, 403),
        ({"Host": "127.0.0.1:{port}", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1:{port}", "Origin": "http://127.0.0.1:1"}, 403),
        ({"Host": "127.0.0.1:{port}", "Origin": "null"}, 403),
    ],
    ids=str,
)
def test_foreign_hosts_and_origins_are_refused(viewer: Viewer, headers: dict[str, str], status: int) -> None:
    """A request and a WebSocket with another Host or Origin than this machine's are answered with 403."""
    port = httpx.URL(viewer.url).port or 0
    given = {name: value.format(port=port) for name, value in headers.items()}

    assert _status(port, "/", given) == status
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    upgrade["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    assert _status(port, path, given | upgrade) == (101 if status == 200 else 403)


def _status(port: int, path: str, headers: dict[str, str]) -> int:
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return int(connection.recv(4096).split()[1])


def test_it_listens_on_the_loopback_interface_only(viewer: Viewer) -> None:
    """No other address of the machine has the page."""
    port = httpx.URL(viewer.url).port or 0

    addresses = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if " 0A " in line]

    assert [address for address in addresses if address.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


def test_run_starts_the_viewer(tmp_path: Path) -> None:
    """`./run.sh` prints the viewer's address; `python -m viewer` finds the system until it ends."""
    output, state = tmp_path / "output", tmp_path / "state"
    command = [sys.executable, "-m", "local", "--store=embedded", f"--port={free_port()}", f"--state={state}"]

    with running("The system", command, log=output, environ=_clean(), ready=lambda: "TIME" in output.read_text()):
        (url,) = re.findall(r"^Viewer +(http://127\.0\.0\.1:\d+/)$", output.read_text(), re.MULTILINE)
        settings = json.loads((state / "settings.json").read_text())
        until = time.monotonic() + PATIENCE / 1000
        while not accepts(httpx.URL(url).port or 0) and time.monotonic() < until:
            time.sleep(0.1)
        answer = httpx.get(url)

    assert "Sensor events" in answer.text
    assert settings["DEVICES_COLLECTION"] == "devices"
    assert settings["FIRESTORE_EMULATOR_HOST"].startswith("127.0.0.1:")
    assert not (state / "settings.json").exists()


@pytest.mark.usefixtures("browser")  # which finds one, or skips the test
def test_the_measurement_runs() -> None:
    """The measurement of the viewer's speed opens each page, and prints its figures."""
    command = [sys.executable, "-m", "tests.viewer_size", "--devices=60", "--events=100", "--rounds=1"]

    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=_clean())

    assert process.returncode == 0, process.stderr
    figures = json.loads(process.stdout)
    assert list(figures) == ["firstSensors", "allSensors", "secondPage", "history", "deliveries", "memoryMiB"]
    assert min(figures.values()) > 0


def test_without_nicegui_one_line_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NiceGUI the system runs without a viewer, and one line names what is missing."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said: list[str] = []

    with local.viewer.running_viewer(tmp_path, {}, said.append) as url:
        assert url is None

    assert len(said) == 1
    assert "NiceGUI is missing" in said[0]


def _clean() -> dict[str, str]:
    unset = ("FIRESTORE_EMULATOR_HOST", "DT_SIGNATURE_SECRET")
    return {name: value for name, value in os.environ.items() if name not in unset and not name.startswith("PYTEST")}


def _store(viewer: Viewer, bodies: list[dict[str, Any]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", viewer.environ["FIRESTORE_EMULATOR_HOST"])
        store(firestore.Client(project=viewer.environ["GOOGLE_CLOUD_PROJECT"]), bodies)


def _ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)
