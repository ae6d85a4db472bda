#!/usr/bin/env bash
# Write requirements.lock anew: every package that the project and its extra [all] need, for all
# Pythons that setup.py takes, with the SHA-256 of each of its files.
#
#   bash scripts/lock.sh
#
# Run the tests afterwards: what is locked should be what was tested.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# uv alone resolves for several Pythons at once.
if ! uv=$(command -v uv); then
    "$(find_python)" -m venv "$work/venv"
    "$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv
    uv="$work/venv/bin/uv"
fi
cat >"$work/lock" <<'TEXT'
# Written by scripts/lock.sh from setup.py: the set that is tested, with hashes.
#
#   pip install --require-hashes -r requirements.lock && pip install --no-deps .
TEXT
"$uv" pip compile setup.py --quiet --extra all --universal --python-version 3.10 --generate-hashes \
    --no-header --no-annotate >>"$work/lock"
mv "$work/lock" requirements.lock
echo "requirements.lock: $(grep -c '==' requirements.lock) releases"
