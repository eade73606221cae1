"""The prior of a closed world: pixels as latents, captions of its grammar, and a network written for CPUs.

Its folder is in the diffusers layout, and diffusers can load it too. Here it is loaded without diffusers (see unet.py);
only a student for VSD and LoRA files use diffusers' network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from gsdistill.core.device import multiplies_bfloat16
from gsdistill.core.errors import BadFile, ConfigError, PromptError, few, tell
from gsdistill.core.failing import failing_as
from gsdistill.core.structs import Embedding
from gsdistill.disk.read import read_json
from gsdistill.models.card import Prediction, read_model_card
from gsdistill.models.declared import UNET, Feed
from gsdistill.models.eight_bits import unpack
from gsdistill.models.layout import weight_files
from gsdistill.models.load import check_finite
from gsdistill.prior.base import Student
from gsdistill.prior.families.schedulers import Levels, check_steps, known_prediction, read_levels, schedule_of
from gsdistill.prior.families.small.text import SmallText
from gsdistill.prior.families.small.unet import SmallUNet, read_unet_config
from gsdistill.prior.families.stable_diffusion import StableDiffusion
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.prior.student import LoraStudent
from gsdistill.settings.registry import names
from gsdistill.worlds.base import World, world_named

__all__ = ["WorldPrior", "scaled_linear_schedule"]


class WorldPrior(StableDiffusion):
    """A prior whose card names a world. On a CPU with fast bfloat16 its products are bfloat16 by default."""

    FEED: ClassVar[Feed] = replace(UNET, sized=True)

    def load_network(self) -> SmallUNet:
        """Load the network, with the LoRA files of the settings merged into its weights.

        Raises:
            BadFile: as :class:`SmallUNet`.
        """
        if self.origin.settings.lora:
            weights = super().load_network().state_dict()
        else:
            weights = read_part_weights(self.folder / self.NETWORK)
        fast = self.origin.settings.precision == "auto" and multiplies_bfloat16(self.device)
        self.products = torch.bfloat16 if fast else self.dtype
        return SmallUNet(self.folder / self.NETWORK, weights, self.device, self.products)

    @classmethod
    def check_configs(cls, folder: Path, vae: Path | None = None) -> None:
        """Refuse a folder that is not one of a world's prior.

        Raises:
            BadFile: as for other families; or the card has no camera, or the network is not of the kind in unet.py.
        """
        if read_model_card(str(folder), folder.name).camera is None:
            raise BadFile(f"{folder / 'gsdistill.json'}: a world's prior is told the camera; it has none")
        super().check_configs(folder, vae)
        read_unet_config(folder / cls.NETWORK)

    @classmethod
    def read_levels(cls, folder: Path) -> Levels:
        """Noise levels and prediction type of the folder's scheduler."""
        return read_levels(folder / "scheduler" / "scheduler_config.json", ddpm=scaled_linear_schedule)

    def encode_texts(self, texts: Sequence[str]) -> list[Embedding]:
        """The last hidden states of CLIP, [1, L, D] for each text, and where the card says so their mean, [1, D]."""
        if self.origin.settings.lora or not (self.folder / "tokenizer" / "tokenizer.json").is_file():
            if self.origin.card.pooled:
                raise ConfigError(f"the prior {self.name} takes no LoRA files, and needs tokenizer/tokenizer.json")
            return super().encode_texts(texts)
        encoder = SmallText(self.folder, read_part_weights(self.folder / "text_encoder"), self.device)
        counts = [len(encoder.tokens(text)) for text in texts]
        for text, count in zip(texts, counts, strict=True):
            self.check_count(text, count, encoder.limit)
        states = [row[None] for row in encoder(texts)]
        if not self.origin.card.pooled:
            return [Embedding(row) for row in states]
        return [Embedding(row, row[:, :count].mean(1)) for row, count in zip(states, counts, strict=True)]

    def extras(self, latents: Tensor, text: Embedding, cameras: Tensor | None) -> dict[str, Any]:
        """The camera as a class, with the mean of the text's tokens beside it where the card says so."""
        if cameras is None or text.pooled is None:
            return super().extras(latents, text, cameras)
        return {"class_labels": torch.cat([cameras, text.pooled], 1).to(self.dtype)}

    def prepared(self, text: str, negative: bool) -> str:
        """The caption in the grammar's form; a negative text may be any words of the world. Raises PromptError.

        A Notice says so if the caption names what the card does not list among the learnt things.
        """
        world = world_named(str(self.origin.card.world))
        if not negative:
            try:
                read = world.normalised(text)
            except PromptError as error:
                raise PromptError(f"{error}{_others_that_know(text, world)}") from error
            self._tell_of_weak(world, text)
            return read
        words, unknown = world.plain(text)
        if unknown:
            raise PromptError(f"the prior {self.name} does not know '{unknown[0]}' in the negative prompt")
        return words

    def _tell_of_weak(self, world: World, prompt: str) -> None:
        learnt, things = self.origin.card.learnt, world.parse(prompt)
        colors = [thing.color for thing in things]
        meant = [world.things(layout, colors) for layout in world.meant(things)] if learnt else []
        for place, thing in enumerate(things):
            shapes = [one[place].shape for one in meant]
            if not shapes or {*shapes} & {*learnt}:
                continue
            kinds = world.vocabulary().items()
            kind, known = next(((kind, known) for kind, known in kinds if shapes[0] in known), ("things", learnt))
            near = few([name for name in known if name in learnt], 20)
            tell(
                f"the prior {self.name} has not learnt '{thing.shape}' well, so the result may show something else. Of "
                f"{kind} it draws well: {near or 'none'}."
            )

    def student(self, rank: int, camera: bool = False) -> Student:
        """Diffusers' network with the same weights and LoRA on its attention, in float32 where the prior uses bfloat16.

        Then it differs from the prior by rounding even untrained: by 0.5 % of h at t = 50, 1 % at 500 and 7 % at 950.
        """
        return LoraStudent(self, self._trainable, self.inputs, self.output, rank, camera)

    @cached_property
    def _trainable(self) -> Any:
        return super().load_network()


