"""Models in one file of the original layout: turned once into a folder of the diffusers layout, kept in the cache.

What such a file does not hold, configs and the tokenizer, comes from a diffusers folder of the same architecture. An
MVDream checkpoint gives the U-Net alone; the other parts of its base serve as they are.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gsdistill.device import out_of_memory
from gsdistill.errors import BadFile, ModelNotFound, OutputError, first_line
from gsdistill.files import cache_folder, sync
from gsdistill.prior.embeddings import fingerprint
from gsdistill.prior.families import family_of, leaf_of, needed_parts
from gsdistill.prior.layout import lack, listing
from gsdistill.prior.parts import quiet
from gsdistill.prior.pickles import read_pickle

__all__ = ["Kind", "assembled", "converted", "kind_of"]

Kind = Literal["v1", "v2", "xl_base", "mvdream"]  # the first three as diffusers calls them

PIPELINES: Mapping[str, str] = {
    "v1": "StableDiffusionPipeline",
    "v2": "StableDiffusionPipeline",
    "xl_base": "StableDiffusionXLPipeline",
    "mvdream": "MVDreamPipeline",
}
UNET = "model.diffusion_model."
NAMES = {  # how the names of a part begin
    "unet": UNET,
    "vae": "first_stage_model.",
    "text_encoder": ("cond_stage_model.", "conditioner.embedders.0."),
    "text_encoder_2": "conditioner.embedders.1.",
}
PRECISIONS = (torch.float16, torch.bfloat16, torch.float32)
OTHER_FILES = {  # the beginning of a name, and what a file with such names is
    "lora_": "a LoRA, which --model.lora takes",
    "unet.": "a LoRA, which --model.lora takes",
    "down_blocks.": "one part of a model in the names of diffusers; name the folder that it is in the folder unet of",
}


def kind_of(file: Path) -> Kind:
    """What a checkpoint holds, by the names and shapes of its tensors.

    Raises:
        BadFile: it cannot be read, is pickled with more than tensors, or is of a kind that is no prior.
    """
    from diffusers.loaders.single_file_utils import infer_diffusers_model_type

    heads = _heads(file)
    if any("camera_embed." in name for name in heads):
        return "mvdream"
    if not any(name.startswith(UNET) for name in heads):
        told = next((what for start, what in OTHER_FILES.items() for name in heads if name.startswith(start)), None)
        told = told or f"no Stable Diffusion checkpoint in the original layout: no name in it begins with {UNET}"
        raise BadFile(f"{file} is {told}")
    try:
        kind = infer_diffusers_model_type(heads)
    except (LookupError, TypeError) as error:
        raise BadFile(f"{file} has a tensor of a shape that no Stable Diffusion checkpoint has") from error
    for known in ("v1", "v2", "xl_base"):
        if kind == known:
            return known
    raise BadFile(f"{file} is a checkpoint of the kind {kind}; only Stable Diffusion 1, 2 and XL can be priors")


def converted(file: Path, kind: Kind, config: Path) -> Path:
    """The folder made of a Stable Diffusion checkpoint and the configs and tokenizer of ``config``.

    Raises:
        ModelNotFound: ``config`` lacks one. BadFile: it is of another family, or the file lacks a part.
        OutputError: the folder cannot be kept.
    """
    if family_of(config) is not leaf_of(PIPELINES[kind]):
        raise BadFile(
            f"{config} is of the family {family_of(config).__name__}, and {file} of {leaf_of(PIPELINES[kind]).__name__}"
        )
    parts = needed_parts(config)
    if told := lack(config, listing(config), parts, weights=False):
        raise ModelNotFound(told)
    kept = [config / name for name in listing(config) if Path(name).suffix in (".json", ".txt", ".model")]
    place = cache_folder("converted", fingerprint([file, *kept]))
    return _made_once(place, parts, lambda draft: _convert(file, config, parts, draft))


def assembled(file: Path, base: Path) -> Path:
    """The folder made of an MVDream checkpoint's U-Net and all other parts of ``base``, linked or copied.

    Raises:
        BadFile: the checkpoint is not that of MVDream. OutputError: the folder cannot be kept.
    """
    parts = leaf_of("MVDreamPipeline").PARTS
    others = [part for part in parts if part != "unet"]
    if told := lack(base, listing(base), others):
        raise ModelNotFound(told)
    kept = cache_folder("converted", fingerprint([file]))
    unet = _made_once(kept, ("unet",), lambda draft: _convert_unet(file, draft))
    taken = {name: base / name for name in listing(base) if name.partition("/")[0] in others}
    taken |= {name: unet / name for name in listing(unet)}

    def build(draft: Path) -> None:
        for name, source in taken.items():
            _link(source, draft / name)
        (draft / "model_index.json").write_text(json.dumps({"_class_name": "MVDreamPipeline"}), encoding="utf-8")

    return _made_once(cache_folder("assembled", fingerprint(taken.values())), parts, build)


def _convert(file: Path, config: Path, parts: Sequence[str], draft: Path) -> None:
    state = _state(file)
    for name in ("model_index.json", *(part for part in parts if part.startswith(("tokenizer", "scheduler")))):
        if (config / name).is_dir():
            shutil.copytree(config / name, draft / name)
        elif (config / name).is_file():
            shutil.copyfile(config / name, draft / name)
    for part in parts:
        if not (draft / part).exists():
            with quiet():
                model = _part(file, state, config, part)
                if missing := [name for name, value in model.state_dict().items() if value.is_meta]:
                    raise BadFile(f"{file} has no weights for {len(missing)} tensors of {part}, such as {missing[0]}")
                model.save_pretrained(draft / part)


def _part(file: Path, state: dict[str, Tensor], config: Path, part: str) -> Any:
    """One network from the tensors of a whole checkpoint, in the widest precision of its own ones."""
    import diffusers
    import transformers
    from diffusers.loaders.single_file_utils import SingleFileComponentError, create_diffusers_clip_model_from_ldm

    held = {value.dtype for name, value in state.items() if name.startswith(NAMES[part])} & set(PRECISIONS)
    precision = max(held, key=PRECISIONS.index, default=torch.float32)
    options: dict[str, Any] = {
        "config": str(config), "subfolder": part, "local_files_only": True, "torch_dtype": precision,
    }  # fmt: skip
    texts = {"text_encoder": transformers.CLIPTextModel, "text_encoder_2": transformers.CLIPTextModelWithProjection}
    kinds: dict[str, Any] = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    try:
        if part in texts:
            return create_diffusers_clip_model_from_ldm(texts[part], state, **options)
        return kinds[part].from_single_file(dict(state), **options)
    except (OSError, ValueError, LookupError, RuntimeError, TypeError, SingleFileComponentError) as error:
        if out_of_memory(error):
            raise
        raise BadFile(
            f"{file} gives no {part} that fits {config / part / 'config.json'}: {first_line(error)}"
        ) from error


def _convert_unet(file: Path, draft: Path) -> None:
    from safetensors.torch import save_file

    from gsdistill.prior import mvdream_weights

    config = mvdream_weights.UNET_CONFIG
    try:
        weights = mvdream_weights.convert_unet(_state(file), config)
    except BadFile as error:
        raise BadFile(f"{file}: {error}") from error
    (draft / "unet").mkdir()
    tensors = {name: value.contiguous() for name, value in weights.items()}
    save_file(tensors, draft / "unet" / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    text = json.dumps({"_class_name": "UNet2DConditionModel", **config}, indent=2)
    (draft / "unet" / "config.json").write_text(text, encoding="utf-8")


def _state(file: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint."""
    from safetensors.torch import load_file

    if file.suffix == ".safetensors":
        return load_file(file)
    return _unpickled(file, "cpu")


def _heads(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint without their values."""
    from safetensors import SafetensorError, safe_open

    if file.suffix != ".safetensors":
        return _unpickled(file, "meta")
    try:
        with safe_open(file, framework="pt") as opened:
            shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise BadFile(f"{file} is not a whole .safetensors file: {error}") from error
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def _unpickled(file: Path, device: str) -> dict[str, Tensor]:
    """The tensors of a pickled checkpoint."""
    state = read_pickle(file, device)
    if isinstance(state, dict) and "state_dict" in state:
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise BadFile(f"{file} holds a {type(state).__name__}, not the named tensors of a checkpoint")
    return {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _made_once(place: Path, parts: Sequence[str], build: Callable[[Path], None]) -> Path:
    """``place``, a folder with these parts, as ``build`` fills it: under another name first, then renamed."""
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
    """One more name for a file, or a copy where the file system has no such names."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)
