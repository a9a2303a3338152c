"""The project's own files: locks, layers, checks and words."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

BIN = ROOT / ".venv/bin"
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ["requirements", "requirements-local", "requirements-dev"]
# With the extras: once a package has a newer release, pip before 23.3 refuses its extra if the lock does not name it.
COMPILE = (
    "uv pip compile --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-emit-index-url"
    " {0}.in -o {0}.txt"
)


def _tool(name: str) -> str:
    tool = shutil.which(name, path=f"{BIN}:{os.environ['PATH']}")
    assert tool, f"{name} is missing: ./test.sh installs it"
    return tool


def _run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([_tool(command[0]), *command[1:]], cwd=cwd, capture_output=True, text=True, check=False)


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _lines(file: str) -> list[str]:
    """Return the lines of a requirements file, joined where they continue, without comments."""
    text = re.sub(r"\s*\\\n\s*", " ", (ROOT / file).read_text())
    return [line for line in (re.sub(r"(^|\s+)#.*", "", line) for line in text.splitlines()) if line]


def _git_files() -> list[str]:
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")[
        :-1
    ]


@pytest.mark.parametrize("name", LOCKS)
def test_each_locked_package_is_pinned_with_hashes(name: str) -> None:
    """Each entry of a lock is one exact version with hashes, and says nothing about where to download it."""
    entries = _lines(f"{name}.txt")

    assert len(entries) > 30
    pin = r"[a-z0-9-]+(\[[a-z,-]+\])?==[0-9][0-9A-Za-z.]*( ; [^#]+?)?( --hash=sha256:[0-9a-f]{64})+"
    assert [entry for entry in entries if not re.fullmatch(pin, entry)] == []


@pytest.mark.parametrize("name", LOCKS)
def test_lock_holds_each_direct_package(name: str) -> None:
    """Each package of the .in file is in the lock, whose header is the documented command."""
    direct = {_normalized(line) for line in _lines(f"{name}.in") if not line.startswith("-r ")}
    locked = {re.split(r"\[|==", entry)[0] for entry in _lines(f"{name}.txt")}

    assert direct
    assert direct <= locked
    assert (ROOT / f"{name}.txt").read_text().splitlines()[1] == f"#    {COMPILE.format(name)}"
    assert COMPILE.format(name) in (ROOT / "CONTRIBUTING.md").read_text()


def test_development_has_the_versions_of_the_function() -> None:
    """Each lock holds the one below it unchanged: tests run what is deployed, on what ./run.sh uses."""
    assert "-r requirements.txt" in _lines("requirements-local.in")
    assert "-r requirements-local.txt" in _lines("requirements-dev.in")
    of_function, of_run, of_tests = ({re.sub(r"\[.*?\]", "", line) for line in _lines(f"{name}.txt")} for name in LOCKS)
    assert of_function <= of_run <= of_tests


@pytest.mark.parametrize("name", LOCKS)
def test_compiling_again_changes_nothing(name: str, tmp_path: Path) -> None:
    """The locks are what uv makes of the .in files."""
    for file in ROOT.glob("requirements*"):
        shutil.copy(file, tmp_path)

    compiled = _run(*COMPILE.format(name).split(), "--quiet", cwd=tmp_path)

    if compiled.returncode and re.search("error sending request|Failed to fetch|network|offline", compiled.stderr):
        pytest.skip("the package registry is not reachable")
    assert compiled.returncode == 0, compiled.stderr
    assert (tmp_path / f"{name}.txt").read_text() == (ROOT / f"{name}.txt").read_text()


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the project's packages and of its configuration."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in PYPROJECT["tool"]["importlinter"]["root_packages"]:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_imports_follow_the_layers(copy: Path) -> None:
    """import-linter accepts the project's imports."""
    checked = _run("lint-imports", "--no-cache", cwd=copy)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(
    ("importing", "imported"),
    [
        ("receiver/store.py", "dtcloud"),
        ("dtcloud/account.py", "command_line"),
        ("simulator/sensors.py", "deploy"),
        ("simulator/sensors.py", "local"),
        ("local/system.py", "benchmarks"),
        ("benchmarks/report.py", "tests"),
        ("deploy/smoke_test.py", "main"),
    ],
)
def test_other_imports_are_refused(copy: Path, importing: str, imported: str) -> None:
    """import-linter reports an import from a layer above or beside, and names both modules."""
    with (copy / importing).open("a") as module:
        module.write(f"\nimport {imported}\n")

    checked = _run("lint-imports", "--no-cache", cwd=copy)

    assert checked.returncode == 1, checked.stderr
    assert f"{importing.removesuffix('.py').replace('/', '.')} -> {imported}" in checked.stdout


