"""What a prior itself sees in a splat: how well it fits its prompt, and how many fronts it has (the Janus figure).

24 views of the splat, from a ring over mid grey, are encoded as in training. How well a view x0 fits what the prior is
told, c, is the mean denoising error, as in the classifier of arXiv 2303.16203,

    E(x0, c) = mean |eps(alpha_t x0 + sigma_t n, t, c) - n|^2

over the latent's numbers and over t at 0.3, 0.5 and 0.7 of the schedule. Each t has one noise n, drawn from a fixed
seed and shared by all views and by all that the prior is told, so that its chance cancels where errors are compared.

A prior that takes its view from words is told "PROMPT, front view", "side view" and "back view" of every view, as
training words them. One that is told the camera is told, of the view from azimuth a, each camera at a, a + 30, ...,
a + 330 degrees; the thresholds of the prompt say which of these see the front, a side and the back, and the least error
of each kind counts. (A prior that sees views in groups is told that the whole group is turned.) The errors of a
direction are averaged over each view and its two neighbours with the weights 1, 2, 1, and the least of the three is
what the view is seen as.

Fronts. Around the ring, a view is taken for a front where at least two of it and its two neighbours are seen as one, so
that neither a single view makes a front nor a single one parts it. The fronts are the separate arcs that are left.

All of this is the prior's word. A prompt that the splat does not show, or a prior that does not tell its views apart,
gives some answer too: then ``prompt_fit`` is above 0, or ``view_margin`` next to 0. Networks of random weights have
margins of 0.001 to 0.004, the shapes prior has 0.9 on a good chair and 0.1 on a sphere, by its shading. A prior that
is told nothing of the view has a margin of 0.

Cost: samples through the network are 24 views x 3 timesteps x (3 texts + 1 for no prompt), 288 in all, and with cameras
24 x 3 x (12 + 1), 936; and 24 pictures through the encoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gsdistill.core.structs import Cameras, Gaussians, to_device
from gsdistill.prior.base import Prior, Query
from gsdistill.prior.prompts import DIRECTIONS, EncodedPrompt, PromptSettings, direction_of
from gsdistill.renderer.base import render
from gsdistill.scene.cameras import look_at_origin

__all__ = ["MEANINGS", "NUMBERS", "Fits", "arcs", "fits", "prior_figures"]

AZIMUTHS, ELEVATION, DISTANCE, FOV = 24, 15.0, 3.2, 40.0
FRACTIONS = (0.3, 0.5, 0.7)  # of the schedule
TURNS = tuple(range(0, 360, 30))  # degrees, of the cameras that a prior is told
SEED = 20240229  # any
AT_ONCE = 8  # views in a call of the network, with each of the timesteps

MEANINGS = {
    "fronts": "How many fronts the prior sees around the object. 1 is right; 2 and more are a Janus splat, 0 has none. "
    "Means nothing where view_margin is near 0.",
    "views_seen": "What each of 24 views is seen as, from azimuth 0 on: F a front, s a side, B a back. Right is about "
    "FFFsssssssBBBBBsssssssFF.",
    "view_agreement": "Share of the views that are seen as what their cameras' azimuths say, 0..1. Higher is better.",
    "view_margin": "How much worse the next best direction fits than the best one, as a share of its error, mean over "
    "the views. Near 0 the object looks alike from all around, or the prior does not tell its views apart.",
    "prompt_fit": "Denoising error with the prompt less that without one. Lower is better: below 0 the prior finds the "
    "prompt in the pictures.",
}
NUMBERS = tuple(name for name in MEANINGS if name != "views_seen")


@dataclass(frozen=True)
class Fits:
    """How well front, side and back fit V views around the splat, azimuth 0 first."""

    errors: Float[Tensor, "3 V"]  # in the order of DIRECTIONS; infinite where the prior was not told a direction
    expected: Int[Tensor, "V"]  # the place in DIRECTIONS of what the camera of each view sees
    prompt: Float[Tensor, "V"]  # the error with what the view is told in training
    blank: Float[Tensor, "V"]  # the error without a prompt

    @property
    def smooth(self) -> Float[Tensor, "3 V"]:
        """The errors averaged over neighbours, as far as they were told the direction."""
        near = torch.stack([self.errors.roll(step, 1) for step in (0, 0, 1, -1)])
        known = near.isfinite()
        mean = torch.where(known, near, 0.0).sum(0) / known.sum(0)
        return torch.where(known.any(0), mean, torch.inf)

    @property
    def seen(self) -> Int[Tensor, "V"]:
        """The place in DIRECTIONS of what fits each view best."""
        return self.smooth.argmin(0)

    @property
    def margin(self) -> Float[Tensor, "V"]:
        """The error of the second best direction over that of the best, less 1; 0 where there is no second."""
        best, second, _ = self.smooth.sort(0).values
        return torch.where(second.isfinite(), second / best.clamp_min(1e-12) - 1.0, 0.0)


def prior_figures(
    gaussians: Gaussians, prompt: str, prior: Prior, settings: PromptSettings = PromptSettings()
) -> dict[str, float | int | str]:
    """All figures of :data:`MEANINGS`, which says what each one tells. The splat must be on the prior's device.

    ``settings`` are those of the run: the words of each direction, and the thresholds.

    Raises:
        PromptError: the prior cannot serve the prompt.
    """
    scores = fits(gaussians, prompt, prior, settings)
    return {
        "fronts": arcs(scores.seen == DIRECTIONS.index("front")),
        "views_seen": "".join("FsB"[place] for place in scores.seen.tolist()),
        "view_agreement": int((scores.seen == scores.expected).sum()) / len(scores.seen),
        "view_margin": float(scores.margin.mean()),
        "prompt_fit": float((scores.prompt - scores.blank).mean()),
    }


def arcs(fronts: Bool[Tensor, "V"]) -> int:
    """The number of separate arcs of a circle, once each place has gone with the most of it and its two neighbours."""
    smooth = fronts.long() + fronts.roll(1).long() + fronts.roll(-1).long() >= 2
    return 1 if bool(smooth.all()) else int((smooth & ~smooth.roll(1)).sum())


@torch.no_grad()
def fits(gaussians: Gaussians, prompt: str, prior: Prior, settings: PromptSettings = PromptSettings()) -> Fits:
    """Ask the prior about views from all around; the figures are made of this. On the CPU, float32.

    Raises:
        PromptError: the prior cannot serve the prompt.
    """
    cameras = to_device(_ring(prior, settings), gaussians.means.device)
    latents = _latents(gaussians, cameras, prior)
    text, words = _text(prompt, prior, settings, cameras)
    expected = direction_of(cameras, settings)
    if words:
        errors = torch.stack([_errors(prior, latents, word, cameras, "positive") for word in words])
        own = errors.gather(0, expected[None])[0]
    else:
        asked = [_turned(cameras, turn) for turn in TURNS]
        each = torch.stack([_errors(prior, latents, text, some, "positive") for some in asked])
        called = torch.stack([direction_of(some, settings) for some in asked])
        errors = torch.stack([torch.where(called == place, each, torch.inf).amin(0) for place in range(3)])
        own = each[0]
    blank = _errors(prior, latents, text, cameras, "negative")
    order = cameras.azimuths.argsort()
    return Fits(errors[:, order].cpu(), expected[order].cpu(), own[order].cpu(), blank[order].cpu())


def _ring(prior: Prior, settings: PromptSettings) -> Cameras:
    """The cameras, which no view is overhead of and which the prior knows; those of a group follow each other."""
    group = prior.view_group
    azimuths = (torch.arange(AZIMUTHS) * (360.0 / AZIMUTHS)).reshape(group, -1).T.flatten()
    look = {"elevation": min(ELEVATION, settings.overhead), "distance": DISTANCE, "fov": FOV}
    if prior.camera_range:
        ranges = prior.camera_range.ranges()
        look = {name: min(max(value, ranges[name][0]), ranges[name][1]) for name, value in look.items()}
    elevations, distances, fovs = (torch.full_like(azimuths, value) for value in look.values())
    return look_at_origin(azimuths, elevations, distances, fovs, prior.image_size)


def _turned(cameras: Cameras, turn: float) -> Cameras:
    """The same cameras, ``turn`` degrees further around."""
    fovs = torch.rad2deg(2.0 * torch.atan(0.5 * cameras.width / cameras.Ks[:, 0, 0]))
    return look_at_origin(cameras.azimuths + turn, cameras.elevations, cameras.distances, fovs, cameras.width)


def _latents(gaussians: Gaussians, cameras: Cameras, prior: Prior) -> Float[Tensor, "V C h w"]:
    """The views over mid grey, encoded."""
    grey = torch.full((len(cameras), 3), 0.5, device=gaussians.means.device)
    images = render(gaussians, cameras, grey).images
    return torch.cat([prior.encode(some) for some in images.split(AT_ONCE)])


def _text(
    prompt: str, prior: Prior, settings: PromptSettings, cameras: Cameras
) -> tuple[EncodedPrompt, list[EncodedPrompt]]:
    """The prompt, and the prompt of front, side and back where the prior is not told the camera."""
    knows = prior.camera_features(cameras) is not None
    text = prior.encode_text(prompt, "", replace(settings, direction="none" if knows else "view"))
    views = [text.views.get(name, text.positive) for name in DIRECTIONS[:3]]
    return text, [] if knows else [EncodedPrompt(view, text.negative) for view in views]


def _errors(
    prior: Prior, latents: Float[Tensor, "V C h w"], text: EncodedPrompt, cameras: Cameras, branch: str
) -> Float[Tensor, "V"]:
    """The mean denoising error of each view, given a branch of what ``text`` says of the cameras ``told``."""
    size = max(1, AT_ONCE // prior.view_group) * prior.view_group
    found = []
    for start in range(0, len(latents), size):
        rows = slice(start, start + size)
        noises, queries = zip(*_noised(prior, latents[rows], branch), strict=True)
        answers = prior.predict_noise(queries, prior.condition(text, cameras.pick(rows)))
        errors = [(eps - n).square().mean((1, 2, 3)) for eps, n in zip(answers, noises, strict=True)]
        found.append(torch.stack(errors).mean(0))
    return torch.cat(found)


def _noised(prior: Prior, latents: Float[Tensor, "B C h w"], branch: str) -> Iterator[tuple[Tensor, Query]]:
    """The latents at each timestep, and the noise that is in them."""
    generator = torch.Generator().manual_seed(SEED)
    for fraction in FRACTIONS:
        noise = torch.randn(latents.shape[1:], generator=generator).to(latents).expand_as(latents)
        t = torch.full((len(latents),), prior.schedule.index(fraction), device=latents.device)
        yield noise, Query(prior.schedule.add_noise(latents, noise, t), t, branch)
