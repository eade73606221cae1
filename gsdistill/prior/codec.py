"""Images to latents and back: by a model's autoencoder (KL, tiny or deep-compression), or the pixels themselves.

An autoencoder's latents are (z - shift) * scale, with the numbers of its config; z is the mean of the KL autoencoder's
distribution, or the output of the others. If the config has latents_mean and latents_std, then for each channel the
shift is the mean and the scale is scaling_factor / std. An autoencoder runs in the precision in which it was loaded,
whatever that of the images; gradients come back in the precision of the images. float16 has few digits below 6e-5,
where a method's gradient may lie: through a float16 encoder the gradient of each image is multiplied by a power of two,
and divided by it afterwards.
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

LARGEST = 4  # a gradient enters a float16 encoder with its largest number below 2^4


class Codec(ABC):
    """Encodes and decodes. ``size`` is the side in pixels of the images that are encoded; others are resized."""

    size: int

    @abstractmethod
    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in 0..1 of any size, differentiable."""

    @abstractmethod
    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Images in 0..1, without a gradient."""


class PixelCodec(Codec):
    """The image scaled to -1..1; ``factor`` x ``factor`` pixels become the channels of one latent."""

    def __init__(self, latent_size: int, factor: int, vae: str | None = None, recompute: bool = False) -> None:
        """``vae`` and ``recompute`` are settings of autoencoders, which have no meaning here.

        Raises:
            ConfigError: one of them is set.
        """
        for is_set, setting in ((vae is not None, f"vae = '{vae}'"), (recompute, "recompute_encoder")):
            if is_set:
                raise ConfigError(f"model.{setting}: this prior works on pixels, without an autoencoder")
        self.size, self._factor = latent_size * factor, factor

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in 0..1 of any size, which are averaged down to ``size`` pixels; differentiable."""
        return fold_image(images, self.size, self._factor)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Images in 0..1, unfolded from latents."""
        return unfold_image(latents, self._factor)


class LatentCodec(Codec):
    """A frozen autoencoder of diffusers."""

    def __init__(
        self, vae: Any, latent_size: int, layout: torch.memory_format = torch.preserve_format, recompute: bool = False
    ) -> None:
        """Resize images to get ``latent_size`` latents along each side; ``layout`` is that of the weights in memory.

        ``recompute`` saves memory: the encoder keeps few activations, and computes the others again for the gradient.

        Raises:
            BadFile: the config's latents_mean or latents_std is not a valid number for each channel.
            ConfigError: ``recompute`` is set for an autoencoder that cannot do so.
        """
        blocks = getattr(vae.config, "block_out_channels", None) or vae.config.encoder_block_out_channels
        self._vae, self.size = vae.to(memory_format=layout), latent_size * 2 ** (len(blocks) - 1)
        self._layout = layout
        if recompute:
            _recompute_blocks(vae)
        self._scale: float | Tensor = getattr(vae.config, "scaling_factor", None) or 1.0
        self._shift: float | Tensor = getattr(vae.config, "shift_factor", None) or 0.0
        mean, std = (getattr(vae.config, name, None) for name in ("latents_mean", "latents_std"))
        if mean is not None and std is not None:
            self._shift = _by_channel("latents_mean", mean, vae)
            self._scale = self._scale / _by_channel("latents_std", std, vae)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in 0..1 of any size, resized bilinearly; differentiable."""
        planes = 2.0 * images.permute(0, 3, 1, 2) - 1.0
        if planes.shape[-1] != self.size:
            planes = interpolate(planes, size=(self.size, self.size), mode="bilinear", antialias=True)
        code = self._vae.encode(planes.to(self._vae.dtype, memory_format=self._layout))
        latents = code.latent_dist.mean if hasattr(code, "latent_dist") else code[0]
        whole = latents.to(images)
        if latents.dtype == torch.float16 != whole.dtype and planes.requires_grad:
            _scale_gradient_between(planes, whole)
        return ((whole - self._shift) * self._scale).to(images)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Images in 0..1, without a gradient; decoded one at a time, which saves memory."""
        inner = (latents / self._scale + self._shift).to(self._vae.device, self._vae.dtype)
        with torch.no_grad():
            planes = torch.cat([self._vae.decode(one[None]).sample for one in inner]).to(latents)
        return (0.5 * planes.permute(0, 2, 3, 1) + 0.5).clamp(0.0, 1.0)


def _recompute_blocks(vae: Any) -> None:
    """Let each block of an encoder be computed again for the gradient. Raises ConfigError if it cannot be."""
    kind = type(vae).__name__
    if kind != "AutoencoderKL":  # with it diffusers' tiny one reads another image, and the deep one lacks it
        raise ConfigError(f"model.recompute_encoder is for an AutoencoderKL, and this model's is an {kind}")
    vae.enable_gradient_checkpointing(partial(checkpoint, use_reentrant=False, preserve_rng_state=False))


def _scale_gradient_between(planes: Float[Tensor, "B 3 H W"], latents: Float[Tensor, "B C h w"]) -> None:
    """Multiply each image's gradient by a power of two at ``latents``, and divide it again at ``planes``.

    It makes the largest number of the gradient 8 to 16. A number ten thousand times smaller then keeps its digits in
    float16, and the encoder may enlarge the gradient a thousand times. All is computed on the device.
    """
    factors: list[Tensor] = []

    def up(gradient: Tensor) -> Tensor:
        _, exponent = torch.frexp(gradient.abs().amax((1, 2, 3), keepdim=True))
        # inf and NaN may get any exponent and stay what they are; 2^100 times less than 1e-30 is still finite
        factors[:] = [torch.exp2((LARGEST - exponent).clamp(-100, 100).to(gradient))]
        return gradient * factors[0]

    latents.register_hook(up)
    planes.register_hook(lambda gradient: gradient / factors[0])


def _by_channel(name: str, values: Any, vae: Any) -> Float[Tensor, "C 1 1"]:
    """The config's list ``values``, one number per channel of the latents. Raises BadFile, also for a std of 0."""
    count, wanted = vae.config.latent_channels, "positive numbers" if name == "latents_std" else "numbers"
    try:
        numbers = torch.tensor(values, dtype=torch.float32, device=vae.device)
    except (TypeError, ValueError, RuntimeError):
        numbers = torch.tensor(torch.nan)
    if numbers.shape != (count,) or not numbers.isfinite().all() or (name == "latents_std" and numbers.min() <= 0):
        raise BadFile(f"the autoencoder's config has {name} = {brief(values)}, where {count} {wanted} belong")
    return numbers[:, None, None]