def test_tools_cover_each_package() -> None:
    """Mypy checks each package of the repository, and import-linter knows each one."""
    packages = {file.split("/")[0] for file in _git_files() if re.fullmatch(r"[^/]+/(.+/)?[^/]+\.py", file)}
    checked = set(PYPROJECT["tool"]["mypy"]["files"])
    linter = PYPROJECT["tool"]["importlinter"]
    layers = {name for layer in linter["contracts"][0]["layers"] for name in re.findall(r"\w+", layer)}

    assert checked == packages | {"main.py"}
    assert set(linter["root_packages"]) == packages
    assert packages <= layers
    assert set(linter["contracts"][1]["source_modules"]) == packages - {"tests"}


@pytest.mark.parametrize(
    "check",
    [
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", ".github/workflows/test.yml"],
        ["check-jsonschema", "--builtin-schema", "vendor.dependabot", ".github/dependabot.yml"],
        ["pre-commit", "validate-config", ".pre-commit-config.yaml"],
    ],
    ids=lambda check: check[-1],
)
def test_configuration_is_valid(check: list[str]) -> None:
    """The files that the repository's host and pre-commit read are valid."""
    checked = _run(*check)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_workflow_runs_on_each_supported_python() -> None:
    """The workflow runs every test on the oldest supported Python and on the newer ones, up to 3.14."""
    workflow = (ROOT / ".github/workflows/test.yml").read_text()

    assert 'python: ["3.11", "3.12", "3.13", "3.14"]' in workflow
    assert "run: ./test.sh --all\n" in workflow


@pytest.fixture
def find_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs find_python of local/venv.sh where only the given versions are installed."""
    (tmp_path / "bin").mkdir()

    def find(*versions: str, **environ: str) -> subprocess.CompletedProcess[str]:
        for version in versions:
            interpreter = tmp_path / "bin" / f"python{version}"
            fits = "exit 0" if tuple(map(int, version.split("."))) >= (3, 11) else "exit 1"
            interpreter.write_text(f"#!/bin/sh\n{fits}\n")
            interpreter.chmod(0o755)
        env = {"PATH": str(tmp_path / "bin"), "PYENV_ROOT": str(tmp_path / "pyenv"), **environ}
        return subprocess.run(
            [shutil.which("bash") or "bash", "-c", "source local/venv.sh; find_python"],
            cwd=ROOT,
            env=env,
            capture_output=True,
            text=True,
            check=False,
        )

    return find


@pytest.mark.parametrize(
    ("installed", "found"),
    [
        (["3.11", "3.12", "3.13", "3.14"], "python3.13"),
        (["3.10", "3.11", "3.12"], "python3.12"),
        (["3.10", "3.14"], "python3.14"),
    ],
)
def test_python_is_found(
    find_python: Callable[..., subprocess.CompletedProcess[str]], installed: list[str], found: str
) -> None:
    """3.13, the runtime of a deployment, comes first; a version newer than that is used where it is the only one."""
    assert find_python(*installed).stdout.strip() == found


def test_missing_python_is_an_error(find_python: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Without a suitable Python, or with PYTHON set to one that is not, there is one line that says so."""
    missing = find_python("3.10")
    wrong = find_python("3.10", "3.13", PYTHON="python3.10")

    assert (missing.returncode, missing.stdout) == (1, "")
    assert "Python 3.11 or newer" in missing.stderr
    assert (wrong.returncode, wrong.stdout, wrong.stderr.count("\n")) == (1, "", 1)
    assert "PYTHON=python3.10" in wrong.stderr


