#!/usr/bin/env bash
# On each host of a TPU slice: installs the wheel in the home folder into ~/tokret. The
# hosts' Ubuntu 22.04 has Python 3.10 and tokret wants 3.11, so uv brings one.
set -euo pipefail

curl -LsSf https://astral.sh/uv/install.sh | sh
~/.local/bin/uv venv --clear --python=3.12 ~/tokret
~/.local/bin/uv pip install --python="$HOME/tokret/bin/python" "$(ls ~/tokret-*.whl)[gcs,tpu]"
