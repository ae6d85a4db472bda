#!/usr/bin/env bash
# Build the viewer's page from its sources and the locked npm packages: needs npm and its registry.
# With --check nothing is changed, and the exit code says whether the committed page is what they
# make, byte for byte.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/viewer"
page=../../pixelnet_tf/page

npm ci --ignore-scripts --no-audit --no-fund
if [[ ${1:-} == --check ]]; then
    made=$(mktemp -d)
    trap 'rm -rf "$made"' EXIT
    npm run --silent build -- "$made"
    diff -rq --exclude='__*' "$made" "$page" && echo "the page is current"
else
    npm run --silent build
    ls -l "$page"
fi
