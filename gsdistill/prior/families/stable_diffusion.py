"""U-Net priors in the diffusers folder layout: Stable Diffusion 1.x and 2.x.

Latents are the autoencoder's or, if the model's card says so, the image folded into channels. A camera-conditioned
U-Net gets the camera features as ``class_labels`` (class_embed_type "projection").
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from gsdistill.core.structs import Cameras
from gsdistill.models.card import ModelCard
from gsdistill.prior.codec import Codec, PixelCodec
from gsdistill.prior.families.clip_unet import ClipUNet
from gsdistill.prior.pixels import fourier_features

__all__ = ["StableDiffusion"]


class StableDiffusion(ClipUNet):
    """Any prediction type, with CLIP's text encoder."""

    def codec(self, latent_size: int) -> Codec:
        """The autoencoder, or pixels if the card says so."""
        card, settings = self.origin.card, self.origin.settings
        if card.encoder == "vae":
            return super().codec(latent_size)
        return PixelCodec(latent_size, card.factor, settings.vae, settings.recompute_encoder)

    @classmethod
    def camera_numbers(cls, card: ModelCard) -> int:
        """A sine and a cosine for each frequency of an angle in the card."""
        camera = card.camera
        return 2 * (len(camera.azimuth_frequencies) + len(camera.elevation_frequencies)) if camera else 0

    def camera_features(self, cameras: Cameras) -> Float[Tensor, "B F"] | None:
        """Fourier features of the angles with the frequencies of the card; None without cameras in the card."""
        card = self.origin.card.camera
        if card is None:
            return None
        angles = cameras.azimuths.to(self.device), cameras.elevations.to(self.device)
        return fourier_features(*angles, card.azimuth_frequencies, card.elevation_frequencies)
