"""Sound files of every kind that is read, small ones, for the mutators to spoil: each function fills a folder."""

from __future__ import annotations

import copy
import functools
import gzip
import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from plyfile import PlyData, PlyElement
from point_e.conftest import CARD, networks, write_text
from safetensors.torch import save_file

import gsdistill.models.catalogue
from gsdistill.disk.places import data_path
from gsdistill.disk.write import write_json
from gsdistill.export.ply import Ply
from gsdistill.scene.read import read_splat
from gsdistill.settings.config import to_dict, to_yaml

ROOT = Path(__file__).resolve().parents[2]
CHAIR = ROOT / "tests" / "data" / "chair.ply"
FIGURES = {
    "name": "a blue chair", "name_right": True, "iou": 0.8, "colour_error": 0.1, "colour_right": True,
    "centre_chamfer": 0.05, "splat_to_truth": 0.05, "truth_to_splat": 0.05, "floaters": 0.01, "gaussians": 24,
    "saturation": 0.5, "high_frequency": 0.001, "loose": 0.0, "silhouette_agreement": 0.7, "silhouette_worst": 0.6,
    "silhouette_thinnest": 0.5, "extent": 0.8,
}  # fmt: skip
SUMMARY = {
    "prompt": "a blue chair", "gaussians": 24, "seconds": 10.0, "seconds_by_phase": {"render": 0.5, "network": 8.0},
    "iterations": 3, "iterations_per_second": 14.1, "skipped_steps": 1, "network_evaluations": 48, "threads": 1,
    "peak_memory_mb": 481, "device": "cpu", "versions": {"gsdistill": "0.1.0"},
}  # fmt: skip


def rows(names: str, count: int = 24, kind: str = "f4") -> np.ndarray:
    """A table of random numbers; colours are bytes."""
    draw = np.random.default_rng(0)
    colours = {"red", "green", "blue"}
    table = np.empty(count, dtype=[(name, "u1" if name in colours else kind) for name in names.split()])
    for name in table.dtype.names or ():
        table[name] = draw.integers(0, 256, count) if name in colours else draw.normal(size=count)
    return table


def small_splat(path: Path, count: int = 24) -> None:
    """A few Gaussians of the chair."""
    whole = read_splat(CHAIR)
    Ply().write(whole.each(lambda value: value[:count]), path)


def splats(folder: Path) -> None:
    """Both byte orders, text, doubles, view-dependent colour, and a named frame."""
    names = "x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    rest = " ".join(f"f_rest_{i}" for i in range(9))
    for name, table, text, order in (
        ("little", rows(names), False, "<"), ("big", rows(f"{names} {rest}"), False, ">"),
        ("text", rows(names, 6), True, "="), ("double", rows(names, 6, "f8"), False, "<"),
    ):  # fmt: skip
        PlyData([PlyElement.describe(table, "vertex")], text, order).write(str(folder / f"{name}.ply"))
    small_splat(folder / "ours.ply")


def packed_splats(folder: Path) -> None:
    """Every other format that is written, with and without view-dependent colour; of SPZ also versions 2 and 4."""
    from gsply import write_spz

    from gsdistill.export.compressed_ply import gsply_data
    from gsdistill.export.formats import writer_for
    from gsdistill.export.settings import ExportSettings

    whole = read_splat(CHAIR)
    scene = whole.each(lambda value: value[:24])
    for extension in (".compressed.ply", ".spz", ".sog", ".glb", ".splat"):
        for degree in (0, 1) if extension != ".splat" else (0,):
            path = folder / f"{degree}{extension}"
            writer_for(path, ExportSettings(sh_pad=degree or None)).write(scene, path)
    second = struct.pack("<4sIIBBBB", b"NGSP", 2, 9, 0, 12, 0, 0) + bytes(range(9 * 19))
    (folder / "two.spz").write_bytes(gzip.compress(second))
    write_spz(folder / "four.spz", gsply_data(scene), version=4)
    small_splat(folder / "plain.ply")
    (folder / "plain.ply.gz").write_bytes(gzip.compress((folder / "plain.ply").read_bytes()))


def clouds(folder: Path) -> None:
    """With colours as bytes and as numbers, and without."""
    for name, names, text in (
        ("bytes", "x y z red green blue", False),
        ("plain", "x y z", True),
        ("floats", "x y z r g b", True),
    ):
        table = rows(names)
        for colour in ("r", "g", "b"):
            if colour in names.split():
                table[colour] = np.abs(np.tanh(table[colour]))
        PlyData([PlyElement.describe(table, "vertex")], text).write(str(folder / f"{name}.ply"))


