"""deploy/firestore.rules on the official emulator, over its REST API."""

import base64
import json

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
