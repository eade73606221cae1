"""Train the shapes world's Point-E: a base that turns a caption into 512 coloured points, and an upsampler to 1024.

    python tools/train/shapes_points.py --part base --work /tmp/points --output assets/shapes-points
    python tools/train/shapes_points.py --part upsampler --work /tmp/points --output assets/shapes-points

Noise prediction as in Point-E (https://arxiv.org/abs/2212.08751), with Muon for the layers' matrices and AdamW for the
rest; the loop is that of gsdistill/learning. The target is the noise to be expected at a point of the captioned object:
the same minimum as the drawn noise has, far less variance. The text encoder first learns to name the colours and solids
of a caption, then learns on with the base, 10 % of its texts dropped. Given the caption the points are independent, so
the base learns on clouds of 16 to 256 points; where they are few, only the text tells what they belong to. The
upsampler sees the coarse points with a little noise, and no text. Squared errors count (1 + sigma^2)-fold, 6-fold at
most, sigma the noise over the signal: that evens out what they mean for a cloud that is still vague. Low noise, which
makes the fine shape, is drawn more often later in the run.

A checkpoint is written now and then; the same command goes on from it, and the shipped folder is refreshed with the
averaged weights each time. With ``--minutes`` the run ends by the clock and the learning rate follows the elapsed
share, so the weights depend on the machine's speed. OMP_NUM_THREADS=1 is faster: these networks are small.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
from safetensors.torch import save_file
from shapes_clouds import Clouds, values
from shapes_points_model import CARD, Base, Settings, make, teach_naming, tokens
from shapes_prior import make_tokenizer, recipe_of
from torch import Tensor, nn
from transformers import CLIPTokenizer

from gsdistill.cli.flags import settings_of
from gsdistill.disk.write import atomic_path, write_json
from gsdistill.learning.processes import join
from gsdistill.learning.stream import Key
from gsdistill.learning.trainer import Trainer
from gsdistill.models.eight_bits import write_sums
from gsdistill.point_e.sampler import cumulative_alphas
from gsdistill.run.watch import Interrupt
from gsdistill.settings.config import to_dict

SIZES = {"base": (16, 16, 64, 256), "upsampler": (192, 256)}  # noisy points of a cloud while training
COARSE = 256  # coarse points while training: half of what the base makes, at a third of the cost
HEAVIEST = 6.0
REFERENCES = 1536  # points of the object that tell the expected noise


def draw(clouds: Clouds, tokenizer: CLIPTokenizer, settings: Settings, key: Key) -> dict[str, Tensor]:
    """Token ids; and points: coarse ones, those to make noisy, those that tell the expected noise, in this order."""
    sizes = SIZES[settings.part]
    count = sizes[np.random.default_rng(key).integers(len(sizes))]
    coarse = 0 if settings.part == "base" else COARSE
    captions, points = clouds.batch(settings.batch // count, coarse + count + REFERENCES, key)
    return {"ids": tokens(tokenizer, captions), "points": points}


def loss_of(
    alphas: Tensor, settings: Settings, network: Callable[..., Tensor], batch: dict[str, Tensor], progress: float
) -> Tensor:
    """Weighted mean squared error of the noise."""
    points, ids = batch["points"], batch["ids"]
    coarse = 0 if settings.part == "base" else COARSE
    low, clean, device = points[:, :, :coarse], points[:, :, coarse:-REFERENCES], points.device
    begin, end = settings.focus
    power = 1.0 + min(max((progress - begin) / (end - begin), 0.0), 1.0)
    t = (torch.rand(len(clean), device=device) ** power * len(alphas)).long()
    noise = torch.randn_like(clean)
    level = alphas[t][:, None, None]
    noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
    if settings.part == "base":
        told = (ids, (torch.rand(len(clean), device=device) >= settings.dropout).float())
    else:
        amount = settings.jitter * torch.rand(len(clean), 1, 1, device=device)
        told = (values(low + amount * torch.randn_like(low)),)
    if progress >= settings.expected_from:
        noise = expected_noise(noisy / level.sqrt(), ((1 - level) / level).sqrt().flatten(), points[:, :, coarse:])
    predicted = network(noisy, t.float(), *told)
    weight = (1.0 / level).clamp(max=HEAVIEST)  # 1 + sigma^2
    return (weight * (predicted.float() - noise).square()).mean()


def expected_noise(
    y: Float[Tensor, "B 6 N"], sigma: Float[Tensor, "B"], clean: Float[Tensor, "B 6 M"]
) -> Float[Tensor, "B 6 N"]:
    """E[n | y = x0 + sigma n] for x0 even over the ``clean`` points of the object, those behind y among them.

    A stable target (https://arxiv.org/abs/2302.00670): the expectation of what the drawn noise only samples.
    """
    squares = (y**2).sum(1)[:, :, None] + (clean**2).sum(1)[:, None] - 2.0 * y.transpose(1, 2) @ clean
    weights = (-0.5 * squares / sigma[:, None, None] ** 2).softmax(dim=2)
    return (y - clean @ weights.transpose(1, 2)) / sigma[:, None, None]


def optimizers_of(model: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon (https://kellerjordan.github.io/posts/muon) for the matrices of the layers, AdamW for all else."""
    named = list(model.named_parameters())
    inner = [value for name, value in named if "resblocks" in name and value.ndim == 2]
    outer = [value for name, value in named if "resblocks" not in name or value.ndim != 2]
    return [
        torch.optim.Muon(inner, lr=settings.lr, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=settings.lr, weight_decay=0.01, betas=(0.9, 0.99)),
    ]


def train(settings: Settings) -> None:
    """The whole run of one part, from its checkpoint on."""
    with join(settings.device) as device, Interrupt(Console()) as interrupt:
        tokenizer, clouds = make_tokenizer(), Clouds(settings.seed, settings.surface)
        model, checkpoint = make(settings, tokenizer).to(device), settings.work / f"{settings.part}.pt"
        if isinstance(model, Base) and not checkpoint.exists():
            lesson = teach_naming(model, tokenizer, clouds, settings, lambda: interrupt.asked)
            if not lesson.complete:
                return
        card = CARD.base if settings.part == "base" else CARD.upsampler
        alphas = torch.from_numpy(cumulative_alphas(card.schedule, card.timesteps)).float().to(device)
        trainer = Trainer(
            model, partial(loss_of, alphas, settings), partial(draw, clouds, tokenizer, settings), settings,
            optimizers_of(model, settings),
        )  # fmt: skip

        def refresh() -> None:
            if trainer.complete or settings.stop_after is None:
                export(settings, trainer, tokenizer)

        trainer.run(checkpoint, lambda: interrupt.asked, refresh)


def export(settings: Settings, trainer: Trainer, tokenizer: CLIPTokenizer) -> None:
    """Write this part's averaged weights as fp16 safetensors, and what belongs to both parts."""
    model, output = make(settings, tokenizer), settings.output
    model.load_state_dict(trainer.average.weights)
    output.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Base):
        model.text_encoder.half().save_pretrained(output / "text_encoder")
        tokenizer.save_pretrained(output / "tokenizer")
    state = (model.transformer if isinstance(model, Base) else model).state_dict()
    with atomic_path(output / f"{settings.part}.safetensors") as draft:
        save_file({name: _stored(name, value) for name, value in state.items()}, draft)
    write_json(output / "config.json", to_dict(CARD))
    write_sums(output)
    path = output / "training.json"
    parts = json.loads(path.read_text()) if path.exists() else {}
    figures = {"settings": recipe_of(settings), "torch": torch.__version__, "trained_steps": trainer.done}
    figures["loss"] = trainer.history
    write_json(path, dict(sorted({**parts, settings.part: figures}.items())))


def _stored(name: str, value: Tensor) -> Tensor:
    """Weights in half precision; the scales and biases of the channels are constants of Point-E and stay exact."""
    return value if name.startswith("channel_") else value.half()


if __name__ == "__main__":
    train(settings_of(Settings, sys.argv[1:], "shapes_points.py"))
