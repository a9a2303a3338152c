# shellcheck shell=bash
# Sourced by run.sh and test.sh: makes .venv with the pinned packages, or finds it as it should be.
# PYTHON names an interpreter to use; otherwise the newest of 3.13, 3.12 and 3.11 on this machine is taken.

suitable_python() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

find_python() {
    local candidate pyenv_root="${PYENV_ROOT:-$HOME/.pyenv}"
    for candidate in ${PYTHON:+"$PYTHON"} \
        python3.13 "$pyenv_root"/versions/3.13*/bin/python \
        python3.12 "$pyenv_root"/versions/3.12*/bin/python \
        python3.11 "$pyenv_root"/versions/3.11*/bin/python python3 python; do
        if suitable_python "$candidate"; then
            echo "$candidate"
            return
        elif [ "$candidate" = "${PYTHON:-}" ]; then
            break
        fi
    done
    echo "Python 3.11, 3.12 or 3.13 (with venv) is needed and was not found${PYTHON:+ at PYTHON=$PYTHON}:" \
        "install one, or set PYTHON to its path." >&2
    return 1
}

# A venv is as it should be when it was made by this interpreter from these requirement files.
ensure_venv() {
    local python stamp
    python=$(find_python) || return 1
    stamp=$("$python" -c 'import sys; print(sys.version)'; cat requirements.txt requirements-dev.txt)
    if [ ! -x .venv/bin/python ] || [ "$(cat .venv/stamp 2>/dev/null)" != "$stamp" ]; then
        echo "Making .venv with $("$python" --version) …" >&2
        rm -rf .venv
        "$python" -m venv .venv || return 1
        .venv/bin/python -m pip install --quiet --disable-pip-version-check \
            -r requirements.txt -r requirements-dev.txt || return 1
        printf '%s' "$stamp" >.venv/stamp
    fi
}
