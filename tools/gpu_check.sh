#!/usr/bin/env bash
# All that needs a GPU, part by part, on a bare machine without network; gpu_check.py says how:
#
#     tools/gpu_check.sh OUTDIR [PART...] [--wheels WHEELDIR] [--copy DIR] [--budget SECONDS] [--small] [--list]
#
# It runs by PYTHON or, of the Pythons here that are 3.11 at least, by the first one that has torch.
able='import importlib.util, sys; sys.exit(sys.version_info < (3, 11) or not importlib.util.find_spec("torch"))'
for python in ${PYTHON:-python3 python3.12 python3.13 python3.11 python}; do
  if [ -n "${PYTHON:-}" ] || "$python" -c "$able" 2>/dev/null; then
    exec "$python" "$(dirname "$0")/gpu_check.py" "$@"
  fi
done
exec python3 "$(dirname "$0")/gpu_check.py" "$@" # whose install part says what is missing
