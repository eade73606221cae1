"""VSD: Variational Score Distillation (ProlificDreamer, arXiv 2305.16213, eq. 9 and 10).

    g = w(t) (eps_cfg(x_t) - eps_phi(x_t)),   then one step of AdamW on   |eps_phi(x_t') - eps'|^2,   t' and eps' fresh

eps_phi is the prior's network with a LoRA trained on the run's own renders, conditioned on the prompt and, as far as
the prior itself is, on the camera (the paper feeds the camera to LoRAs of camera-blind priors too). Untrained it is
eps_c, and g = w(t) (omega - 1) h. The LoRA and its two moments are the method's state.
A step costs four network evaluations a view: two in one call, one of the student, and one to train it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Guidance
from gsdistill.distillation.base import Distillation, Moment, State, Weighting, check_times
from gsdistill.prior.base import Prior, Query, Student
from gsdistill.settings.ramp import Ramp

__all__ = ["VSD"]

BETAS, DECAY = (0.9, 0.999), 0.01  # of AdamW, its defaults in PyTorch


@dataclass(frozen=True)
class VSD(Distillation):
    """The published settings, but that t_max, which drops at once at a fifth of the run, has fallen by then here."""

    # omega of the first term
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.98, 0.5, until=0.2), low=0, high=1)
    # rank of the LoRA
    rank: int = bounded(4, low=1)
    # learning rate of the LoRA
    lora_rate: float = bounded(1e-4, low=0)
    # w(t)
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """The LoRA's first weights (``lora``), their moments (``mean``, ``square``) and the count of steps."""
        lora = prior.student(self.rank).initial(generator)
        none = torch.zeros_like(lora)
        return {"lora": lora, "mean": none, "square": none.clone(), "steps": torch.zeros(())}

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One VSD gradient and one step of the LoRA, see the module."""
        prior, condition, student = moment.prior, moment.condition, moment.prior.student(self.rank)
        t = moment.draw_timesteps(self.t_min, self.t_max)
        x_t = moment.schedule.add_noise(moment.x0, moment.draw_noise(), t)
        guided = prior.noise(x_t, t, condition).guided(self.guidance_scale(moment.progress))
        with torch.no_grad():
            own = student.predict_noise(state["lora"], Query(x_t, t, "positive"), condition)
        g = moment.weight(self.weighting, t) * (guided - own)
        loss, slope = self._loss(student, state["lora"], moment)
        return moment.answer(g, t, {"lora_loss": loss}), self._update(state, slope)

    def _loss(self, student: Student, lora: Tensor, moment: Moment) -> tuple[Tensor, Tensor]:
        """The LoRA's error on the views at fresh noise, and its gradient in the weights."""
        t, eps = moment.draw_timesteps(Ramp(0.0, 0.0), Ramp(1.0, 1.0)), moment.draw_noise()
        leaf = lora.detach().requires_grad_()
        with torch.enable_grad():
            query = Query(moment.schedule.add_noise(moment.x0, eps, t), t, "positive")
            error = (student.predict_noise(leaf, query, moment.condition) - eps).square().sum() / len(eps)
        # the sum's gradient, divided afterwards: that of the mean would vanish in a network of half precision
        (slope,), size = torch.autograd.grad(error, [leaf]), eps[0].numel()
        return error.detach() / size, slope / size

    def _update(self, state: State, slope: Tensor) -> State:
        """AdamW (arXiv 1711.05101), functional so that the state of the step before stays whole."""
        steps = state["steps"] + 1
        mean = torch.lerp(slope, state["mean"], BETAS[0])
        square = torch.lerp(slope.square(), state["square"], BETAS[1])
        size = (square / (1 - BETAS[1] ** steps)).sqrt() + 1e-8
        step = mean / (1 - BETAS[0] ** steps) / size + DECAY * state["lora"]
        after = {"lora": state["lora"] - self.lora_rate * step, "mean": mean, "square": square, "steps": steps}
        good = slope.square().sum().isfinite()  # one bad answer must not stay in the LoRA
        return {name: torch.where(good, value, state[name]) for name, value in after.items()}
