"""Images to latents and back: by a model's autoencoder (full KL, tiny or deep-compression), or pixels as they are.

An autoencoder's latents are (z - shift) times scale with the numbers of its own config, where z is the mean of what the
KL one answers, and the answer itself of the others. A config with latents_mean and latents_std has a shift, the mean,
and a scale, scaling_factor / std, for each channel. Each autoencoder runs in the precision it was loaded in, whatever
that of the images; gradients come back in theirs. float16 has few digits below 6e-5, and a method's gradient may lie
there: it goes back through such an encoder times a power of two, of its own for each image, and is divided by it after.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate
from torch.utils.checkpoint import checkpoint

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.disk.read import brief
from gsdistill.prior.pixels import fold_image, unfold_image

__all__ = ["Codec", "LatentCodec", "PixelCodec"]

LARGEST = 4  # the exponent of two below which the largest gradient enters a float16 encoder


class Codec(ABC):
    """Both ways; ``size`` is the side of the images that are encoded, in pixels."""

    size: int

    @abstractmethod
    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in 0..1 of any size; differentiable."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Images in 0..1, without a gradient."""


class PixelCodec(Codec):
    """The image in -1..1, ``factor`` x ``factor`` pixels of it folded into the channels of one latent."""

    def __init__(self, latent_size: int, factor: int, vae: str | None = None, recompute: bool = False) -> None:
        """``vae`` and ``recompute`` are what the user's settings ask of an autoencoder, which pixels do without.

        Raises:
            ConfigError: they ask for something.
        """
        for asked, setting in ((vae is not None, f"vae = '{vae}'"), (recompute, "recompute_encoder")):
            if asked:
                raise ConfigError(f"model.{setting}: this prior works on pixels, without an autoencoder")
        self.size, self._factor = latent_size * factor, factor

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in 0..1, averaged to the prior's size."""
        return fold_image(images, self.size, self._factor)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """The images, unfolded."""
        return unfold_image(latents, self._factor)


class LatentCodec(Codec):
    """A frozen autoencoder of diffusers."""

    def __init__(
        self, vae: Any, latent_size: int, layout: torch.memory_format = torch.preserve_format, recompute: bool = False
    ) -> None:
        """Images are resized so that ``latent_size`` latents come out along each side; ``layout`` is the autoencoder's.

        ``recompute``: hold little of the encoder's work for the way back, and do most of it again there.

        Raises:
            BadFile: its config has means and deviations that are not those of its channels.
            ConfigError: it cannot recompute.
        """
        blocks = getattr(vae.config, "block_out_channels", None) or vae.config.encoder_block_out_channels
        self._vae, self.size = vae.to(memory_format=layout), latent_size * 2 ** (len(blocks) - 1)
        self._layout = layout
        if recompute:
            _recomputing(vae)
        self._scale: float | Tensor = getattr(vae.config, "scaling_factor", None) or 1.0
        self._shift: float | Tensor = getattr(vae.config, "shift_factor", None) or 0.0
        mean, std = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
        if mean is not None and std is not None:
            self._shift = _by_channel("latents_mean", mean, vae)
            self._scale = self._scale / _by_channel("latents_std", std, vae)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in 0..1; bilinearly resized to the prior's size, differentiable."""
        planes = 2.0 * images.permute(0, 3, 1, 2) - 1.0
        if planes.shape[-1] != self.size:
            planes = interpolate(planes, size=(self.size, self.size), mode="bilinear", antialias=True)
        code = self._vae.encode(planes.to(self._vae.dtype, memory_format=self._layout))
        latents = code.latent_dist.mean if hasattr(code, "latent_dist") else code[0]
        whole = latents.to(images)
        if latents.dtype == torch.float16 != whole.dtype and planes.requires_grad:
            _louder_between(planes, whole)
        return ((whole - self._shift) * self._scale).to(images)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Images in 0..1, one at a time, without a gradient."""
        inner = (latents / self._scale + self._shift).to(self._vae.device, self._vae.dtype)
        with torch.no_grad():
            planes = torch.cat([self._vae.decode(one[None]).sample for one in inner]).to(latents)
        return (0.5 * planes.permute(0, 2, 3, 1) + 0.5).clamp(0.0, 1.0)


def _recomputing(vae: Any) -> None:
    """Let each block of an encoder be computed again on the way back. Raises ConfigError where it cannot be."""
    kind = type(vae).__name__
    if kind != "AutoencoderKL":  # diffusers' tiny one then reads another image; the deep one has no such way
        raise ConfigError(f"model.recompute_encoder is for an AutoencoderKL, and this model's is an {kind}")
    vae.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False, preserve_rng_state=False))


def _louder_between(planes: Float[Tensor, "B 3 H W"], latents: Float[Tensor, "B C h w"]) -> None:
    """Let the gradient of each row go back from ``latents`` to ``planes`` times a power of two.

    With it the row's largest number is 8 to 16: what is a ten-thousandth of that keeps its digits in float16, and the
    encoder may make it a thousand times larger. The device finds it out by itself.
    """
    factors: list[Tensor] = []

    def up(gradient: Tensor) -> Tensor:
        _, exponent = torch.frexp(gradient.abs().amax((1, 2, 3), keepdim=True))
        # of what is not finite the exponent may be anything, and stays so; 2^100 of less than 1e-30 is still finite
        factors[:] = [torch.exp2((LARGEST - exponent).clamp(-100, 100).to(gradient))]
        return gradient * factors[0]

    latents.register_hook(up)
    planes.register_hook(lambda gradient: gradient / factors[0])


def _by_channel(name: str, values: Any, vae: Any) -> Float[Tensor, "C 1 1"]:
    """One number for each channel of the latents; those of latents_std are divided by. Raises BadFile."""
    count, wanted = vae.config.latent_channels, "positive numbers" if name == "latents_std" else "numbers"
    try:
        numbers = torch.tensor(values, dtype=torch.float32, device=vae.device)
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.tensor(torch.nan)
    if numbers.shape != (count,) or not numbers.isfinite().all() or (name == "latents_std" and numbers.min() <= 0):
        raise BadFile(f"the autoencoder's config has {name} = {brief(values)}, where {count} {wanted} belong")
    return numbers[:, None, None]
