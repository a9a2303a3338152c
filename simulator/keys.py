"""The keys of a simulated identity provider: in memory, or in a file that it shares with the senders."""

import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from simulator.public_key import SigningKey, from_jwk, new_key

_KEPT = 2  # the one that signs, and the one before it, whose tokens may still be under way


class Keys:
    """Keys in memory: the newest one signs, all are published."""

    def __init__(self) -> None:
        """Initialize without a key."""
        self._keys: Sequence[SigningKey] = ()

    def read(self) -> Sequence[SigningKey]:
        """Return the keys, the newest first."""
        return self._keys

    def write(self, keys: Sequence[SigningKey]) -> None:
        """Replace the keys."""
        self._keys = keys

    def create(self, issuer: str) -> None:
        """Replace all keys with a new one of the issuer."""
        self.write([new_key(issuer, time.time())])

    def newest(self) -> SigningKey:
        """Return the key that signs."""
        return self.read()[0]

    def rotate(self) -> SigningKey:
        """Sign with a new key from now on, and return it; of the others only the one before it stays published."""
        key = new_key(self.newest().issuer, time.time())
        self.write([key, *self.read()][:_KEPT])
        return key


class KeyFile(Keys):
    """Keys in a file that only its owner can read, as a JSON Web Key Set with the private keys."""

    def __init__(self, path: Path) -> None:
        """Use a file, which need not exist yet."""
        super().__init__()
        self._path = path
        self._stamp: tuple[int, int] | None = None

    def read(self) -> Sequence[SigningKey]:
        """Return the keys, the newest first: from the file if it has changed; those read last if it is gone.

        Raises:
            OSError: the file cannot be read, and no keys have been read yet.
        """
        try:
            status = self._path.stat()
            if self._stamp != (status.st_mtime_ns, status.st_ino):
                super().write([from_jwk(jwk) for jwk in json.loads(self._path.read_text())["keys"]])
                self._stamp = status.st_mtime_ns, status.st_ino
        except OSError:
            if not super().read():
                raise
        return super().read()

    def write(self, keys: Sequence[SigningKey]) -> None:
        """Replace the keys in the file.

        Raises:
            OSError: the file cannot be written.
        """
        write_private(self._path, json.dumps({"keys": [key.private_jwk() for key in keys]}))


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read; another process reads the old text or the new one, never a part.

    Raises:
        OSError: it cannot be written.
    """
    descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")  # with the mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as stream:  # noqa: PTH123 - a descriptor
            stream.write(text)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink()
        raise
