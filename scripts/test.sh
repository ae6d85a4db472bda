#!/usr/bin/env bash
# Everything that is checked: style by ruff, types by mypy, behaviour by pytest.
#
#   bash scripts/test.sh [pytest arguments, as in: tests/model -k border]
#   bash scripts/test.sh --cov        # also counts which lines the tests reach
#   bash scripts/test.sh -n 0 --pdb   # in one process, where a debugger can be used
#
# Tests run in a process for each core, at most eight: each holds TensorFlow and its graphs, some 3 GB.
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
# Neighbours stay together, since they share what is dear to make, until a process has nothing left
# to do and takes half of what another still has.
python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal "$@"