def meshes(folder: Path) -> None:
    """A box in every format, coloured, and one with a texture."""
    import trimesh
    from PIL import Image

    box = trimesh.creation.box()
    box.visual.vertex_colors = np.tile([[200, 40, 40, 255]], (8, 1))  # type: ignore[attr-defined]
    for name in ("box.glb", "box.ply", "box.off", "box.stl"):
        box.export(folder / name)
    box.export(folder / "text.stl", file_type="stl_ascii")
    for name, data in trimesh.Scene(box).export(file_type="gltf").items():  # type: ignore[union-attr]
        (folder / name.replace("model", "box")).write_bytes(data)
    Image.new("RGB", (4, 4), (40, 200, 40)).save(folder / "paint.png")
    (folder / "paint.mtl").write_text("newmtl paint\nKd 0.4 0.4 0.4\nmap_Kd paint.png\n")
    (folder / "paint.obj").write_text(
        "mtllib paint.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nvt 0 0\nvt 1 0\nvt 0 1\nvn 0 0 1\nusemtl paint\n"
        "f 1/1/1 2/2/1 3/3/1\nf 1/1/1 2/2/1 4/3/1\nf 1//1 3//1 4//1\n"
    )


def configs(folder: Path) -> None:
    """A whole config, as it is written, and two shipped ones."""
    from gsdistill.run.config import resolve

    (folder / "whole.yaml").write_text(to_yaml(resolve({"prompt": "a red torus", "prior": "shapes"})))
    for name in ("shapes-cds", "vsd-prolificdreamer"):
        text = (data_path("configs") / f"{name}.yaml").read_text()
        (folder / f"{name}.yaml").write_text(f"{text}\nprompt: a red torus\n")


def cards(folder: Path) -> None:
    """Those of the package."""
    shutil.copy(Path(gsdistill.models.catalogue.__file__).with_name("cards.yaml"), folder / "cards.yaml")


def prompts(folder: Path) -> None:
    """Prompts of the shapes world and of all."""
    (folder / "one.txt").write_text("a red cube on top of the blue sphere, studio lighting\n")
    (folder / "more.txt").write_text("ein roter Würfel\nкрасный куб\n红色立方体 🧊\na red cube\n", encoding="utf-8")


def point_e(folder: Path) -> None:
    """A tiny Point-E in our own layout."""
    base, upsampler = (network.state_dict() for network in networks())
    write_text(folder)
    write_json(folder / "config.json", to_dict(CARD))
    save_file(base, folder / "base.safetensors")
    save_file(upsampler, folder / "upsampler.safetensors")


def point_e_published(folder: Path) -> None:
    """The base of it as PyTorch writes it, today and of old."""
    state = networks()[0].state_dict()
    torch.save(state, folder / "zip.pt")
    torch.save(state, folder / "old.pt", _use_new_zipfile_serialization=False)


def shapes(folder: Path) -> None:
    """A prior of the shapes world with a tiny network; its text encoder is the shipped one."""
    from diffusers import UNet2DConditionModel

    shipped = data_path("assets", "shapes-prior")
    for part in ("scheduler", "text_encoder", "tokenizer"):
        shutil.copytree(shipped / part, folder / part)
    shutil.copy(shipped / "gsdistill.json", folder / "gsdistill.json")
    write_json(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8, in_channels=12, out_channels=12, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=96, attention_head_dim=2, norm_num_groups=4, class_embed_type="projection",
        projection_class_embeddings_input_dim=18, resnet_time_scale_shift="scale_shift",
    ).save_pretrained(folder / "unet")  # fmt: skip


def diffusers(folder: Path) -> None:
    """A tiny Stable Diffusion."""
    from tiny import stable_diffusion

    stable_diffusion.build(folder)


def single_files(folder: Path) -> None:
    """The names that tell checkpoints apart, in both containers."""
    names = {"model.diffusion_model.input_blocks.0.0.weight": (8, 4, 3, 3), "first_stage_model.x": (2,), "betas": (4,)}
    state = {name: torch.zeros(shape) for name, shape in names.items()}
    save_file(state, folder / "model.safetensors")
    torch.save({"state_dict": state}, folder / "model.ckpt")
    torch.save(state, folder / "old.ckpt", _use_new_zipfile_serialization=False)
    save_file({**state, "model.diffusion_model.camera_embed.0.weight": torch.zeros(4, 4)}, folder / "mv.safetensors")


@functools.cache
def _unet() -> Any:
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(8,), layers_per_block=1, down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",), cross_attention_dim=8, attention_head_dim=2, norm_num_groups=4,
    )  # fmt: skip


def unet() -> Any:
    """A network that may be changed."""
    return copy.deepcopy(_unet())


