#!/usr/bin/env bash
# Build the site into build/site: without a warning, without a network once the packages are there, every link followed.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-.venv/bin/python}"
command -v npm > /dev/null || { echo "docs/build.sh: Node.js is missing; KaTeX needs it to render the formulas" >&2; exit 1; }
[[ -d docs/node_modules/katex ]] || npm ci --ignore-scripts --no-audit --no-fund --silent --prefix docs
rm -rf build/site
OMP_NUM_THREADS=1 "$python" -m sphinx -W --keep-going -q -b html docs build/site
"$python" docs/check_links.py build/site
