"""README and docs/ agree with the code: queries, commands, options, settings, outcomes, links and paths."""

import csv
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
from google.cloud import firestore

from tests.conftest import ROOT, Endpoint
from tests.events import encode, envelope

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
FRIDGE = "projects/bhmh0143iktucae701vg/devices/bchonod7rihjtvdmd2vg"
OTHER = "projects/bhmh0143iktucae701vg/devices/other"

_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"(\./\w+\.sh|python -m [\w.]+)([^|;&()#`\n]*)")
_VARIABLE = re.compile(r"\$\{?([A-Z][A-Z_]*)")
_ASSIGNED = re.compile(r"(?:^|[\s;])([A-Z][A-Z_]*)=", re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """Return a page's code blocks in a language."""
    return [code for _, found, code in _BLOCK.findall(page.read_text()) if found == language]


def shell_blocks() -> Iterator[tuple[str, str]]:
    """Yield each page's name with each of its shell blocks."""
    for page in PAGES:
        for block in blocks(page, "bash"):
            yield page.name, block


def shell_text(page: Path) -> str:
    """Return all shell of a page, one command a line: its blocks and its inline code."""
    prose = _BLOCK.sub("", page.read_text())
    inline = re.findall(r"`([^`]+)`", prose)
    return "\n".join([*blocks(page, "bash"), *(code.replace("\n", " ") for code in inline)]).replace("\\\n", " ")


def commands() -> set[tuple[str, ...]]:
    """Return the project's commands in README and docs/: script or module, sub-command if any, and options."""
    found = set()
    for page in PAGES:
        for program, rest in _COMMAND.findall(shell_text(page)):
            words = shlex.split(re.split(r"[<>]", rest)[0], comments=True)
            nested = program in ("python -m simulator", "python -m backfill")
            subcommand = takewhile(lambda word: re.fullmatch(r"[a-z]+", word), words) if nested else []
            options = sorted({word.partition("=")[0] for word in words if re.match(r"--[a-z]", word)})
            found.add((" ".join([program, *subcommand]), *options))
    return found


@cache
def help_text(command: str) -> str:
    """Return the output of a command for --help."""
    words = command.split()
    program = [sys.executable, *words[1:]] if words[0] == "python" else words
    done = subprocess.run([*program, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{command} --help: {done.stderr}"
    return done.stdout


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def examples(page: Path) -> Iterator[tuple[str, str]]:
    """Yield each Python block of a page after the last sentence in bold before it."""
    title = ""
    for bold, code in re.findall(
        r"^\*\*(.+?)\.\*\*|^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL
    ):
        title = " ".join(bold.split()) or title
        if code:
            yield title, code


@pytest.fixture
def stored_events(
    start: Callable[..., Endpoint], database: firestore.Client, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Store what `store_events` stores, with the newest states of the devices."""
    store_events(start(DEVICES_COLLECTION="devices"), database, project, monkeypatch)


@pytest.mark.usefixtures("stored_events")
def test_queries_find_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each Python block of data.md prints what the sentence in bold before it says."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    printed: dict[str, list[list[str]]] = {}
    for title, code in examples(ROOT / "docs/data.md"):
        capfd.readouterr()
        exec(code, names)  # noqa: S102 - the page's own code
        printed[title] = [line.split() for line in capfd.readouterr().out.splitlines()]

    def column(title: str, number: int) -> list[str]:
        return [words[number] for words in printed[title]]

    types = {"a": "temperature", "b": "temperature", "c": "touch", "d": "temperature", "e": "temperature"}
    assert column("The newest event of a device, and its newest temperature", 2) == [types["c"], types["b"]]
    assert column("The history of a device in a span, oldest first", 2) == [types["b"], types["c"]]
    of_type = printed["All events of a type since yesterday, and how many they are"]
    assert [words[0] for words in of_type[:-1]] == sorted(words[0] for words in of_type[:-1])
    assert of_type[-1] == ["2", "temperatures", "since", "yesterday"]
    assert len(of_type) == 3
    device, other = FRIDGE.rpartition("/")[2], "other"
    assert sorted(column("The newest state of each device, with `DEVICES_COLLECTION`", 0)) == [device, other]
    assert column("The newest event of each device, without it", 0) == [FRIDGE, OTHER]
    room = printed["A room, by label"]
    assert [words[2] for words in room[:-2]] == [types[key] for key in "cbdae"]
    assert sorted(words[0] for words in room[-2:]) == [device, other]
    assert column("Silent sensors, the longest silence first, with `DEVICES_COLLECTION`", 0) == [other]
    ((*_, reason, body),) = [" ".join(words).partition("b'") for words in printed["The quarantine, newest first"]]
    assert (reason, body) == ("b'", "not JSON'")
    rows = list(csv.reader((tmp_path / "events.csv").read_text().splitlines()))
    assert [row[1] for row in rows] == ["eventType", types["b"], types["c"]]
    names["warn"]({"document": "events/b"})
    assert capfd.readouterr().out.startswith("too warm: {")


@pytest.mark.usefixtures("stored_events")
def test_readme_query_prints_the_newest_events_first(capfd: pytest.CaptureFixture[str]) -> None:
    """The Python block of README prints the newest five events, newest first."""
    capfd.readouterr()
    (code,) = blocks(PAGES[0], "python")

    exec(code, {})  # noqa: S102 - the page's own code

    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == ["touch", "temperature", "temperature", "temperature", "temperature"]
    assert lines == sorted(lines, reverse=True)


def store_events(endpoint: Endpoint, database: firestore.Client, project: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store five events of two devices and a quarantine document in the project that `firestore.Client()` reads."""
    assert database.project == project
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", project)
    now = datetime.now(UTC)
    for event_id, target, event_type, hours in [
        ("a", FRIDGE, "temperature", 30), ("b", FRIDGE, "temperature", 2), ("c", FRIDGE, "touch", 0.5),
        ("d", OTHER, "temperature", 3), ("e", OTHER, "temperature", 48),
    ]:  # fmt: skip
        at = (now - timedelta(hours=hours)).isoformat().replace("+00:00", "Z")
        body = envelope(event_type, eventId=event_id, targetName=target, timestamp=at)
        assert endpoint.deliver(encode(body | {"labels": {"room": "kitchen"}})).status_code == 200
    assert endpoint.deliver(b"not JSON").status_code == 400


def test_settings_are_those_of_the_code() -> None:
    """The settings table of README lists exactly the variables that receiver/settings.py reads."""
    (section,) = re.findall(r"\n## Settings\n(.*?)\n## ", README, re.DOTALL)
    code = (ROOT / "receiver" / "settings.py").read_text()

    documented = re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)

    assert len(documented) == len(set(documented))
    assert set(documented) == set(re.findall(r'"([A-Z]+_[A-Z_]+)"', code)) - {"K_SERVICE"}


def test_outcomes_are_those_of_the_code() -> None:
    """operations.md lists exactly the outcomes that the code logs."""
    (listed,) = re.findall(r"`outcome`\s+\((.*?)\)", (ROOT / "docs/operations.md").read_text(), re.DOTALL)
    code = "".join((ROOT / "receiver" / name).read_text() for name in ("errors.py", "batching.py"))

    documented = re.findall(r"`(\w+)`", listed)

    assert len(documented) == len(set(documented)) == 8
    assert [name for name in documented if f'"{name}"' not in code] == []


def test_commands_and_their_options_exist() -> None:
    """Each script and `python -m` command on a page answers --help, and its help lists every option shown."""
    found = commands()

    known = {name: {"--help", *re.findall(r"(?<![\w-])--[a-z-]+", help_text(name))} for name, *_ in found}

    assert [
        f"{name} {option}" for name, *options in sorted(found) for option in options if option not in known[name]
    ] == []
    expected = {"./run.sh", "./test.sh", "./deploy.sh", "python -m simulator send", "python -m simulator play"}
    expected |= {"python -m simulator sign", "python -m simulator verify", "python -m tests.soak", "python -m backfill"}
    expected |= {"python -m tests.fuzz", "python -m local.embedded", "python -m benchmarks"}
    assert expected <= {name for name, *_ in found}


@pytest.mark.parametrize("script", ["./run.sh", "./test.sh", "./deploy.sh"])
def test_scripts_explain_themselves(script: str) -> None:
    """Each script answers --help with examples."""
    assert "examples:" in help_text(script).lower()


def test_shell_blocks_parse() -> None:
    """Each shell block is valid bash."""
    found = list(shell_blocks())

    failures = [
        f"{page}: {done.stderr}"
        for page, block in found
        if (done := subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)).returncode
    ]

    assert failures == []
    assert len(found) > 20


def test_shell_blocks_can_be_pasted() -> None:
    """No shell block has a prompt or an ellipsis, or uses a variable that it does not assign."""
    problems = [
        f"{page}: {word!r} in {block!r}"
        for page, block in shell_blocks()
        for word in [*re.findall(r"^ *[$>] ", block, re.MULTILINE), *re.findall(r"…|\.\.\.|<\w+>", block)]
    ]
    undefined = [
        f"{page}: ${name}"
        for page, block in shell_blocks()
        for name in sorted(set(_VARIABLE.findall(block)) - set(_ASSIGNED.findall(block)))
    ]

    assert problems == []
    assert undefined == []


def test_python_comes_from_the_environment() -> None:
    """Each block that runs `python` activates the virtual environment, or an earlier block of its page does."""
    problems = []
    for page in PAGES:
        active = False
        for block in blocks(page, "bash"):
            active = active or "source .venv/bin/activate" in block
            if not active and re.search(r"(?<!/)\bpython3?\b(?! *\d)", block):
                problems.append(f"{page.name}: {block}")

    assert problems == []


def test_links_resolve() -> None:
    """Each relative link leads to a file of the project, and its anchor to a heading there."""
    broken = []
    for page in [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"))]:
        for link in re.findall(r"\]\(([^)\s]+)\)", _BLOCK.sub("", page.read_text())):
            if re.match(r"https?://|mailto:", link):
                continue
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.name}: {link}")

    assert broken == []


def test_every_page_is_linked_from_readme() -> None:
    """README links to each page of docs/."""
    linked = set(re.findall(r"\]\(docs/(\w+\.md)", README))

    assert linked == {page.name for page in PAGES[1:]}


def test_paths_exist() -> None:
    """Each path of the project that a page names exists, and the table of packages lists every package."""
    named = {
        path
        for page in PAGES
        for code in re.findall(r"`([^`\n]+)`", _BLOCK.sub("", page.read_text()))
        for path in re.findall(r"^(?!roles/)(?:[a-z_]+/)+(?:\w+\.\w+)?$|^\w+\.(?:py|sh|txt)$", code)
    }
    packages = {f"{path.parent.name}/" for path in ROOT.glob("*/__init__.py")}

    assert sorted(path for path in named if not (ROOT / path).exists()) == []
    assert sorted(packages - named) == []


def test_pages_keep_to_their_size() -> None:
    """README has at most 170 lines, and no line of a page more than 120 characters."""
    long = [
        f"{page.name}:{number}"
        for page in PAGES
        for number, line in enumerate(page.read_text().splitlines(), 1)
        if len(line) > 120
    ]

    assert len(README.splitlines()) <= 170
    assert long == []
