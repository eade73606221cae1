"""Models in one file of the original layout: converted once to a folder of the diffusers layout, kept in the cache.

Such a file has no configs and no tokenizer: these come from a diffusers folder of the same architecture. Of an MVDream
checkpoint only the U-Net is used; the other parts are those of its base model.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gsdistill.core.errors import BadFile, ModelNotFound, OutputError
from gsdistill.core.failing import failing_as
from gsdistill.disk.places import cache_folder
from gsdistill.disk.read import read_json
from gsdistill.disk.write import sync
from gsdistill.models.fingerprint import fingerprint
from gsdistill.models.layout import lack, listing
from gsdistill.models.load import check_finite, pick_class, quiet
from gsdistill.models.original import NAMES, Original, read_tensors
from gsdistill.models.pipelines import FAMILIES, family_of, needed_parts

__all__ = ["PIPELINES", "assemble", "convert", "convert_vae"]

PIPELINES: Mapping[str, str] = {  # by the kind of the checkpoint
    "v1": "StableDiffusionPipeline",
    "v2": "StableDiffusionPipeline",
    "xl_base": "StableDiffusionXLPipeline",
    "mvdream": "MVDreamPipeline",
}
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32)
SCHEDULER = "scheduler/scheduler_config.json"


def convert(original: Original, config: Path) -> Path:
    """Convert a Stable Diffusion checkpoint, with the configs and the tokenizer of ``config``; return the folder.

    What the checkpoint declares of its schedule overrides ``config``. If it has no autoencoder, the folder has only the
    config of one.

    Raises:
        ModelNotFound: ``config`` lacks a file. BadFile: it is of another family, or the checkpoint lacks a part.
        OutputError: the folder cannot be kept.
    """
    theirs, ours = family_of(config), FAMILIES[PIPELINES[original.kind]]
    if theirs is not ours:
        raise BadFile(f"{config} is of the family {theirs.name}, and {original.file} of {ours.name}")
    if missing := lack(config, listing(config), needed_parts(config), weights=False):
        raise ModelNotFound(missing)
    texts = [config / name for name in _texts(config)]
    place = cache_folder("converted", fingerprint([original.file, *texts], *original.scheduler.items()))
    parts = needed_parts(config, own_vae=original.has_vae)
    return _make_once(place, parts, lambda draft: _write_parts(original, config, parts, draft))


def convert_vae(file: Path, config: Path) -> Path:
    """Convert the autoencoder of a file that holds it alone or in a whole checkpoint; ``config`` has its config.

    Raises:
        ModelNotFound: ``config``, a model's folder, has none. BadFile: the file or the config is of another kind.
        OutputError: the folder cannot be kept.
    """
    pick_class(config, "vae", ("AutoencoderKL",))
    place = cache_folder("converted", fingerprint([file, config / "vae" / "config.json"]))

    def build(draft: Path) -> None:
        _write_part(file, read_tensors(file), config, "vae", draft)

    return _make_once(place, ("vae",), build) / "vae"


def assemble(file: Path, base: Path) -> Path:
    """Join an MVDream checkpoint's U-Net with all other parts of ``base``, linked or copied; return the folder.

    Raises:
        BadFile: the checkpoint is not that of MVDream. OutputError: the folder cannot be kept.
    """
    family = FAMILIES["MVDreamPipeline"]
    if missing := lack(base, listing(base), family.others):
        raise ModelNotFound(missing)
    unet = _make_once(
        cache_folder("converted", fingerprint([file])), ("unet",), lambda draft: _convert_unet(file, draft)
    )
    sources = {name: base / name for name in listing(base) if name.partition("/")[0] in family.others}
    sources |= {name: unet / name for name in listing(unet)}

    def build(draft: Path) -> None:
        for name, source in sources.items():
            _link(source, draft / name)
        (draft / "model_index.json").write_text(json.dumps({"_class_name": "MVDreamPipeline"}), encoding="utf-8")

    return _make_once(cache_folder("assembled", fingerprint(sources.values())), family.parts, build)


def _write_parts(original: Original, config: Path, parts: Sequence[str], draft: Path) -> None:
    state = read_tensors(original.file)
    for name in _texts(config):
        if name == "model_index.json" or name.startswith(("tokenizer", "scheduler", "vae/config.json")):
            (draft / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(config / name, draft / name)
    schedule = {**read_json(config / SCHEDULER), **original.scheduler}
    (draft / SCHEDULER).write_text(json.dumps(schedule, indent=2), encoding="utf-8")
    for part in parts:
        if not part.startswith(("tokenizer", "scheduler")):
            _write_part(original.file, state, config, part, draft)


def _texts(folder: Path) -> list[str]:
    """The configs and words of a folder."""
    return [name for name in listing(folder) if Path(name).suffix in (".json", ".txt", ".model")]


def _write_part(file: Path, state: dict[str, Tensor], config: Path, part: str, draft: Path) -> None:
    """Save one network of a whole checkpoint as a part of a folder."""
    with quiet():
        model = _network(file, state, config, part)
        if missing := [name for name, value in model.state_dict().items() if value.is_meta]:
            raise BadFile(f"{file} has no weights for {len(missing)} tensors of {part}, such as {missing[0]}")
        check_finite(model.state_dict(), f"{file}, {part}")
        model.save_pretrained(draft / part)


def _network(file: Path, state: dict[str, Tensor], config: Path, part: str) -> Any:
    """One network from the tensors of a whole checkpoint, in the widest precision of its own ones."""
    import diffusers
    import transformers
    from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm

    own = [value.dtype for name, value in state.items() if name.startswith(NAMES[part])]
    precisions = set(own or (value.dtype for value in state.values())) & set(PRECISIONS)  # all, of an autoencoder alone
    precision = max(precisions, key=PRECISIONS.index, default=torch.float32)
    options: dict[str, Any] = {
        "config": str(config), "subfolder": part, "local_files_only": True, "torch_dtype": precision,
    }  # fmt: skip
    texts = {"text_encoder": transformers.CLIPTextModel, "text_encoder_2": transformers.CLIPTextModelWithProjection}
    kinds: dict[str, Any] = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    with failing_as(BadFile, f"{file} gives no {part} that fits {config / part / 'config.json'}"):
        if part in texts:
            return create_diffusers_clip_model_from_ldm(texts[part], state, **options)
        return kinds[part].from_single_file(dict(state), **options)


def _convert_unet(file: Path, draft: Path) -> None:
    from safetensors.torch import save_file

    from gsdistill.models import mvdream_weights

    config = mvdream_weights.UNET_CONFIG
    try:
        weights = mvdream_weights.convert_unet(read_tensors(file), config)
    except BadFile as error:
        raise BadFile(f"{file}: {error}") from error
    (draft / "unet").mkdir()
    tensors = {name: value.contiguous() for name, value in weights.items()}
    save_file(tensors, draft / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    text = json.dumps({"_class_name": "UNet2DConditionModel", **config}, indent=2)
    (draft / "unet" / "config.json").write_text(text, encoding="utf-8")


def _make_once(place: Path, parts: Sequence[str], build: Callable[[Path], None]) -> Path:
    """Return ``place`` with these parts; if they are missing, ``build`` fills a folder that is then renamed to it."""
    from safetensors import SafetensorError

    if not lack(place, listing(place), parts):
        return place
    draft = place.with_name(f".tmp-{uuid.uuid4().hex[:8]}-{place.name}")
    try:
        draft.mkdir(parents=True)
        build(draft)
        for path in draft.rglob("*"):
            sync(path)
        shutil.rmtree(place, ignore_errors=True)  # what an older cache lost a part of
        draft.rename(place)
    except (OSError, SafetensorError) as error:
        if not lack(place, listing(place), parts):
            return place  # another process was faster
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"cannot keep the converted model in {place}: {reason}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def _link(source: Path, target: Path) -> None:
    """Give a file a second name (a hard link), or copy it if the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
