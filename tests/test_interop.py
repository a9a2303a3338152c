"""Compatibility with other implementations: what is signed there passes here, and what is signed here passes there.

DT's own examples and its receiver library, in Python, Node and Go.
"""

import hashlib
import importlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from disruptive.errors import ConfigurationError

from dtcloud.signature import sign
from simulator import public_key
from simulator.identity_provider import IdentityProvider
from tests import signing
from tests.conftest import ROOT, Endpoint
from tests.events import DATA, encode, envelope
from tests.identity import Identity

NODE_PACKAGES = ("jsonwebtoken@9.0.3", "jose@5.10.0")
GO_PACKAGE = "github.com/golang-jwt/jwt"
DEBIAN_GOPATH = Path("/usr/share/gocode")  # where Debian's golang-github-golang-jwt-jwt-dev puts it
GO_MODULE = f"module interop\n\ngo 1.18\n\nrequire {GO_PACKAGE} v3.2.2+incompatible\n"

Ask = Callable[..., Any]
Verify = Callable[[bytes, str, str], bool]


def _unavailable(reason: str) -> NoReturn:
    assert os.environ.get("CI") != "true", f"CI needs this: {reason}"
    pytest.skip(reason)


def _asker(*command: str, **environ: str) -> Ask:
    """Return a function that gives a task to a program as JSON and returns its answer."""

    def ask(**task: Any) -> Any:
        answer = subprocess.run(
            command, env=os.environ | environ, input=json.dumps(task), capture_output=True, text=True, check=True
        )
        return json.loads(answer.stdout)

    return ask


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Return a function that runs a task in Node with `jsonwebtoken` and `jose`."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        _unavailable("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefer-offline", *NODE_PACKAGES]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, check=False)
    if installed.returncode:
        _unavailable(f"npm cannot install {' and '.join(NODE_PACKAGES)}: {installed.stderr[-200:]}")
    return _asker(program, str(ROOT / "tests/interop/node.js"), NODE_PATH=str(folder / "node_modules"))


@pytest.fixture(scope="session")
def go(tmp_path_factory: pytest.TempPathFactory) -> Ask:
    """Return a function that runs a task in Go with `golang-jwt`: Debian's package, else Go's own module."""
    program = shutil.which("go")
    if program is None:
        _unavailable("Go is not installed")
    folder = tmp_path_factory.mktemp("go")
    shutil.copy(ROOT / "tests/interop/go.go", folder / "main.go")
    environ = {"GO111MODULE": "off", "GOPATH": str(DEBIAN_GOPATH)}
    commands = [[program, "build", "-o", "program", "main.go"]]
    if not (DEBIAN_GOPATH / "src" / GO_PACKAGE).exists():
        (folder / "go.mod").write_text(GO_MODULE)
        environ = {}
        commands.insert(0, [program, "mod", "tidy"])
    for command in commands:
        done = subprocess.run(
            command, cwd=folder, env=os.environ | environ, capture_output=True, text=True, check=False
        )
        if done.returncode:
            _unavailable(f"Go cannot build with {GO_PACKAGE}: {done.stderr[-200:]}")
    return _asker(str(folder / "program"))


@pytest.fixture
def verify(request: pytest.FixtureRequest) -> Verify:
    """Return a verifier by name."""
    if request.param in {"node", "go"}:
        ask: Ask = request.getfixturevalue(request.param)
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


THEIRS = pytest.mark.parametrize("verify", ["node", "go", "python", "dtintegrations"], indirect=True)


@THEIRS
@pytest.mark.parametrize("event_type", ["temperature", "networkStatus", "touch"])
def test_our_requests_pass_theirs(verify: Verify, event_type: str) -> None:
    """Each verifier accepts a request signed by the simulator."""
    assert event_type in DATA
    body = encode(envelope(event_type))

    token = sign(body, signing.SECRET, now=time.time())

    assert verify(body, token, signing.SECRET)


@THEIRS
def test_they_and_we_refuse_the_same(verify: Verify, endpoint: Endpoint) -> None:
    """The verifiers and the function all refuse another key, an expired token and a changed body."""
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


def test_tokens_of_node_pass_here(node: Ask, endpoint: Endpoint, stored: Callable[[], dict[str, Any]]) -> None:
    """A token from Node's jsonwebtoken, with only SHA-1 as in old examples, is accepted, and the event is stored."""
    made = envelope()
    body = encode(made)

    token = node(body=body.decode(), secret=signing.SECRET)
    answer = endpoint.deliver(body, token)

    assert answer.status_code == 200
    assert made["event"]["eventId"] in stored()


