"""Checks, before weights are read, that a family has the inputs which the config of its network asks for.

A network that needs an input which its family does not have, latents with another number of channels or tokens of
another width would fail in the middle of a run, or run without an input that it was trained with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gsdistill.core.errors import BadFile
from gsdistill.disk.read import brief, read_json

__all__ = ["UNET", "Feed", "check_network", "latent_channels", "latent_side"]

CONFIG = "config.json"
# Networks of Stable Diffusion that read a picture too, by their number of input channels.
PICTURES = {9: "inpainting", 8: "editing pictures", 7: "upscaling", 5: "pictures with a given depth"}
OTHERS = "the parts are of different models"
# What a network with another condition is, by the condition's name or kind.
ADVICE = {
    "time_cond_proj_dim": "; it is a latent consistency model, which is told its guidance scale and leaves a method no "
    "guidance to weigh: take the model that it was distilled from",
    "text_time": "; it is of Stable Diffusion XL, whose model_index.json names StableDiffusionXLPipeline",
}


@dataclass(frozen=True)
class Feed:
    """The inputs that a family has for its network, by the names in the network's config."""

    side: int  # latents along each side, if the config has no number
    channels: int = 4  # of the latents, if the config has no number
    sized: bool = False  # whether the config must have a size, a whole number
    # The allowed kinds of each condition: those that the family has, or that need only the tokens; None is no such.
    conditions: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    # Widths that must be sums of numbers in the configs of parts: (part, name, factor) of each.
    widths: Mapping[str, tuple[tuple[str, str, int], ...]] = field(default_factory=dict)


UNET = Feed(
    64,
    conditions={
        "addition_embed_type": (None, "text"),
        "encoder_hid_dim_type": (None, "text_proj"),
        "num_class_embeds": (None,),
        "time_cond_proj_dim": (None,),
    },
    widths={"cross_attention_dim": (("text_encoder", "hidden_size", 1),)},
)


def check_network(feed: Feed, folder: Path, part: str, latents: int, features: int, pooled: bool = False) -> None:
    """Refuse a network that its family cannot feed.

    Args:
        feed: what it is fed.
        folder: of the model, with the configs of all parts.
        part: the network's folder in it.
        latents: channels of the latents.
        features: numbers that the network is told of a camera, 0 for none.
        pooled: whether it is told the mean of the text's tokens beside them.

    Raises:
        BadFile: the first thing that does not fit, or a config that cannot be read.
    """
    path = folder / part / CONFIG
    config = read_json(path)
    latent_side(config.get("sample_size", feed.side if feed.sized else None), feed, path)
    _check_channels(config, feed, latents, path)
    cameras = {"class_embed_type": ("projection", "simple_projection") if features else (None,)}
    for name, fed in {**feed.conditions, **cameras}.items():
        if (value := config.get(name)) not in fed:
            allowed = " or ".join(kind or "none" for kind in fed)
            advice = ADVICE.get(name) or ADVICE.get(str(value), "")
            raise BadFile(f"{path}: {name} = {brief(value)}, and this family of models feeds {allowed}{advice}")
    _check_widths(config, {name: _sum(folder, parts) for name, parts in feed.widths.items()}, path, "the texts")
    if features:
        text = (_sum(folder, (("text_encoder", "hidden_size", 1),)) or 0) if pooled else 0
        what = "the features of a camera and a text" if pooled else "the features of a camera"
        _check_widths(config, {"projection_class_embeddings_input_dim": features + text}, path, what)


def latent_side(size: Any, feed: Feed, path: Path) -> int:
    """Latents along each side, by the sample_size in the network's config at ``path``: a number, or two equal ones.

    Raises:
        BadFile: it is neither, or is missing where the network must have one.
    """
    if size is None and not feed.sized:
        return feed.side
    if isinstance(size, (list, tuple)) and len(size) == 2 and size[0] == size[1] and not feed.sized:
        size = size[0]
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise BadFile(f"{path}: sample_size = {brief(size)} is no side of a square of latents, a whole number from 1")
    return size


def latent_channels(folder: Path) -> int:
    """Channels of the latents of the autoencoder in ``folder``.

    Raises:
        BadFile: its config cannot be read, or its pictures are not red, green and blue.
    """
    config = read_json(folder / CONFIG)
    for name in ("in_channels", "out_channels"):
        if (value := config.get(name, 3)) != 3:
            raise BadFile(f"{folder / CONFIG}: {name} = {brief(value)}, where pictures have 3: red, green and blue")
    channels = config.get("latent_channels", 32 if config.get("_class_name") == "AutoencoderDC" else 4)
    if not isinstance(channels, int) or channels < 1:
        raise BadFile(f"{folder / CONFIG}: latent_channels = {brief(channels)} is no whole number from 1")
    return channels


def _check_channels(config: Mapping[str, Any], feed: Feed, latents: int, path: Path) -> None:
    read, written = config.get("in_channels", feed.channels), config.get("out_channels", feed.channels)
    if read != latents:
        use = PICTURES.get(read) if isinstance(read, int) and latents == 4 else None
        why = f"it is for {use}, and is told a picture too; take a text-to-image model" if use else OTHERS
        raise BadFile(f"{path}: in_channels = {brief(read)}, where the latents have {latents}: {why}")
    if written is not None and not (isinstance(written, int) and written >= latents):
        raise BadFile(f"{path}: out_channels = {brief(written)}, where the latents have {latents}")


def _check_widths(config: Mapping[str, Any], widths: Mapping[str, int | None], path: Path, what: str) -> None:
    for name, width in widths.items():
        if name == "cross_attention_dim" and config.get("encoder_hid_dim"):
            name = "encoder_hid_dim"  # through which the tokens go first
        declared = config.get(name)
        each = declared if isinstance(declared, list) else [declared]
        if width is not None and any(one is not None and one != width for one in each):
            raise BadFile(f"{path}: {name} = {brief(declared)}, where {what} have {width} numbers: {OTHERS}")


def _sum(folder: Path, parts: tuple[tuple[str, str, int], ...]) -> int | None:
    """The sum of numbers in the configs of parts; None if one of them is missing."""
    total = 0
    for part, name, times in parts:
        path = folder / part / CONFIG
        value = read_json(path).get(name) if path.is_file() else None
        if not isinstance(value, int):
            return None
        total += times * value
    return total
