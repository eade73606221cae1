"""Reads the noise levels of a model from its scheduler's config, whichever sampler that names.

They are those of a DDPM, made from its betas, whose network gets t; or those of a rectified flow, where the timestep
t = 0 .. T-1 rises with the noise. With the shift k of its config (arXiv 2403.03206, eq. 23) and u = (t + 1) / T
    s_t = k u / (1 + (k - 1) u),   x_t = (1 - s_t) x0 + s_t eps,   the network predicts eps - x0 and gets T s_t.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.disk.read import brief, read_json
from gsdistill.models.card import Prediction
from gsdistill.prior.schedule import NoiseSchedule

__all__ = ["BETAS", "SAMPLERS", "Levels", "Sampler", "check_steps", "known_prediction", "read_levels", "schedule_of"]

MOST_STEPS = 100_000  # of a schedule
BETAS = ("beta_start", "beta_end", "beta_schedule")


@dataclass(frozen=True)
class Levels:
    """The noise levels of a model, the type of its prediction, and the network's times."""

    schedule: NoiseSchedule
    prediction: Prediction
    times: Shaped[Tensor, "T"]  # the network's input for each timestep


@dataclass(frozen=True)
class Sampler:
    """A scheduler class of diffusers: its defaults for BETAS, and its name for the shift of a flow."""

    betas: tuple[float, float, str] | None = (0.0001, 0.02, "linear")  # None: it samples only flows
    shift: str | None = None  # None: it samples no flow

    @property
    def rounds(self) -> bool:
        """Whether a flow's network gets T s_t rounded down, below T, as from the classes that sample both kinds."""
        return self.betas is not None


def _named(sampler: Sampler, *names: str) -> dict[str, Sampler]:
    return {f"{name}Scheduler": sampler for name in names}


