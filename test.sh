#!/usr/bin/env bash
# Checks and tests from a fresh checkout; ./test.sh --help says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# The tests of main.py and receiver/: these alone cover both in full. The slowest come first.
FUNCTION_TESTS=(
    tests/test_channel.py
    tests/test_devices.py
    tests/test_credentials.py
    tests/test_public_key.py
    tests/test_properties.py
    tests/test_store.py
    tests/test_contract.py
    tests/test_signature.py
    tests/test_authentication.py
    tests/test_batching.py
    tests/test_bundle.py
    tests/test_log.py
    tests/test_metadata.py
    tests/test_settings.py
)

if [ "${1:-}" = "--help" ] || [ "${1:-}" = "-h" ]; then
    cat <<'HELP'
usage: ./test.sh [--all | PYTEST ARGUMENT ...]

Makes .venv, or adds what is missing there. Runs ruff, mypy and import-linter,
then tests on the official Firestore emulator. Where it is not available, the
tests run on the embedded store, and the summary lists what was skipped.

examples:
  ./test.sh                            the function's tests, with 100 % branch
                                       coverage of main.py and receiver/:
                                       one to two minutes on two cores
  ./test.sh --all                      all tests, with the same coverage:
                                       five to ten minutes on two cores
  ./test.sh tests/test_store.py -k lost
                                       the tests that pytest selects
  CI=true ./test.sh --all              as in CI: a missing emulator, gcloud or
                                       Python version is a failure, not a skip
  PYTHON=python3.12 ./test.sh          with the interpreter of your choice
HELP
    exit 0
fi

# shellcheck source=local/venv.sh
source local/venv.sh
ensure_venv dev

.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
.venv/bin/lint-imports --no-logo

# More processes than cores, because most tests wait. With --all, the tests of one file stay in one process, because what
# they share is expensive to start.
COVERAGE=(--cov --cov-report=term-missing:skip-covered -rs)
case "${1:-}" in
    "") exec .venv/bin/python -m pytest "${COVERAGE[@]}" -n 4 --dist worksteal "${FUNCTION_TESTS[@]}" ;;
    --all) exec .venv/bin/python -m pytest "${COVERAGE[@]}" -n 3 --dist loadfile "${@:2}" ;;
    *) exec .venv/bin/python -m pytest "$@" ;;
esac
