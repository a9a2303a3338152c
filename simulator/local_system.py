"""Finds the system that `./run.sh` runs on this machine, by the file that it writes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from simulator.keys import KeyFile
from simulator.signer import Signer, first_id

FOLDER = Path(".state")
SETTINGS_FILE = "settings.json"  # in the folder


@dataclass(frozen=True, slots=True)
class LocalSystem:
    """The running system.

    Attributes:
        url: of the function.
        secrets: its signature secrets; the first one signs.
        organizations: the ids in its `DT_ORGANIZATION_ID`, as written there.
        issuer: of its public keys; "" if it trusts none.
        keys: the keys of its own identity provider; None if it trusts another one, or none.
    """

    url: str
    secrets: Sequence[str] = field(repr=False)
    organizations: str
    issuer: str
    keys: KeyFile | None

    @property
    def signer(self) -> Signer:
        """What signs for it, by each proof that it trusts."""
        secret = next(iter(self.secrets), None)
        return Signer(secret, self.keys.newest if self.keys else None, first_id(self.organizations))


def find_local_system(folder: Path) -> LocalSystem | None:
    """Return the system whose files are in a folder; None if no system runs there."""
    try:
        settings: dict[str, str] = json.loads((folder / SETTINGS_FILE).read_text())
        key_file = settings.get("DT_IDENTITY_KEYS")
        return LocalSystem(
            settings["DT_ENDPOINT_URL"],
            secret_lines(settings["DT_SIGNATURE_SECRET"]),
            settings["DT_ORGANIZATION_ID"],
            settings["DT_IDENTITY_ISSUER"],
            KeyFile(Path(key_file)) if key_file and Path(key_file).exists() else None,
        )
    except (OSError, ValueError, KeyError):
        return None


def secret_lines(text: str) -> list[str]:
    """Return the signature secrets in a text, one a line."""
    return [line.strip() for line in text.splitlines() if line.strip()]
