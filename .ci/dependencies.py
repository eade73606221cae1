"""What gsdistill depends on, under which licences and how old; its pins; and whether the bounds' ends pass the tests.

    python .ci/dependencies.py
    python .ci/dependencies.py --pin
    python .ci/dependencies.py --try lowest
    python .ci/dependencies.py --try latest --python 3.12 --tests tests/scene

The first form asks the index that uv is set up with for the newest release of every direct dependency, reads licences
from what is installed here, and writes dependencies.json and .md of tools/readme/results. ``--pin`` writes
tools/pins.txt: for every supported Python the newest versions that the bounds of pyproject.toml allow, of all
packages, as constraints for `pip install -c`. Its head says on which Python the tests ran with them, which is the one
that the tool is run by: run the README's test command with the new pins before you commit them. ``--try`` makes a
fresh environment of the lowest direct, the newest, or the pinned versions, runs the fast tests in it, and adds what it
found to the same files as the first form. All need uv (`pip install uv`), and the trials some gigabytes for a while.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import tomllib

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tools" / "readme" / "results" / "dependencies.json"
PINS = ROOT / "tools" / "pins.txt"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
RESOLUTIONS = {
    "lowest": ("--resolution", "lowest-direct"),
    "latest": ("--resolution", "highest"),
    "pinned": ("--constraint", str(PINS)),
}
FAST = "not slow and not browser and not gpu"

PURPOSES = {
    "torch": "tensors, gradients, networks",
    "diffusers": "networks of diffusion models, their schedulers, LoRA files",
    "transformers": "text encoders and tokenizers",
    "gsplat": "rendering on NVIDIA GPUs",
    "numba": "rendering on processors",
    "numpy": "arrays",
    "jaxtyping": "shapes of tensors in signatures",
    "plyfile": "PLY files",
    "pyyaml": "configs",
    "rich": "tables and bars on the terminal",
    "safetensors": "weights, checkpoints and caches",
    "imageio-ffmpeg": "videos, by ffmpeg",
    "pillow": "pictures",
    "huggingface-hub": "downloads of models",
    "jinja2": "pages of HTML",
    "matplotlib": "figures of sweeps and of the laboratory",
    "sentencepiece": "tokenizers of T5",
    "protobuf": "tokenizers of T5",
    "scipy": "nearest neighbours, statistics",
    "trimesh": "meshes: reading, sampling, writing",
    "gsply": "compressed formats of splats",
    "zstandard": "reading SPZ of version 4",
    "tensorboard": "event files of TensorBoard",
    "wandb": "runs of Weights & Biases",
    "scikit-image": "marching cubes",
    "xatlas": "charts of textures",
    "viser": "the viewer's page",
    "dracopy": "meshes in glTF that Draco compressed",
    "fast-simplification": "fewer triangles of the meshes of everyday objects",
    "sphinx": "the reference of the library, from docstrings",
    "pytest": "tests",
    "pytest-xdist": "tests in several processes",
    "beartype": "types of arguments, checked in tests",
    "hypothesis": "properties, tested on made-up input",
    "peft": "LoRA as others have it, in tests",
    "ruff": "lint and format",
    "pyright": "types, checked before anything runs",
    "pre-commit": "the same before a commit",
    "selenium": "browser tests",
}


def requirements() -> dict[str, tuple[str, str]]:
    """The extra and the bounds of every direct dependency, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    found = {}
    for extra, lines in groups.items():
        for line in lines:
            name, bounds = re.fullmatch(r"([\w-]+)(?:\[.*?\])?(.*)", line).groups()  # pyright: ignore
            if name != "gsdistill":
                found[name] = (extra, bounds)
    return found


def licence(package: metadata.Distribution) -> str:
    """What a package says, in few words: an SPDX expression, a short text, the classifiers, or the head of LICENSE."""
    facts = package.metadata
    text = (facts["License"] or "").strip() if "License" in facts else ""
    named = [line.rpartition(":: ")[2] for line in facts.get_all("Classifier", []) if line.startswith("License ::")]
    if "License-Expression" in facts:
        return facts["License-Expression"]
    if text and len(text) <= 40:
        return text
    files = [path for path in package.files or () if path.name.upper().startswith(("LICENSE", "LICENCE", "COPYING"))]
    heads = [line.strip() for path in files[:1] for line in path.read_text().splitlines() if line.strip()]
    return ", ".join(named) or next(iter(heads), "not told")


def release(lock: str, name: str) -> tuple[str, str]:
    """The newest version of a package in the text of uv's lock file, and the day on which the last file of it appeared.

    A lock has several where old Pythons get an older one.
    """
    found = [(_day(entry), entry["version"]) for entry in tomllib.loads(lock)["package"] if entry["name"] == name]
    day, version = max(found)
    return version, day


def _day(entry: Mapping[str, Any]) -> str:
    files = [*entry.get("wheels", []), *([entry["sdist"]] if "sdist" in entry else [])]
    return max((str(file["upload-time"])[:10] for file in files if "upload-time" in file), default="unknown")


def newest(name: str) -> tuple[str, str]:
    """Version and day of the newest release for this Python or a later one, whatever our bounds say."""
    with tempfile.TemporaryDirectory() as folder:
        python = f">={sys.version_info.major}.{sys.version_info.minor}"
        project = (
            f'[project]\nname = "scratch"\nversion = "0"\nrequires-python = "{python}"\ndependencies = ["{name}"]\n'
        )
        (Path(folder) / "pyproject.toml").write_text(project, encoding="utf-8")
        run(["uv", "lock", "--quiet", "--project", folder])
        return release((Path(folder) / "uv.lock").read_text(encoding="utf-8"), name)


