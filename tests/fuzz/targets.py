"""What is fuzzed: for each reader a folder of sound files, which of them are spoilt and how, and what reads them.

A reader gets the path of the file that was spoilt, the others of the folder beside it as they were. What it takes for
sound must be so: readers here also look at what they got.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
from fuzz import seeds
from fuzz.formats import ARGUMENTS, PACKED, PICKLES, PLY, TENSORS
from fuzz.mutate import BYTES, JSON, TEXT, YAML, Mutator

from gsdistill.cli import main
from gsdistill.core.errors import UserError
from gsdistill.core.structs import Gaussians


@dataclass(frozen=True)
class Target:
    """One reader."""

    build: Callable[[Path], object]  # makes the folder
    spoilt: Mapping[str, tuple[Mutator, ...]]  # file name, or its end, and what may be done to it
    read: Callable[[Path], object]
    share: int  # of all mutations, in percent; less of what takes long

    def files(self, folder: Path) -> list[Path]:
        """The files of a built folder that are spoilt."""
        return sorted(path for path in folder.rglob("*") if path.is_file() and self.ways(path))

    def ways(self, path: Path) -> tuple[Mutator, ...]:
        """What may be done to a file."""
        return next((how for end, how in self.spoilt.items() if path.name.endswith(end)), ())


def sane(*tensors: torch.Tensor) -> None:
    """What was read is finite."""
    for tensor in tensors:
        assert tensor.dtype == torch.float32 and tensor.isfinite().all()


def sound(gaussians: Gaussians) -> None:
    """What was read is a splat."""
    count = len(gaussians)
    assert count and gaussians.means.shape == gaussians.scales.shape == (count, 3)
    assert gaussians.quats.shape == (count, 4) and gaussians.sh.shape[1] in (1, 4, 9, 16)
    sane(*gaussians.tensors().values())
    assert (gaussians.quats.double().norm(dim=-1) > 0).all()


def splat(path: Path) -> None:
    """As it is, or cleaned."""
    from gsdistill.scene.read import read_splat

    try:
        sound(read_splat(path))
    except UserError:
        with warnings.catch_warnings(), contextlib.suppress(UserError):
            warnings.simplefilter("ignore")
            sound(read_splat(path, clean=True))
        raise


def cloud(path: Path) -> None:
    from gsdistill.scene.init.ply import Ply

    sound(Ply(path=path, limit=64).create("", torch.Generator()))


def mesh(path: Path) -> None:
    from gsdistill.scene.init.mesh import Mesh

    owner = {".bin": "box.gltf", ".mtl": "paint.obj", ".png": "paint.obj"}.get(path.suffix)
    whole = path.with_name(owner) if owner else path
    sound(Mesh(path=whole, count=32).create("", torch.Generator()))


def config(path: Path) -> None:
    from gsdistill.run.config import RunConfig, read_config, resolve
    from gsdistill.settings.config import from_dict, to_yaml
    from gsdistill.settings.yaml import load_yaml

    found = resolve(read_config(str(path)))
    again = path.with_name("again.yaml")
    again.write_text(to_yaml(found), encoding="utf-8")
    assert from_dict(RunConfig, load_yaml(again)) == found


def cards(path: Path) -> None:
    """As gsdistill.models.catalogue reads its own, each entry under its name."""
    from gsdistill.models.catalogue import PriorCard
    from gsdistill.settings.config import from_dict
    from gsdistill.settings.yaml import load_yaml

    for name, entry in load_yaml(path).items():
        from_dict(PriorCard, entry, f"cards.yaml: {name}")


def prompt(path: Path) -> None:
    from gsdistill.disk.places import slug
    from gsdistill.run.config import resolve
    from gsdistill.run.prompts import read_prompts
    from gsdistill.sweep.settings import SweepSettings
    from gsdistill.worlds.shapes.captions import parse

    text, *_ = read_prompts(path)
    assert "\n" not in text and resolve({"prompt": text}).prompt == text
    assert 0 < len(slug(text)) <= 80 and slug(text).isascii()
    with contextlib.suppress(UserError):
        parse(text)
    assert SweepSettings(prompt_file=str(path)).all_prompts


def home(path: Path) -> Path:
    """The model's folder, of a file in it or in one of its parts."""
    parts = ("unet", "vae", "scheduler", "text_encoder", "tokenizer")
    return path.parents[1] if path.parent.name in parts else path.parent


def point_e(path: Path) -> None:
    from gsdistill.point_e.model import locate
    from gsdistill.scene.init.base import CloudSettings

    model = locate(str(home(path))).load()
    made = model.sample("a red cube", torch.Generator(), steps=1)
    sound(CloudSettings().dress(made, torch.Generator(), "what it drew"))


def point_e_published(path: Path) -> None:
    from gsdistill.point_e.weights import fill, read_weights

    fill(seeds.networks()[0], read_weights(path), path)


def shapes(path: Path) -> None:
    from gsdistill.prior.loading import load_prior
    from gsdistill.scene.viewpoints import orbit

    prior = load_prior(str(home(path)))
    text = prior.encode_text("a red cube", "")
    prior.condition(text, orbit(1, 8))


def diffusers(path: Path) -> None:
    from gsdistill.prior.loading import load_prior

    load_prior(str(home(path))).encode_text("a red cube", "")


