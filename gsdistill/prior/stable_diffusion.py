"""U-Net priors in the diffusers folder layout: Stable Diffusion 1.x and 2.x, and the shapes prior.

Latents are either the VAE's (mean times its scaling factor) or, where the model's card says so, the image folded into
channels. A camera-conditioned U-Net gets its camera features as ``class_labels`` (class_embed_type "projection").
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.errors import BadFile, ModelNotFound, PromptError
from gsdistill.prior.base import CameraRange, EncodedPrompt, Prediction, Prior, Student
from gsdistill.prior.cards import ModelCard
from gsdistill.prior.features import fold_image, fourier_features
from gsdistill.prior.lora import LoraStudent
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.shapes.captions import normalised, parse, unknown_words
from gsdistill.structs import Cameras, Condition, Embedding

__all__ = ["StableDiffusion"]

T = TypeVar("T")


class StableDiffusion(Prior):
    """Loaded from a local folder or a hub id; frozen, in float32 on a CPU and float16 on an accelerator."""

    def __init__(self, source: str, card: ModelCard, device: torch.device) -> None:
        from diffusers import DDPMScheduler, UNet2DConditionModel

        self.name = card.name
        self.evaluations = 0
        self._source, self._card, self._device = source, card, device
        self._dtype = torch.float32 if device.type == "cpu" else torch.float16
        scheduler: Any = self._load(DDPMScheduler.from_pretrained, "scheduler")
        self.schedule = NoiseSchedule.from_cumulative_alphas(scheduler.alphas_cumprod)
        self.prediction_type: Prediction = scheduler.config.prediction_type
        if self.prediction_type not in get_args(Prediction):
            allowed = ", ".join(get_args(Prediction))
            raise BadFile(f"{source}/scheduler: prediction_type '{self.prediction_type}' is unknown; known: {allowed}")
        self._unet = self._load_model(UNet2DConditionModel, "unet")
        self._vae = self._load_vae() if card.encoder == "vae" else None
        size = self._unet.config.sample_size
        self.latent_shape = (self._unet.config.in_channels, size, size)
        self.image_size = card.image_size or size * self._vae_factor()
        camera = card.camera
        self.camera_range = CameraRange(camera.elevation, camera.distance, camera.fov) if camera else None

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in 0..1; area-averaged or bilinearly resized to the prior's size, differentiable."""
        if self._vae is None:
            return fold_image(images, self.image_size, self._card.factor)
        planes = 2.0 * images.permute(0, 3, 1, 2) - 1.0
        if planes.shape[-1] != self.image_size:
            size = (self.image_size, self.image_size)
            planes = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)
        mean = self._vae.encode(planes.to(self._dtype)).latent_dist.mean
        return mean.to(images) * self._vae.config.scaling_factor

    def encode_text(self, prompt: str, negative_prompt: str) -> EncodedPrompt:
        """Encode both prompts; tokenizer and text encoder live only inside this call.

        Raises:
            PromptError: outside the model's world, or more tokens than the text encoder has positions.
        """
        from transformers import CLIPTextModel, CLIPTokenizer

        if self._card.world == "shapes":
            self._check_world(prompt, negative_prompt)
            prompt, negative_prompt = normalised(prompt), normalised(negative_prompt)
        tokenizer = self._load(CLIPTokenizer.from_pretrained, "tokenizer")
        encoder = self._load_model(CLIPTextModel, "text_encoder")
        limit = encoder.config.max_position_embeddings
        for text in (prompt, negative_prompt):
            count = len(tokenizer(text, truncation=False).input_ids)
            if count > limit:
                raise PromptError(
                    f"the prompt '{text}' has {count} tokens, the prior {self.name} reads {limit} at most"
                )
        ids = tokenizer(
            [prompt, negative_prompt], padding="max_length", max_length=limit, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            tokens = encoder(ids.to(self._device)).last_hidden_state.float()
        return EncodedPrompt(Embedding(tokens[:1]), Embedding(tokens[1:]))

    def condition(self, text: EncodedPrompt, cameras: Cameras) -> Condition:
        """Repeat the text for each view and add the camera features."""
        views = len(cameras)
        branches = {
            "positive": Embedding(text.positive.tokens.expand(views, -1, -1)),
            "negative": Embedding(text.negative.tokens.expand(views, -1, -1)),
        }
        return Condition(branches, torch.zeros(views, 0, device=self._device), self._camera_features(cameras))

    def network(
        self,
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """The U-Net's raw prediction."""
        labels = None if cameras is None else cameras.to(self._dtype)
        tokens = text.tokens.to(self._dtype)
        return self._unet(latents.to(self._dtype), timesteps, tokens, class_labels=labels).sample

    def student(self, rank: int) -> Student:
        """The U-Net with LoRA on its attention, through peft."""
        return LoraStudent(self, self._unet, rank)

    def _check_world(self, prompt: str, negative_prompt: str) -> None:
        parse(prompt)
        unknown = unknown_words(negative_prompt)
        if unknown:
            raise PromptError(f"the prior {self.name} does not know '{unknown[0]}' in the negative prompt")

    def _camera_features(self, cameras: Cameras) -> Float[Tensor, "B F"] | None:
        card = self._card.camera
        if card is None:
            return None
        if card.features == "fourier":
            angles = cameras.azimuths.to(self._device), cameras.elevations.to(self._device)
            return fourier_features(*angles, card.azimuth_frequencies, card.elevation_frequencies)
        poses = torch.linalg.inv(cameras.viewmats)
        poses = poses @ torch.diag(poses.new_tensor([1.0, -1.0, -1.0, 1.0]))  # Blender axes: y up, looking along -z
        unit = torch.nn.functional.normalize(poses[:, :3, 3], dim=-1)
        return (
            torch.cat([torch.cat([poses[:, :3, :3], unit[:, :, None]], 2), poses[:, 3:]], 1).flatten(1).to(self._device)
        )

    def _load_vae(self) -> Any:
        from diffusers import AutoencoderKL

        return self._load_model(AutoencoderKL, "vae")

    def _vae_factor(self) -> int:
        return self._card.factor if self._vae is None else 2 ** (len(self._vae.config.block_out_channels) - 1)

    def _load_model(self, kind: Any, part: str) -> Any:
        extra = (
            {"torch_dtype": self._dtype, "low_cpu_mem_usage": False}
            if part != "text_encoder"
            else {"dtype": torch.float32}
        )
        model = self._load(lambda *args, **options: kind.from_pretrained(*args, **options, **extra), part)
        return model.to(self._device).eval().requires_grad_(False)

    def _load(self, loader: Callable[..., T], part: str) -> T:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()  # parts load in milliseconds; the run has a bar of its own
        where = f"{self._source}/{part}"
        try:
            return loader(self._source, subfolder=part, local_files_only=Path(self._source).is_dir())
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            local = Path(self._source).is_dir()
            hint = (
                "" if local else " A hub model needs a network once; a folder of your own (--prior FOLDER) never does."
            )
            raise ModelNotFound(f"cannot load {where}: {reason}{hint}") from error
