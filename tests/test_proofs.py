"""The local system with both proofs: what it trusts, what signs, and that no event is lost by rotation or an outage."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from google.cloud import firestore

from local.processes import free_port, running
from local.proofs import Proofs, running_proofs
from tests.conftest import ROOT

ISSUER = "https://identity.example.com/data-connector"
PATIENCE = 90.0  # seconds until a test that waits has failed
UNSET = dict.fromkeys(("DT_SIGNATURE_SECRET", "DT_ORGANIZATION_ID", "DT_IDENTITY_ISSUER", "DT_ENDPOINT_URL"), "")


def chosen(folder: Path, **environ: str) -> Proofs:
    """Return the proofs that the local system switches on with an environment."""
    with running_proofs(folder, environ, sensors=False) as proofs:
        return proofs


class TestChoice:
    """What the environment switches on."""

    def test_both_are_on_by_default(self, tmp_path: Path) -> None:
        """Without settings a random secret and the keys of this machine are trusted, and sensors sign by both."""
        first, second = chosen(tmp_path), chosen(tmp_path)

        assert all(first.settings.values())
        assert first.settings["DT_SIGNATURE_SECRET"] != second.settings["DT_SIGNATURE_SECRET"]
        assert first.settings["DT_IDENTITY_ISSUER"].startswith("http://127.0.0.1:")
        assert first.signer.secret == first.settings["DT_SIGNATURE_SECRET"]
        assert first.signer.organization == first.settings["DT_ORGANIZATION_ID"]
        assert first.signer.key is not None
        assert [line[:11] for line in first.lines(tmp_path / "file")] == ["Secret     ", "Public key "]

    def test_a_secret_alone_is_alone(self, tmp_path: Path) -> None:
        """With DT_SIGNATURE_SECRET alone there is no public key, the first secret signs, and the start says so."""
        proofs = chosen(tmp_path, DT_SIGNATURE_SECRET="\none\ntwo", DT_ORGANIZATION_ID=" ")

        assert proofs.settings == {
            "DT_SIGNATURE_SECRET": "one\ntwo",
            "DT_ORGANIZATION_ID": "",
            "DT_IDENTITY_ISSUER": "",
        }
        assert (proofs.signer.secret, proofs.signer.key) == ("one", None)
        assert list(proofs.lines(tmp_path)) == ["Secret     of DT_SIGNATURE_SECRET"]

    def test_an_organization_alone_has_the_keys_of_this_machine(self, tmp_path: Path) -> None:
        """With DT_ORGANIZATION_ID alone there is no secret, the first organization signs, and the start says so."""
        proofs = chosen(tmp_path, DT_ORGANIZATION_ID="mine, other")

        issuer = proofs.settings["DT_IDENTITY_ISSUER"]
        assert (proofs.settings["DT_SIGNATURE_SECRET"], proofs.settings["DT_ORGANIZATION_ID"]) == ("", "mine, other")
        assert (proofs.signer.secret, proofs.signer.organization) == (None, "mine")
        assert list(proofs.lines(tmp_path)) == [f"Public key issuer {issuer}, organization of DT_ORGANIZATION_ID"]

    def test_another_issuer_signs_itself(self, tmp_path: Path) -> None:
        """With DT_IDENTITY_ISSUER no identity provider runs, and only the secret, if there is one, signs here."""
        environ = {"DT_ORGANIZATION_ID": "mine", "DT_IDENTITY_ISSUER": ISSUER}

        alone = chosen(tmp_path, **environ)
        both = chosen(tmp_path, **environ, DT_SIGNATURE_SECRET="one")

        assert alone.settings == {"DT_SIGNATURE_SECRET": "", **environ}
        assert not alone.signer.signs
        assert (both.signer.secret, both.signer.key) == ("one", None)
        assert list(alone.lines(tmp_path)) == [
            "Public key issuer of DT_IDENTITY_ISSUER, organization of DT_ORGANIZATION_ID"
        ]

    def test_an_issuer_needs_an_organization(self, tmp_path: Path) -> None:
        """DT_IDENTITY_ISSUER without DT_ORGANIZATION_ID is refused in one line."""
        with pytest.raises(click.UsageError, match=r"^DT_IDENTITY_ISSUER is set without DT_ORGANIZATION_ID: set both"):
            chosen(tmp_path, DT_IDENTITY_ISSUER=ISSUER, DT_SIGNATURE_SECRET="one")


@dataclass
class LocalSystem:
    """A running `./run.sh --serve`."""

    pid: int
    folder: Path

    def settings(self) -> dict[str, str]:
        """Return what it says of itself."""
        settings: dict[str, str] = json.loads((self.folder / "settings.json").read_text())
        return settings

    def count(self, name: str) -> Counter[str]:
        """Count the values of a field of the function's log."""
        lines = (self.folder / "function.log").read_text().splitlines()
        return Counter(json.loads(line).get(name) for line in lines if line.startswith("{"))

    def simulator(self, *arguments: str, stdin: bytes = b"", **environ: str) -> subprocess.CompletedProcess[bytes]:
        """Run `python -m simulator` beside it."""
        command = [sys.executable, "-m", "simulator", *arguments, "--state", str(self.folder)]
        environ = {**os.environ, **UNSET, **environ}
        return subprocess.run(
            command, cwd=ROOT, env=environ, input=stdin, capture_output=True, check=False, timeout=PATIENCE
        )


