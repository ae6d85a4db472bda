# Sourced by the other scripts: a virtual environment with this project in it.

# Print the first usable Python; PYTHON in the environment overrides the choice.
find_python() {
    local name
    for name in ${PYTHON:-} python3.10 python3.11 python3.12 python3.13 python3 python; do
        # A name can exist and not run (a version manager's stub), or lack what a venv needs.
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
                >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    echo "error: no Python 3.10 to 3.13 with the venv module was found; install one" \
         "(Debian, Ubuntu: apt install python3 python3-venv) or set PYTHON=/path/to/python3" >&2
    return 1
}

# make_environment EXTRA: create or complete .venv with the extra EXTRA and put it first in PATH.
make_environment() {
    local extra=$1 venv=${VENV:-.venv} stamp python
    stamp="$venv/.installed-$extra"
    if [[ ! -e $stamp || setup.py -nt $stamp || pyproject.toml -nt $stamp ]]; then
        if [[ ! -x $venv/bin/python ]]; then
            python=$(find_python)
            echo "making $venv with $("$python" --version)"
            "$python" -m venv "$venv"
        fi
        echo "installing the project with [$extra] into $venv (TensorFlow alone is some 250 MB to fetch)"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --editable ".[$extra]"
        touch "$stamp"
    fi
    PATH="$(cd "$venv/bin" && pwd):$PATH"
}
