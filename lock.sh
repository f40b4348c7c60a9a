#!/usr/bin/env bash
# Rewrites requirements/{cpu,cuda}.txt from pyproject.toml: names and versions only, no index and no file address.
set -euo pipefail
cd "$(dirname "$0")"
uv=${UV:-.venv/bin/uv}
common=(--quiet --group dev --python-version 3.11 --no-emit-index-url --no-emit-find-links --no-header --no-annotate)
UV_FIND_LINKS=${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}} "$uv" pip compile pyproject.toml --extra cpu "${common[@]}" -o requirements/cpu.txt
env -u UV_FIND_LINKS "$uv" pip compile pyproject.toml --extra cuda --no-config "${common[@]}" \
  --python-platform x86_64-manylinux_2_35 -o requirements/cuda.txt
if grep -nE '://|--index|--find-links' requirements/*.txt; then
  echo "lock.sh: a lock names an address (above): remove it" >&2
  exit 1
fi
