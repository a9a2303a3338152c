"""Fetches the pinned Firestore emulator: whole and verified, or not at all."""

import hashlib
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue

import httpx

Say = Callable[[str], None]

_CONNECT_LIMIT = 3.0  # seconds, so that a machine without a network does not wait
_STALL_LIMIT = 15.0  # seconds without a byte


class DownloadError(Exception):
    """Raised if the emulator could not be fetched, or is not what it should be; the text is the reason in short."""


@dataclass(frozen=True, slots=True)
class Download:
    """An emulator to be fetched.

    Attributes:
        version: as the file's name has it.
        size: in bytes.
        sha256: checksum in hex.
        url: where it is.
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
    """Fetch an emulator; its file is there whole and verified, or not at all.

    Args:
        wanted: what to fetch.
        path: the file to make, its folder too.
        say: takes each line of progress.

    Raises:
        DownloadError: it could not be fetched, or is not what it should be.
    """
    try:
        with _open(wanted.url) as response:
            say(f"Downloading the Firestore emulator ({wanted.size / 1e6:.0f} MB, once) to {path} …")
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=".download-") as scratch:
                part = Path(scratch, path.name)
                _save(response, wanted, part, say)
                part.replace(path)
    except (httpx.HTTPError, OSError) as error:
        raise DownloadError(str(error) or type(error).__name__) from error


def _save(response: httpx.Response, wanted: Download, path: Path, say: Say) -> None:
    checksum, size, tenths = hashlib.sha256(), 0, 0
    with path.open("wb") as file:
        for chunk in response.iter_bytes():
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


@contextmanager
def _open(url: str) -> Iterator[httpx.Response]:
    """Ask for a URL in a thread: the look-up of a name can take long without a network, and knows no time-out."""
    answers: Queue[httpx.Response | Exception] = Queue()
    with closing(httpx.Client(timeout=httpx.Timeout(_STALL_LIMIT, connect=_CONNECT_LIMIT))) as client:

        def ask() -> None:
            try:
                answers.put(client.send(client.build_request("GET", url), stream=True))
            except (httpx.HTTPError, OSError) as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True).start()
        try:
            answer = answers.get(timeout=2 * _CONNECT_LIMIT)
        except Empty:
            raise TimeoutError(f"no answer within {2 * _CONNECT_LIMIT:g} s") from None
        if isinstance(answer, Exception):
            raise answer
        with closing(answer):
            yield answer.raise_for_status()
