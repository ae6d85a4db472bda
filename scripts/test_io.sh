#!/usr/bin/env bash
# The main job in S3 through tensorflow-io, in an environment of its own with TensorFlow 2.16
# (requirements-io.txt), against moto's server: killed and resumed, to the weights of a disk.
#
#   bash scripts/test_io.sh [OUT]      (default: nightly/io)
#
# Makes .venv-io with Python 3.11 or 3.12 where there is none; says so and ends with code 0 where
# there is no such Python.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
make_environment test

venv=${VENV_IO:-.venv-io}
if [[ ! -x $venv/bin/python ]]; then
    for name in ${PYTHON_IO:-} python3.11 python3.12 python3; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
                >/dev/null 2>&1; then
            "$name" -m venv "$venv"
            break
        fi
    done
fi
if [[ ! -x $venv/bin/python ]]; then
    echo "neither Python 3.11 nor 3.12 is here: nothing was tried with TensorFlow 2.16"
    exit 0
fi
if [[ requirements-io.txt -nt $venv/.installed ]]; then
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements-io.txt
    touch "$venv/.installed"
fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .
python scripts/check_store.py "${1:-nightly/io}" --store tensorflow --python "$PWD/$venv/bin/python" --short
