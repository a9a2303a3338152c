"""The options by which a command gets its endpoint and what it signs with: given, or those of the local system."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any, Literal

import click

import command_line
from receiver.settings import Settings, is_loopback
from simulator.connector import check_url
from simulator.keys import KeyFile
from simulator.local_system import FOLDER, LocalSystem, find_local_system, secret_lines
from simulator.signer import Signer

Kind = Literal["secret", "public-key", "both"]
Command = Callable[..., int | None]

DEFAULT_URL = "http://127.0.0.1:8080/"
_TRUST = ("DT_ORGANIZATION_ID", "DT_IDENTITY_ISSUER")
_SET_SECRET = "set DT_SIGNATURE_SECRET or pass --secret-file"  # noqa: S105 - no secret


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a command has to sign and to verify with.

    Attributes:
        url: of the endpoint.
        given: the secrets of --secret-file or DT_SIGNATURE_SECRET; empty if neither is set.
        kind: the proofs that sign; None: the given secret, else all that the local system trusts.
        folder: of the local system.
        system: the local system; None if none runs, or if the endpoint is not on this machine.
    """

    url: str
    given: Sequence[str] = field(repr=False)
    kind: Kind | None
    folder: Path
    system: LocalSystem | None

    @property
    def secrets(self) -> Sequence[str]:
        """The signature secrets.

        Raises:
            click.UsageError: there are none.
        """
        secrets = self.given or (self.system.secrets if self.system else ())
        if not secrets:
            raise click.UsageError(f"No signature secret{self._why(_SET_SECRET)}")
        return secrets

    @property
    def signer(self) -> Signer:
        """What signs.

        Raises:
            click.UsageError: there is nothing to sign with.
        """
        by_system = self.system.signer if self.system else Signer()
        if self.kind is None and not self.given and by_system.signs:
            return by_system
        secret = None if self.kind == "public-key" else self.secrets[0]
        if self.kind in {None, "secret"}:
            return Signer(secret)
        if not by_system.key:
            raise click.UsageError(f"No key of an identity provider{self._why()}")
        return Signer(secret, by_system.key, by_system.organization)

    @property
    def trusted(self) -> Settings:
        """The settings whose organizations and issuer are trusted by public key.

        Raises:
            click.UsageError: there are none, or they are not valid.
        """
        environ = {name: os.environ.get(name, "") for name in _TRUST}
        if not environ["DT_ORGANIZATION_ID"].strip():
            if not self.system or not self.system.organizations:
                raise click.UsageError(f"No organization to trust{self._why('set DT_ORGANIZATION_ID')}")
            environ = dict(zip(_TRUST, (self.system.organizations, self.system.issuer), strict=True))
        return command_line.function_settings(environ)

    def _why(self, cure: str | None = None) -> str:
        if not is_loopback(self.url):
            return f" for {self.url}: {cure or 'only DT has its keys'}."
        if self.system:
            return f": the system that runs in {self.folder} has none{f'; {cure}' if cure else ''}."
        return f": no system runs in {self.folder}; start one with ./run.sh --serve{f', or {cure}' if cure else ''}."


def local_keys(folder: Path) -> KeyFile:
    """Return the keys of the identity provider that runs in a folder.

    Raises:
        click.UsageError: none runs there.
    """
    system = find_local_system(folder)
    if system is None:
        raise click.UsageError(f"No system runs in {folder}; start one with ./run.sh --serve.")
    if system.keys is None:
        raise click.UsageError(f"The system that runs in {folder} has no identity provider of its own.")
    return system.keys


def credentials(*signatures: Kind, url: bool = True) -> Callable[[Command], Command]:
    """Return a decorator that adds options to a command, which receives their values as `given: Credentials`.

    Args:
        signatures: the values of --signature; none: the command does not sign.
        url: whether the command has --url.
    """

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_credentials(
            *,
            secret_file: Path | None,
            state: Path,
            url: str | None = None,
            signature: Kind | None = None,
            **others: Any,
        ) -> int | None:
            return command(given=_credentials(url, secret_file, signature, state), **others)

        decorated: Command = _SECRET_FILE(STATE(with_credentials))
        if signatures:
            decorated = click.option("--signature", type=click.Choice(signatures), help=_SIGNATURE)(decorated)
        return _URL(decorated) if url else decorated

    return decorate


def _credentials(url: str | None, secret_file: Path | None, kind: Kind | None, state: Path) -> Credentials:
    if url:
        try:
            check_url(url)
        except ValueError as error:
            raise click.UsageError(f"--url or DT_ENDPOINT_URL: {error}") from None
    system = find_local_system(state) if not url or is_loopback(url) else None
    url = url or (system.url if system else DEFAULT_URL)
    return Credentials(url, _given_secrets(secret_file), kind, state, system)


def _given_secrets(file: Path | None) -> list[str]:
    if file is None:
        return secret_lines(os.environ.get("DT_SIGNATURE_SECRET", ""))
    try:
        secrets = secret_lines(file.read_text("utf-8", "surrogateescape"))
    except OSError as error:
        raise click.UsageError(f"--secret-file {file}: {error.strerror}") from None
    if not secrets:
        raise click.UsageError(f"--secret-file {file}: there is no secret in it.")
    return secrets


_SIGNATURE = "What signs. Default: a secret that is given to this command, else all that the local system trusts."
_URL = click.option(
    "--url",
    metavar="URL",
    envvar="DT_ENDPOINT_URL",
    help=f"URL of the endpoint. Default: $DT_ENDPOINT_URL, else the local system's, else {DEFAULT_URL}",
)
_SECRET_FILE = click.option(
    "--secret-file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File with the signature secret. Default: $DT_SIGNATURE_SECRET, else the local system's.",
)
STATE = click.option(
    "--state",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=FOLDER,
    show_default=True,
    help="Folder of the local system (./run.sh --state).",
)
