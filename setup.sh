#!/usr/bin/env bash
# Sets up .venv and runs a command in it:
#   ./setup.sh python -m rl.train          set up (half a minute; at once when nothing changed), then train
#   ./setup.sh python -m pytest            set up, then test
#   ./setup.sh                             set up only
# BACKEND=cpu|cuda picks the build of torch and vLLM (default: cuda where nvidia-smi works, else cpu);
# VENV=dir and PYTHON=python3.12 say where and with which interpreter.
set -euo pipefail
cd "$(dirname "$0")"
if [ -z "${BACKEND:-}" ]; then
  if nvidia-smi >/dev/null 2>&1; then BACKEND=cuda; else BACKEND=cpu; fi
fi
venv=${VENV:-.venv}
stamp=$venv/tally-setup
want=$(cat setup.sh pyproject.toml "requirements/$BACKEND.txt" | sha256sum)

if [ "$(cat "$stamp" 2>/dev/null)" != "$want" ]; then
  echo "setup: installing the $BACKEND build into $venv" >&2
  [ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: Tally needs Python 3.11 or newer; name one with PYTHON=python3.11 ./setup.sh" >&2; exit 2; }
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check 'uv>=0.9' 2>/dev/null ||
    "$venv/bin/python" -m pip install --disable-pip-version-check 'uv>=0.9'
  uv=$venv/bin/uv
  export VIRTUAL_ENV=$venv UV_PYTHON_DOWNLOADS=never
  if [ "$BACKEND" = cpu ]; then
    # torch's CPU build: a wheel on disk where pip is told to look, else the CPU index that uv itself knows
    torch=$(sed -n 's/^torch==//p' requirements/cpu.txt)
    for dir in ${UV_FIND_LINKS:-} ${PIP_FIND_LINKS:-}; do
      if compgen -G "$dir/torch-$torch-*.whl" >/dev/null; then wheels=$dir; break; fi
    done
    if [ -n "${wheels:-}" ]; then export UV_FIND_LINKS=$wheels; else export UV_TORCH_BACKEND=cpu; fi
  fi
  # --compile-bytecode: where Python may not write it later, each of a run's processes would compile torch and vLLM anew
  # --no-deps: the lock is whole, and what it leaves out (torchvision, torchaudio, triton on CPU) must stay out
  "$uv" pip install --quiet --no-deps --compile-bytecode -r "requirements/$BACKEND.txt"
  "$uv" pip install --quiet --no-deps --no-build-isolation -e .
  printf '%s' "$want" >"$stamp"
fi
[ $# -gt 0 ] || { echo "setup: ready. Next: ./setup.sh python -m rl.train" >&2; exit 0; }
VIRTUAL_ENV=$(cd "$venv" && pwd)
export VIRTUAL_ENV PATH="$VIRTUAL_ENV/bin:$PATH"
exec "$@"
