"""Train the shapes prior: a small text- and camera-conditioned diffusion model of the procedural world.

    torchrun --nproc-per-node 2 tools/train/shapes_prior.py --work /tmp/shapes-prior --output assets/shapes-prior

Noise prediction on pixel-unshuffled images, scaled-linear betas, AdamW, 10 % of the prompts dropped; the loop is that
of gsdistill/learning. On a CPU torchrun gives each process one thread, which on a shared machine is far faster than
threads that wait for each other. The same command goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from rich.console import Console
from shapes_data import Batch, Dataset
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, PreTrainedTokenizerBase

from gsdistill.cli.flags import settings_of
from gsdistill.core.ranges import bounded
from gsdistill.disk.write import write_json
from gsdistill.learning.processes import join, leader_first, rank
from gsdistill.learning.trainer import Trainer, TrainerSettings
from gsdistill.models.eight_bits import write_sums
from gsdistill.prior.pixels import fold_image, fourier_features
from gsdistill.run.watch import Interrupt
from gsdistill.worlds.shapes.captions import VOCABULARY

AZIMUTH_FREQUENCIES = (1, 2, 3, 4, 6, 8)
ELEVATION_FREQUENCIES = (1, 2, 4)
CAMERA_NUMBERS = 2 * (len(AZIMUTH_FREQUENCIES) + len(ELEVATION_FREQUENCIES))
FACTOR = 2  # pixel-unshuffle


@dataclass(frozen=True, kw_only=True)
class Settings(TrainerSettings):
    """Settings of one training; those that tell the result are written into the model's folder."""

    # folder for data buffers and checkpoint
    work: Path
    # folder for the finished model in the diffusers layout
    output: Path
    # image size in pixels
    size: int = 32
    # pictures a shard
    batch: int = 32
    # channels of the three U-Net levels
    channels: tuple[int, int, int] = (64, 96, 128)
    # share of prompts replaced by the empty one
    dropout: float = 0.1
    # cameras a single solid, and a stack, is seen from
    views: tuple[int, int] = (3600, 900)
    # where to compute
    device: str = "auto"
    # optimiser steps, where no minutes are given
    steps: int = bounded(5_200, low=1)
    # pieces of a step's batch, a multiple of the processes
    shards: int = bounded(2, low=1)
    # steps in which the rate rises
    warmup: int = bounded(150, low=1)
    # share of the run after which the rate falls by a cosine
    decay_from: float = bounded(0.32, low=0, below=1)
    # steps between lines of the log
    log_every: int = bounded(50, low=1)


