#!/usr/bin/env bash
# Runs the whole system on this machine; ./run.sh --help says more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
case " $* " in
    *" --env "*) # must print nothing else, and build nothing
        [ -f .venv/stamp-local ] && exec .venv/bin/python -m local "$@"
        echo "./run.sh: No system runs in this folder: start ./run.sh. See ./run.sh --help." >&2
        exit 2
        ;;
esac
# shellcheck source=local/venv.sh
source local/venv.sh
ensure_venv local
exec .venv/bin/python -m local "$@"
