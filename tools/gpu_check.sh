#!/usr/bin/env bash
# All that needs a GPU, part by part, on a bare machine without network; gpu/check.py says how:
#
#     tools/gpu_check.sh OUTDIR [PART...] [--wheels WHEELDIR] [--copy DIR] [--budget SECONDS] [--small]
#     tools/gpu_check.sh --list
#
# It runs by PYTHON or, of the Pythons here that are 3.11 at least, by the first one that has torch. Where none has it,
# the part called install says so.
able='import importlib.util, sys; sys.exit(sys.version_info < (3, 11) or not importlib.util.find_spec("torch"))'
if [ -z "${PYTHON:-}" ]; then
  PYTHON=python3
  for python in python3 python3.12 python3.13 python3.11 python; do
    if "$python" -c "$able" 2>/dev/null; then
      PYTHON=$python
      break
    fi
  done
fi
exec "$PYTHON" "$(dirname "$0")/gpu/check.py" "$@"
