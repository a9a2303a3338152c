"""Downloads the pinned Firestore emulator."""

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

Say = Callable[[str], None]

_TIMEOUT, _CONNECT_TIMEOUT = 15.0, 3.0  # seconds without a byte; to connect, for machines without a network


class NotFoundError(Exception):
    """Raised if the emulator, or a Java for it, is not available; the text is the reason in short."""


@dataclass(frozen=True, slots=True)
class Download:
    """An emulator to download.

    Attributes:
        version: as in the file's name.
        size: in bytes.
        sha256: in hex.
        url: its address.
    """

    version: str
    size: int
    sha256: str
    url: str


# As the Firebase tools 15.34.2 pin it, in their lib/emulator/downloadableEmulatorInfo.json.
PINNED = Download(
    version="1.22.0",
    size=136707194,
    sha256="9b6498b7f62714d67f48f59b3818883cd682dbcd46b9f59511de81c97bb5166c",
    url="https://storage.googleapis.com/firebase-preview-drop/emulator/cloud-firestore-emulator-v1.22.0.jar",
)


def download(wanted: Download, path: Path, say: Say) -> None:
    """Download an emulator; the file appears only when it is complete and verified.

    Args:
        wanted: the download.
        path: the file; its folder is created if necessary.
        say: is called with each line of progress.

    Raises:
        NotFoundError: it cannot be downloaded, or its size or checksum is wrong.
    """
    import httpx  # noqa: PLC0415 - it takes long, and most runs download nothing

    timeout = httpx.Timeout(_TIMEOUT, connect=_CONNECT_TIMEOUT)
    try:
        with httpx.stream("GET", wanted.url, timeout=timeout) as response:
            response.raise_for_status()
            say(f"Downloading the Firestore emulator ({wanted.size / 1e6:.0f} MB, once) to {path} …")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as folder:
                part = Path(folder, path.name)
                _save(response.iter_bytes(), wanted, part, say)
                part.replace(path)
    except (httpx.HTTPError, OSError) as error:
        reason = str(error) or type(error).__name__
        raise NotFoundError(f"it is not on this machine and could not be downloaded ({reason})") from error


def _save(chunks: Iterable[bytes], wanted: Download, path: Path, say: Say) -> None:
    checksum, size, tenths = hashlib.sha256(), 0, 0
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
            checksum.update(chunk)
            size += len(chunk)
            if size > wanted.size:
                break
            if size * 10 // wanted.size > tenths:
                tenths = size * 10 // wanted.size
                say(f"  {tenths}0 %")
    if (size, checksum.hexdigest()) != (wanted.size, wanted.sha256):
        raise OSError("its size or checksum is not the pinned one")
