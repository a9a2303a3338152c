"""What is deployed is what the function needs, and nothing else."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.messages import CommitRequest, _import_messages
from tests.conftest import ROOT


def test_only_the_function_is_uploaded(tmp_path: Path) -> None:
    """`.gcloudignore` lets through main.py, receiver/ and requirements.txt: gcloud itself says so."""
    gcloud = shutil.which("gcloud")
    if gcloud is None:
        assert os.environ.get("CI") != "true", "CI needs gcloud"
        pytest.skip("gcloud is not installed")
    expected = {"main.py", "requirements.txt"} | {f"receiver/{path.name}" for path in ROOT.glob("receiver/*.py")}

    listing = subprocess.run(
        [gcloud, "meta", "list-files-for-upload", str(ROOT)],
        env={**os.environ, "CLOUDSDK_CONFIG": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )

    assert set(listing.stdout.split()) == expected


def test_every_runtime_package_is_pinned() -> None:
    """Each line of the requirement files pins one package with ==, and names no other place to fetch it from."""
    lines = (ROOT / "requirements.txt").read_text() + (ROOT / "requirements-dev.txt").read_text()

    requirements = [line for line in lines.splitlines() if line and not line.startswith("#")]

    assert len(requirements) > 20
    assert [line for line in requirements if not re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line)] == []


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return what runs a line of Python among the deployed files alone, and returns what it prints."""
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copy(ROOT / "main.py", folder)
    shutil.copytree(ROOT / "receiver", folder / "receiver")
    environ = {"DT_SIGNATURE_SECRET": "a secret of no importance to anyone at all", "PATH": os.environ["PATH"]}

    def run(code: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True).stdout

    return run


def test_loading_the_function_loads_no_more_than_it_needs(bundle: Callable[[str], str]) -> None:
    """A cold start imports neither what is not deployed, nor what no request needs: Firestore's clients, requests."""
    modules = set(bundle("import main, sys; print(*sorted(sys.modules))").split())

    assert {"receiver.store", "google.cloud.firestore_v1.types", "grpc.aio"} <= modules
    assert {
        "command_line",
        "local",
        "simulator",
        "backfill",
        "dtcloud",
        "deploy",
        "tests",
        "pytest",
        "rich",
        "httpx",
        "disruptive",
    }.isdisjoint(modules)
    needless = (
        "google.cloud.firestore",
        "google.api_core",
        "google.auth",
        "google.oauth2",
        "requests",
        "urllib3",
        "pytz",
    )
    loaded = {module for module in modules if module.startswith(needless)}
    assert loaded == {module for module in loaded if module.startswith("google.cloud.firestore_v1.types")}


def test_firestores_clients_work_beside_the_function(bundle: Callable[[str], str]) -> None:
    """Whoever imports google-cloud-firestore after the function gets all of it, with the same messages."""
    code = (
        "import main; from google.cloud import firestore; from google.cloud.firestore_v1 import types;"
        "from receiver.messages import CommitRequest; print(firestore.AsyncClient.__name__,"
        "types.CommitRequest.pb() is CommitRequest)"
    )

    assert bundle(code).split() == ["AsyncClient", "True"]


@pytest.mark.parametrize("already", [True, False])
def test_messages_are_the_packages_own(monkeypatch: pytest.MonkeyPatch, *, already: bool) -> None:
    """With the package loaded or not, the messages are google-cloud-firestore's, and the package stays as it was."""
    name = "google.cloud.firestore_v1"
    before = sys.modules[name]
    if not already:
        monkeypatch.delitem(sys.modules, name)

    messages = _import_messages()

    assert messages.CommitRequest.pb() is CommitRequest
    assert sys.modules.get(name) is (before if already else None)