def make_tokenizer(positions: int = 24) -> CLIPTokenizer:
    """A CLIP tokenizer over the world's vocabulary: every known word is one token, any other falls into pieces."""
    letters = [chr(c) for c in range(33, 127)]
    vocab = [*letters, *(letter + "</w>" for letter in letters)]
    words = [[*word[:-1], word[-1] + "</w>"] for word in VOCABULARY if word.isalpha()]
    merges: list[tuple[str, str]] = []
    while any(len(word) > 1 for word in words):  # byte-pair encoding, until every word is whole
        counts = Counter(pair for word in words for pair in pairwise(word))
        merges.append(max(counts, key=lambda pair: (counts[pair], pair)))
        vocab.append("".join(merges[-1]))
        words = [_merge(word, merges[-1]) for word in words]
    tokens = {token: index for index, token in enumerate(dict.fromkeys(vocab))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        tokens[special] = len(tokens)
    return CLIPTokenizer(vocab=tokens, merges=merges, model_max_length=positions)


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def make_unet(side: int, planes: int, channels: tuple[int, int, int], text: int, classes: int) -> UNet2DConditionModel:
    """The U-Net of a world's prior: latents planes x side x side, tokens ``text`` wide, ``classes`` numbers.

    With channels last in memory a step of the objects prior takes 13 % less time of a processor.
    """
    unet = UNet2DConditionModel(
        sample_size=side, in_channels=planes, out_channels=planes, layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=channels, attention_head_dim=4, cross_attention_dim=text, norm_num_groups=8,
        resnet_time_scale_shift="scale_shift", class_embed_type="projection",
        projection_class_embeddings_input_dim=classes,
    )  # fmt: skip
    return unet.to(memory_format=torch.channels_last)


class Model(nn.Module):
    """Text encoder and U-Net as one module."""

    def __init__(self, settings: Settings, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        config = CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=96, intermediate_size=256, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=tokenizer.model_max_length, projection_dim=96,
            bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        self.text_encoder = CLIPTextModel(config)
        self.unet = make_unet(
            settings.size // FACTOR, 3 * FACTOR**2, settings.channels, config.hidden_size, CAMERA_NUMBERS
        )

    def forward(
        self,
        noisy: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        ids: Int[Tensor, "B L"],
        cameras: Float[Tensor, "B F"],
    ) -> Float[Tensor, "B C h w"]:
        """Predicted noise."""
        tokens = self.text_encoder(ids).last_hidden_state
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        return self.unet(noisy, t, tokens, class_labels=cameras).sample


def loss_of(
    tokenizer: CLIPTokenizer,
    alphas: Tensor,
    size: int,
    network: Callable[..., Tensor],
    batch: Batch,
    progress: float,
) -> Tensor:
    """Mean squared error of the noise."""
    x0 = fold_image(batch.images, size, FACTOR)
    t = torch.randint(0, len(alphas), (len(x0),), device=x0.device)
    noise = torch.randn_like(x0)
    level = alphas[t][:, None, None, None]
    ids = tokenizer(batch.captions, padding="max_length", return_tensors="pt").input_ids.to(x0.device)
    cameras = fourier_features(batch.azimuths, batch.elevations, AZIMUTH_FREQUENCIES, ELEVATION_FREQUENCIES)
    predicted = network(level.sqrt() * x0 + (1 - level).sqrt() * noise, t, ids, cameras)
    return (predicted.float() - noise).square().mean()


def train(settings: Settings) -> None:
    """Ray-cast the data once, then train from the last checkpoint on; the leader exports what is finished."""
    with join(settings.device) as device, Interrupt(Console()) as interrupt:
        with leader_first():
            data = Dataset(settings.work, settings.size, *settings.views, settings.seed)
        tokenizer = make_tokenizer()
        torch.manual_seed(settings.seed)
        model = Model(settings, tokenizer).to(device)
        scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
        loss = partial(loss_of, tokenizer, scheduler.alphas_cumprod.to(device), settings.size)
        trainer = Trainer(model, loss, partial(data.batch, settings.batch, settings.dropout), settings)
        trainer.run(settings.work / "checkpoint.pt", should_stop=lambda: interrupt.asked)
        if rank() == 0 and trainer.complete:
            model.load_state_dict(trainer.average.weights)
            export(settings, model, tokenizer, scheduler, trainer.history)


def export(
    settings: Settings, model: Model, tokenizer: CLIPTokenizer, scheduler: DDPMScheduler, history: list[Any]
) -> None:
    """Write the standard diffusers folder (fp16 safetensors), the card our loader reads, and the loss curve."""
    card = {"name": "shapes", "world": "shapes", "factor": FACTOR}
    write_model(settings.output, model, tokenizer, scheduler, card)
    record = {"settings": recipe_of(settings), "torch": torch.__version__, "loss": history}
    write_json(settings.output / "training.json", record)
    print(json.dumps(record["settings"]))


def write_model(
    output: Path, model: Any, tokenizer: PreTrainedTokenizerBase, scheduler: DDPMScheduler, card: dict[str, Any]
) -> None:
    """Write a folder that diffusers reads (fp16, in pieces of 15 MB), and its card, which ``card`` completes."""
    model.half()
    model.unet.save_pretrained(output / "unet", max_shard_size="15MB")
    model.text_encoder.save_pretrained(output / "text_encoder")
    tokenizer.save_pretrained(output / "tokenizer")
    scheduler.save_pretrained(output / "scheduler")
    camera = {
        "features": "fourier", "azimuth_frequencies": AZIMUTH_FREQUENCIES,
        "elevation_frequencies": ELEVATION_FREQUENCIES,
        "distance": 3.2, "fov": 40.0, "elevation": (-20.0, 80.0),
    }  # fmt: skip
    write_json(output / "gsdistill.json", {"encoder": "unshuffle", **card, "camera": camera, "licence": "Apache-2.0"})
    write_sums(output)


def recipe_of(settings: TrainerSettings) -> dict[str, Any]:
    """The settings that tell the result."""
    unrelated = ("part", "work", "output", "weights", "device", "workers", "log_every", "save_every", "stop_after")
    return {key: value for key, value in asdict(settings).items() if key not in unrelated}


if __name__ == "__main__":
    train(settings_of(Settings, sys.argv[1:], "shapes_prior.py"))
