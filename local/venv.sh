# shellcheck shell=bash
# Sourced by run.sh, test.sh and deploy.sh, in the project's directory: ensure_venv makes .venv with the locked packages,
# unless it is up to date. PYTHON names the interpreter; without it an existing .venv keeps its own, and a new one gets
# the first of 3.13, 3.12, 3.11 and newer versions.

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

# ensure_venv [local | dev]: with what ./run.sh needs, or with what ./test.sh needs. The descriptor stays open, and its
# lock held, in the program that the script becomes: as long as it runs, no other script removes .venv.
ensure_venv() {
    local python packages=${1:-local}
    exec 8<local/venv.sh
    if [ -z "${PYTHON:-}" ] && [ -x .venv/bin/python ]; then
        .venv/bin/python -I -S local/install.py --check "$packages" 2>/dev/null && return
    fi
    python=$(find_python) || return 1
    "$python" -I local/install.py "$packages"
}
