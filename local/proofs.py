"""How the local function verifies and how its simulated sensors sign, with an identity provider of this machine."""

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click

from simulator.identity_provider import IdentityProvider
from simulator.keys import KeyFile
from simulator.local_system import secret_lines
from simulator.sensors import ORGANIZATION_ID
from simulator.signer import Signer, first_id

SECRET, ORGANIZATION, ISSUER = "DT_SIGNATURE_SECRET", "DT_ORGANIZATION_ID", "DT_IDENTITY_ISSUER"


@dataclass(frozen=True, slots=True)
class Proofs:
    """The proofs that are switched on.

    Attributes:
        settings: the function's, by name; "" for one that is unset.
        given: whether they come from the user's environment.
        key_file: the keys of the local identity provider; None if it does not run.
    """

    settings: dict[str, str] = field(repr=False)
    given: bool
    key_file: Path | None = None

    @property
    def signer(self) -> Signer:
        """What the simulated sensors sign with; without means if only DT can sign."""
        key = KeyFile(self.key_file).newest if self.key_file else None
        secret = next(iter(secret_lines(self.settings[SECRET])), None)
        return Signer(secret, key, first_id(self.settings[ORGANIZATION]))

    def lines(self, settings_file: Path) -> Iterator[str]:
        """Yield a line for each proof, for the user; `settings_file` holds the secret."""
        if self.settings[SECRET]:
            yield f"Secret     {f'of {SECRET}' if self.given else f'random, in {settings_file}'}"
        if self.settings[ORGANIZATION]:
            issuer = self.settings[ISSUER] if self.key_file else f"of {ISSUER}"
            organization = f"of {ORGANIZATION}" if self.given else self.settings[ORGANIZATION]
            yield f"Public key issuer {issuer}, organization {organization}"


@contextmanager
def running_proofs(folder: Path, environ: Mapping[str, str], *, sensors: bool) -> Iterator[Proofs]:
    """Choose the proofs, and run an identity provider until the end of the block if one is needed.

    A secret or an organization of the environment switches on its own proof alone; without them both are on.

    Args:
        folder: for the keys of the identity provider.
        environ: the user's.
        sensors: whether simulated sensors must be able to sign.

    Raises:
        click.UsageError: the settings do not fit together, or nothing can sign.
    """
    chosen = {name: environ.get(name, "").strip() for name in (SECRET, ORGANIZATION, ISSUER)}
    if chosen[ISSUER] and not chosen[ORGANIZATION]:
        raise click.UsageError(f"{ISSUER} is set without {ORGANIZATION}: set both, or neither.")
    given = any(chosen.values())
    if not given:
        chosen |= {SECRET: secrets.token_urlsafe(32), ORGANIZATION: ORGANIZATION_ID}
    if chosen[ISSUER] and sensors and not chosen[SECRET]:
        raise click.UsageError(f"The sensors cannot sign for {ISSUER}: set {SECRET} too, or choose --serve.")
    if chosen[ISSUER] or not chosen[ORGANIZATION]:
        yield Proofs(chosen, given)
        return
    key_file = folder / "identity-keys.json"
    try:
        with IdentityProvider(keys=KeyFile(key_file)) as provider:
            yield Proofs(chosen | {ISSUER: provider.issuer}, given, key_file)
    finally:
        key_file.unlink(missing_ok=True)
