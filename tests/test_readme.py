"""What the README shows is true: its queries find what they say, its settings and outcomes are the code's."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.cloud import firestore

from tests.conftest import ROOT, Endpoint
from tests.events import encode, envelope

README = (ROOT / "README.md").read_text()
FRIDGE = "projects/bhmh0143iktucae701vg/devices/bchonod7rihjtvdmd2vg"
OTHER = "projects/bhmh0143iktucae701vg/devices/other"


def test_queries_find_what_they_say(
    endpoint: Endpoint, database: firestore.Client, project: str, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The README's Python, run as it stands, finds one device's events, a type's, and the newest of each device."""
    assert database.project == project
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", project)
    now = datetime.now(UTC)
    for event_id, target, event_type, hours in [
        ("a", FRIDGE, "temperature", 30), ("b", FRIDGE, "temperature", 2), ("c", FRIDGE, "touch", 1),
        ("d", OTHER, "temperature", 3), ("e", OTHER, "temperature", 48),
    ]:  # fmt: skip
        at = (now - timedelta(hours=hours)).isoformat().replace("+00:00", "Z")
        endpoint.deliver(encode(envelope(event_type, eventId=event_id, targetName=target, timestamp=at)))
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict[str, Any] = {}
    capfd.readouterr()

    exec(code, names)  # noqa: S102 - the README's own

    def ids(documents: Any) -> list[str]:
        return [document.id for document in documents]

    assert len(capfd.readouterr().out.splitlines()) == 3
    assert ids(names["of_device"](FRIDGE)) == ["a", "b", "c"]
    assert ids(names["of_type_since"]("temperature", names["yesterday"])) == ["d", "b"]
    newest = names["newest_of_each_device"](names["yesterday"])
    assert {target: document.id for target, document in newest.items()} == {FRIDGE: "c", OTHER: "d"}


def test_settings_are_the_codes() -> None:
    """Each variable of the README's table is read by the function, and the other way round."""
    (section,) = re.findall(r"\n## Settings\n(.*?)\n## ", README, re.DOTALL)

    documented = set(re.findall(r"^\| `([A-Z_]+)`", section, re.MULTILINE)) | set(
        re.findall(r", `([A-Z_]+)` \|", section)
    )

    code = (ROOT / "receiver" / "settings.py").read_text()
    assert documented == set(re.findall(r'"([A-Z]+_[A-Z_]+)"', code)) - {"K_SERVICE"}


def test_outcomes_are_the_codes() -> None:
    """Each outcome that the README names is one that the code logs, and the other way round."""
    (section,) = re.findall(r"`outcome` \((.*?)\)", README, re.DOTALL)

    code = (ROOT / "receiver" / "errors.py").read_text() + (ROOT / "receiver" / "log.py").read_text()

    documented = set(re.findall(r"`(\w+)`", section))
    assert documented == {name for name in documented if f'"{name}"' in code}
    assert len(documented) == 8


def test_files_that_the_readme_names_are_there() -> None:
    """Each path in the table of the tree exists."""
    (section,) = re.findall(r"\n## The tree\n(.*)", README, re.DOTALL)

    paths = re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)

    assert len(paths) > 4
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_scripts_explain_themselves(run_script: Callable[..., str]) -> None:
    """Each script that the README names answers --help with examples."""
    scripts = sorted(set(re.findall(r"\./(\w+\.sh)", README)))

    helps = {script: run_script(script, "--help") for script in scripts}

    assert {"run.sh", "test.sh"} <= set(helps)
    assert [script for script, text in helps.items() if "example" not in text.lower()] == []
