"""deploy/firestore.rules on the official emulator, over its REST API, and their deployment."""

import base64
import json
import os
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT

RULES = (ROOT / "deploy/firestore.rules").read_text()


def _token(project: str) -> str:
    """Return the token of a signed-in client, which the emulator accepts without a signature."""
    header = {"alg": "none", "typ": "JWT"}
    claims = {"sub": "user", "user_id": "user", "aud": project, "iss": f"https://securetoken.google.com/{project}"}
    times = {"iat": 0, "exp": 4102444800, "auth_time": 0}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims | times)]
    return b".".join([*parts, b""]).decode()


@pytest.fixture
def documents(emulator_host: str, project: str) -> str:
    """Return the URL of the documents of a project that has the rules and one document in each collection."""
    rules = {"rules": {"files": [{"name": "firestore.rules", "content": RULES}]}}
    url = f"http://{emulator_host}/emulator/v1/projects/{project}:securityRules"
    httpx.put(url, json=rules).raise_for_status()
    documents = f"http://{emulator_host}/v1/projects/{project}/databases/(default)/documents"
    for name in ("events", "devices", "events_quarantine", "other"):
        owner = {"Authorization": "Bearer owner"}
        httpx.patch(f"{documents}/{name}/one", json={"fields": {}}, headers=owner).raise_for_status()
    return documents


@pytest.mark.parametrize("collection", ["events", "devices", "events_quarantine", "other"])
def test_only_signed_in_clients_read_events_and_devices(collection: str, documents: str, project: str) -> None:
    """A signed-in client reads and lists events and devices, but no other collection; another client reads nothing."""
    signed_in = {"Authorization": f"Bearer {_token(project)}"}
    wanted = 200 if collection in ("events", "devices") else 403

    for path in (f"{collection}/one", collection):
        assert httpx.get(f"{documents}/{path}").status_code == 403
        assert httpx.get(f"{documents}/{path}", headers=signed_in).status_code == wanted


@pytest.mark.parametrize("collection", ["events", "devices", "events_quarantine", "other"])
def test_no_client_writes(collection: str, documents: str, project: str) -> None:
    """Creating, updating and deleting are forbidden to every client."""
    for headers in ({}, {"Authorization": f"Bearer {_token(project)}"}):
        for name in ("one", "new"):
            changed = httpx.patch(f"{documents}/{collection}/{name}", json={"fields": {}}, headers=headers)
            assert changed.status_code == 403
        assert httpx.delete(f"{documents}/{collection}/one", headers=headers).status_code == 403


# The Firebase CLI's part is played by a script that notes its arguments: the CLI itself would need a real project.
_STEP = """\
source deploy/common.sh
source deploy/rules.sh
RULES=$1 DRY_RUN=$2 SCRATCH=$3 PROJECT=demo-rules COLLECTION=readings DEVICES=sensors DATABASE=plant
check_rules
plan_rules
ensure_rules
"""


def _run_step(folder: Path, *, rules: str = "true", dry_run: str = "", cli: bool = True) -> tuple[int, str, str]:
    """Run the step of deploy.sh; return its status, its output and what the CLI was called with."""
    programs, noted = folder / "bin", folder / "noted"
    programs.mkdir(exist_ok=True)
    noted.write_text("")
    if cli:
        (programs / "firebase").write_text(f'#!/bin/sh\necho "$*" >>{noted}\n')
        (programs / "firebase").chmod(0o755)
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", _STEP, "step", rules, dry_run, str(folder)],
        cwd=ROOT,
        env={"PATH": f"{programs}:{os.defpath}"},
        text=True,
        capture_output=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr, noted.read_text()


def test_deploy_replaces_rules_only_on_request(tmp_path: Path) -> None:
    """Without --rules nothing is deployed; with it, the rules go to the database, with the names of its collections."""
    untouched = _run_step(tmp_path, rules="")
    status, shown, called = _run_step(tmp_path)

    assert untouched == (0, "", "")
    assert (status, "replace all rules of the database" in shown) == (0, True)
    config = tmp_path / "firebase/firebase.json"
    assert called.split() == [
        *("deploy", "--only", "firestore:rules", "--project=demo-rules", f"--config={config}", "--non-interactive")
    ]
    assert json.loads(config.read_text()) == {"firestore": {"database": "plant", "rules": "firestore.rules"}}
    renamed = RULES.replace("/events/", "/readings/").replace("/devices/", "/sensors/")
    assert (tmp_path / "firebase/firestore.rules").read_text() == renamed


def test_dry_run_of_rules_changes_nothing(tmp_path: Path) -> None:
    """With --dry-run the command is printed, and not run."""
    status, shown, called = _run_step(tmp_path, dry_run="true")

    assert (status, called) == (0, "")
    assert "firebase deploy --only firestore:rules --project=demo-rules" in shown


def test_rules_without_the_firebase_cli(tmp_path: Path) -> None:
    """Without the Firebase CLI, --rules ends with exit status 2 and a line that names it."""
    status, shown, _ = _run_step(tmp_path, cli=False)

    assert status == 2
    assert shown.count("\n") == 1
    assert "install firebase-tools" in shown