def run(words: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program whose failure ends this one, in its own words."""
    if shutil.which(words[0]) is None:
        sys.exit(f"{words[0]} is not installed; pip install {words[0]}")
    done = subprocess.run(words, text=True, capture_output=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stderr}")
    return done


def survey() -> list[dict[str, str]]:
    """One entry for each direct dependency."""
    rows = []
    for name, (extra, bounds) in requirements().items():
        held = metadata.distribution(name)
        version, day = newest(name)
        rows.append(
            {
                "name": name, "extra": extra, "bounds": bounds, "licence": licence(held), "installed": held.version,
                "newest": version, "released": day, "purpose": PURPOSES[name],
            }
        )  # fmt: skip
    return rows


def attempt(kind: str, python: str, tests: Sequence[str]) -> dict[str, Any]:
    """Run tests with one end of the bounds, in an environment that is removed afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run(["uv", "venv", "--quiet", "--python", python, str(work / "venv")])
        own = work / "venv" / "bin" / "python"
        place = ["--python", str(own), *RESOLUTIONS[kind]]
        run(["uv", "pip", "install", "--quiet", *place, "--editable", f"{ROOT}[dev]"])
        listed = json.loads(run(["uv", "pip", "list", "--python", str(own), "--format", "json"]).stdout)
        began = time.monotonic()
        words = [
            str(own),
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-m",
            FAST,
            f"--junitxml={work / 'tests.xml'}",
        ]
        caches = {"NUMBA_CACHE_DIR": str(work / "numba"), "XDG_CACHE_HOME": str(work / "cache"), "HF_HUB_OFFLINE": "1"}
        subprocess.run([*words, *tests], cwd=ROOT, env={**os.environ, **caches})
        seconds = time.monotonic() - began
        versions = {entry["name"]: entry["version"] for entry in listed}
        return {
            "python": run([str(own), "-c", "import platform; print(platform.python_version())"]).stdout.strip(),
            "tests": " ".join(tests) or "all fast ones",
            **counts(work / "tests.xml"),
            "seconds": round(seconds),
            "versions": {name: versions[name] for name in requirements()},
        }


def pin() -> str:
    """The text of tools/pins.txt: one resolution for all Pythons, and no address of an index."""
    words = ["uv", "pip", "compile", "--quiet", "--universal", "--python-version", PYTHONS[0], "--all-extras"]
    resolved = run([*words, "--no-header", "--no-annotate", str(ROOT / "pyproject.toml")]).stdout
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    others = " ".join(python for python in PYTHONS if python != here)
    head = (
        "# Versions that gsdistill was tested with, for `pip install -c`; by `python .ci/dependencies.py --pin`.",
        f"# tests run on Python: {here}",
        f"# only resolved for: {others}",
    )
    return "\n".join((*head, resolved))


def counts(report: Path) -> dict[str, int]:
    """How many tests passed, failed and were skipped, from pytest's report in XML."""
    sums = {name: 0 for name in ("tests", "failures", "errors", "skipped")}
    for suite in ElementTree.parse(report).iter("testsuite"):
        sums = {name: value + int(suite.get(name, 0)) for name, value in sums.items()}
    failed = sums["failures"] + sums["errors"]
    return {"passed": sums["tests"] - failed - sums["skipped"], "failed": failed, "skipped": sums["skipped"]}


def markdown(found: Mapping[str, Any]) -> str:
    """Both tables."""
    trials = {kind: found["trials"][kind] for kind in RESOLUTIONS if kind in found["trials"]}
    lines = [
        f"# Dependencies, on {found['day']}", "",
        "Written by `python .ci/dependencies.py`. Licences are those that the packages' metadata names; the newest",
        "release is the newest at all, whether or not the bounds allow it yet.", "",
        "| package | extra | bounds | tested | newest release | licence | for |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in found["packages"]:
        tested = " and ".join(dict.fromkeys(trial["versions"][row["name"]] for trial in trials.values()))
        last = f"{row['newest']}, {row['released']}"
        cells = (row["name"], row["extra"], f"`{row['bounds']}`", tested, last, row["licence"], row["purpose"])
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| versions | Python | tests | passed | failed | skipped |", "| --- | --- | --- | --- | --- | --- |"]
    for kind, trial in trials.items():
        cells = (kind, trial["python"], trial["tests"], *(str(trial[name]) for name in ("passed", "failed", "skipped")))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Survey, pin, or try one set of versions, and write what is known."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--pin", action="store_true", help="write tools/pins.txt and do nothing else")
    parser.add_argument("--try", dest="kind", choices=RESOLUTIONS, help="run the tests with these versions")
    parser.add_argument("--python", default=sys.executable, help="of the fresh environment")
    parser.add_argument("--tests", nargs="*", default=[], help="files and folders of tests; none: all")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a .json; the .md goes beside it")
    options = parser.parse_args()
    if options.pin:
        PINS.write_text(pin(), encoding="utf-8")
        return
    if options.kind:
        news = {"trials": {options.kind: attempt(options.kind, options.python, options.tests)}}
    else:
        news = {"day": datetime.datetime.now(datetime.timezone.utc).date().isoformat(), "packages": survey()}
    found: dict[str, Any] = {"day": "", "packages": [], "trials": {}}
    if options.output.exists():
        found = json.loads(options.output.read_text(encoding="utf-8"))
    found |= {**news, "trials": {**found["trials"], **news.get("trials", {})}}
    options.output.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    options.output.with_suffix(".md").write_text(markdown(found), encoding="utf-8")
    sys.exit(bool(options.kind and found["trials"][options.kind]["failed"]))


if __name__ == "__main__":
    main()
