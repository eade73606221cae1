"""Train the objects prior: a text- and camera-conditioned diffusion model of everyday objects at 64 pixels.

    torchrun --nproc-per-node 2 tools/train/objects_prior.py --work /tmp/objects-prior --output /tmp/objects-model

The network answers x0, whose error at timestep t is weighted with sqrt(SNR) between 0.1 and 1: with the usual weights,
nine tenths of the gradient are of details at low noise, and names are hardly learnt. Muon moves matrices and
convolutions, AdamW embeddings and both ends. With ``--weights`` it goes on from a finished model, with ``--minutes`` it
ends in time, its rate down to where pictures are best. The meshes are found by GSDISTILL_OBJECTS.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import DDPMScheduler
from jaxtyping import Float, Int
from objects_data import LENGTH, SIZE, Batch, Pictures
from rich.console import Console
from shapes_prior import AZIMUTH_FREQUENCIES, CAMERA_NUMBERS, ELEVATION_FREQUENCIES, make_unet, recipe_of, write_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Punctuation, Whitespace
from tokenizers.pre_tokenizers import Sequence as Steps
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from gsdistill.cli.flags import settings_of
from gsdistill.core.ranges import bounded
from gsdistill.disk.read import read_json
from gsdistill.disk.write import write_json
from gsdistill.learning.muon import Muon
from gsdistill.learning.processes import join, rank
from gsdistill.learning.trainer import Trainer, TrainerSettings
from gsdistill.prior.families.small.prior import read_part_weights
from gsdistill.prior.pixels import fold_image, fourier_features
from gsdistill.run.watch import Interrupt
from gsdistill.worlds.objects.captions import vocabulary
from gsdistill.worlds.objects.catalogue import models, words
from gsdistill.worlds.objects.meshes import VARIABLE, folder

FACTOR, TEXT_WIDTH = 4, 128
SPECIAL = ("<pad>", "<start>", "<end>")
# Parts of names of weights that AdamW moves: embeddings, both ends, and what tells the network time, camera and text.
BY_ADAM = ("embedding", "conv_in", "conv_out", "time_emb_proj")


@dataclass(frozen=True, kw_only=True)
class Settings(TrainerSettings):
    """Settings of one training; those that tell the result are written into the model's folder."""

    # folder for the checkpoint
    work: Path
    # folder for the finished model in the diffusers layout
    output: Path
    # the folder of a finished model, to go on from
    weights: Path | None = None
    # pictures that it had seen
    seen: int = bounded(0, low=0)
    # whether it learns what people type first (words.yaml), or every noun
    nouns: Literal["first", "all"] = "first"
    # pictures a shard
    batch: int = bounded(48, low=1)
    # channels of the three U-Net levels
    channels: tuple[int, int, int] = (96, 160, 224)
    # share of prompts replaced by the empty one
    dropout: float = 0.1
    # where to compute
    device: str = "auto"
    # optimiser steps, where no minutes are given
    steps: int = bounded(20_000, low=1)
    # pieces of a step's batch, a multiple of the processes
    shards: int = bounded(2, low=1)
    # peak learning rate
    lr: float = bounded(7e-4, above=0)
    # share of the run after which the rate falls by a cosine
    decay_from: float = bounded(0.6, low=0, below=1)
    # decay of the weights' moving average
    ema: float = bounded(0.9995, low=0, below=1)
    # steps between lines of the log
    log_every: int = bounded(50, low=1)


