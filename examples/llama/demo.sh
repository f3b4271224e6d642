#!/usr/bin/env bash
# The demo after the build: Python environment, model and text, then the runner. `./dev demo` calls it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

runner=${PAGEDKV_LLAMA:-build/cpu/bin/pagedkv-llama}
requirements=examples/llama/prepare/requirements.txt
installed=.venv/demo-requirements.txt # a copy of what was installed, so that nothing is done twice

die() { printf 'demo: %s\n' "$*" >&2; exit 1; }

[ -x "$runner" ] || die "$runner is missing; run ./dev demo, which builds it"
if ! cmp -s "$requirements" "$installed"; then
  command -v python3 >/dev/null || die "python3 is missing; run: apt-get install python3 python3-venv"
  printf 'installing Python packages into .venv\n'
  [ -x .venv/bin/pip ] || python3 -m venv .venv || die "cannot make .venv; run: apt-get install python3-venv"
  .venv/bin/pip install --quiet --disable-pip-version-check --requirement "$requirements" ||
    die "pip could not install $requirements: check the network and run ./dev demo again"
  cp "$requirements" "$installed"
fi
exec .venv/bin/python examples/llama/prepare/demo.py "$runner" "$@"
