"""Our loop against one that steps as the peers do, on the same weights, the same scene and the same device, in one run.

    python tools/bench/peer_loop.py --json peer-loop.json
    python tools/bench/peer_loop.py --prior shapes --views 2 --resolution 64 --n 1000 --steps 5

The peers' step is written here from what threestudio, DreamGaussian and LucidDreamer do, none of whose code is used:
views rendered one by one, each with its own camera sent to the device; images resized and sent through the whole
autoencoder with autograd; diffusers' network called as it is (float16 on a GPU) on the conditional and the
unconditional batch at once; SDS with omega = 100; one Adam with five groups of parameters; statistics for growing kept
by boolean masks, view by view; and the loss, the norm of the gradient and the number of Gaussians read for a log in
every step. Both loops render with our renderer, which is not the one the peers have, so that no part of the ratio is
its. Blocks of steps of one and the other alternate; the ratio is that of the medians of the blocks.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from gsdistill.bench.figures import environment
from gsdistill.core.device import choose, forget_peak, peak_memory, prepare
from gsdistill.core.errors import UserError
from gsdistill.core.structs import Gaussians, to_device
from gsdistill.disk.write import write_json
from gsdistill.distillation.sds import SDS
from gsdistill.models.load import load_model
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.families.base import Pretrained
from gsdistill.prior.loading import load_prior
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.prior.random_weights import ALIASES, architectures, random_prior
from gsdistill.renderer.base import render
from gsdistill.representation.gaussians import KEYS, GaussianScene, SceneSettings
from gsdistill.scene.cameras.orbit import Orbit, span
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.init.ball import Ball
from gsdistill.settings.ramp import Ramp
from gsdistill.training.distiller import Distiller
from gsdistill.training.views import ViewSettings

OMEGA = 100.0
# gathers statistics, and never grows
SCENE = SceneSettings(densify=Gradient(enabled=True, start=1.0, stop=1.0, budget=10**8))
STEPS = 10**6


class PeerLoop:
    """The peers' step; ``network`` is diffusers' own, with the weights that our prior has."""

    def __init__(
        self,
        initial: Gaussians,
        prior: Pretrained,
        network: Any,
        text: EncodedPrompt,
        views: ViewSettings,
        extent: float,
    ) -> None:
        self.prior, self.network, self.text, self.views = prior, network, text, views
        self.device = initial.means.device
        self.params = {key: torch.nn.Parameter(getattr(initial, key).detach().clone()) for key in KEYS}
        rates = {key: getattr(SCENE.optim, key)(0.0) * (extent if key == "means" else 1.0) for key in KEYS}
        groups = [{"params": [value], "lr": rates[key], "name": key} for key, value in self.params.items()]
        self.optimizer = torch.optim.Adam(groups, lr=0.0, betas=SCENE.optim.betas, eps=1e-15)
        count = len(initial)
        self.widest, self.steepness, self.seen = (torch.zeros(count, device=self.device) for _ in range(3))
        self.generator, self.log = torch.Generator().manual_seed(0), {}
        self.levels = prior.schedule.alphas.square().to(self.device, torch.float32)

    def step(self) -> None:
        """One step of SDS."""
        settings, device = self.views, self.device
        cameras = to_device(settings.cameras.draw(settings.count, settings.resolution, 0.0, self.generator), device)
        views = []
        for number in range(settings.count):
            camera = cameras.pick(slice(number, number + 1))
            background = torch.full((1, 3), float(torch.rand((), generator=self.generator) > 0.5), device=device)
            views.append(render(Gaussians(**self.params), camera, background))
        latents = self._encode(torch.cat([view.images for view in views]))
        gradient = self._gradient(latents, self.prior.condition(self.text, cameras))
        target = (latents - gradient).detach()
        loss = 0.5 * torch.nn.functional.mse_loss(latents, target, reduction="sum") / settings.count
        loss.backward()
        self._statistics(views)
        self.log = {"loss": loss.item(), "norm": gradient.norm().item(), "count": int((self.seen > 0).sum())}
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _encode(self, images: Tensor) -> Tensor:
        """Latents drawn from what the whole autoencoder answers, or the prior's folded pixels where it has none."""
        vae = getattr(self.prior._codec, "_vae", None)
        if vae is None:
            return self.prior.encode(images)
        size = (self.prior.image_size,) * 2
        planes = interpolate(images.permute(0, 3, 1, 2), size, mode="bilinear", align_corners=False)
        code = vae.encode((2 * planes - 1).to(vae.dtype)).latent_dist
        return (code.sample() * vae.config.scaling_factor).to(images.dtype)

    @torch.no_grad()
    def _gradient(self, latents: Tensor, condition: Any) -> Tensor:
        """w(t) (eps_cfg - eps) for an epsilon or v network, with the levels looked up on the device."""
        prior, device = self.prior, latents.device
        t = torch.randint(20, 980, (self.views.count,), device=device)
        t = t[:: prior.view_group].repeat_interleave(prior.view_group)
        eps = torch.randn_like(latents)
        kept = self.levels[t].view(-1, 1, 1, 1).to(latents.dtype)
        x_t = kept.sqrt() * latents + (1 - kept).sqrt() * eps
        text = type(self.text.positive).join([condition.branches["positive"], condition.branches["negative"]])
        told = None if condition.cameras is None else torch.cat([condition.cameras] * 2)
        raw = self.network(**prior.inputs(torch.cat([x_t] * 2), torch.cat([t] * 2), text, told)).sample
        raw = prior.output(raw).to(latents.dtype)
        if prior.prediction_type == "v_prediction":
            raw = kept.sqrt().repeat(2, 1, 1, 1) * raw + (1 - kept).sqrt().repeat(2, 1, 1, 1) * torch.cat([x_t] * 2)
        with_text, without = raw.chunk(2)
        return torch.nan_to_num((1 - kept) * (without + OMEGA * (with_text - without) - eps))

    @torch.no_grad()
    def _statistics(self, views: list[Any]) -> None:
        """Largest radius, sum of screen gradients and number of views of each Gaussian that a view sees."""
        for view in views:
            seen, radii = view.radii[0] > 0, view.radii[0].float()
            self.widest[seen] = torch.max(self.widest[seen], radii[seen])
            self.steepness[seen] += view.screen.grad[0][seen].norm(dim=-1)
            self.seen[seen] += 1