def single_file(path: Path) -> None:
    from gsdistill.models.original import look

    look(path)


def lora(path: Path) -> None:
    from gsdistill.models.lora_files import fuse

    file = path.with_name("adapter_model.safetensors") if path.suffix == ".json" else path
    fuse([file], 1.0, "unet", seeds.unet(), ("unet", "text_encoder"))


def run_folder(path: Path) -> None:
    """Every page and command that reads the folder of a run; each may refuse it, as another one does not."""
    from rich.console import Console

    from gsdistill.pages.gallery import write_gallery
    from gsdistill.pages.report import write_report
    from gsdistill.run.config import RunConfig
    from gsdistill.settings.config import defaults
    from gsdistill.viewer.sources import find, labels, stride

    folder = path.parent
    quiet = Console(file=io.StringIO())
    write_gallery(folder.parent, quiet, folder.parent / "gallery.html")
    with contextlib.suppress(UserError):
        source = find(folder)
        labels([source]), stride([source]), source.at(1)
    write_report(folder, defaults(RunConfig), evaluate=False)


def sweep(path: Path) -> None:
    from gsdistill.sweep.results import compare
    from gsdistill.sweep.table import markdown

    found = compare(seeds.sweep_settings(path.parents[3]))
    found.write()
    markdown(found)


def bench(path: Path) -> None:
    from rich.console import Console

    from gsdistill.bench.figures import read_figures
    from gsdistill.bench.report import compare

    found = read_figures(path)
    compare(Console(file=io.StringIO()), found, found)


def checkpoint(path: Path) -> None:
    """As it is, and with a checksum that is right."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import save_file

    from gsdistill.training import checkpoint

    with contextlib.suppress(UserError):
        checkpoint.restore(seeds.optimisation(), checkpoint.read(path))
        return
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, RuntimeError, ValueError) as error:
        raise UserError("no tensors") from error
    signed = path.with_name("signed.safetensors")
    save_file(tensors, signed, {**metadata, "crc32": checkpoint._checksum(tensors, metadata.get("gsdistill", ""))})
    run = seeds.optimisation()
    checkpoint.restore(run, checkpoint.read(signed))
    assert run.done >= 0


def command(path: Path) -> None:
    """A whole command line, in an empty folder: code 0, or 2 and one line."""
    words = json.loads(path.read_text(encoding="utf-8"))
    words += ["--dry-run"] * (words[:1] == ["generate"])
    told, here = io.StringIO(), Path.cwd()
    os.chdir(path.parent)
    try:
        untried = mock.patch("gsdistill.cli.foresight.foresee", lambda config: ())  # no steps are made to be timed
        with untried, contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
            code = main.execute(words)
    finally:
        os.chdir(here)
    lines = told.getvalue().strip().splitlines()
    if code == 2:
        assert len(lines) == 1 or words[:1] == [], lines
        raise UserError(lines[0] if lines else "the overview")
    assert code == 0, (code, lines)


TARGETS = {
    "splat": Target(seeds.splats, {".ply": PLY}, splat, 17),
    "packed splat": Target(
        seeds.packed_splats,
        {".compressed.ply": PLY, ".ply.gz": PACKED, ".spz": PACKED, ".sog": PACKED, ".glb": PACKED, ".splat": BYTES},
        splat,
        12,
    ),
    "cloud": Target(seeds.clouds, {".ply": PLY}, cloud, 7),
    "mesh": Target(
        seeds.meshes,
        {
            ".ply": PLY,
            ".obj": TEXT,
            ".mtl": TEXT,
            ".off": TEXT,
            "text.stl": TEXT,
            ".stl": BYTES,
            ".gltf": JSON,
            "": BYTES,
        },
        mesh,
        7,
    ),
    "config": Target(seeds.configs, {".yaml": YAML}, config, 8),
    "cards": Target(seeds.cards, {".yaml": YAML}, cards, 1),
    "prompt": Target(seeds.prompts, {".txt": TEXT}, prompt, 6),
    "point-e": Target(seeds.point_e, {".safetensors": TENSORS, ".json": JSON}, point_e, 4),
    "point-e .pt": Target(seeds.point_e_published, {".pt": PICKLES}, point_e_published, 8),
    "shapes prior": Target(seeds.shapes, {".safetensors": TENSORS, ".json": JSON}, shapes, 6),
    "diffusers folder": Target(seeds.diffusers, {".safetensors": TENSORS, ".json": JSON}, diffusers, 1),
    "single file": Target(seeds.single_files, {".safetensors": TENSORS, ".ckpt": PICKLES}, single_file, 6),
    "lora": Target(seeds.loras, {".safetensors": TENSORS, ".json": JSON}, lora, 2),
    "run folder": Target(seeds.run, {".yaml": YAML, ".jsonl": JSON, ".json": JSON, ".png": BYTES}, run_folder, 3),
    "sweep": Target(seeds.sweep, {".yaml": YAML, ".json": JSON}, sweep, 1),
    "bench": Target(seeds.bench, {".json": JSON}, bench, 3),
    "checkpoint": Target(seeds.checkpoints, {".safetensors": TENSORS}, checkpoint, 7),
    "command": Target(seeds.commands, {".json": ARGUMENTS}, command, 1),
}
