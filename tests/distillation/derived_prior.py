"""A prior around the network of the derivations, and a moment whose random numbers are those of a case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from distillation.derived import cases
from views import views_of

from gsdistill.core.structs import Condition, Embedding, Guidance
from gsdistill.distillation.base import Distillation, Moment, State
from gsdistill.prior.base import Prior, Student
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.scene.viewpoints import look_at_origin
from gsdistill.settings.ramp import Ramp

__all__ = ["Drawn", "Given", "Taught", "condition_of", "flat", "gradient_of", "moment_of"]

TEXTS = ("positive", "plain", "empty", "perp0", "perp1", "target", "source")
Case = Mapping[str, Any]


class Given(Prior):
    """The network of all cases, with the noise levels of one, in float64."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.name, self.schedule = "given", NoiseSchedule(*cases.LEVELS[case["levels"]])
        self.latent_shape, self.image_size = tuple(case["x0"].shape[1:]), 16
        self.view_group = case["settings"].get("group", 1)
        self.guidance_rescale = case["settings"].get("rescale", 0.0) if case["method"] == "sds" else 0.0

    def encode(self, images):
        raise NotImplementedError

    def encode_text(self, prompt, negative_prompt, settings=None):
        raise NotImplementedError

    def network(self, latents, timesteps, text, cameras):
        return cases.prior()(latents, timesteps, text.tokens, cameras)


class Taught(Given):
    """With the network of the derivations' student, which is told the case's camera; the prior is told none.

    The student's weights are added to what it predicts, so that their gradient is that of its output.
    """

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.case = case

    def network(self, latents, timesteps, text, cameras):
        return cases.prior()(latents, timesteps, text.tokens, None)

    def student(self, rank, camera=False):
        assert camera
        return _Student(self)


class _Student(Student):
    camera = True

    def __init__(self, prior: Taught) -> None:
        self.prior, self.shapes = prior, {"output": (1, prior.case["x0"].numel())}
        if prior.case["settings"].get("prediction") == "v":
            self.prior = Taught(prior.case)
            self.prior.prediction_type = "v_prediction"

    def initial(self, generator):
        return torch.zeros(self.shapes["output"][1], dtype=torch.float64)

    def told(self, condition, views):
        return replace(condition, cameras=self.prior.case["camera"])

    def network(self, weights, latents, timesteps, text, cameras):
        answer = cases.student()(latents, timesteps, text.tokens, cameras)
        return answer + weights["output"].view_as(answer)


@dataclass(frozen=True)
class Drawn(Moment):
    """A moment that draws what it is given: ``t``, ``noise`` in the order of the calls, ``share``, ``integers``."""

    draws: dict[str, Any] = field(default_factory=dict)

    def draw_timesteps(self, *ranges, **how):
        return self.draws["t"]

    def draw_noise(self):
        return self.draws["noise"].pop(0)

    def draw_shares(self):
        return self.draws["share"]

    def draw_integers(self, low, high):
        drawn = self.draws["integers"].pop(0)
        assert bool(((drawn >= low) & (drawn < high)).all())
        return drawn


def flat(value: float) -> Ramp:
    return Ramp(value, value)


def condition_of(case: Case) -> Condition:
    """The texts of a case by branch; without a negative prompt that is the empty one."""
    texts = case["texts"]
    branches = {name: Embedding(texts[name]) for name in TEXTS if name in texts}
    branches["negative"] = Embedding(texts.get("negative", texts["empty"]))
    weights = texts.get("perp_weights", torch.zeros(case["views"], 0, dtype=torch.float64))
    return Condition(branches, weights, case["camera"])


def gradient_of(
    method: Distillation, case: Case, draws: Mapping[str, Any], state: State | None = None, prior: Prior | None = None
) -> Guidance:
    """What our method answers in a case; ``draws`` say what each kind of draw gives."""
    moment = moment_of(case, draws, prior or Given(case))
    return method.clipped(moment, method.init_state(moment.prior, torch.Generator()) if state is None else state)[0]


def moment_of(case: Case, draws: Mapping[str, Any], prior: Prior) -> Drawn:
    """The moment of a case."""
    angles = (torch.tensor(case[name]) for name in ("azimuth", "elevation"))
    ones = torch.ones(case["views"])
    cameras = look_at_origin(*angles, 3.2 * ones, 40.0 * ones, 16)
    given = {name: list(value) if isinstance(value, list | tuple) else value for name, value in draws.items()}
    views = views_of(case["x0"], cameras)
    return Drawn(prior, views, condition_of(case), case["progress"], torch.Generator(), draws=given)
