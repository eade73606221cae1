"""U-Net priors in the diffusers folder layout: Stable Diffusion 1.x and 2.x.

Latents are either the autoencoder's or, where the model's card says so, the image folded into channels. A
camera-conditioned U-Net gets its camera features as ``class_labels`` (class_embed_type "projection").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

from jaxtyping import Float
from torch import Tensor

from gsdistill.errors import BadFile, first_line
from gsdistill.prior.base import Prediction
from gsdistill.prior.clip_unet import ClipUNet
from gsdistill.prior.codec import Codec, PixelCodec
from gsdistill.prior.features import fourier_features
from gsdistill.prior.parts import load_part
from gsdistill.prior.pretrained import Origin
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.reading import brief
from gsdistill.structs import Cameras

__all__ = ["StableDiffusion", "check_steps", "ddpm_schedule", "known_prediction", "schedule_of"]

OTHER_KINDS = ("EDM", "FlowMatch")  # with these begin the names of schedulers of other kinds of diffusion
MOST_STEPS = 100_000  # of a schedule


class StableDiffusion(ClipUNet):
    """Noise or v prediction, CLIP text."""

    def __init__(self, origin: Origin) -> None:
        super().__init__(origin)
        self.schedule, self.prediction_type = self.load_schedule()

    def load_schedule(self) -> tuple[NoiseSchedule, Prediction]:
        """Noise levels and prediction type of the folder's scheduler."""
        return ddpm_schedule(self.origin)

    def codec(self, latent_size: int) -> Codec:
        """The autoencoder, or pixels where the card says so."""
        card = self.origin.card
        if card.encoder == "vae":
            return super().codec(latent_size)
        return PixelCodec(latent_size, card.factor, self.origin.settings.vae)

    def camera_features(self, cameras: Cameras) -> Float[Tensor, "B F"] | None:
        """Fourier features of the angles, where the card declares them."""
        card = self.origin.card.camera
        if card is None:
            return None
        angles = cameras.azimuths.to(self.device), cameras.elevations.to(self.device)
        return fourier_features(*angles, card.azimuth_frequencies, card.elevation_frequencies)


def ddpm_schedule(origin: Origin) -> tuple[NoiseSchedule, Prediction]:
    """Noise levels and prediction type of the folder's scheduler, whatever sampler of a DDPM it names.

    Raises:
        BadFile: it is of another kind of diffusion, or of an unknown prediction type.
    """
    from diffusers import DDPMScheduler

    config: Any = load_part(DDPMScheduler.load_config, origin.folder, "scheduler")
    if not isinstance(config, dict):
        raise BadFile(f"{origin.folder}/scheduler: its config is no JSON object, but {brief(config)}")
    name = str(config.get("_class_name", ""))
    if name.startswith(OTHER_KINDS):
        raise BadFile(
            f"{origin.folder}/scheduler: {name} has no levels of a DDPM, which the prior {origin.card.name} needs"
        )
    place = origin.folder / "scheduler"
    try:
        check_steps(config.get("num_train_timesteps", 1000))
        scheduler: Any = DDPMScheduler.from_config(config)
    except Exception as error:  # the library raises anything on values of another kind
        raise BadFile(f"{place}: {first_line(error)}") from error
    kind = known_prediction(scheduler.config.prediction_type, place)
    return schedule_of(scheduler.alphas_cumprod, place), kind


def check_steps(steps: Any) -> None:
    """Refuse a schedule of more steps than any has, before memory is taken for them; raises ValueError."""
    if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"num_train_timesteps = {brief(steps)} is no whole number from 1 to {MOST_STEPS:,}")


def schedule_of(alphas_cumprod: Float[Tensor, "T"], place: Path) -> NoiseSchedule:
    """The noise levels of a config at ``place``.

    Raises:
        BadFile: they do not lie between 0 and 1.
    """
    if not ((alphas_cumprod >= 0) & (alphas_cumprod <= 1)).all():
        raise BadFile(f"{place}: its betas give noise levels that do not lie between 0 and 1")
    return NoiseSchedule.from_cumulative_alphas(alphas_cumprod)


def known_prediction(kind: Any, place: Path) -> Prediction:
    """``kind``, what the config at ``place`` says that its network predicts.

    Raises:
        BadFile: that is unknown.
    """
    if kind not in (allowed := get_args(Prediction)):
        raise BadFile(f"{place}: prediction_type '{kind}' is unknown; known: {', '.join(allowed)}")
    return kind
