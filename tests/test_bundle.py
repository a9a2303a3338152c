"""The deployed bundle holds what the function needs, and nothing else."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.messages import CommitRequest, _import_messages
from tests.conftest import ROOT


def test_only_the_function_is_uploaded(tmp_path: Path) -> None:
    """Gcloud itself, reading `.gcloudignore`, lists main.py, receiver/ and requirements.txt alone."""
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


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """A function that runs Python code beside the deployed files alone and returns its standard output."""
    folder = tmp_path_factory.mktemp("bundle")
    shutil.copy(ROOT / "main.py", folder)
    shutil.copytree(ROOT / "receiver", folder / "receiver")
    environ = {"DT_SIGNATURE_SECRET": "a secret for this test alone, 32 bytes or more", "PATH": os.environ["PATH"]}

    def run(code: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=True).stdout

    return run


def test_loading_the_function_loads_no_more_than_it_needs(bundle: Callable[[str], str]) -> None:
    """A cold start imports nothing that is not deployed or that no request needs, such as Firestore's clients."""
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
    of_settings = {"receiver.credentials", "receiver.devices", "receiver.key_set", "receiver.public_key"}
    assert of_settings.isdisjoint(modules)
    unneeded = (
        "google.cloud.firestore",
        "google.api_core",
        "google.auth",
        "google.oauth2",
        "requests",
        "urllib3",
        "pytz",
    )
    loaded = {module for module in modules if module.startswith(unneeded)}
    assert loaded == {module for module in loaded if module.startswith("google.cloud.firestore_v1.types")}


def test_firestores_clients_work_beside_the_function(bundle: Callable[[str], str]) -> None:
    """Code that imports google-cloud-firestore after the function gets the whole package, with the same messages."""
    code = (
        "import main; from google.cloud import firestore; from google.cloud.firestore_v1 import types;"
        "from receiver.messages import CommitRequest; print(firestore.AsyncClient.__name__,"
        "types.CommitRequest.pb() is CommitRequest)"
    )

    assert bundle(code).split() == ["AsyncClient", "True"]


@pytest.mark.parametrize("loaded", [True, False])
def test_messages_are_the_packages_own(monkeypatch: pytest.MonkeyPatch, *, loaded: bool) -> None:
    """The messages are those of google-cloud-firestore, loaded or not, and the package stays unchanged."""
    name = "google.cloud.firestore_v1"
    before = sys.modules[name]
    if not loaded:
        monkeypatch.delitem(sys.modules, name)

    messages = _import_messages()

    assert messages.CommitRequest.pb() is CommitRequest
    assert sys.modules.get(name) is (before if loaded else None)
