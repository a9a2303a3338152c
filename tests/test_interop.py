"""Compatibility with DT's own examples and library: tokens made there pass here, and tokens made here pass there."""

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any, NoReturn

import jwt
import pytest
from disruptive.errors import ConfigurationError

from simulator.signature import sign
from tests import signing
from tests.conftest import ROOT, Endpoint
from tests.events import DATA, encode, envelope

JSONWEBTOKEN = "jsonwebtoken@9.0.3"

Node = Callable[..., Any]
Verify = Callable[[bytes, str, str], bool]


def _unavailable(reason: str) -> NoReturn:
    assert os.environ.get("CI") != "true", f"CI needs this: {reason}"
    pytest.skip(reason)


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    """Return a function that runs a task in Node with `jsonwebtoken`."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        _unavailable("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    install = [str(npm), "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", JSONWEBTOKEN]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    if installed.returncode:
        _unavailable(f"npm cannot install {JSONWEBTOKEN}: {installed.stderr[-200:]}")

    def ask(**task: Any) -> Any:
        answer = subprocess.run(
            [str(program), str(ROOT / "tests/verify.js")],
            env={"NODE_PATH": str(folder / "node_modules"), "PATH": os.environ["PATH"]},
            input=json.dumps(task),
            capture_output=True,
            text=True,
            check=True,
        )
        return json.loads(answer.stdout)

    return ask


@pytest.fixture
def verify(request: pytest.FixtureRequest) -> Verify:
    """Return one of DT's verifiers by name."""
    if request.param == "node":
        ask: Node = request.getfixturevalue("node")
        return lambda body, token, secret: bool(ask(body=body.decode(), token=token, secret=secret))
    return {"python": _documentation_in_python, "dtintegrations": _dtintegrations}[request.param]


def _documentation_in_python(body: bytes, token: str, secret: str) -> bool:
    """Verify as DT's documented Python example does."""
    try:
        decoded = jwt.decode(token, secret, algorithms=["HS256"])
    except jwt.PyJWTError:
        return False
    return bool(hashlib.sha1(body).hexdigest() == decoded["checksum"])  # noqa: S324 - DT's choice


def _dtintegrations(body: bytes, token: str, secret: str) -> bool:
    """Verify with DT's own receiver library."""
    try:
        http_push = importlib.import_module("dtintegrations.data_connector.http_push")
    except ImportError as error:
        _unavailable(str(error))
    try:
        received = http_push.HttpPush({"X-Dt-Signature": token}, body, secret)
    except ConfigurationError:
        return False
    return bool(received.event.event_id == json.loads(body)["event"]["eventId"])


THEIRS = pytest.mark.parametrize("verify", ["node", "python", "dtintegrations"], indirect=True)


@THEIRS
@pytest.mark.parametrize("event_type", ["temperature", "networkStatus", "touch"])
def test_our_requests_pass_theirs(verify: Verify, event_type: str) -> None:
    """Each of DT's verifiers accepts a request signed by the simulator."""
    assert event_type in DATA
    body = encode(envelope(event_type))

    token = sign(body, signing.SECRET, now=time.time())

    assert verify(body, token, signing.SECRET)


@THEIRS
def test_they_and_we_refuse_the_same(verify: Verify, endpoint: Endpoint) -> None:
    """DT's verifiers and the function all refuse another key, an expired token and a changed body."""
    body = encode(envelope())
    changed = encode(envelope())
    now = time.time()
    cases = [
        (body, sign(body, "another secret, as long as one should be", now=now)),
        (body, sign(body, signing.SECRET, now=now - 7200)),
        (changed, sign(body, signing.SECRET, now=now)),
    ]

    theirs = [verify(sent, token, signing.SECRET) for sent, token in cases]
    ours = [endpoint.deliver(sent, token).status_code for sent, token in cases]

    assert theirs == [False, False, False]
    assert ours == [400, 400, 400]


def test_tokens_of_node_pass_here(node: Node, endpoint: Endpoint, stored: Callable[[], dict[str, Any]]) -> None:
    """A token from Node's jsonwebtoken, with only SHA-1 as in old examples, is accepted, and the event is stored."""
    made = envelope()
    body = encode(made)

    token = node(body=body.decode(), secret=signing.SECRET)
    answer = endpoint.deliver(body, token)

    assert answer.status_code == 200
    assert made["event"]["eventId"] in stored()


@pytest.mark.parametrize("options", [{"algorithm": "HS512"}, {"expiresIn": "-1h"}, {"notBefore": "1h"}])
def test_invalid_tokens_of_node_are_refused(options: dict[str, str], node: Node, endpoint: Endpoint) -> None:
    """Tokens from Node's jsonwebtoken are refused if they use another algorithm, are expired or are not valid yet."""
    body = encode(envelope())

    token = node(body=body.decode(), secret=signing.SECRET, options=options)

    assert endpoint.deliver(body, token).status_code == 400


def test_tokens_of_pyjwt_pass_here(endpoint: Endpoint) -> None:
    """A token from PyJWT, with only SHA-256, is accepted."""
    body = encode(envelope())
    claims = {"checksum_sha256": hashlib.sha256(body).hexdigest(), "iat": time.time(), "exp": time.time() + 3600}

    token = jwt.encode(claims, signing.SECRET, algorithm="HS256")

    assert endpoint.deliver(body, token).status_code == 200
