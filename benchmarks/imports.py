"""Measures how long a contender's imports take, package by package."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from local.processes import ROOT

_LINE = re.compile(r"import time: +(\d+) \| +\d+ \| *(\S+)")  # of python -X importtime


def import_times(source: Path, environ: Mapping[str, str]) -> Counter[str]:
    """Run a file in a new process, and return the microseconds that its imports take, by package."""
    code = f"import runpy; runpy.run_path({str(source)!r}, run_name='contender')"
    command = [sys.executable, "-X", "importtime", "-c", code]
    finished = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    packages = Counter[str]()
    for own, module in _LINE.findall(finished.stderr):
        packages[_package(module)] += int(own)
    return packages


def _package(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[: 3 if parts[0] == "google" else 1])
