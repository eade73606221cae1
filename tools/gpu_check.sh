#!/usr/bin/env bash
# All that needs a GPU, in one command on a bare machine without network:
#
#     tools/gpu_check.sh OUTDIR [WHEELDIR]
#
# A virtual environment sees the packages of PYTHON (python3.12, or python3; 3.11 at least), torch among them unless
# WHEELDIR has it; from WHEELDIR pip takes what else pyproject.toml asks for or, where that does not come out, all that
# is there. Then come the tests marked gpu, `gsdistill bench`, the renderers, and our loop against the peers'; bench and
# the peers once more with model.compile. OUTDIR gets a log and a JSON or JUnit file of each, and summary.json. A part
# that fails, or a command in it that takes longer than GPU_CHECK_LIMIT seconds (900), does not stop the others; the last
# line names the part, and the exit status is 1. GPU_CHECK_SMALL=1 goes through the first parts in a small form, on a CPU
# in minutes.
set -u

if [ $# -lt 1 ] || [ $# -gt 2 ]; then
  echo "usage: $0 OUTDIR [WHEELDIR]" >&2
  exit 2
fi
root=$(cd "$(dirname "$0")/.." && pwd) || exit 2
mkdir -p "$1" || exit 2
out=$(cd "$1" && pwd) || exit 2
wheels=""
if [ $# -eq 2 ]; then
  wheels=$(cd "$2" && pwd) || exit 2
fi
small=${GPU_CHECK_SMALL:-}
limit=${GPU_CHECK_LIMIT:-900}
base=${PYTHON:-$(command -v python3.12 || command -v python3)}

work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
python="$work/venv/bin/python"
export HF_HUB_OFFLINE=1 NUMBA_CACHE_DIR="$work/numba" XDG_CACHE_HOME="$work/cache"

# Beside the environment's own packages: those of PYTHON, which may itself be one of a virtual environment, and this
# checkout. One path a line.
paths='import sys, sysconfig; print(*{sysconfig.get_path(kind) for kind in ("purelib", "platlib")}, sys.argv[1], sep="\n")'
# What the checkout needs: its dependencies, and of the developers' ones those of the tests.
needed='
import re, sys, tomllib
project = tomllib.load(open(sys.argv[1], "rb"))["project"]
tests = [line for line in project["optional-dependencies"]["dev"] if re.match(r"(pytest|beartype|hypothesis)\b(?!-)", line)]
print(*project["dependencies"], *tests, sep="\n")'
# How many tests ran. None is a failure: where torch finds no GPU all of them are skipped, and pytest is content.
ran='
import sys, xml.etree.ElementTree as tree
suites = list(tree.parse(sys.argv[1]).iter("testsuite"))
tests, skipped = (sum(int(suite.get(name)) for suite in suites) for name in ("tests", "skipped"))
print(f"{tests - skipped} tests ran, {skipped} were skipped")
sys.exit(tests == skipped)'
summary='
import json, platform, sys
try:
    import torch
    place = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    name = torch.get_device_module(place).get_device_name() if place else platform.processor() or platform.machine()
    found = {"device": name, "torch": torch.__version__}
except ImportError:
    found = {"device": None, "torch": None}
lines = [line.split() for line in open(sys.argv[1])]
parts = {part: {"status": int(status), "seconds": int(seconds)} for part, status, seconds in lines}
found |= {"small": sys.argv[3] == "small", "parts": parts}
open(sys.argv[2], "w").write(json.dumps(found, indent=2) + "\n")'

run() {
  timeout "$limit" "$python" "$@"
}

install() {
  "$base" -m venv --system-site-packages "$work/venv" || return 1
  "$base" -c "$paths" "$root" >"$work/paths" || return 1
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))') || return 1
  cp "$work/paths" "$site/gsdistill-check.pth" || return 1
  if [ -n "$wheels" ]; then
    "$python" -c "$needed" "$root/pyproject.toml" >"$work/needed" || return 1
    if ! run -m pip install --no-index --find-links "$wheels" -r "$work/needed"; then
      # A package that something there asks for and nothing here uses: take the folder as it is.
      run -m pip install --no-index --no-deps "$wheels"/*.whl || return 1
    fi
  fi
  "$python" -c 'import torch, gsdistill; print(torch.__version__, torch.accelerator.current_accelerator())'
}

tests() {
  if [ -n "$small" ]; then
    set -- tests/renderer/test_cuda.py tests/training/test_clock.py tests/training/test_waiting.py
  else
    set -- -m gpu
  fi
  run -m pytest -q -p no:cacheprovider --junitxml="$out/tests.xml" "$@" || return 1
  "$python" -c "$ran" "$out/tests.xml"
}

bench() {
  if [ -n "$small" ]; then
    set -- --prior shapes --views 2 --resolution 64 --init.count 1000 --steps 5 --warmup 2 "$@"
  else
    set -- --random-weights sd21-base --views 4 --resolution 512 --init.count 100000 "$@"
  fi
  run -m gsdistill bench "$@" --json "$out/$part.json"
}

bench_compiled() {
  bench --model.compile
}

renderer() {
  if [ -n "$small" ]; then
    set -- --backends cpu --n 1000 --size 64 --views 1 --repeats 2
  else
    set -- --backends cuda
  fi
  run tools/bench_renderer.py "$@" --json "$out/renderer.json"
}

peers() {
  if [ -n "$small" ]; then
    set -- --prior shapes --views 2 --resolution 64 --n 1000 --steps 3 --rounds 3 --warmup 2 "$@"
  else
    set -- --prior sd21-base --views 4 --resolution 512 --n 100000 "$@"
  fi
  run tools/bench_peer_loop.py "$@" --json "$out/$part.json"
}

peers_compiled() {
  peers --compile
}

cd "$root" || exit 2
: >"$work/parts"
failed=""
parts="install tests bench renderer peers"
if [ -z "$small" ]; then
  parts="$parts bench_compiled peers_compiled" # minutes of a compiler, which the small form leaves out
fi
for part in $parts; do
  echo "== $part"
  began=$(date +%s)
  "$part" >"$out/$part.log" 2>&1
  status=$?
  tail -n 12 "$out/$part.log"
  echo "$part $status $(($(date +%s) - began))" >>"$work/parts"
  if [ "$status" -ne 0 ]; then
    failed="$failed $part"
    echo "== $part failed with status $status, see $out/$part.log"
  fi
done
if ! "$python" -c "$summary" "$work/parts" "$out/summary.json" "${small:+small}"; then
  failed="$failed summary"
fi
if [ -n "$failed" ]; then
  echo "failed:$failed"
  exit 1
fi
echo "all parts are there: $out/summary.json"
