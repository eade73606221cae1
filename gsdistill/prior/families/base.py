"""What all families of published models share: precision, autoencoder, cached texts, and the network's LoRA student.

A family is one file with one class, which encodes texts and makes the arguments of its network. Noise levels,
conversions, guidance and caching are here and in gsdistill/prior/base.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.core.device import exact_products, recorder
from gsdistill.core.errors import BadFile, ConfigError, PromptError, tell
from gsdistill.core.failing import failing_as
from gsdistill.core.structs import Embedding, to_device
from gsdistill.models.card import ModelCard, read_model_card
from gsdistill.models.declared import Feed, check_network, latent_channels, latent_side
from gsdistill.models.fingerprint import fingerprint
from gsdistill.models.load import AUTOENCODERS, check_class, load_model, pick_class
from gsdistill.models.lora_files import SUM, fuse, read_files
from gsdistill.models.pipelines import needed_parts
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import CameraRange, Prior, Student
from gsdistill.prior.codec import Codec, LatentCodec
from gsdistill.prior.embeddings import encode_once
from gsdistill.prior.families.running import Call, Graphs, answering, memory_format
from gsdistill.prior.families.schedulers import Levels, read_levels
from gsdistill.prior.prompts import EncodedPrompt, PromptSettings, check_unicode
from gsdistill.prior.student import LoraStudent

__all__ = ["Origin", "Pretrained"]


@dataclass(frozen=True)
class Origin:
    """A model on this machine, before it is loaded: its folder, card and settings, and how to load it."""

    folder: Path  # in the diffusers layout
    card: ModelCard
    settings: ModelSettings
    device: torch.device
    load: Callable[[Any, Path, str, torch.dtype, torch.device], Any] = load_model  # of a class, from a folder's part
    embed: Callable[[Any, Sequence[str]], list[Embedding]] | None = None  # replaces text encoders, by network's config
    vae: Path | None = None  # the folder of an autoencoder that replaces the model's own


class Pretrained(Prior):
    """A frozen model in the diffusers layout; a family sets these attributes and overrides what it does otherwise."""

    NETWORK: ClassVar[str] = "unet"  # the part that predicts noise
    NETWORK_CLASS: ClassVar[str] = "UNet2DConditionModel"  # its class in diffusers
    HALF: ClassVar[torch.dtype] = torch.float16  # precision on an accelerator, unless the settings name one
    HALF_VAE: ClassVar[torch.dtype | None] = None  # that of the autoencoder there, if it differs
    LORA: ClassVar[tuple[str, ...]] = ()  # the parts that LoRA files may change, the network first
    UPCAST: ClassVar[bool] = False  # an autoencoder with force_upcast in its config is float32, not float16
    FEED: ClassVar[Feed]  # what inputs the network gets
    LATENTS: ClassVar[str] = "sample"  # the network's name for its latents
    FLOW: ClassVar[bool] = False  # whether the noise levels must be those of a rectified flow
    KNOWS_CAMERAS: ClassVar[bool] = False  # whether cameras condition the network, whatever the card says

    def __init__(self, origin: Origin) -> None:
        """Load the network, the autoencoder and the noise levels."""
        self.name, self.evaluations = origin.card.name, 0
        self.guidance_rescale = origin.settings.guidance_rescale
        self.origin, self.folder, self.device = origin, origin.folder, origin.device
        half = torch.float32 if origin.device.type == "cpu" else self.HALF
        precision = origin.settings.precision
        self.layout = memory_format(origin.settings.layout, origin.device)
        self.dtype: torch.dtype = half if precision == "auto" else getattr(torch, precision)
        self.products = self.dtype  # the precision of the network's products, which a family may change
        camera = origin.card.camera
        self.camera_range = CameraRange(camera.elevation, camera.distance, camera.fov) if camera else None
        record = recorder(origin.device) if origin.settings.graph else None
        exact_products(True, origin.device)
        self._network: Any = self.load_network()
        # A student calls the module itself, not the compiled or recorded call.
        self._called = answering(self._network, origin.settings.compile)
        self._answer: Call = Graphs(self._ask, record) if record else self._ask
        size = latent_side(self._network.config.sample_size, self.FEED, self.folder / self.NETWORK / "config.json")
        self.latent_shape = (self._network.config.in_channels, size, size)
        self._codec = self.codec(size)
        self.image_size = self._codec.size
        if self._network.config.sample_size is None:
            sizes = f"{size} x {size} latents, {self.image_size} px, are taken"
            tell(f"{self.folder / self.NETWORK / 'config.json'} names no sample_size: {sizes}")
        levels = self.read_levels(origin.folder)
        self.schedule, self.prediction_type = levels.schedule, levels.prediction
        self._times: Tensor = levels.times.to(origin.device)  # the network's input for each timestep

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the origin, without weights: another process loads the model from its folder."""
        return type(self), (self.origin,), {"evaluations": self.evaluations, "schedule": self.schedule}

    @classmethod
    def read_levels(cls, folder: Path) -> Levels:
        """Noise levels and prediction type of a folder's scheduler.

        Raises:
            BadFile: they are unknown, or not those of the family.
        """
        return read_levels(folder / "scheduler" / "scheduler_config.json", cls.FLOW)

    @classmethod
    def check_configs(cls, folder: Path, vae: Path | None = None) -> None:
        """Refuse a folder whose configs do not fit the family; the autoencoder in ``vae`` replaces its own.

        Raises:
            BadFile: the scheduler has other noise levels, or the network is of another class or needs other inputs.
        """
        card = read_model_card(str(folder), folder.name)
        check_class(folder / cls.NETWORK, cls.NETWORK_CLASS)
        cls.read_levels(folder)
        coded = "vae" in needed_parts(folder)
        channels = latent_channels(vae or folder / "vae") if coded else 3 * card.factor**2
        check_network(cls.FEED, folder, cls.NETWORK, channels, cls.camera_numbers(card), card.pooled)

    @classmethod
    def camera_numbers(cls, card: ModelCard) -> int:
        """How many numbers condition the network on a camera; 0 for a family without cameras."""
        return 0

    def load_network(self) -> Any:
        """Load the frozen network, with the LoRA files of the settings merged into its weights."""
        import diffusers

        kind = getattr(diffusers, self.NETWORK_CLASS)
        network = self.origin.load(kind, self.folder, self.NETWORK, self.dtype, self.device)
        return self.with_lora(network.to(memory_format=self.layout), self.NETWORK)

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """Encode each text, with a batch of one. Tokenizer and text encoder are in memory only during this call.

        Raises:
            PromptError: a text is longer than the encoder reads.
        """

    def inputs(
        self,
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> dict[str, Any]:
        """The network's arguments by name, in its precision."""
        return {
            self.LATENTS: latents.to(self.dtype),
            "timestep": self._times[timesteps],
            "encoder_hidden_states": text.tokens.to(self.dtype),
            **self.extras(latents, text, cameras),
        }

    def extras(self, latents: Tensor, text: Embedding, cameras: Tensor | None) -> dict[str, Any]:
        """The network's arguments besides latents, timesteps and tokens, by name; a family may have some."""
        return {}

    def output(self, raw: Float[Tensor, "B K h w"]) -> Float[Tensor, "B C h w"]:
        """The prediction in the network's output: its first C channels, as others may hold a variance."""
        return raw[:, : self.latent_shape[0]]

    def prepared(self, text: str, negative: bool) -> str:
        """The text as this model's encoder expects it; ``negative`` for the negative prompt.

        Raises:
            PromptError: the model cannot serve it.
        """
        return text

    def network(
        self,
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """The network's raw prediction."""
        return self.output(self._answer(latents, timesteps, text, cameras))

    def _ask(self, latents: Tensor, timesteps: Tensor, text: Embedding, cameras: Tensor | None) -> Tensor:
        return self._called(**self.inputs(latents, timesteps, text, cameras))

    @property
    def knows_cameras(self) -> bool:
        """Whether cameras condition the network, by its family or its card."""
        return self.KNOWS_CAMERAS or self.origin.card.camera is not None

    @property
    def text_width(self) -> int | None:
        """How many numbers a token of text has for the network, by its config."""
        return self._network.config.get("cross_attention_dim") or self._network.config.get("joint_attention_dim")

    def student(self, rank: int, camera: bool = False) -> Student:
        """The network with LoRA of the given rank on its attention projections."""
        return LoraStudent(self, self._network, self.inputs, self.output, rank, camera)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in 0..1 of any size, resized to the prior's; differentiable."""
        return self._codec.encode(images)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Images in 0..1 of latents, without a gradient."""
        return self._codec.decode(latents)

    def encode_text(
        self, prompt: str, negative_prompt: str, settings: PromptSettings = PromptSettings()
    ) -> EncodedPrompt:
        """Encode the prompts, or read them from the cache on disk."""
        settings = settings.resolved(self.knows_cameras)
        texts = {"positive": prompt, "negative": negative_prompt, "empty": "", **settings.texts(prompt)}
        unasked = ("negative", "empty")
        texts = {name: self.prepared(check_unicode(text), name in unasked) for name, text in texts.items()}
        if self.origin.embed:
            embeddings = self.origin.embed(self._network.config, list(texts.values()))
        else:
            embeddings = encode_once(self._text_key(), list(texts.values()), self._encode_on_cpu)
        views = dict(zip(texts, [to_device(embedding, self.device) for embedding in embeddings], strict=True))
        positive, negative, empty = (views.pop(name) for name in ("positive", "negative", "empty"))
        return EncodedPrompt(positive, negative, views, settings, empty)

    def with_lora(self, module: Any, part: str) -> Any:
        """Merge the LoRA files of the settings into ``module``, the folder's ``part``; returns it.

        Raises:
            ConfigError: the family takes no LoRA files, or one does not exist. BadFile: one does not fit.
        """
        settings = self.origin.settings
        if settings.lora:
            if not self.LORA:
                raise ConfigError(f"model.lora: the prior {self.name} takes no LoRA files")
            fuse(settings.lora, settings.lora_scale, part, module, self.LORA)
        return module

    def codec(self, latent_size: int) -> Codec:
        """Load the autoencoder, the folder's or that of the settings, for ``latent_size`` latents along each side.

        Raises:
            ModelNotFound: it is missing. BadFile: it is of a class that is no autoencoder of images.
        """
        import diffusers

        folder = self.origin.vae or self.folder / "vae"
        kind = getattr(diffusers, pick_class(folder, "", AUTOENCODERS))
        auto = self.origin.settings.precision == "auto" and self.device.type != "cpu"
        vae = self.origin.load(kind, folder, "", self.HALF_VAE if auto and self.HALF_VAE else self.dtype, self.device)
        if self.UPCAST and self.dtype == torch.float16 and vae.config.get("force_upcast", False):
            vae = self.origin.load(kind, folder, "", torch.float32, self.device)  # from the file, for more digits
            exact_products(False, self.device)  # besides it only text encoders are in float32
        if self.origin.settings.compile:
            vae.encoder.compile(dynamic=False)
        return LatentCodec(vae, latent_size, self.layout, self.origin.settings.recompute_encoder)

    def check_length(self, tokenizer: Any, texts: Sequence[str], limit: int) -> None:
        """Refuse a text that the encoder would silently cut.

        Raises:
            PromptError: a text has more than ``limit`` tokens.
        """
        for text in texts:
            self.check_count(text, len(tokenizer(text, truncation=False).input_ids), limit)

    def check_count(self, text: str, count: int, limit: int) -> None:
        """Refuse a text of more than ``limit`` tokens.

        Raises:
            PromptError: it has more.
        """
        if count > limit:
            raise PromptError(f"the prompt '{text}' has {count} tokens, the prior {self.name} reads {limit} at most")

    def _encode_on_cpu(self, texts: list[str]) -> list[Embedding]:
        misfit = failing_as(BadFile, f"{self.folder}: its tokenizer and text encoder do not fit each other")
        with misfit, torch.no_grad():
            return [to_device(embedding, "cpu") for embedding in self.encode_texts(texts)]

    def _text_key(self) -> str:
        settings = self.origin.settings
        folders = [*self.folder.glob("text_encoder*"), *self.folder.glob("tokenizer*")]
        files = [path for folder in folders for path in folder.iterdir() if path.is_file()]
        files += self.folder.glob("model_index.json")  # SDXL's says what an empty text is
        files += [file for path in settings.lora for file in read_files(path)]
        sums = [SUM] if settings.lora else []
        return fingerprint(files, str(self.dtype), self.device.type, settings.lora_scale, *sums)
