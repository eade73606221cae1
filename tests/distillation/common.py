"""What the methods' tests share: a world of Gaussians that writes down what it is asked, and one way to take a step.

In this world the prompt, the empty prompt and two Perp-Neg texts each stand for one Gaussian N(mean, deviation^2) of
every element of a latent, so the exact noise is  sigma (x - alpha mean) / (alpha^2 deviation^2 + sigma^2).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch
from views import views_of

from gsdistill.core.structs import Cameras, Condition, Embedding, Guidance
from gsdistill.distillation.base import Distillation, Moment, State
from gsdistill.distillation.surface_noise import ball
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.prior.schedule import NoiseSchedule
from gsdistill.settings.ramp import Ramp

BRANCHES = ("negative", "positive", "perp0", "perp1")


@dataclass(frozen=True)
class Asked:
    """One question to one branch."""

    x: torch.Tensor
    t: torch.Tensor


class World(AnalyticPrior):
    """One Gaussian a branch, in the order of BRANCHES; ``asked`` keeps every question to each.

    ``calls`` counts network calls and ``seen`` the samples in them.
    """

    def __init__(
        self,
        means: tuple[float, ...] = (0.0, 0.4, -0.7, 1.1),
        deviations: tuple[float, ...] = (1.0, 0.3, 0.5, 0.8),
        shape: tuple[int, int, int] = (3, 2, 2),
        schedule: NoiseSchedule | None = None,
    ) -> None:
        unused = Mixture(torch.ones(1), torch.zeros(1, 1), torch.ones(1))
        super().__init__(unused, unused, shape, schedule)
        self._gaussians = list(zip(means, deviations, strict=True))
        self.asked: dict[str, list[Asked]] = {name: [] for name in BRANCHES}
        self.calls = self.seen = 0

    def levels(self, t: torch.Tensor | int) -> tuple[torch.Tensor, torch.Tensor]:
        """alpha_t and sigma_t in float64, shaped to multiply latents."""
        at = torch.as_tensor(t).reshape(-1, 1, 1, 1)
        return self.schedule.alphas[at], self.schedule.sigmas[at]

    def exact(self, branch: str, x: torch.Tensor, t: torch.Tensor | int) -> torch.Tensor:
        """The noise in ``x`` at ``t`` as the branch sees it."""
        mean, deviation = self._gaussians[BRANCHES.index(branch)]
        alpha, sigma = (level.to(x) for level in self.levels(t))
        return sigma * (x - alpha * mean) / ((alpha * deviation) ** 2 + sigma**2)

    def guided(self, x: torch.Tensor, t: torch.Tensor | int, omega: float) -> torch.Tensor:
        """eps_u + omega (eps_c - eps_u)."""
        conditional, unconditional = self.exact("positive", x, t), self.exact("negative", x, t)
        return unconditional + omega * (conditional - unconditional)

    def network(self, latents, timesteps, text, cameras):
        assert not latents.requires_grad
        names = [BRANCHES[int(token)] for token in text.tokens[:, 0, 0]]
        self.calls += 1
        self.seen += len(latents)
        answers = []
        for name, run in groupby(range(len(names)), names.__getitem__):
            rows = list(run)
            answers.append(self.exact(name, latents[rows], timesteps[rows].cpu()))
            self.asked[name].append(Asked(latents[rows], timesteps[rows].cpu()))
        return torch.cat(answers)


def told(cameras: Cameras, perp_weights: torch.Tensor | None = None, **tokens: str) -> Condition:
    """Branches for each camera, with Perp-Neg where there are weights [B, 2]; ``tokens`` swaps a branch's text.

    As in a run without words of the view, ``plain`` is the positive text, and ``empty`` is that of no negative prompt.
    ``target`` is the positive text too, and ``source`` is perp0's.
    """
    names = BRANCHES[:2] if perp_weights is None else BRANCHES
    texts = {name: tokens.get(name, name) for name in names}
    texts |= {"plain": tokens.get("plain", texts["positive"]), "empty": tokens.get("empty", "negative")}
    texts |= {"target": tokens.get("target", texts["positive"]), "source": tokens.get("source", "perp0")}
    kinds = {name: float(BRANCHES.index(text)) for name, text in texts.items()}
    branches = {name: Embedding(torch.full((len(cameras), 1, 1), kind)) for name, kind in kinds.items()}
    return Condition(branches, torch.zeros(len(cameras), 0) if perp_weights is None else perp_weights)


def moment_of(
    prior: AnalyticPrior,
    latents: torch.Tensor,
    cameras: Cameras,
    progress: float = 0.0,
    seed: int = 0,
    condition: Condition | None = None,
    alpha: float | torch.Tensor = 1.0,
) -> Moment:
    """What a method would be given."""
    condition = prior.condition(prior.encode_text("", ""), cameras) if condition is None else condition
    generator = torch.Generator().manual_seed(seed)
    surface = ball(cameras, (latents.shape[2], latents.shape[3]))
    return Moment(prior, views_of(latents, cameras, alpha), condition, progress, generator, surface=surface)


@dataclass(frozen=True)
class Step:
    """What a method answered, and its state before and after."""

    guidance: Guidance
    before: State
    after: State

    @property
    def gradient(self) -> torch.Tensor:
        return self.guidance.gradient


def step(
    method: Distillation,
    prior: AnalyticPrior,
    latents: torch.Tensor,
    cameras: Cameras,
    progress: float = 0.0,
    seed: int = 0,
    state: State | None = None,
    condition: Condition | None = None,
    alpha: float | torch.Tensor = 1.0,
) -> Step:
    """One gradient of ``method``, its state drawn from ``seed`` unless it is given."""
    if condition is None and method.endings():
        condition = told(cameras)
    moment = moment_of(prior, latents, cameras, progress, seed, condition, alpha)
    if state is None:
        state = method.init_state(prior, moment.generator)
    else:
        moment.generator.manual_seed(seed + 1_000_000)
    guidance, after = method.clipped(moment, state)
    return Step(guidance, state, after)


def flat(value: float) -> Ramp:
    """A schedule that stays."""
    return Ramp(value, value)


def normal(*shape: int, seed: int = 7) -> torch.Tensor:
    """Random latents, float64."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def noise_in(world: World, asked: Asked, x0: torch.Tensor) -> torch.Tensor:
    """The eps of x_t = alpha_t x0 + sigma_t eps."""
    alpha, sigma = world.levels(asked.t)
    return (asked.x - alpha * x0) / sigma