def both(options: argparse.Namespace, device: torch.device) -> tuple[Callable[[], Any], Callable[[], Any], Any]:
    """Our step, the peers' step, and our run."""
    prior, eager, network = models(options.prior, device, options.compile)
    if options.views % prior.view_group:
        raise UserError(f"--views {options.views}: the prior {options.prior} sees {prior.view_group} views together")
    ranges = prior.camera_range.ranges() if prior.camera_range else {}
    spans: dict[str, Any] = {name: span(*ends) for name, ends in ranges.items()}
    cameras = Orbit(group=prior.view_group, **spans)
    views = ViewSettings(options.views, options.resolution or prior.image_size, cameras=cameras)
    generator = torch.Generator().manual_seed(0)
    initial = to_device(Ball(count=options.n).create("", generator), device)
    text, method = prior.encode_text("a red torus", ""), SDS(guidance_scale=Ramp(OMEGA, OMEGA))
    splat = GaussianScene(initial, SCENE, STEPS, device)
    run = Distiller(splat, prior, method, text, views, STEPS, generator)
    return run.step, PeerLoop(initial, eager, network, text, views, splat.extent).step, run


def models(name: str, device: torch.device, compiled: bool) -> tuple[Pretrained, Pretrained, Any]:
    """Our prior, the peers', and their network: diffusers' modules as they come, with the same weights."""
    import diffusers

    plain = torch.float32 if device.type == "cpu" else torch.float16
    if name in architectures() or name in ALIASES:
        prior: Any = random_prior(name, device, ModelSettings(compile=compiled))
        eager: Any = random_prior(
            name, device, ModelSettings(precision="float32" if device.type == "cpu" else "float16")
        )
        network = eager._network
        network.load_state_dict(prior._network.state_dict())
    else:
        prior = load_prior(name, device, ModelSettings(compile=compiled))
        eager = copy.copy(prior)
        eager.dtype, eager._codec = plain, copy.deepcopy(prior._codec)
        kind = getattr(diffusers, prior.NETWORK_CLASS)
        network = load_model(kind, prior.folder, prior.NETWORK, plain, device)  # diffusers' own class
    vae = getattr(eager._codec, "_vae", None)
    if vae is not None:
        vae.load_state_dict(prior._codec._vae.state_dict())
        vae.to(memory_format=torch.contiguous_format)
    return prior, eager, network.eval().requires_grad_(False).to(memory_format=torch.contiguous_format)


