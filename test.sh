#!/usr/bin/env bash
# From nothing to every check: lint, types, tests with branch coverage, against the official Firestore emulator.
# Where no emulator can be had the tests run on the embedded stand-in alone, and say what they skipped for that;
# with CI=true the emulator is required. Arguments go to pytest: ./test.sh tests/test_store.py -k lost
set -euo pipefail
cd "$(dirname "$0")"

if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
    cat <<'HELP'
usage: ./test.sh [PYTEST ARGUMENT ...]

Makes .venv where needed, then runs ruff, mypy --strict and pytest with branch coverage.

examples:
  ./test.sh                                   every check
  ./test.sh tests/test_store.py -k lost       lint, types, and some tests, without the coverage bound
  CI=true ./test.sh                           as CI does: the official emulator is required
  PYTHON=python3.12 ./test.sh                 with an interpreter of your choice
HELP
    exit 0
fi

# shellcheck source=local/venv.sh
source local/venv.sh
ensure_venv

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
if [ $# -gt 0 ]; then
    exec .venv/bin/python -m pytest "$@"
fi
exec .venv/bin/python -m pytest -n 2 --dist loadfile --cov --cov-report=term-missing:skip-covered -rs
