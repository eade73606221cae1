"""U-Net priors in the diffusers folder layout: Stable Diffusion 1.x and 2.x, and the shapes prior.

Latents are either the autoencoder's or, where the model's card says so, the image folded into channels. A
camera-conditioned U-Net gets its camera features as ``class_labels`` (class_embed_type "projection").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.errors import BadFile, PromptError
from gsdistill.prior.base import Prediction
from gsdistill.prior.features import fold_image, fourier_features, unfold_image
from gsdistill.prior.parts import load_model, load_part
from gsdistill.prior.pretrained import Origin, Pretrained
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.shapes.captions import normalised, parse, unknown_words
from gsdistill.structs import Cameras, Embedding

__all__ = ["StableDiffusion", "ddpm_schedule"]


class StableDiffusion(Pretrained):
    """Noise or v prediction, CLIP text."""

    PARTS: ClassVar[tuple[str, ...]] = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self.schedule, self.prediction_type = ddpm_schedule(origin)
        size = self._network.config.sample_size
        self._card = origin.card
        self._codec = self.load_codec(size) if self._card.encoder == "vae" else None
        self.latent_shape = (self._network.config.in_channels, size, size)
        self.image_size = self._codec.size if self._codec else self._card.image_size or size * self._card.factor

    def network_class(self) -> Any:
        """Diffusers' U-Net."""
        from diffusers import UNet2DConditionModel

        return UNet2DConditionModel

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in 0..1; area-averaged or bilinearly resized to the prior's size, differentiable."""
        return self._codec.encode(images) if self._codec else fold_image(images, self.image_size, self._card.factor)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """What the autoencoder makes of latents, or the image unfolded."""
        return self._codec.decode(latents) if self._codec else unfold_image(latents, self._card.factor)

    def prepared(self, text: str, negative: bool) -> str:
        """The text as it is; in the shapes world the caption as its grammar writes it."""
        if self._card.world != "shapes":
            return text
        if not negative:
            parse(text)
        elif unknown := unknown_words(text):
            raise PromptError(f"the prior {self.name} does not know '{unknown[0]}' in the negative prompt")
        return normalised(text)

    def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """The last hidden states of CLIP."""
        from transformers import CLIPTextModel, CLIPTokenizer

        tokenizer = load_part(CLIPTokenizer.from_pretrained, self.folder, "tokenizer")
        encoder = load_model(CLIPTextModel, self.folder, "text_encoder", torch.float32, self.device)
        limit = encoder.config.max_position_embeddings
        self.check_length(tokenizer, texts, limit)
        ids = tokenizer(list(texts), padding="max_length", max_length=limit, return_tensors="pt").input_ids
        return [Embedding(row[None]) for row in encoder(ids.to(self.device)).last_hidden_state]

    def inputs(
        self,
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> dict[str, Any]:
        """Latents, timesteps, tokens, and the camera as a class."""
        return {
            "sample": latents.to(self.dtype),
            "timestep": timesteps,
            "encoder_hidden_states": text.tokens.to(self.dtype),
            "class_labels": None if cameras is None else cameras.to(self.dtype),
        }

    def camera_features(self, cameras: Cameras) -> Float[Tensor, "B F"] | None:
        """Fourier features of the angles, where the card declares them."""
        card = self._card.camera
        if card is None:
            return None
        angles = cameras.azimuths.to(self.device), cameras.elevations.to(self.device)
        return fourier_features(*angles, card.azimuth_frequencies, card.elevation_frequencies)


def ddpm_schedule(origin: Origin) -> tuple[NoiseSchedule, Prediction]:
    """Noise levels and prediction type of the folder's scheduler, whatever sampler it names.

    Raises:
        BadFile: an unknown prediction type.
    """
    from diffusers import DDPMScheduler

    scheduler: Any = load_part(DDPMScheduler.from_pretrained, origin.folder, "scheduler")
    kind = scheduler.config.prediction_type
    if kind not in (allowed := get_args(Prediction)):
        known = ", ".join(allowed)
        raise BadFile(f"{origin.folder}/scheduler: prediction_type '{kind}' is unknown; known: {known}")
    return NoiseSchedule.from_cumulative_alphas(scheduler.alphas_cumprod), kind