def timed(step: Callable[[], Any], count: int, device: torch.device) -> float:
    """Milliseconds of a step, from a block of ``count``; the device is awaited at its ends alone."""
    synchronize(device)
    began = time.perf_counter()
    for _ in range(count):
        step()
    synchronize(device)
    return (time.perf_counter() - began) * 1e3 / count


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type != "cpu":
        torch.accelerator.synchronize()


def measure(options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """Warm both up, then time them by turns."""
    ours, peers, run = both(options, device)
    loops = {"ours": ours, "peers": peers}
    times: dict[str, list[float]] = {name: [] for name in loops}
    peaks: dict[str, int] = dict.fromkeys(loops, 0)
    for step in loops.values():
        timed(step, options.warmup, device)
    run.clock.settle(wait=True)
    run.clock.reset()
    for number in range(options.rounds):
        for name in list(loops)[:: 1 if number % 2 else -1]:
            forget_peak(device)
            held = peak_memory(device)  # by both loops
            times[name].append(timed(loops[name], options.steps, device))
            peaks[name] = max(peaks[name], peak_memory(device) - held)
    run.clock.settle(wait=True)
    phases = {name: 1e3 * statistics.median(laps) for name, laps in run.clock.laps.items()}
    model = sum(phases.get(name, 0.0) for name in ("encode", "network", "encode backward"))
    ratios = [peer / own for own, peer in zip(times["ours"], times["peers"], strict=True)]
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "format": "gsdistill peer loop", "version": 1,
        "settings": {name: value for name, value in vars(options).items() if name != "json"},
        "environment": environment(device, "float32" if device.type == "cpu" else "float16"),
        "milliseconds_per_step": {**medians, "blocks": times},
        "ratio": medians["peers"] / medians["ours"], "ratio_low": min(ratios), "ratio_high": max(ratios),
        "our_phases_ms": phases, "share_beside_network_and_encoder": 1 - model / sum(phases.values()),
        # above what both loops hold between steps; a process has one peak in main memory, so not on a CPU
        "peak_bytes_above_held": peaks if device.type != "cpu" else None,
    }  # fmt: skip


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--prior", default="sd21-base", help="an architecture with random weights, or a prior's name")
    parser.add_argument("--resolution", type=positive, help="pixels of a view; none: the prior's own")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true", help="ours with model.compile, the peers as they are")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    defaults = {"views": 4, "n": 100_000, "steps": 10, "rounds": 5, "warmup": 5}
    for name, value in defaults.items():
        parser.add_argument(f"--{name}", type=positive, default=value)
    return parser.parse_args()


def positive(text: str) -> int:
    """A number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number above 0")
    return int(text)


def main() -> None:
    """Measure and print."""
    options = arguments()
    try:
        device = choose(options.device)
        prepare(device)
        found = measure(options, device)
        if options.json:
            write_json(options.json, found)
    except UserError as error:
        raise SystemExit(f"{Path(__file__).name}: {error}") from error
    own, peer = (found["milliseconds_per_step"][name] for name in ("ours", "peers"))
    print(f"{found['environment']['device']}: {options.prior}, {options.views} views, {options.n} Gaussians")
    print(f"peers {peer:.1f} ms, ours {own:.1f} ms a step: {found['ratio']:.2f} times as fast", end=" ")
    print(f"({found['ratio_low']:.2f} to {found['ratio_high']:.2f} by block)")
    print(f"ours beside network and encoder: {100 * found['share_beside_network_and_encoder']:.0f} % of the phases")


if __name__ == "__main__":
    main()
