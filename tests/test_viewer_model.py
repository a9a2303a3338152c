"""The viewer without a browser: sensors, charts and CSV from documents, its queries, and its command line."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.events import DATA, envelope
from viewer import chart
from viewer.cli import _source, main
from viewer.connection import Source
from viewer.model import Band, Line, Sensors, ago, bands, lines, read_event, to_csv, type_name, value_of
from viewer.queries import EPOCH
from viewer.settings import LOCAL_SYSTEM

NOW = datetime(2026, 5, 16, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
TARGET = "projects/p/devices/d"


def document(event_type: str = "temperature", at: Any = NOW, data: Any = None, **changes: Any) -> dict[str, Any]:
    """Return the document of an event."""
    body = envelope(event_type)
    fields: dict[str, Any] = body.pop("event") | body
    return fields | {"timestamp": at, "data": DATA.get(event_type) if data is None else data} | changes


def temperature(value: Any, **more: Any) -> dict[str, Any]:
    """Return the data of a temperature."""
    return {"temperature": {"value": value, **more}}


def sensors_of(*documents: dict[str, Any]) -> Sensors:
    """Return the sensors of events whose ids rise in their order."""
    found = Sensors()
    for number, each in enumerate(documents):
        found.add_event(read_event(f"e{number}", each))
    return found


class TestSensors:
    """The newest state of each device."""

    def test_the_newest_event_counts_in_any_order(self) -> None:
        """An older event that comes later changes neither the value nor the time; of the same time, the id decides."""
        old, new = document(at=NOW - HOUR, data=temperature(1)), document(data=temperature(2))

        for found in (sensors_of(old, new, old), sensors_of(new, old), sensors_of(document(data=temperature(1)), new)):
            (sensor,) = found.by_target.values()
            assert sensor.values() == [("temperature", "2 °C")]
            assert sensor.last_seen == NOW

    def test_signal_and_battery_are_no_values(self) -> None:
        """Signal strength and battery are apart; values come newest first, a touch last."""
        kinds = ["touch", "networkStatus", "batteryStatus", "humidity", "labelsChanged"]

        (sensor,) = sensors_of(*map(document, kinds)).by_target.values()

        assert (sensor.signal, sensor.battery) == (45, 100)
        assert sensor.values() == [("humidity", "17 %RH, 22.45 °C"), ("touch", "Touched")]
        assert sensor.types()[:2] == ["humidity", "touch"]

    def test_no_signal_is_a_signal(self) -> None:
        """A signal strength of 0 % is shown, and is the weakest."""
        found = sensors_of(document("networkStatus", data={"networkStatus": {"signalStrength": 0}}))
        (sensor,) = found.by_target.values()

        assert sensor.signal == 0

    def test_a_sensor_is_silent_after_an_hour(self) -> None:
        """A sensor is silent if its last event is older than an hour."""
        (sensor,) = sensors_of(document()).by_target.values()

        assert not sensor.is_silent(NOW + HOUR)
        assert sensor.is_silent(NOW + HOUR + timedelta(seconds=1))

    def test_the_document_of_a_device_is_the_same_as_its_events(self) -> None:
        """What the function keeps in DEVICES_COLLECTION gives the same sensor as the events themselves."""
        event = document()
        newest = {"temperature": {"eventId": "e0", "timestamp": NOW, "data": event["data"]}}
        kept = {name: event[name] for name in ("targetName", "labels", "metadata")}
        found = Sensors()

        found.add_device(kept | {"lastSeen": NOW, "newest": newest})

        assert found.by_target == sensors_of(event).by_target

    @pytest.mark.parametrize(
        "changes",
        [{"at": "yesterday"}, {"targetName": 7}, {"targetName": "projects/p"}, {"targetName": None}],
    )
    def test_an_event_without_device_or_time_is_no_sensor(self, changes: dict[str, Any]) -> None:
        """An event without a device, or whose timestamp is not a time, makes no sensor."""
        assert sensors_of(document(**changes)).by_target == {}

    @pytest.mark.parametrize(
        "odd", [None, 1, "text", [], [1], {}, {"temperature": None}, {"temperature": {"value": {}}}]
    )
    def test_odd_fields_do_no_harm(self, odd: Any) -> None:
        """Any value of any field is shown in some way."""
        event = document(labels=odd, metadata=odd) | {"data": odd}
        found = sensors_of(event)
        found.add_device({"newest": odd, "targetName": TARGET})
        found.add_device({"newest": {"temperature": odd}, "targetName": TARGET})

        (sensor,) = found.by_target.values()
        assert sensor.name
        assert lines([read_event("e", event)], "temperature", EPOCH) == []

    def test_search_filter_and_order(self) -> None:
        """A search finds names and ids in any case; the order is by name, time, battery or signal."""
        names = {"Beer fridge": 3, "attic": 1, "Cellar": 2}
        found = Sensors()
        for name, hours in names.items():
            for kind in ("temperature", "batteryStatus") if name == "Cellar" else ("temperature",):
                shown = document(
                    kind, NOW - hours * HOUR, labels={"name": name}, targetName=f"projects/p/devices/x{hours}"
                )
                found.add_event(read_event(name + kind, shown | {"metadata": {"deviceType": name[:1]}}))

        def selected(text: str = "", kind: str = "", order: str = "name") -> list[str]:
            return [sensor.name for sensor in found.select(text, kind, order)]

        assert selected() == ["attic", "Beer fridge", "Cellar"]
        assert selected("FRIDGE ") == ["Beer fridge"]
        assert selected("devices/x1") == ["attic"]
        assert selected(kind="C") == ["Cellar"]
        assert selected(order="seen") == ["attic", "Cellar", "Beer fridge"]
        assert selected(order="silent") == ["Beer fridge", "Cellar", "attic"]
        assert selected(order="battery") == ["Cellar", "attic", "Beer fridge"]
        assert selected(order="signal") == ["attic", "Beer fridge", "Cellar"]
        assert found.types() == ["B", "C", "a"]


class TestHistory:
    """Lines and bands."""

    def test_samples_are_in_their_place(self) -> None:
        """Each sample is a point at its own time, once, in order; one before the span is left out."""
        at = [NOW - minutes * timedelta(minutes=1) for minutes in (90, 50, 20)]
        samples = [{"value": number, "sampleTime": time.isoformat()} for number, time in enumerate(at)]
        events = [
            read_event("new", document(at=NOW, data=temperature(9))),
            read_event("old", document(at=NOW, data=temperature(2, samples=samples, isBackfilled=True))),
            read_event("again", document(at=NOW, data=temperature(2, samples=samples[2:]))),
        ]

        (line,) = lines(events, "temperature", NOW - HOUR)

        assert line == Line("Temperature", "°C", [(at[1], 1), (at[2], 2), (NOW, 9)])

    def test_each_quantity_is_a_line(self) -> None:
        """Humidity has two lines; an unknown type has one for each number in its data."""
        both = document("humidity", data={"humidity": {"temperature": 1, "relativeHumidity": 2}})
        wind = document("wind", data={"wind": {"speed": 3.5, "calm": False, "from": "N"}})

        humidity = lines([read_event("e", both)], "humidity", EPOCH)
        unknown = lines([read_event("e", wind)], "wind", EPOCH)

        assert [(line.label, line.points) for line in humidity] == [
            ("Humidity", [(NOW, 2)]),
            ("Temperature", [(NOW, 1)]),
        ]
        assert unknown == [Line("speed", "", [(NOW, 3.5)])]

    def test_bands_reach_to_the_next_state(self) -> None:
        """A state lasts until a different one; the one before the span begins with it, the last one ends now."""
        states = [("OPEN", 90), ("OPEN", 50), ("CLOSED", 40), ("CLOSED", 30), ("OPEN", 10)]
        events = [
            read_event(
                f"{minutes}", document("contact", NOW - timedelta(minutes=minutes), {"contact": {"state": state}})
            )
            for state, minutes in reversed(states)
        ]

        found = bands(events, "contact", NOW - HOUR, NOW)

        minutes = [
            ((NOW - band.start) / timedelta(minutes=1), (NOW - band.end) / timedelta(minutes=1)) for band in found
        ]
        assert minutes == [(60, 40), (40, 10), (10, 0)]
        assert [band.state for band in found] == ["OPEN", "CLOSED", "OPEN"]

    def test_a_touch_lasts_no_time(self) -> None:
        """Each touch in the span is a band without length."""
        events = [read_event(f"{hours}", document("touch", NOW - hours * HOUR)) for hours in (0, 1, 3)]

        found = bands(events, "touch", NOW - 2 * HOUR, NOW)

        assert [(band.start, band.end) for band in found] == [(NOW - HOUR, NOW - HOUR), (NOW, NOW)]

    @pytest.mark.parametrize("event_type", sorted(DATA))
    def test_each_type_has_a_value(self, event_type: str) -> None:
        """Each of DT's types has a value to show, and all but two of them a chart."""
        event = read_event("e", document(event_type, datetime(2026, 5, 16, 8, 13, tzinfo=UTC)))

        found = lines([event], event_type, EPOCH) or bands([event], event_type, EPOCH, NOW)

        assert event.value
        assert "{" not in event.value
        assert bool(found) == (event_type not in ("labelsChanged", "ethernetStatus"))

    def test_charts_hold_milliseconds(self) -> None:
        """A chart of lines has an axis for each; a chart of bands has a row for each state."""
        of_lines = chart.of_lines([Line("T", "°C", [(NOW, 1)]), Line("H", "%", [(NOW, 2)])], NOW - HOUR, NOW)
        of_bands = chart.of_bands([Band(NOW - 2 * HOUR, NOW, "B"), Band(NOW, NOW, "A")], NOW - HOUR, NOW)

        ms = round(NOW.timestamp() * 1000)
        assert [axis["position"] for axis in of_lines["yAxis"]] == ["left", "right"]
        assert [series["data"] for series in of_lines["series"]] == [[[ms, 1]], [[ms, 2]]]
        assert [each["name"] for each in of_bands["series"][0]["data"]] == ["B, 2 h 0 min", "A, 0 min"]
        assert of_bands["yAxis"]["data"] == ["A", "B"]


