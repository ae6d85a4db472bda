#!/usr/bin/env bash
# The tests under the oldest releases that setup.py takes (constraints-lowest.txt).
#
#   bash scripts/test_lowest.sh [pytest arguments]
#
# Makes .venv-lowest with the oldest Python that is here. Without arguments it runs the quick parts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

venv=${VENV:-.venv-lowest}
if [[ ! -x $venv/bin/python ]]; then "$(find_python)" -m venv "$venv"; fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --constraint constraints-lowest.txt --editable ".[test]"

export TF_CPP_MIN_LOG_LEVEL=2
if [[ $# -eq 0 ]]; then
    set -- tests/cases tests/config tests/volumes tests/evaluation tests/model tests/dataset \
        tests/serving -m "not slow"
fi
# Old packages warn of newer ones among themselves; that is not this project's to mend.
"$venv/bin/python" -m pytest -W "ignore::DeprecationWarning:matplotlib" "$@"