def _grep(pattern: str, *pathspec: str) -> str:
    found = subprocess.run(
        ["git", "grep", "-niE", pattern, "--", *pathspec], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert found.returncode in (0, 1), found.stderr
    return found.stdout


def test_former_names_are_gone() -> None:
    """No file uses a name that was replaced; CHANGELOG.md may mention them."""
    former = r"poi[s]on|stand-[i]n|\b[b]ent\b|Mor[t]al|Wit[n]ess|Men[d] "

    assert _grep(former, ".", ":!CHANGELOG.md") == ""


def test_no_file_names_a_package_registry() -> None:
    """Packages come from wherever pip and npm are configured to look: no file names a registry's host."""
    hosts = r"pypi\.[o]rg|python[h]osted\.org|npmjs\.[o]rg|npmjs\.[c]om|index-[u]rl ="

    assert _grep(hosts, ".") == ""


def _commands() -> list[list[str]]:
    """Return each command of the project that is a Python module, with its sub-commands."""
    sources = [file for file in _git_files() if file.endswith(".py") and not file.startswith("tests/test_")]
    files = [file for file in sources if 'name="python -m' in (ROOT / file).read_text()]
    modules = {re.sub(r"(/__main__|/cli)?\.py$", "", file).replace("/", ".") for file in files} | {"local"}
    subcommands = [["simulator", name] for name in ("send", "play", "sign", "verify", "rotate-keys")]
    subcommands += [["backfill", name] for name in ("check", "forget", "repair")]
    subcommands += [["backfill", "quarantine", name] for name in ("list", "show", "retry")]
    return [*([module] for module in sorted(modules)), *subcommands]


@pytest.mark.parametrize("command", _commands(), ids=" ".join)
def test_help_of_a_module_fits_80_columns(command: list[str]) -> None:
    """`--help` of each Python command has examples, and no line of more than 80 characters."""
    shown = _run(sys.executable, "-m", *command, "--help")

    assert shown.returncode == 0, shown.stderr
    assert "Examples:" in shown.stdout
    assert [line for line in shown.stdout.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize("script", ["./run.sh", "./test.sh", "./deploy.sh"])
def test_help_of_a_script_fits_80_columns(script: str, run_script: Callable[..., str]) -> None:
    """`--help` of the scripts has examples, and no line of more than 80 characters."""
    shown = run_script(script, "--help")

    assert "examples:" in shown.lower()
    assert [line for line in shown.splitlines() if len(line) > 80] == []


# Commands and options that GNU has and BSD and macOS have not, and constructs of bash that 3.2 does not know.
_NOT_PORTABLE = (
    r"\bsed ([^|]*)-i\b|\bsed -[a-zA-Z]*r|\bgrep ([^|]*)-[a-zA-Z]*P|\breadlink ([^|]*)-f|\bdate ([^|]*)(-d|--date|%N)"
    r"|\bstat ([^|]*)-c|\b(ba)?se64 ([^|]*)-w|\bxargs (-\S+ )*-[dr]\b|\bsort ([^|]*)-V|\bmktemp ([^|]*)--"
    r"|(^|[|;&(] ?)(timeout|setsid|flock|tac|nproc|realpath|sha256sum|md5sum|shuf) "
    r"|\b(mapfile|readarray|coproc) |declare -[a-zA-Z]*[An]|local -[a-zA-Z]*[An]|\|&|&>>|\$\{[a-zA-Z_]+(,,|\^\^|@[A-Z])"
    r"|/proc/"
)


def test_scripts_run_on_macos() -> None:
    """No script uses what only GNU's tools, Linux, or a bash newer than 3.2, has."""
    scripts = [file for file in _git_files() if file.endswith(".sh")]
    lines = [
        f"{file}:{number}: {line.strip()}"
        for file in scripts
        for number, line in enumerate((ROOT / file).read_text().splitlines(), 1)
        if re.search(_NOT_PORTABLE, re.sub(r"(^|\s)#.*", "", line))
    ]

    assert {"run.sh", "test.sh", "deploy.sh", "local/venv.sh"} <= set(scripts)
    assert lines == []


@pytest.mark.parametrize(
    "line",
    ["flock 9", "sed -i s/a/b/ f", "date -d now", "readlink -f x", "mapfile -t a", "echo ${a^^}", "cat /proc/1/stat"],
)
def test_what_macos_does_not_know_is_found(line: str) -> None:
    """The pattern of the test above finds GNU's options, Linux's files and newer bash."""
    assert re.search(_NOT_PORTABLE, line)
