"""From a prompt to a coloured point cloud, and from a name to the Point-E that makes it.

The models' values (positions in a cube of half-width 0.5, colours 0..255) become the diffusion's x by POINT_SCALES and
POINT_BIASES; the positions in x are those of the world.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gsdistill.core.errors import ModelNotFound, did_you_mean
from gsdistill.core.structs import PointCloud
from gsdistill.disk.paths import expanded
from gsdistill.disk.places import data_path
from gsdistill.models.fingerprint import fingerprint
from gsdistill.point_e.card import OPENAI, BaseCard, Card, UpsamplerCard, read_card
from gsdistill.point_e.sampler import Noise, Sampling, cumulative_alphas, denoiser, guided, sample
from gsdistill.point_e.text import HUB_CLIP, TextEncoder
from gsdistill.point_e.transformer import (
    CHANNELS,
    POINT_BIASES,
    POINT_SCALES,
    TextPointDiffusionTransformer,
    UpsamplePointDiffusionTransformer,
)
from gsdistill.point_e.weights import fetch, fill, read_weights
from gsdistill.worlds.base import world_named

__all__ = ["SOURCES", "Located", "PointE", "load_point_e", "locate"]

SOURCES = ("shapes", "openai")
BASE_FILE, UPSAMPLER_FILE = "base_40m_textvec.pt", "upsample_40m.pt"


class PointE:
    """A base model and an upsampler with their text encoder, frozen, in float32.

    ``fingerprint`` changes with the weights, the text encoder and the card.
    """

    def __init__(
        self,
        card: Card,
        base: nn.Module,
        upsampler: nn.Module,
        encode: Callable[[str], Float[Tensor, "1 D"]],
        fingerprint: str,
        device: torch.device,
    ) -> None:
        self.card, self.fingerprint = card, fingerprint
        self._base, self._upsampler = (m.to(device).eval().requires_grad_(False) for m in (base, upsampler))
        self._encode, self._device = encode, device

    @torch.no_grad()
    def sample(
        self, prompt: str, generator: torch.Generator, guidance_scale: float | None = None, steps: int | None = None
    ) -> PointCloud:
        """Draw the cloud of ``prompt``, on the CPU; the same state of the generator gives the same one.

        In world axes, the front towards +x, in the cube from -1 to 1 (twice Point-E's lengths), the coarse points
        first. ``guidance_scale`` is of the base model (0 and 1: no guidance), ``steps`` of both; None takes the card's.

        Raises:
            PromptError: the prompt is too long, or outside of the model's world.
            BadFile: tokenizer and text encoder do not fit each other.
        """
        if self.card.world:
            prompt = world_named(self.card.world).normalised(prompt)
        text = self._encode(prompt)
        first, second = self.card.base.sampling, self.card.upsampler.sampling
        if guidance_scale is not None:
            first = replace(first, guidance_scale=guidance_scale)
        if steps is not None:
            first, second = replace(first, steps=steps), replace(second, steps=steps)
        coarse = self._draw(
            self.card.base,
            first,
            lambda x, t: self._base(x, t, text),
            lambda x, t: self._base(x, t, torch.zeros_like(text)),
            generator,
        )
        scales, biases = (torch.tensor(v, device=self._device)[:, None] for v in (POINT_SCALES, POINT_BIASES))
        values = (coarse - biases) / scales

        def further(x: Float[Tensor, "B C N"], t: Float[Tensor, "B"]) -> Float[Tensor, "B O N"]:
            return self._upsampler(x, t, values)

        fine = self._draw(self.card.upsampler, second, further, further, generator)
        x = torch.cat([coarse, fine], dim=2)[0].T.cpu()
        across, along, up = x[:, :3].unbind(dim=1)
        if self.card.front == "-y":
            across, along = -along, across
        return PointCloud(torch.stack([across, along, up], dim=1), (0.5 * x[:, 3:] + 0.5).clamp(0.0, 1.0))

    def _draw(
        self,
        card: BaseCard | UpsamplerCard,
        sampling: Sampling,
        conditional: Noise,
        unconditional: Noise,
        generator: torch.Generator,
    ) -> Float[Tensor, "1 C N"]:
        alphas = cumulative_alphas(card.schedule, card.timesteps)
        both = denoiser(conditional, alphas), denoiser(unconditional, alphas)
        denoise = guided(*both, sampling.guidance_scale)
        return sample(denoise, (1, CHANNELS, card.points), sampling, generator, self._device)


@dataclass(frozen=True)
class Located:
    """A Point-E whose files were located but not read."""

    card: Card
    base_file: Path
    upsampler_file: Path
    home: Path | None  # the folder of text_encoder and tokenizer; None: CLIP of the hub

    @property
    def fingerprint(self) -> str:
        """Changes with the weights, the text encoder and the card.

        Raises:
            ModelNotFound: a file is missing.
        """
        files = [self.base_file, self.upsampler_file]
        if missing := [file for file in files if not file.is_file()]:
            raise ModelNotFound(f"the Point-E weights {missing[0]} are missing")
        if self.home is not None:
            files += [f for part in ("text_encoder", "tokenizer") for f in (self.home / part).glob("*") if f.is_file()]
        return fingerprint(files, self.card, self.home or HUB_CLIP)

    def load(self, device: torch.device | str = "cpu") -> PointE:
        """Read the files. Raises as :func:`load_point_e`."""
        device, mark = torch.device(device), self.fingerprint
        networks = _networks(self.card, self.base_file, self.upsampler_file)
        encode = TextEncoder(self.home, self.card.base.text_width, device)
        return PointE(self.card, *networks, encode, mark, device)


def load_point_e(source: str, device: torch.device | str = "cpu") -> PointE:
    """Load a Point-E: ``shapes`` (shipped), ``openai`` (fetched once), or a folder laid out as either.

    A folder holds config.json, base.safetensors, upsampler.safetensors, text_encoder and tokenizer, or OpenAI's two .pt
    files and, where CLIP must not come from the hub, text_encoder and tokenizer.

    Raises:
        ModelNotFound: the name is unknown, or files are missing and cannot be downloaded.
        BadFile: a file is broken or of another model.
        OutputError: the cache folder cannot be written.
    """
    return locate(source).load(device)


def locate(source: str) -> Located:
    """Find the files of a Point-E; OpenAI's are downloaded if necessary. Raises as :func:`load_point_e`."""
    if source == "openai":
        return Located(OPENAI, fetch(BASE_FILE), fetch(UPSAMPLER_FILE), None)
    folder = data_path("assets", "shapes-points") if source == "shapes" else Path(expanded(source, "model"))
    if (folder / "config.json").is_file():
        card = read_card(folder / "config.json")
        return Located(card, folder / "base.safetensors", folder / "upsampler.safetensors", folder)
    if (folder / BASE_FILE).is_file() or (folder / UPSAMPLER_FILE).is_file():
        home = folder if (folder / "text_encoder").is_dir() else None
        return Located(OPENAI, folder / BASE_FILE, folder / UPSAMPLER_FILE, home)
    if not folder.is_dir():
        raise ModelNotFound(
            f"no Point-E called '{source}'.{did_you_mean(source, SOURCES)} Known: {', '.join(SOURCES)}, or a folder"
        )
    raise ModelNotFound(
        f"the folder {folder} holds no Point-E: neither config.json nor {BASE_FILE} and {UPSAMPLER_FILE}"
    )


def _networks(card: Card, base_file: Path, upsampler_file: Path) -> tuple[nn.Module, nn.Module]:
    grid = card.upsampler.grid_tokens, card.upsampler.grid_width
    with torch.device("meta"):  # without memory, which the weights from the files bring
        base = TextPointDiffusionTransformer(card.base.size, card.base.text_width)
        upsampler = UpsamplePointDiffusionTransformer(card.upsampler.size, *grid)
    for model, file in ((base, base_file), (upsampler, upsampler_file)):
        fill(model, read_weights(file), file)
    return base, upsampler
