#!/usr/bin/env bash
# The documentation as a site, build/docs/index.html: the pages of docs/, the gallery of examples/
# (which it runs, two minutes on two cores) and the reference of the public names.
#
#   bash scripts/docs.sh [sphinx-build arguments, as in: -D sphinx_gallery_conf.plot_gallery=0]
#
# Warnings are errors: a link that leads nowhere, a docstring that does not parse, an example that fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
make_environment docs

export TF_CPP_MIN_LOG_LEVEL=3 MPLBACKEND=Agg PYTHONWARNINGS=ignore
rm -rf docs/generated build/docs
python -m sphinx --fail-on-warning --keep-going -q -c docs . build/docs "$@"
cp build/docs/README.html build/docs/index.html
echo "documentation: build/docs/index.html"
