"""Says before a run how much time, memory and download it will take, and refuses now what the run would refuse.

If the prior is on this machine and small, it is loaded, and a few steps of the run are timed. For a large prior the
time is estimated: the operations that its card counts, at a third of the rate of a matrix product on the device (an
assumption). Then no weights are loaded and nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from gsdistill.bench.flops import matmul_ceiling
from gsdistill.bench.timing import Timing, time_steps
from gsdistill.core import device
from gsdistill.export.formats import run_writers
from gsdistill.generate import check_without_prior, checked_folder
from gsdistill.models.catalogue import cards, find_model, is_outside
from gsdistill.models.hub import is_offline
from gsdistill.models.inventory import Share, find_shares, gigabytes
from gsdistill.models.layout import chosen, listing
from gsdistill.models.locate import in_half
from gsdistill.models.pipelines import needed_parts
from gsdistill.prior.loading import load_prior, located
from gsdistill.run.config import RunConfig, resolve
from gsdistill.run.logs import check_logs

__all__ = ["foresee"]

SMALL = 300e6  # bytes of weights up to which a prior is loaded and tried
STEPS, WARM_UP = 5, 2  # that are timed, and made before
SHARE = 1 / 3  # of the rate of a matrix product that a network is assumed to reach


def foresee(config: RunConfig) -> Iterator[str]:
    """Yield the lines on what the run takes.

    Raises:
        UserError: whatever the run would raise before its first step, as far as that can be known.
    """
    target = device.choose(config.device)
    folder, done = checked_folder(config)
    if done is None:
        yield f"the run in {folder.path} is finished; nothing is left to do"
        return
    run_writers(config.export)
    check_logs(config)
    check_without_prior(config, target)
    left = config.iterations - done
    device.prepare(target, config.deterministic)
    if is_outside(config.prior):  # only its class knows what it loads, and no object is made of it here
        yield f"time, memory and download: not known for {config.prior}; `gsdistill bench` makes some of its steps"
        return
    source = Path(find_model(config.prior)[0])
    half = in_half(config.model, target)
    shares = [] if source.exists() else list(find_shares(config.prior, half))
    whole = all(share.folder for share in shares)
    if (whole or is_offline()) and not source.is_file():
        model = located(config.prior, target, config.model).folder
        if sum(chosen(listing(model), needed_parts(model), half).values()) < SMALL:
            prior = load_prior(config.prior, target, config.model)
            yield from _tried(left, time_steps(config, prior, target, STEPS, WARM_UP))
            return
    yield from _counted(config, done, target)
    yield _download(config, shares, half)


def _tried(left: int, timing: Timing) -> Iterator[str]:
    """The lines for a run with ``left`` steps to make, by the timing of a few of them."""
    step = timing.seconds / len(timing.steps)
    yield (
        f"time: about {_duration(step * left)} for {left} steps of {1e3 * step:.0f} ms, as "
        f"{len(timing.steps)} of them took here just now; pictures, films and the report come on top"
    )
    if timing.peak_bytes:
        yield f"memory: about {gigabytes(timing.peak_bytes)}"
    yield "download: none, all of the prior is on this machine"


def _counted(config: RunConfig, done: int, target: torch.device) -> Iterator[str]:
    """The lines for a run with a large prior that has made ``done`` steps, by the prior's card."""
    card = cards().get(config.prior)
    if card is None or card.step_tflop is None:
        yield f"time and memory: not known for {config.prior}; `gsdistill bench` measures them once it is here"
        return
    dtype = torch.float16 if in_half(config.model, target) else torch.float32
    rate = SHARE * matmul_ceiling(target, dtype).flops_per_second
    (network, encoder), operations, end = card.step_tflop, 0.0, 0
    for part in config.parts:
        end += part.iterations
        steps = max(0, min(part.iterations, end - done))
        operations += 1e12 * steps * part.views / 4 * (network * _evaluations(part) / 2 + encoder)
    left = config.iterations - done
    yield (
        f"time: about {_duration(operations / rate)} for {left} steps, by {1e-12 * operations / max(left, 1):.3g} "
        "TFLOP a step at a third of this device's rate; an estimate, not measured"
    )
    here = f"; here is {device.describe(target)}"
    yield f"memory: about {card.gpu_gb:g} GB in half precision with 4 views, counted and not measured{here}"


def _evaluations(part: RunConfig) -> float:
    """Samples that a stage's method sends through the network per step and view, counted on the shapes prior."""
    alone = {"finish": "none", "views": 1, "iterations": part.iterations}
    trial = replace(resolve({"prompt": "a red torus", "prior": "shapes", "device": "cpu", **alone}), method=part.method)
    timing = time_steps(trial, load_prior("shapes"), torch.device("cpu"), 2, 1)
    return timing.evaluations / len(timing.steps)


def _download(config: RunConfig, shares: list[Share], half: bool) -> str:
    missing = [share for share in shares if not share.folder]
    if not missing:
        return "download: none, all of the prior is on this machine"
    card = cards().get(config.prior)
    if any(share.reason for share in missing):
        size = card.download(half) if card else "of unknown size"
        return f"download: {size}; {missing[0].reason}"
    left = sum(share.size - sum(share.here().values()) for share in missing)
    return f"download: {gigabytes(left)}, once; `gsdistill doctor --prior {config.prior}` shows the files"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.0f} hours"
