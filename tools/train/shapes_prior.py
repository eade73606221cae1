"""Train the shapes prior: a small text- and camera-conditioned diffusion model of the procedural world.

    python tools/train/shapes_prior.py --work /tmp/shapes-prior --output assets/shapes-prior

Noise prediction on pixel-unshuffled images, scaled-linear betas, AdamW with warm-up and a cosine tail, an exponential
moving average of the weights, 10 % of the prompts dropped. Data-parallel over one-thread processes (gloo), which on a
shared machine is far faster than threads that wait for each other. A checkpoint is written now and then and at the
end; the same command goes on from it. The result is a function of the settings and the seed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from jaxtyping import Float, Int
from shapes_data import Batch, Dataset
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from gsdistill.cli.flags import settings_of
from gsdistill.disk.write import atomic_path, write_json, write_text
from gsdistill.prior.pixels import fold_image, fourier_features
from gsdistill.worlds.shapes.captions import VOCABULARY

AZIMUTH_FREQUENCIES = (1, 2, 3, 4, 6, 8)
ELEVATION_FREQUENCIES = (1, 2, 4)
FACTOR = 2  # pixel-unshuffle


@dataclass(frozen=True)
class Settings:
    """Settings of one training; all of them are written into the model's card."""

    # folder for data buffers, checkpoint and log
    work: Path
    # folder for the finished model in the diffusers layout
    output: Path
    # image size in pixels
    size: int = 32
    # optimiser steps
    steps: int = 5_200
    # pictures a step and process
    batch: int = 32
    # one-thread processes
    processes: int = 2
    # peak learning rate
    lr: float = 1e-3
    # share of the run after which the rate falls by a cosine to 2 %
    decay_from: float = 0.32
    # channels of the three U-Net levels
    channels: tuple[int, int, int] = (64, 96, 128)
    # decay of the weights' moving average
    ema: float = 0.999
    # share of prompts replaced by the empty one
    dropout: float = 0.1
    # cameras a single solid, and a stack, is seen from
    views: tuple[int, int] = (3600, 900)
    # seconds between checkpoints
    save_every: float = 300.0
    # stop here with a checkpoint, to go on another time
    stop_after: int | None = None
    seed: int = 0


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
        planes = 3 * FACTOR * FACTOR
        self.unet = UNet2DConditionModel(
            sample_size=settings.size // FACTOR, in_channels=planes, out_channels=planes, layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=settings.channels, attention_head_dim=4, cross_attention_dim=96, norm_num_groups=8,
            resnet_time_scale_shift="scale_shift", class_embed_type="projection",
            projection_class_embeddings_input_dim=2 * (len(AZIMUTH_FREQUENCIES) + len(ELEVATION_FREQUENCIES)),
        )  # fmt: skip

    def forward(
        self,
        noisy: Float[Tensor, "B C h w"],
        t: Int[Tensor, "B"],
        ids: Int[Tensor, "B L"],
        cameras: Float[Tensor, "B F"],
    ) -> Float[Tensor, "B C h w"]:
        """Predicted noise."""
        tokens = self.text_encoder(ids).last_hidden_state
        return self.unet(noisy, t, tokens, class_labels=cameras).sample


def loss_of(
    model: Model, tokenizer: CLIPTokenizer, alphas: Tensor, batch: Batch, settings: Settings, key: int
) -> Tensor:
    """Mean squared error of the noise, noise and timesteps drawn from ``key``."""
    generator = torch.Generator().manual_seed(key)
    x0 = fold_image(batch.images, settings.size, FACTOR)
    t = torch.randint(0, len(alphas), (len(x0),), generator=generator)
    noise = torch.randn(x0.shape, generator=generator)
    level = alphas[t][:, None, None, None]
    ids = tokenizer(batch.captions, padding="max_length", return_tensors="pt").input_ids
    cameras = fourier_features(batch.azimuths, batch.elevations, AZIMUTH_FREQUENCIES, ELEVATION_FREQUENCIES)
    # in bfloat16 on a CPU the backward of the fused attention costs eight times that of plain products
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        predicted = model(level.sqrt() * x0 + (1 - level).sqrt() * noise, t, ids, cameras)
    return (predicted.float() - noise).square().mean()


def learning_rate(settings: Settings, step: int) -> float:
    """Linear warm-up over 150 steps, then constant, then a cosine to 2 %."""
    tail = max(step / settings.steps - settings.decay_from, 0.0) / (1.0 - settings.decay_from)
    cosine = 0.02 + 0.98 * 0.5 * (1.0 + torch.cos(torch.tensor(torch.pi * min(tail, 1.0))).item())
    return settings.lr * min(1.0, (step + 1) / 150) * cosine


def average_gradients(model: nn.Module, processes: int) -> None:
    """All-reduce every gradient as one flat tensor."""
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    distributed.all_reduce(flat)
    flat /= processes
    for grad, piece in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(piece.view_as(grad))