class TestText:
    """What is written."""

    def test_csv(self) -> None:
        """Lines share their times; a state that a spreadsheet would run as a formula is text."""
        both = [Line("T", "°C", [(NOW, 1)]), Line("H", "", [(NOW - HOUR, 3), (NOW, 2)])]

        assert to_csv(both).splitlines() == ["time,T (°C),H", "2026-05-16T11:00:00Z,,3", "2026-05-16T12:00:00Z,1,2"]
        assert to_csv([Band(NOW, NOW, "=cmd()")]).splitlines()[1].endswith(",'=cmd()")
        assert to_csv([]).strip() == "time"

    def test_the_last_time_of_all(self) -> None:
        """An event of the year 9999 is read like any other."""
        last = datetime.max.replace(tzinfo=UTC)

        assert read_event("e", document(at=last)).at == last

    @pytest.mark.parametrize(
        ("seconds", "text"),
        [(-5, "just now"), (59, "just now"), (60, "1 min ago"), (7199, "1 h ago"), (86_400 * 3, "3 d ago")],
    )
    def test_ages(self, seconds: int, text: str) -> None:
        """An age is in the largest whole unit."""
        assert ago(NOW - timedelta(seconds=seconds), NOW) == text

    def test_names(self) -> None:
        """Identifiers become words; data of an unknown shape stays JSON."""
        assert type_name("deskOccupancy") == "Desk occupancy"
        assert type_name("ccon") == "Cloud Connector"
        assert type_name("") == "Unknown"
        assert value_of("motion", {"motion": {"state": "NO_MOTION_DETECTED"}}) == "No motion detected"
        assert value_of("x", {"a": 1}) == '{"a": 1}'