class Model(nn.Module):
    """Text encoder and U-Net as one module."""

    def __init__(self, words: int, channels: tuple[int, int, int]) -> None:
        super().__init__()
        config = CLIPTextConfig(
            vocab_size=words + len(SPECIAL), hidden_size=TEXT_WIDTH, intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=LENGTH,
            pad_token_id=words, bos_token_id=words + 1, eos_token_id=words + 2,
        )  # fmt: skip
        self.text_encoder = CLIPTextModel(config)
        classes = CAMERA_NUMBERS + TEXT_WIDTH
        self.unet = make_unet(SIZE // FACTOR, 3 * FACTOR**2, channels, TEXT_WIDTH, classes)

    def forward(
        self,
        noisy: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        ids: Int[Tensor, "B L"],
        cameras: Float[Tensor, "B F"],
    ) -> Float[Tensor, "B C h w"]:
        """Predicted x0. The mean of the text's tokens stands beside the camera, without which nouns come late."""
        states = self.text_encoder(ids).last_hidden_state
        words = (ids != self.text_encoder.config.pad_token_id)[..., None]
        mean = (states * words).sum(1) / words.sum(1)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        return self.unet(noisy, t, states, class_labels=torch.cat([cameras, mean], 1)).sample


def loss_of(alphas: Tensor, network: Callable[..., Tensor], batch: Batch, progress: float) -> Tensor:
    """Mean squared error of x0 weighted with sqrt(SNR), three quarters of the timesteps from 300 on."""
    x0 = fold_image(batch.images, SIZE, FACTOR)
    u, low = torch.rand(2, len(x0), device=x0.device)
    t = torch.where(low < 0.25, 300 * u, 300 + 700 * u).long().clamp(max=len(alphas) - 1)
    level = alphas[t][:, None, None, None]
    noisy = level.sqrt() * x0 + (1 - level).sqrt() * torch.randn_like(x0)
    cameras = fourier_features(batch.azimuths, batch.elevations, AZIMUTH_FREQUENCIES, ELEVATION_FREQUENCIES)
    predicted = network(noisy, t, batch.ids, cameras).float()
    weight = (level / (1 - level)).sqrt().clamp(0.1, 1.0)
    return (weight * (predicted - x0).square()).mean()


def optimizers_of(model: nn.Module, lr: float) -> Sequence[torch.optim.Optimizer]:
    """Muon for what is a matrix inside of the network, AdamW for the rest."""
    named = dict(model.named_parameters())
    inner = [name for name, p in named.items() if p.ndim >= 2 and not any(part in name for part in BY_ADAM)]
    rest = [parameter for name, parameter in named.items() if name not in inner]
    return Muon([named[name] for name in inner], lr), torch.optim.AdamW(rest, lr, weight_decay=0.01)


def nouns_of(settings: Settings) -> Sequence[str]:
    """The nouns that it learns."""
    return words().first if settings.nouns == "first" else sorted({model.noun for model in models().values()})


def take(model: Model, start: Path) -> None:
    """Give the model the weights of a finished one; of words that it has not, the embedding stays as it is."""
    model.unet.load_state_dict(read_part_weights(start / "unet"))
    text = {
        name.removeprefix("text_model."): value for name, value in read_part_weights(start / "text_encoder").items()
    }
    table = "embeddings.token_embedding.weight"
    old = read_json(start / "tokenizer" / "tokenizer.json")["model"]["vocab"]
    new = {word: number for number, word in enumerate([*vocabulary(), *SPECIAL])}
    shared = [word for word in new if word in old]
    own = {name.removeprefix("text_model."): value for name, value in model.text_encoder.state_dict().items()}
    rows = own[table].clone()
    rows[[new[word] for word in shared]] = text[table][[old[word] for word in shared]].float()
    names = {name.removeprefix("text_model."): name for name in model.text_encoder.state_dict()}
    model.text_encoder.load_state_dict({names[name]: value for name, value in {**text, table: rows}.items()})


def train(settings: Settings) -> None:
    """Train from the last checkpoint on; the leader exports what is finished."""
    if (place := folder()) is None:
        raise SystemExit(f"set {VARIABLE} to the folder of the meshes")
    with join(settings.device) as device, Interrupt(Console()) as interrupt:
        data = Pictures(place, nouns_of(settings))
        torch.manual_seed(settings.seed)
        model = Model(len(data.numbers), settings.channels)
        if settings.weights:
            take(model, settings.weights)
        model.to(device)
        scheduler = DDPMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            prediction_type="sample",
        )
        loss = partial(loss_of, scheduler.alphas_cumprod.to(device))
        draw = partial(data.batch, settings.batch, settings.dropout)
        trainer = Trainer(model, loss, draw, settings, optimizers_of(model, settings.lr))
        trainer.run(settings.work / "checkpoint.pt", should_stop=lambda: interrupt.asked)
        if rank() == 0 and trainer.complete:
            model.load_state_dict(trainer.average.weights)
            export(settings, model, scheduler, trainer)


def export(settings: Settings, model: Model, scheduler: DDPMScheduler, trainer: Trainer[Batch]) -> None:
    """Write the model's folder and the record of its training."""
    card = {"name": "objects", "world": "objects", "factor": FACTOR, "pooled": True}
    write_model(settings.output, model, make_tokenizer(), scheduler, card)
    seen = settings.seen + trainer.done * settings.batch * settings.shards
    record = {
        "settings": recipe_of(settings), "torch": torch.__version__, "pictures": seen,
        "seconds": round(trainer.seconds), "loss": trainer.history,
    }  # fmt: skip
    write_json(settings.output / "training.json", record)
    print(json.dumps({"pictures": seen, **record["settings"]}))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Whole words; what is not known is nothing, so that texts are checked before."""
    numbers = {word: number for number, word in enumerate([*vocabulary(), *SPECIAL])}
    tokenizer: Any = Tokenizer(WordLevel(numbers, unk_token=SPECIAL[0]))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = Steps([Whitespace(), Punctuation("removed")])
    ends = [(word, numbers[word]) for word in SPECIAL[1:]]
    tokenizer.post_processor = TemplateProcessing(f"{SPECIAL[1]} $A {SPECIAL[2]}", special_tokens=ends)
    pad, start, end = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=start, eos_token=end, model_max_length=LENGTH
    )


if __name__ == "__main__":
    train(settings_of(Settings, sys.argv[1:], "objects_prior.py"))
