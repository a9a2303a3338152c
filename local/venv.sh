# shellcheck shell=bash
# Sourced by run.sh, test.sh and deploy.sh, in the project's directory: ensure_venv makes .venv with the locked packages,
# unless it is up to date. PYTHON names the interpreter; without it, the first of 3.13, 3.12, 3.11 and newer versions.

suitable_python() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local version candidate pyenv_versions="${PYENV_ROOT:-${HOME:-}/.pyenv}/versions"
    if [ -n "${PYTHON:-}" ]; then
        suitable_python "$PYTHON" && echo "$PYTHON" && return
        echo "PYTHON=$PYTHON is not a Python 3.11 or newer with venv." >&2
        return 1
    fi
    for version in 3.13 3.12 3.11 3.14 3.15 3 ""; do
        for candidate in "python$version" "$pyenv_versions/$version."*/bin/python; do
            suitable_python "$candidate" && echo "$candidate" && return
        done
    done
    echo "Python 3.11 or newer with venv was not found: install it, or set PYTHON to its path." >&2
    return 1
}

# The stamp in .venv tells which interpreter and which locks it was made from. Where flock exists, a second caller waits for
# the first one instead of building into the same directory.
ensure_venv() (
    python=$(find_python) || return 1
    stamp=$("$python" -c 'import sys; print(sys.version)'; cksum requirements-dev.txt)
    exec 9<local/venv.sh
    if command -v flock >/dev/null; then flock 9; fi
    if [ -x .venv/bin/python ] && [ "$(cat .venv/stamp 2>/dev/null)" = "$stamp" ]; then return; fi
    echo "Making .venv with $("$python" --version), which takes about a minute ..." >&2
    rm -rf .venv
    "$python" -m venv .venv || return 1
    .venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt ||
        return 1
    printf '%s' "$stamp" >.venv/stamp
)