class TestCommandLine:
    """Which Firestore is read."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Return an empty folder, in which the command runs without settings; the environment is restored."""
        monkeypatch.chdir(tmp_path)
        for name in ("GOOGLE_CLOUD_PROJECT", "FIRESTORE_EMULATOR_HOST", "EVENTS_COLLECTION", "DEVICES_COLLECTION"):
            monkeypatch.setenv(name, "")
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        return tmp_path

    def test_the_local_system_is_found(self, folder: Path) -> None:
        """Without a project, the settings are those of the system that ./run.sh runs in this folder."""
        file = folder / LOCAL_SYSTEM
        file.parent.mkdir()
        file.write_text(json.dumps({"GOOGLE_CLOUD_PROJECT": "demo-l", "FIRESTORE_EMULATOR_HOST": "127.0.0.1:1",
                                    "DEVICES_COLLECTION": "devices"}))  # fmt: skip

        found = _source(dict.fromkeys(("project", "database", "collection", "devices")))

        assert found == Source("demo-l", "(default)", "events", "devices")
        assert str(found) == "127.0.0.1:1, project demo-l, collection events"

    def test_options_win(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An option wins over the environment."""
        monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", "127.0.0.1:1")
        monkeypatch.setenv("EVENTS_COLLECTION", "other")

        found = _source({"project": "p", "database": "base", "collection": "mine", "devices": None})

        assert found == Source("p", "base", "mine", None)
        assert "database base" in str(found)

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            ([], "start ./run.sh, or name a project with --project"),
            (["--project", "p", "--collection", "a/b"], "--collection or EVENTS_COLLECTION must be"),
            (["--port", "0"], "--port"),
            (["more"], "more"),
        ],
    )
    def test_a_wrong_argument_is_named(
        self, arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """For a wrong argument or setting the exit status is 2, and one line says what to do."""
        assert main(arguments) == 2

        errors = capsys.readouterr().err
        assert text in errors
        assert errors.count("\n") == 1

    def test_missing_credentials_are_named(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Without Google credentials the exit status is 2, and one line says how to get them."""
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing"))

        assert main(["--project", "p"]) == 2
        assert "gcloud auth application-default login" in capsys.readouterr().err

    def test_help_has_examples(self, capsys: pytest.CaptureFixture[str]) -> None:
        """`--help` has examples, in lines of at most 80 columns."""
        assert main(["--help"]) == 0

        shown = capsys.readouterr().out
        assert "python -m viewer --project my-project" in shown
        assert max(map(len, shown.splitlines())) <= 80
