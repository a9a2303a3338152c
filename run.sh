#!/usr/bin/env bash
# Runs the whole system on this machine; ./run.sh --help says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=local/venv.sh
source local/venv.sh
ensure_venv local
exec .venv/bin/python -m local "$@"
