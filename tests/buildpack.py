"""Builds and runs an uploaded bundle on this machine, as Google's buildpack and Cloud Run do."""

import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from local.processes import accepts, free_port, stop


class Runtime:
    """Builds and starts functions; each runs until `stop`."""

    def __init__(self, folder: Path, emulator_host: str) -> None:
        """Put bundles, environments and logs into a folder."""
        self._folder = folder
        self._emulator_host = emulator_host
        self._processes: list[subprocess.Popen[bytes]] = []
        self._count = 0
        self._builder = ThreadPoolExecutor(1)
        self._environments: dict[str, Future[Path]] = {}

    def stop(self) -> None:
        """Stop all functions."""
        with ThreadPoolExecutor(max(1, len(self._processes))) as threads:
            list(threads.map(stop, self._processes))

    def deploy(self, bundle: bytes, function: dict[str, Any], secrets: dict[str, list[bytes]]) -> str:
        """Build a bundle in a clean environment of its runtime, and start it.

        Google's buildpack for Python starts the command `functions-framework` and sets FUNCTION_TARGET and the like.

        Args:
            bundle: a zip file.
            function: the function in the form of the Cloud Functions API, version 2.
            secrets: the versions of each secret, oldest first.

        Returns:
            The URL of the function.
        """
        self._count += 1
        source = self._folder / f"source-{self._count}"
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            archive.extractall(source)
        binaries = self.build(function["buildConfig"]["runtime"], source / "requirements.txt").result()
        port = free_port()
        environ = {
            "PATH": f"{binaries}:/usr/bin:/bin",
            "HOST": "127.0.0.1",
            "PORT": str(port),
            "FUNCTION_TARGET": function["buildConfig"]["entryPoint"],
            "FUNCTION_SIGNATURE_TYPE": "http",
            "FIRESTORE_EMULATOR_HOST": self._emulator_host,
            **function["serviceConfig"]["environmentVariables"],
            **_secret_environ(function, secrets),
        }
        self._start(source, environ, port)
        return f"http://127.0.0.1:{port}"

    def _start(self, source: Path, environ: dict[str, str], port: int) -> None:
        log = source.with_suffix(".log")
        with log.open("w") as output:
            process = subprocess.Popen(
                ["/bin/sh", "-c", "exec functions-framework"],
                cwd=source,
                env=environ,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._processes.append(process)
        while not accepts(port):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)

    def build(self, runtime: str, requirements: Path) -> "Future[Path]":
        """Start to build an environment that holds only the requirements, unless that was done; return its `bin`."""
        key = runtime + requirements.read_text()
        if key not in self._environments:
            self._environments[key] = self._builder.submit(self._install, runtime, requirements)
        return self._environments[key]

    def _install(self, runtime: str, requirements: Path) -> Path:
        environment = Path(tempfile.mkdtemp(prefix="environment-", dir=self._folder))
        subprocess.run([_interpreter(runtime), "-m", "venv", environment], check=True)
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
        subprocess.run([environment / "bin" / "python", *install, "-r", requirements], check=True)
        return environment / "bin"


def _interpreter(runtime: str) -> str:
    version = f"{runtime[6]}.{runtime[7:]}"  # python313
    if version == f"{sys.version_info.major}.{sys.version_info.minor}":
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [shutil.which(f"python{version}"), *map(str, pyenv.glob(f"versions/{version}.*/bin/python"))]
    for candidate in filter(None, candidates):  # pyenv's shim on the PATH may not run the version
        if not subprocess.run([candidate, "--version"], check=False, capture_output=True).returncode:
            return candidate
    assert os.environ.get("CI") != "true", f"CI needs Python {version}"
    pytest.skip(f"Python {version} is not installed")


def _secret_environ(function: dict[str, Any], secrets: dict[str, list[bytes]]) -> dict[str, str]:
    wanted = function["serviceConfig"].get("secretEnvironmentVariables", [])
    return {each["key"]: secrets[each["secret"]][int(each["version"]) - 1].decode() for each in wanted}
