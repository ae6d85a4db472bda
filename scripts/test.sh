#!/usr/bin/env bash
# Everything that is checked: style by ruff, types by mypy, behaviour by pytest.
#
#   bash scripts/test.sh [pytest arguments, as in: tests/model -k border]
#   bash scripts/test.sh --cov        # also counts which lines the tests reach
#
# Makes .venv and installs the project with its tests' needs on the first call.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
make_environment test

export TF_CPP_MIN_LOG_LEVEL=2
# Counting lines costs next to nothing where Python tells of them itself.
if python -c 'import sys; sys.exit(sys.version_info < (3, 12))'; then export COVERAGE_CORE=sysmon; fi
ruff check .
mypy
python -m pytest "$@"
