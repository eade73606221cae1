"""What tests keep is of the sources as they are now, whichever processes keep it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from caches import MOST, ROOT, kept, kernels, key, made_of, worlds

from gsdistill.disk.places import cache_folder

SOURCES = {
    "near": "import gsdistill.far\n",
    "far": "def f():\n    from gsdistill import farthest\n",
    "farthest": "",
    "other": "import numpy\n",
}
PROGRAM = """
import sys
from pathlib import Path
from caches import kept
print(kept(Path(sys.argv[1]), "truth", ["gsdistill.near"], Path(sys.argv[2])))
"""


@pytest.fixture
def tree(tmp_path) -> Path:
    """A package of four modules: one imports another, which lazily imports a third."""
    folder = tmp_path / "tree" / "gsdistill"
    folder.mkdir(parents=True)
    for name, text in SOURCES.items():
        (folder / f"{name}.py").write_text(text)
    return folder.parent


def folder_now(tree: Path) -> Path:
    """As a new process finds it, which has read no source yet."""
    words = [sys.executable, "-c", PROGRAM, str(tree.parent / "kept"), str(tree)]
    done = subprocess.run(words, cwd=ROOT / "tests", capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def test_a_changed_source_means_a_new_folder_and_the_old_source_the_old_one(tree):
    first = folder_now(tree)
    assert first.is_dir() and folder_now(tree) == first
    (tree / "gsdistill" / "other.py").write_text("import torch\n")
    assert folder_now(tree) == first
    for name in ("near", "far", "farthest"):
        path = tree / "gsdistill" / f"{name}.py"
        path.write_text(f"{SOURCES[name]}# changed\n")
        assert folder_now(tree) != first
        path.write_text(SOURCES[name])
        assert folder_now(tree) == first


def test_of_old_folders_those_used_last_stay(tree, tmp_path):
    for index in range(MOST + 2):
        old = tmp_path / f"truth-{index}"
        old.mkdir()
        os.utime(old, (index, index))
    new = kept(tmp_path, "truth", ["gsdistill.near"], tree)
    stay = {f"truth-{index}" for index in range(3, MOST + 2)}
    assert {path.name for path in tmp_path.glob("truth-*")} == {new.name, *stay} and len(stay) == MOST - 1


def test_the_sources_of_kernels_and_of_the_truth_are_found():
    compiled = {path.relative_to(ROOT / "gsdistill").as_posix() for path in made_of(kernels())}
    assert {"renderer/_raster.py", "renderer/_vectors.py", "worlds/shapes/solids.py", "mesh/_kernels.py"} <= compiled
    traced = {path.relative_to(ROOT / "gsdistill").as_posix() for path in made_of(worlds())}
    assert {"worlds/shapes/raycast.py", "worlds/shapes/solids.py", "core/structs.py"} <= traced
    assert "renderer/_raster.py" not in traced
    with pytest.raises(ValueError, match=r"no source of \['gsdistill.gone'\]"):
        made_of(["gsdistill.gone"])


def test_processes_that_come_at_once_share_a_folder(tree, tmp_path):
    words = [sys.executable, "-c", PROGRAM, str(tmp_path / "kept"), str(tree)]
    processes = [subprocess.Popen(words, cwd=ROOT / "tests", stdout=subprocess.PIPE, text=True) for _ in range(4)]
    places = {process.communicate()[0].strip() for process in processes}
    assert {process.returncode for process in processes} == {0} and len(places) == 1 and Path(*places).is_dir()


def test_the_truth_of_this_run_is_kept_by_its_sources():
    place = cache_folder("truth")
    if not place.is_symlink():
        pytest.skip("no folder to keep it in")
    assert place.resolve().name == f"truth-{key(made_of(worlds()), ROOT)}"
