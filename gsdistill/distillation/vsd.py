"""VSD: Variational Score Distillation (ProlificDreamer, arXiv 2305.16213, eq. 9 and 10).

    g = w(t) (eps_cfg(x_t) - eps_phi(x_t)),   then one step of AdamW on   |phi(x_t', t') - target|^2,   t', eps' fresh
    eps_phi = eps_0 + s (eps_c - eps_0),   s = guidance_scale_lora, eps_0 with zeros for the camera

phi is a network with a LoRA that is trained on the run's renders, told the prompt without words of the view and the
camera: as the network knows cameras, else by the camera-to-world matrix through an embedding that is trained too. The
target is what the network predicts, eps' or its velocity. s = 0.5 is ESD, Entropic Score Distillation, which is for
fewer Janus faces (arXiv 2401.00909). The settings are threestudio's, whose LoRA is on Stable Diffusion 2.1 beside
2.1-base (``student: sd21``). The authors have ``shared_timestep``, betas of 0.9 and 0.999, epsilon 1e-8, a warm-up of
500, an embedding of the shading, and up to four scenes at once, which is ``particles`` of the run.
A step costs four network evaluations a view: two in one call, one of the student, and one to train it. With s other
than 1 the student is asked once more.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Condition, Guidance
from gsdistill.disk.paths import may_be_path
from gsdistill.distillation.adamw import AdamW
from gsdistill.distillation.base import Distillation, Moment, State, Weighting, check_times
from gsdistill.models.catalogue import cards
from gsdistill.prior.base import Prior, Query, Student
from gsdistill.prior.conversions import prediction_of_noise
from gsdistill.prior.student import student_of
from gsdistill.settings.ramp import Ramp

__all__ = ["VSD"]


@dataclass(frozen=True)
class VSD(Distillation):
    """The published settings, but for the network of the LoRA, which is the prior's own."""

    # omega of the first term
    guidance_scale: Ramp = bounded(Ramp(7.5, 7.5), low=0)
    # s: how far the LoRA's noise goes from that without a camera to that with it; 0.5 is ESD
    guidance_scale_lora: Ramp = bounded(Ramp(1.0, 1.0), low=0)
    # lowest timestep, as a fraction of the prior's schedule
    t_min: Ramp = bounded(Ramp(0.02, 0.02), low=0, high=1)
    # highest timestep, as a fraction of the prior's schedule
    t_max: Ramp = bounded(Ramp(0.98, 0.5, "step", until=0.2), low=0, high=1)
    # one t for all views of a step; else each has its own
    shared_timestep: bool = False
    # the model whose network gets the LoRA: a name, folder or hub id; none: the prior itself
    student: str | None = field(default=None, metadata=may_be_path(cards))
    # tell the LoRA the camera, where its network knows none
    camera: bool = True
    # share of the steps that train the LoRA with zeros for the cameras
    camera_dropout: float = bounded(0.1, low=0, high=1)
    # rank of the LoRA
    rank: int = bounded(4, low=1)
    # learning rate of the LoRA, and of the embedding of the camera
    lora_rate: float = bounded(1e-4, low=0)
    # AdamW's: how slowly both moments follow, what is added to the root of the second, and the decay of the weights
    betas: tuple[float, float] = bounded((0.9, 0.99), low=0, below=1)
    epsilon: float = bounded(1e-15, above=0)
    decay: float = bounded(0.01, low=0)
    # steps in which the learning rate rises from 0; 0: none
    warm_up: int = bounded(0, low=0)
    # w(t)
    weighting: Weighting = "sds"

    def __post_init__(self) -> None:
        check_times(self.t_min, self.t_max)

    def init_state(self, prior: Prior, generator: torch.Generator) -> State:
        """The LoRA's first weights (``lora``), their moments (``mean``, ``square``) and the count of steps."""
        student = self._student(prior)
        if self.guidance_scale_lora != Ramp(1.0, 1.0) and not (student.camera or student.prior.knows_cameras):
            raise ConfigError("method.guidance_scale_lora is over the camera, which this LoRA is not told")
        lora = student.initial(generator)
        moments = {"mean": torch.zeros_like(lora), "square": torch.zeros_like(lora)}
        return {"lora": lora, **moments, "steps": torch.zeros(())}

    def gradient(self, moment: Moment, state: State) -> tuple[Guidance, State]:
        """One VSD gradient and one step of the LoRA, see the module."""
        student, lora = self._student(moment.prior), state["lora"]
        told = student.told(moment.condition, moment.views)
        t = moment.draw_timesteps(self.t_min, self.t_max, self.shared_timestep)
        x_t = moment.schedule.add_noise(moment.x0, moment.draw_noise(), t)
        guided = moment.prior.noise(x_t, t, moment.condition).guided(self.guidance_scale(moment.progress))
        query, scale = Query(x_t, t, "plain"), self.guidance_scale_lora(moment.progress)
        with torch.no_grad():
            own = student.predict_noise(lora, query, told)
            if scale != 1:
                own = torch.lerp(student.predict_noise(lora, query, _seen(told, 0.0)), own, scale)
        g = moment.weight(self.weighting, t) * (guided - own)
        loss, slope = self._loss(student, lora, told, moment)
        return moment.answer(g, t, {"lora_loss": loss}), self._optimizer().update(state, "lora", slope)

    def _student(self, prior: Prior) -> Student:
        return student_of(prior, self.rank, self.camera, self.student)

    def _optimizer(self) -> AdamW:
        return AdamW(self.lora_rate, self.betas, self.epsilon, self.decay, self.warm_up)

    def _loss(self, student: Student, lora: Tensor, told: Condition, moment: Moment) -> tuple[Tensor, Tensor]:
        """The LoRA's error on the views at fresh noise, and its gradient in the weights."""
        x0, t, eps = moment.x0, moment.draw_timesteps(Ramp(0.0, 0.0), Ramp(1.0, 1.0)), moment.draw_noise()
        kept = (moment.draw_shares()[:1] >= self.camera_dropout).to(x0.dtype)
        query, leaf = Query(moment.schedule.add_noise(x0, eps, t), t, "plain"), lora.detach().requires_grad_()
        target = prediction_of_noise(eps, x0, t, moment.schedule, student.prior.prediction_type)
        with torch.enable_grad():
            error = (student.predict(leaf, query, _seen(told, kept)) - target).square().sum() / len(eps)
        # the sum's gradient, divided afterwards: that of the mean would vanish in a network of half precision
        (slope,), size = torch.autograd.grad(error, [leaf]), eps[0].numel()
        return error.detach() / size, slope / size


def _seen(told: Condition, share: float | Tensor) -> Condition:
    """The condition with the cameras times ``share``."""
    return told if told.cameras is None else replace(told, cameras=told.cameras * share)
