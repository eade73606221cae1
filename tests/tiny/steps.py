"""Whole runs of a pipeline of diffusers, step by step: the reference of a prior that reads the same folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gsdistill.core.structs import Views
from gsdistill.models.card import ModelCard
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Query
from gsdistill.prior.families.base import Origin, Pretrained
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.viewpoints import orbit

PROMPT, NEGATIVE, OMEGA = "A red torus, studio ", "Blurred", 5.0


@dataclass(frozen=True)
class Step:
    """One call of the scheduler."""

    latents: torch.Tensor
    timestep: float  # as the scheduler names it
    guided: torch.Tensor  # what it was given as the network's answer


def load(leaf: type[Pretrained], folder: Path, settings: ModelSettings = ModelSettings(), device: str = "cpu") -> Any:
    """The folder as a prior."""
    return leaf(Origin(folder, ModelCard("tiny"), settings, torch.device(device)))


def steps_of(pipeline: Any, folder: Path, absent: tuple[str, ...] = (), **call: Any) -> list[Step]:
    """Each step of a pipeline of diffusers, run with the prompts and the guidance scale of this module."""
    runner = pipeline.from_pretrained(folder, low_cpu_mem_usage=False, **dict.fromkeys(absent))
    runner.set_progress_bar_config(disable=True)
    found, real = [], runner.scheduler.step

    def step(answer: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor, **options: Any) -> Any:
        found.append(Step(latents.clone(), float(timestep), answer.clone()))
        return real(answer, timestep, latents, **options)

    runner.scheduler.step = step
    runner(PROMPT, negative_prompt=NEGATIVE, guidance_scale=OMEGA, **call)
    return found


def guided(prior: Pretrained, latents: torch.Tensor, t: int) -> torch.Tensor:
    """The noise that a prior sees in the same latents, with the same prompts and guidance scale."""
    text = prior.encode_text(PROMPT, NEGATIVE, PromptSettings("none"))
    condition = prior.condition(text, orbit(len(latents), 8))
    return prior.noise(latents, torch.full((len(latents),), t), condition).guided(OMEGA)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def check_student(prior: Pretrained) -> None:
    """A student answers as the prior does, has a gradient in every attention, and leaves the prior as it was."""
    text = prior.encode_text("red", "", PromptSettings("interpolate"))
    condition, t = prior.condition(text, orbit(2, 8)), torch.tensor([100, 800])
    query = Query(normal(2, *prior.latent_shape), t, "positive")
    (before,) = prior.predict_noise([query], condition)
    student = prior.student(2)
    weights = student.initial(torch.Generator().manual_seed(0)).requires_grad_()
    own = student.predict_noise(weights, query, condition)
    torch.testing.assert_close(own, before, rtol=0, atol=1e-6)
    own.square().sum().backward()
    ups = {name: slope for name, slope in student.named(weights.grad).items() if name.endswith(".B")}
    touched = [name for name, slope in ups.items() if float(slope.abs().max()) > 0]
    attentions = [name for name, _ in prior._network.named_modules() if name.endswith(".to_q")]
    assert len(ups) == 4 * len(attentions) > 0
    assert sorted(touched) == sorted(ups)
    torch.testing.assert_close(prior.predict_noise([query], condition)[0], before, rtol=0, atol=0)
    if not prior.knows_cameras:
        _check_camera(prior, query, before)


def _check_camera(prior: Pretrained, query: Query, before: torch.Tensor) -> None:
    """The embedding of the camera reaches the answer, all of it learns, and zeros as its last layer leave it out."""
    cameras, student = orbit(2, 8), prior.student(2, camera=True)
    views = Views(query.latents, torch.ones_like(query.latents[:, :1]), cameras)
    told = student.told(prior.condition(prior.encode_text("red", "", PromptSettings("interpolate")), cameras), views)
    weights = student.initial(torch.Generator().manual_seed(0)).requires_grad_()
    own = student.predict_noise(weights, query, told)
    assert float((own.detach() - before).abs().max()) > 1e-4
    own.square().sum().backward()
    camera = {name: slope for name, slope in student.named(weights.grad).items() if name.startswith("camera.")}
    assert len(camera) == 4 and all(float(slope.abs().max()) > 0 for slope in camera.values())
    silent = weights.detach().clone()
    for name, part in student.named(silent).items():
        if name.startswith("camera.2."):
            part.zero_()
    torch.testing.assert_close(student.predict_noise(silent, query, told), before, rtol=0, atol=1e-6)
    torch.testing.assert_close(prior.predict_noise([query], told)[0], before, rtol=0, atol=0)