def train(rank: int, settings: Settings) -> None:
    """One process of the training; rank 0 also logs, saves and exports."""
    torch.set_num_threads(1)
    init = f"file://{(settings.work / 'rendezvous').resolve()}"
    distributed.init_process_group("gloo", init_method=init, rank=rank, world_size=settings.processes)
    tokenizer = make_tokenizer()
    torch.manual_seed(settings.seed)
    model = Model(settings, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=0.01)
    average = {key: value.clone() for key, value in model.state_dict().items()}
    scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False)
    start, history = restore(settings, model, optimizer, average)
    data = Dataset(settings.work, settings.size, *settings.views, settings.seed)
    began, saved, recent = time.perf_counter(), time.perf_counter(), []
    end = min(settings.steps, settings.stop_after or settings.steps)
    for step in range(start, end):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(settings, step)
        batch = data.batch(settings.batch, settings.seed, step, rank, settings.dropout)
        key = ((settings.seed * 1_000_003 + step) * 64 + rank) % 2**62
        loss = loss_of(model, tokenizer, scheduler.alphas_cumprod, batch, settings, key)
        optimizer.zero_grad()
        loss.backward()
        average_gradients(model, settings.processes)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        decay = min(settings.ema, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            average[name].lerp_(value, 1.0 - decay) if value.is_floating_point() else average[name].copy_(value)
        recent.append(loss.item())
        if rank == 0 and (step + 1) % 50 == 0:
            history.append((step + 1, sum(recent) / len(recent)))
            recent = []
            pace = (time.perf_counter() - began) / (step + 1 - start)
            left = pace * (settings.steps - step - 1) / 60
            print(
                f"step {step + 1}/{settings.steps}  loss {history[-1][1]:.4f}  {pace:.3f} s/step  {left:.0f} min left",
                flush=True,
            )
        last = step + 1 == end
        if rank == 0 and (last or time.perf_counter() - saved > settings.save_every):
            saved = time.perf_counter()
            state = {"model": model.state_dict(), "average": average, "optimizer": optimizer.state_dict()}
            with atomic_path(settings.work / "checkpoint.pt") as path:
                torch.save({**state, "step": step + 1, "history": history}, path)
    if rank == 0 and end == settings.steps:
        model.load_state_dict(average)
        export(settings, model, tokenizer, scheduler, history)
    distributed.destroy_process_group()


def restore(
    settings: Settings, model: Model, optimizer: torch.optim.Optimizer, average: dict[str, Tensor]
) -> tuple[int, list[Any]]:
    """Load the checkpoint in the work folder, if any; returns the next step and the loss history."""
    path = settings.work / "checkpoint.pt"
    if not path.exists():
        return 0, []
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    average.update(state["average"])
    return state["step"], list(state["history"])


def export(
    settings: Settings, model: Model, tokenizer: CLIPTokenizer, scheduler: DDPMScheduler, history: list[Any]
) -> None:
    """Write the standard diffusers folder (fp16 safetensors), the card our loader reads, and the loss curve."""
    model.half()
    model.unet.save_pretrained(settings.output / "unet")
    model.text_encoder.save_pretrained(settings.output / "text_encoder")
    tokenizer.save_pretrained(settings.output / "tokenizer")
    scheduler.save_pretrained(settings.output / "scheduler")
    camera = {
        "features": "fourier", "azimuth_frequencies": AZIMUTH_FREQUENCIES,
        "elevation_frequencies": ELEVATION_FREQUENCIES,
        "distance": 3.2, "fov": 40.0, "elevation": (-20.0, 80.0),
    }  # fmt: skip
    card = {
        "name": "shapes", "world": "shapes", "encoder": "unshuffle", "factor": FACTOR,
        "camera": camera, "licence": "Apache-2.0",
    }  # fmt: skip
    write_json(settings.output / "gsdistill.json", card)
    weights = sorted(settings.output.glob("*/*.safetensors"))
    for path in weights:
        path.chmod(0o644)
    sums = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(settings.output).as_posix()}" for p in weights
    ]
    write_text(settings.output / "SHA256SUMS", "\n".join(sums) + "\n")
    recipe = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()}
    for unrelated in ("work", "output", "save_every", "stop_after"):
        recipe.pop(unrelated)
    write_json(settings.output / "training.json", {"settings": recipe, "torch": torch.__version__, "loss": history})
    print(json.dumps(recipe))


def main(settings: Settings) -> None:
    """Ray-cast the data once, then run the processes."""
    settings.work.mkdir(parents=True, exist_ok=True)
    (settings.work / "rendezvous").unlink(missing_ok=True)
    Dataset(settings.work, settings.size, *settings.views, settings.seed)
    multiprocessing.spawn(train, (settings,), nprocs=settings.processes)


if __name__ == "__main__":
    main(settings_of(Settings, sys.argv[1:], "train_shapes_prior.py"))