def _others_that_know(prompt: str, world: World) -> str:
    """A sentence that names a prior of another world that serves the prompt; empty if there is none."""
    for name in names("gsdistill.worlds"):
        with suppress(PromptError):
            if name != world.name and world_named(name).parse(prompt):
                return f" --prior {name}, which ships too, knows this prompt."
    return ""


def read_part_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of the part in ``folder``, by name.

    Raises:
        BadFile: they cannot be read, or are not finite.
    """
    files = weight_files([path.name for path in folder.glob("*")], False)
    names = [name for name in files.names if name.endswith(".safetensors")] if files else []
    with failing_as(BadFile, f"{folder}: the weights cannot be read"):
        weights = unpack({key: value for name in names for key, value in load_file(folder / name).items()})
    check_finite(weights, folder)
    return weights


def scaled_linear_schedule(path: Path) -> tuple[NoiseSchedule, Prediction]:
    """Read a config with scaled_linear noise levels: the roots of the betas are evenly spaced.

    Raises:
        BadFile: the config cannot be read, or names another schedule or an unknown prediction type.
    """
    with failing_as(BadFile, f"{path} is not the config of a scheduler"):
        config = read_json(path)
        ends = math.sqrt(float(config["beta_start"])), math.sqrt(float(config["beta_end"]))
        steps, law = int(config["num_train_timesteps"]), config["beta_schedule"]
        check_steps(steps)
    if law != "scaled_linear" or config.get("trained_betas") or config.get("rescale_betas_zero_snr"):
        raise BadFile(
            f"{path}: beta_schedule '{law}' as it stands there is not what a world's prior has: scaled_linear"
        )
    kind = known_prediction(config.get("prediction_type", "epsilon"), path)
    betas = torch.linspace(*ends, steps, dtype=torch.float32) ** 2
    return schedule_of((1.0 - betas).cumprod(0), path), kind