@contextmanager
def serving(folder: Path, **environ: str) -> Iterator[LocalSystem]:
    """Run `./run.sh --serve` on the embedded store."""
    state = folder / "state"
    command = [
        sys.executable,
        "-m",
        "local",
        "--serve",
        "--store=embedded",
        f"--port={free_port()}",
        f"--state={state}",
    ]
    inherited = {name: value for name, value in os.environ.items() if name != "FIRESTORE_EMULATOR_HOST"}
    inherited = {name: value for name, value in inherited.items() if not name.startswith("PYTEST")}  # NiceGUI reads it
    ready = (state / "settings.json").exists
    with running(
        "The system", command, log=folder / "output", environ=inherited | UNSET | environ, ready=ready
    ) as part:
        yield LocalSystem(part.process.pid, state)


def eventually(true: Callable[[], bool]) -> bool:
    """Wait up to PATIENCE for a condition, and return whether it became true."""
    limit = time.monotonic() + PATIENCE
    while not (done := true()) and time.monotonic() < limit:
        time.sleep(0.1)
    return done


def test_simulator_needs_no_options_beside_the_system(tmp_path: Path) -> None:
    """Port, secret and keys come from a private file, which is gone when the system has ended."""
    body = b'{"event":{"eventId":"my-event"}}'
    with serving(tmp_path) as system:
        files = [system.folder / name for name in ("settings.json", "identity-keys.json")]
        modes = [stat.S_IMODE(file.stat().st_mode) for file in files]

        sent = [
            system.simulator("send", "touch", *more)
            for more in ([], ["--signature", "secret"], ["--signature", "public-key"], ["--signature", "both"])
        ]
        tokens = [
            system.simulator("sign", *more, stdin=body).stdout.decode().strip()
            for more in ([], ["--signature", "public-key"])
        ]
        verified = [system.simulator("verify", "--token", token, stdin=body) for token in tokens]
        proofs = system.count("proof")

    assert [done.returncode for done in sent] == [0, 0, 0, 0], sent
    assert proofs == {"secret": 3, "public_key": 1}
    assert [b"jti" in done.stdout for done in verified] == [True, False]
    assert [done.stdout.endswith(b"verified\n") for done in verified] == [True, True]
    assert modes == [0o600, 0o600]
    assert [file for file in files if file.exists()] == []


def test_commands_of_the_simulators_page_run_as_pasted(tmp_path: Path) -> None:
    """In one terminal, in the project's folder beside a running system, all of them succeed without settings."""
    page = (ROOT / "docs/simulator.md").read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    with serving(tmp_path) as system:
        (tmp_path / ".state").symlink_to(system.folder)
        (tmp_path / ".venv").symlink_to(Path(sys.prefix))
        script = "\n".join(blocks).replace("http://127.0.0.1:8080/", system.settings()["DT_ENDPOINT_URL"])
        environ = {**os.environ, **UNSET, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            ["bash", "-exo", "pipefail", "-c", script], cwd=tmp_path, env=environ, capture_output=True, text=True,
            check=False, timeout=PATIENCE,
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert len(blocks) > 5
    assert done.stdout.count("\nverified\n") == 2


def test_public_key_alone_loses_no_event(tmp_path: Path) -> None:
    """With DT_ORGANIZATION_ID alone, no event is lost though the keys cannot be fetched at first and change later."""
    events = 40
    with serving(tmp_path, DT_ORGANIZATION_ID="my-organization") as system:
        os.kill(system.pid, signal.SIGSTOP)  # the identity provider is in this process, the function is not
        command = [sys.executable, "-m", "simulator", "play", f"--events={events}", "--rate=4", "--time-factor=500"]
        with subprocess.Popen(
            [*command, f"--state={system.folder}"], cwd=ROOT, env=os.environ | UNSET, stdout=subprocess.PIPE
        ) as playing:
            outage = eventually(lambda: system.count("outcome")["unavailable"] > 0)
            os.kill(system.pid, signal.SIGCONT)
            delivered = eventually(lambda: system.count("outcome")["stored"] > 0)
            rotated = system.simulator("rotate-keys")
            refused = eventually(lambda: system.count("outcome")["unverified"] > 0)
            out, _ = playing.communicate(timeout=PATIENCE)
        outcomes, proofs = system.count("outcome"), system.count("proof")
        stored = documents(system)

    assert (outage, delivered, refused) == (True, True, True)
    assert b" signs from now on; " in rotated.stdout
    assert playing.returncode == 0
    assert out.splitlines()[-1].startswith(f"events {events}, success {events}, ".encode())
    assert (stored, outcomes["stored"], proofs["public_key"]) == (events, events, events)


def documents(system: LocalSystem) -> int:
    """Count the documents in the system's Firestore."""
    settings = system.settings()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRESTORE_EMULATOR_HOST", settings["FIRESTORE_EMULATOR_HOST"])
        client = firestore.Client(project=settings["GOOGLE_CLOUD_PROJECT"])
        return len(list(client.collection("events").stream()))


def test_settings_that_nobody_can_sign_for_are_refused(tmp_path: Path) -> None:
    """If simulated sensors could not sign, the exit status is 2, and one line says what to set."""
    command = [sys.executable, "-m", "local", "--events=1", "--store=embedded", f"--state={tmp_path}"]
    environ = os.environ | UNSET | {"DT_ORGANIZATION_ID": "mine", "DT_IDENTITY_ISSUER": ISSUER}

    ended = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE
    )

    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == (
        "./run.sh: The sensors cannot sign for DT_IDENTITY_ISSUER: set DT_SIGNATURE_SECRET too, or choose --serve."
        " See ./run.sh --help.\n"
    )