@pytest.mark.parametrize("options", [{"algorithm": "HS512"}, {"expiresIn": "-1h"}, {"notBefore": "1h"}])
def test_invalid_tokens_of_node_are_refused(options: dict[str, str], node: Ask, endpoint: Endpoint) -> None:
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


def test_tokens_of_go_pass_here(go: Ask, endpoint: Endpoint, stored: Callable[[], dict[str, Any]]) -> None:
    """A token from Go, with only SHA-256, is accepted, and the event is stored."""
    made = envelope()
    body = encode(made)

    token = go(body=body.decode(), secret=signing.SECRET, algorithm="HS256")
    answer = endpoint.deliver(body, token)

    assert answer.status_code == 200
    assert made["event"]["eventId"] in stored()


@pytest.mark.parametrize(
    "changes",
    [{"algorithm": "HS512"}, {"claims": {"exp": 1}}, {"claims": {"nbf": 4_000_000_000}}, {"secret": "another secret"}],
)
def test_invalid_tokens_of_go_are_refused(changes: dict[str, Any], go: Ask, endpoint: Endpoint) -> None:
    """Tokens from Go are refused with another algorithm or secret, and if they are expired or not valid yet."""
    body = encode(envelope())

    token = go(**{"body": body.decode(), "secret": signing.SECRET, "algorithm": "HS256"} | changes)

    assert endpoint.deliver(body, token).status_code == 400


# By public key


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    """Return the simulator's identity provider."""
    with IdentityProvider() as provider:
        yield provider


@pytest.fixture
def verify_public_key(request: pytest.FixtureRequest, provider: IdentityProvider) -> Callable[[bytes, str], bool]:
    """Return a verifier of public-key tokens by name, which trusts the identity provider and one organization."""
    trusted = {"issuer": provider.issuer, "organization": signing.ORGANIZATION}
    if request.param == "go":
        public = provider.key.private_key.public_key()
        trusted = {"key": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()}
    ask: Ask = request.getfixturevalue(request.param)
    return lambda body, token: bool(ask(body=body.decode(), token=token, **trusted))


@pytest.mark.parametrize("verify_public_key", ["node", "go"], indirect=True)
def test_our_public_key_tokens_pass_theirs(
    verify_public_key: Callable[[bytes, str], bool], provider: IdentityProvider
) -> None:
    """Node's jose, by discovery, and Go accept the simulator's tokens, and refuse expired ones and changed bodies."""
    body = encode(envelope())
    now = time.time()

    def sign_at(when: float) -> str:
        return public_key.sign(body, provider.key, organization=signing.ORGANIZATION, now=when)

    assert verify_public_key(body, sign_at(now))
    assert not verify_public_key(body, sign_at(now - 3600))
    assert not verify_public_key(body + b" ", sign_at(now))


@pytest.mark.parametrize("changes", [{"organization": "another"}, {"rotations": 2}])
def test_node_refuses_what_the_function_refuses(
    node: Ask, provider: IdentityProvider, changes: Mapping[str, Any]
) -> None:
    """A token of another organization, or of a key that is no longer published, does not pass Node's jose either."""
    body = encode(envelope())
    token = public_key.sign(
        body, provider.key, organization=changes.get("organization", signing.ORGANIZATION), now=time.time()
    )
    for _ in range(changes.get("rotations", 0)):
        provider.rotate()

    assert not node(body=body.decode(), token=token, issuer=provider.issuer, organization=signing.ORGANIZATION)


@pytest.mark.parametrize(("kid", "status"), [(signing.KEY_ID, 200), ("another", 400)])
def test_public_key_tokens_of_go_pass_here(go: Ask, start: Callable[..., Endpoint], kid: str, status: int) -> None:
    """A token that Go signs with the key that the issuer publishes is accepted by its id."""
    identity = Identity()
    endpoint = start(DT_ORGANIZATION_ID=signing.ORGANIZATION, DT_IDENTITY_ISSUER=identity.issuer)
    pem = signing.PRIVATE_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    body = encode(envelope())

    claims = {"iss": identity.issuer, "sub": signing.ORGANIZATION}
    token = go(body=body.decode(), key=pem, algorithm="ES256", header={"kid": kid}, claims=claims)
    answer = endpoint.deliver(body, "", **{"DT-Asymmetric-Signature": token})
    identity.stop()

    assert answer.status_code == status
