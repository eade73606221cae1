"""Train the shapes world's Point-E: a base that turns a caption into 512 coloured points, and an upsampler to 1024.

    python tools/train/shapes_points.py --part base --work /tmp/points --output assets/shapes-points
    python tools/train/shapes_points.py --part upsampler --work /tmp/points --output assets/shapes-points

Noise prediction as in Point-E (https://arxiv.org/abs/2212.08751), with Muon for the layers' matrices, AdamW for the
rest, a cosine tail of the rate, and an exponential moving average of the weights. The target is the noise to be
expected at a point of the captioned object: the same minimum as the drawn noise has, far less variance. The text
encoder first learns to name the colours and solids of a caption, then learns on with the base, 10 % of its texts
dropped. Given the caption the points are independent, so the base learns on clouds of 16 to 256 points; where they are
few, only the text tells what they belong to. The upsampler sees the coarse points with a little noise, and no text.
Squared errors count (1 + sigma^2)-fold, 6-fold at most, sigma the noise over the signal: that evens out what they mean
for a cloud that is still vague. Low noise, which makes the fine shape, is drawn more often later in the run.

A checkpoint is written now and then; the same command goes on from it, and the shipped folder is refreshed with the
averaged weights each time. With ``--minutes`` the run ends by the clock and the learning rate follows the elapsed
share, so the weights depend on the machine's speed; otherwise they are a function of the settings and the seed.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from shapes_clouds import Clouds, values
from shapes_points_model import CARD, Base, Settings, learning_rate, make, teach_naming, tokens
from shapes_prior import make_tokenizer
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTokenizer

from gsdistill.cli.flags import settings_of
from gsdistill.disk.write import atomic_path, write_json, write_text
from gsdistill.point_e.sampler import cumulative_alphas
from gsdistill.settings.config import to_dict

SIZES = {"base": (16, 16, 64, 256), "upsampler": (192, 256)}  # noisy points of a cloud while training
COARSE = 256  # coarse points while training: half of what the base makes, at a third of the cost
HEAVIEST = 6.0
REFERENCES = 1536  # points of the object that tell the expected noise


def loss_of(
    model: nn.Module,
    tokenizer: CLIPTokenizer,
    alphas: Tensor,
    clouds: Clouds,
    settings: Settings,
    step: int,
    share: float,
) -> Tensor:
    """Mean squared error of the noise on the clouds, timesteps and noise of this step; ``share`` of the run is over."""
    generator = torch.Generator().manual_seed((settings.seed * 1_000_003 + step) % 2**62)
    coarse = 0 if settings.part == "base" else COARSE
    sizes = SIZES[settings.part]
    count = sizes[int(torch.randint(len(sizes), (1,), generator=generator))]
    known = REFERENCES if share >= settings.expected_from else 0
    captions, points = clouds.batch(settings.batch // count, coarse + count + known, (settings.seed, step, coarse))
    clean = points[:, :, coarse : coarse + count]
    begin, end = settings.focus
    power = 1.0 + min(max((share - begin) / (end - begin), 0.0), 1.0)
    t = (torch.rand(len(clean), generator=generator) ** power * len(alphas)).long()
    noise = torch.randn(clean.shape, generator=generator)
    level = alphas[t][:, None, None]
    noisy = level.sqrt() * clean + (1 - level).sqrt() * noise
    if settings.part == "base":
        told = (tokens(tokenizer, captions), (torch.rand(len(clean), generator=generator) >= settings.dropout).float())
    else:
        amount = settings.jitter * torch.rand(len(clean), 1, 1, generator=generator)
        low = points[:, :, :coarse]
        told = (values(low + amount * torch.randn(low.shape, generator=generator)),)
    if known:
        noise = expected_noise(noisy / level.sqrt(), ((1 - level) / level).sqrt().flatten(), points[:, :, coarse:])
    # in bfloat16 on a CPU the backward of the fused attention costs more than that of plain products
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        predicted = model(noisy, t.float(), *told)
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


@dataclass
class Run:
    """All that changes while training."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    average: dict[str, Tensor]
    step: int
    seconds: float
    history: list[Any]

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        state = {"model": self.model.state_dict(), "optimizers": states, "average": self.average}
        with atomic_path(path) as draft:
            torch.save({**state, "step": self.step, "seconds": self.seconds, "history": self.history}, draft)

    def restore(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one."""
        if not path.exists():
            return
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        for optimizer, its in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its)
        self.average = state["average"]
        self.step, self.seconds, self.history = state["step"], state["seconds"], list(state["history"])


def train(settings: Settings) -> None:
    """The whole run of one part, from its checkpoint on."""
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    model = make(settings, tokenizer)
    run = Run(
        model,
        optimizers_of(model, settings),
        {key: value.clone() for key, value in model.state_dict().items()},
        0,
        0.0,
        [],
    )
    checkpoint = settings.work / f"{settings.part}.pt"
    run.restore(checkpoint)
    clouds = Clouds(settings.seed, settings.surface)
    if isinstance(model, Base) and run.step == 0:
        teach_naming(model, tokenizer, clouds, settings)
        run.average = {key: value.clone() for key, value in model.state_dict().items()}
    card = CARD.base if settings.part == "base" else CARD.upsampler
    alphas = torch.from_numpy(cumulative_alphas(card.schedule, card.timesteps)).float()
    earlier, began, saved, recent = run.seconds, time.perf_counter(), time.perf_counter(), []
    while True:
        share = run.seconds / 60.0 / settings.minutes if settings.minutes else run.step / settings.steps
        stopped = share >= 1.0 or run.step == settings.stop_after
        if stopped or time.perf_counter() - saved > settings.save_every:
            saved = time.perf_counter()
            run.save(checkpoint)
            if share >= 1.0 or settings.stop_after is None:
                export(settings, run, tokenizer)
        if stopped:
            return
        for group in (group for optimizer in run.optimizers for group in optimizer.param_groups):
            group["lr"] = learning_rate(settings, run.step, share)
        loss = loss_of(model, tokenizer, alphas, clouds, settings, run.step, share)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in run.optimizers:
            optimizer.step()
        decay = min(settings.ema, (1 + run.step) / (10 + run.step))
        for name, value in model.state_dict().items():
            run.average[name].lerp_(value, 1.0 - decay) if value.is_floating_point() else run.average[name].copy_(value)
        run.step += 1
        run.seconds = earlier + time.perf_counter() - began
        recent.append(loss.item())
        if run.step % 100 == 0:
            run.history.append((run.step, sum(recent) / len(recent)))
            recent = []
            pace = run.seconds / run.step
            print(f"step {run.step}  loss {run.history[-1][1]:.4f}  {pace:.3f} s/step  {share:.1%}", flush=True)


def export(settings: Settings, run: Run, tokenizer: CLIPTokenizer) -> None:
    """Write this part's averaged weights as fp16 safetensors, and what belongs to both parts."""
    model, output = make(settings, tokenizer), settings.output
    model.load_state_dict(run.average)
    output.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Base):
        model.text_encoder.half().save_pretrained(output / "text_encoder")
        (output / "text_encoder" / "model.safetensors").chmod(0o644)
        tokenizer.save_pretrained(output / "tokenizer")
    state = (model.transformer if isinstance(model, Base) else model).state_dict()
    with atomic_path(output / f"{settings.part}.safetensors") as draft:
        save_file({name: _stored(name, value) for name, value in state.items()}, draft)
    write_json(output / "config.json", to_dict(CARD))
    files = sorted(output.glob("**/*.safetensors"))
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.relative_to(output).as_posix()}" for file in files]
    write_text(output / "SHA256SUMS", "\n".join(sums) + "\n")
    recipe = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(settings).items()}
    for unrelated in ("part", "work", "output", "save_every", "stop_after"):
        recipe.pop(unrelated)
    path = output / "training.json"
    parts = json.loads(path.read_text()) if path.exists() else {}
    figures = {"settings": recipe, "torch": torch.__version__, "trained_steps": run.step, "loss": run.history}
    write_json(path, dict(sorted({**parts, settings.part: figures}.items())))


def _stored(name: str, value: Tensor) -> Tensor:
    """Weights in half precision; the scales and biases of the channels are constants of Point-E and stay exact."""
    return value if name.startswith("channel_") else value.half()


if __name__ == "__main__":
    train(settings_of(Settings, sys.argv[1:], "train_shapes_points.py"))