def loras(folder: Path) -> None:
    """LoRA files for that network, in three layouts, and the settings that peft writes beside its own."""
    for name, stem, a, b in (
        ("peft", "unet.{}", "lora_A.weight", "lora_B.weight"),
        ("kohya", "lora_unet_{}", "lora_down.weight", "lora_up.weight"),
        ("adapter_model", "base_model.model.{}", "lora_A.weight", "lora_B.weight"),
    ):  # fmt: skip
        tensors = {}
        for layer, inner in _unet().named_modules():
            if layer.endswith(("to_q", "to_v")):
                key = stem.format(layer.replace(".", "_") if name == "kohya" else layer)
                tensors[f"{key}.{a}"] = torch.randn(2, inner.weight.shape[1])
                tensors[f"{key}.{b}"] = torch.randn(inner.weight.shape[0], 2)
                if name == "kohya":
                    tensors[f"{key}.alpha"] = torch.tensor(2.0)
        save_file(tensors, folder / f"{name}.safetensors")
    patterns = {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"attn1.to_v": 1.5}}
    write_json(folder / "adapter_config.json", {"r": 2, "lora_alpha": 4, "use_rslora": True, **patterns})


def run(folder: Path) -> None:
    """The folder of a finished run."""
    from PIL import Image

    from gsdistill.run.config import resolve

    config = resolve({"prompt": "a knitted owl", "prior": "shapes", "iterations": 3})
    (folder / "run").mkdir()
    fill_run(folder / "run", config)
    write_json(folder / "run" / "failure.json", {"error": "it diverged"})
    for name in ("views.png", "start.png", "preview.png"):
        Image.new("RGB", (32, 16), (40, 40, 200)).save(folder / "run" / name)
    small_splat(folder / "run" / "snapshots" / "step-000001.ply")


def fill_run(folder: Path, config: Any) -> None:
    """What `generate` and `evaluate` leave of a run."""
    (folder / "config.yaml").write_text(to_yaml(config))
    record = {"loss": 3.5, "gaussians": 24, "finite": True, "seconds": 0.3, "timestep": 500.5}
    lines = [json.dumps({"step": step, **record}) for step in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    write_json(folder / "summary.json", SUMMARY)
    write_json(folder / "evaluation.json", FIGURES)
    small_splat(folder / "gaussians.ply")


def sweep_settings(output: Path) -> Any:
    """Of two runs: one prompt, one seed, two methods."""
    from gsdistill.sweep.settings import SweepSettings

    return SweepSettings(methods=("sds", "cds"), prompts=("a blue chair",), seeds=(0,), iterations=3, output=output)


def sweep(folder: Path) -> None:
    """A finished sweep."""
    from gsdistill.sweep.plan import equal_steps

    for one in equal_steps(sweep_settings(folder)):
        one.folder.mkdir(parents=True)
        fill_run(one.folder, one.config)


def bench(folder: Path) -> None:
    """The measurement that is published."""
    shutil.copy(ROOT / "tools" / "readme" / "results" / "bench-shapes-cds.json", folder / "bench.json")


@functools.cache
def _parts() -> Any:
    from gsdistill.distillation.cds import CDS
    from gsdistill.prior.analytic import AnalyticPrior, Mixture
    from gsdistill.scene.init.ball import Ball

    picture = Mixture(torch.ones(1), torch.zeros(1, 3 * 8 * 8), torch.ones(1))
    generator = torch.Generator().manual_seed(0)
    return AnalyticPrior(picture, picture, (3, 8, 8)), CDS(), Ball(count=8).create("", generator)


def optimisation() -> Any:
    """A run that has not begun, for a checkpoint to fill."""
    from gsdistill.representation.gaussians import GaussianScene, SceneSettings
    from gsdistill.training.backgrounds.grey import Grey
    from gsdistill.training.distiller import Distiller
    from gsdistill.training.views import ViewSettings

    prior, method, initial = _parts()
    splat, generator = GaussianScene(initial, SceneSettings(), 4, torch.device("cpu")), torch.Generator().manual_seed(0)
    return Distiller(splat, prior, method, prior.encode_text("", ""), ViewSettings(1, 8, Grey()), 4, generator)


def checkpoints(folder: Path) -> None:
    """One of a run at its start."""
    from gsdistill.training.checkpoint import save

    save(optimisation(), folder, {"prompt": "a blue chair", "method": {"name": "cds"}}, {"torch": "2"})


COMMANDS = (
    "generate --method cds --prompt|a red torus|--seed 3 --optim.means 0.01:0.001 --cameras.elevation -10 45 --views 2",
    "generate --config csd-paper --prompt x --init point-e --init.steps 3 --prior shapes --no-recipe --resolution none",
    "generate --config=shapes-ism --prompt x --model.lora a.safetensors b.safetensors --export.formats .splat .spz",
    "render none.ply --size 64 --elevation 20 --background 1 1 0.5 --frame rdf --overwrite",
    "export none.ply target.splat --frame y-up --sh-pad 1", "export none a.glb --mesh --meshing.faces 500",
    "evaluate none --json a.json", "report none --no-evaluate", "gallery none --title x", "list methods",
)  # fmt: skip


def commands(folder: Path) -> None:
    """Command lines that start no work: files that are not there, and settings that are only shown."""
    for place, line in enumerate(COMMANDS):
        words = [word for part, text in enumerate(line.split("|")) for word in ([text] if part % 2 else text.split())]
        (folder / f"{place}.json").write_text(json.dumps(words))
