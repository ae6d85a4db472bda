#!/usr/bin/env bash
# Everything that is checked: style by ruff, types by mypy, behaviour by pytest.
#
#   bash scripts/test.sh [pytest arguments, as in: tests/model -k border]
#
# Makes .venv and installs the project with its tests' needs on the first call.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
make_environment test

export TF_CPP_MIN_LOG_LEVEL=2
ruff check .
mypy
python -m pytest "$@"