# The schedulers with known levels, by class name; a config without a class is read as DDPM's.
SAMPLERS: Mapping[str, Sampler] = {
    **_named(Sampler(None, "shift"), "FlowMatchEulerDiscrete", "FlowMatchHeunDiscrete", "FlowMatchLCM"),
    **_named(Sampler(), "DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "DDIMInverse", "PNDM", "LMSDiscrete"),
    **_named(Sampler(), "EulerDiscrete", "EulerAncestralDiscrete"),
    **_named(
        Sampler((0.00085, 0.012, "linear")), "HeunDiscrete", "KDPM2Discrete", "KDPM2AncestralDiscrete", "DPMSolverSDE"
    ),
    **_named(Sampler((0.00085, 0.012, "scaled_linear")), "LCM", "TCD"),
    **_named(Sampler(shift="flow_shift"), "DPMSolverMultistep", "DPMSolverMultistepInverse", "DPMSolverSinglestep"),
    **_named(Sampler(shift="flow_shift"), "DEISMultistep", "SASolver", "UniPCMultistep"),
}
FLOWS = [name for name, one in SAMPLERS.items() if one.shift]
# Settings of continuous noise levels, as EDM has them, which configs of other classes may have too.
CONTINUOUS = ("sigma_data", "sigma_min", "sigma_max")
# The values that a flow's config must have, and the values of settings that it leaves out.
FLOW = {"use_dynamic_shifting": (False, False), "shift_terminal": (None, None), "invert_sigmas": (False, False)}
BOTH = {"use_flow_sigmas": (True, False), "prediction_type": ("flow_prediction", "epsilon")}  # of classes for both


def read_levels(
    path: Path, flow: bool = False, ddpm: Callable[[Path], tuple[NoiseSchedule, Prediction]] | None = None
) -> Levels:
    """Read the levels from the scheduler's config at ``path``; with ``flow`` they must be those of a rectified flow.

    ``ddpm`` reads the config of a DDPM, by default diffusers does.

    Raises:
        BadFile: the config cannot be read, is of another kind of diffusion, or has unknown levels or an unknown
            prediction type.
    """
    config, place = read_json(path), path.parent
    sampler = _sampler(config, place)
    if flow and not (sampler.shift and "_class_name" in config):
        raise BadFile(f"{path} is of class {config.get('_class_name')}, where {' or '.join(FLOWS)} belongs")
    is_flow = config.get("use_flow_sigmas") or config.get("prediction_type") == "flow_prediction"
    if flow or is_flow or sampler.betas is None:
        return _flow(config, sampler, place)
    schedule, kind = (ddpm or _ddpm)(path)
    return Levels(schedule, kind, torch.arange(len(schedule)))


def check_steps(steps: Any) -> None:
    """Refuse a number of steps that is not a whole number from 1 to 100,000. Raises ValueError."""
    if not isinstance(steps, int) or not 1 <= steps <= MOST_STEPS:
        raise ValueError(f"num_train_timesteps = {brief(steps)} is no whole number from 1 to {MOST_STEPS:,}")


def schedule_of(alphas_cumprod: Float[Tensor, "T"], place: Path) -> NoiseSchedule:
    """The noise levels with these abar_t, of the config at ``place``.

    Raises:
        BadFile: an abar_t is not in 0..1.
    """
    if not ((alphas_cumprod >= 0) & (alphas_cumprod <= 1)).all():
        raise BadFile(f"{place}: its betas give noise levels that do not lie between 0 and 1")
    return NoiseSchedule.from_cumulative_alphas(alphas_cumprod)


def known_prediction(kind: Any, place: Path) -> Prediction:
    """Return ``kind``, the prediction type in the config at ``place``, if it is known.

    Raises:
        BadFile: it is unknown.
    """
    if kind not in (allowed := get_args(Prediction)):
        raise BadFile(f"{place}: prediction_type '{kind}' is unknown; known: {', '.join(allowed)}")
    return kind


def _sampler(config: Mapping[str, Any], place: Path) -> Sampler:
    """The sampler of the config's class. Raises BadFile unless the config is that of a DDPM or of a flow."""
    name = config.get("_class_name") or "DDPMScheduler"
    sampler = SAMPLERS.get(name) if isinstance(name, str) else None
    if sampler is None:
        known = ", ".join(one.removesuffix("Scheduler") for one in SAMPLERS)
        shown = name if isinstance(name, str) else brief(name)
        raise BadFile(f"{place}: {shown} has no levels of a DDPM or a rectified flow; served are those of {known}")
    continuous = [key for key in CONTINUOUS if config.get(key) is not None]
    if config.get("timestep_type") == "continuous" and config.get("prediction_type") == "v_prediction":
        continuous.append("timestep_type")  # the network gets the logarithm of the noise
    if continuous:
        what = f"{continuous[0]} = {brief(config[continuous[0]])} tells of continuous noise levels, as EDM has them"
        raise BadFile(f"{place}: {what}; served are those of a DDPM and of a rectified flow")
    return sampler


def _flow(config: Mapping[str, Any], sampler: Sampler, place: Path) -> Levels:
    if sampler.shift is None:
        raise BadFile(
            f"{place}: use_flow_sigmas or prediction_type says that it is of a rectified flow, and "
            f"{config.get('_class_name')} samples none; {' and '.join(FLOWS)} do"
        )
    for key, (wanted, default) in (FLOW | (BOTH if sampler.rounds else {})).items():
        if (value := config.get(key, default)) != wanted:
            raise BadFile(f"{place}: {key} is {brief(value).strip(chr(39))}, a flow prior needs {wanted}")
    shift = config.get(sampler.shift, 1.0)
    if not isinstance(shift, (int, float)) or isinstance(shift, bool) or shift <= 0:
        raise BadFile(f"{place}: {sampler.shift} is {brief(shift)}, a flow prior needs one above 0")
    steps = config.get("num_train_timesteps", 1000)
    try:
        check_steps(steps)
    except ValueError as error:
        raise BadFile(f"{place}: {error}") from error
    u = torch.arange(1, steps + 1, dtype=torch.float64) / steps
    sigmas = shift * u / (1 + (shift - 1) * u)
    times = (steps * sigmas).clamp_max(steps - 1).floor() if sampler.rounds else steps * sigmas
    return Levels(NoiseSchedule.from_flow(sigmas), "flow_prediction", times.float())


def _ddpm(path: Path) -> tuple[NoiseSchedule, Prediction]:
    """Levels and prediction type of a DDPM's config, made by diffusers."""
    from diffusers import DDPMScheduler

    config, place = read_json(path), path.parent
    left_out: dict[str, Any] = dict(zip(BETAS, _sampler(config, place).betas or (), strict=False))
    with failing_as(BadFile, f"{place}"):
        check_steps(config.get("num_train_timesteps", 1000))
        scheduler: Any = DDPMScheduler.from_config(left_out | config)
    kind = known_prediction(scheduler.config.prediction_type, place)
    return schedule_of(scheduler.alphas_cumprod, place), kind
