"""What a prior itself sees in a splat: how well it fits its prompt, and how many fronts it has (the Janus figure).

24 views of the splat, from a ring over mid grey, are encoded as in training. How well a view x0 fits a condition c of
the prior is its mean denoising error, as in the classifier of arXiv 2303.16203,

    E(x0, c) = mean |eps(alpha_t x0 + sigma_t n, t, c) - n|^2

over the latent's numbers and over t at 0.3, 0.5 and 0.7 of the schedule. Each t has one noise n, drawn from a fixed
seed and shared by all views and conditions, so that its chance cancels where errors are compared.

The conditions of each view are a front, a side and a back:

* A prior that reads the view from words gets "PROMPT, front view", "side view" and "back view", as in training.
* A prior that takes cameras gets, for the view from azimuth a, the cameras at a, a + 30, ..., a + 330 degrees. The
  thresholds of the prompt settings say which of these see the front, a side or the back, and the least error of each
  kind counts. (Where the prior sees views in groups, the whole group is turned.)

The errors of a direction are averaged over each view and its two neighbours with the weights 2, 1 and 1. A view is seen
as the direction with the least error.

Fronts. Around the ring, a view belongs to a front if at least two of it and its two neighbours are seen as a front, so
that a single view neither makes a front nor splits one. The number of fronts is that of the separate arcs.

All of this is the opinion of the prior. It also answers where the splat does not show the prompt (``prompt_fit`` is
above 0 then), and where it cannot tell views apart (``view_margin`` is near 0). Networks of random weights have margins
of 0.001 to 0.004, the shapes prior has 0.9 on a good chair and 0.1 on a sphere, by its shading. A prior that takes
neither words nor cameras for the view has a margin of 0.

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
from gsdistill.scene.viewpoints import look_at_origin

__all__ = ["MEANINGS", "NUMBERS", "Fits", "arcs", "measure_fits", "prior_figures"]

AZIMUTHS, ELEVATION, DISTANCE, FOV = 24, 15.0, 3.2, 40.0
FRACTIONS = (0.3, 0.5, 0.7)  # of the schedule
TURNS = tuple(range(0, 360, 30))  # degrees by which the cameras of the conditions are turned from the true ones
SEED = 20240229  # any
AT_ONCE = 8  # views in one call of the network, which has them at every timestep

MEANINGS = {
    "fronts": "How many fronts the prior sees around the object. 1 is right; 2 and more are a Janus splat, 0 has none. "
    "Means nothing where view_margin is near 0.",
    "views_seen": "What the prior takes each of 24 views for, from azimuth 0 on: F a front, s a side, B a back. Right "
    "is about FFFsssssssBBBBBsssssssFF.",
    "view_agreement": "Share of the views that the prior takes for what they are by their azimuth, 0..1. Higher is "
    "better.",
    "view_margin": "How much larger the error of the second best direction is than that of the best, as a share of the "
    "latter, mean over the views. Near 0 the object looks alike from all sides, or the prior cannot tell views apart.",
    "prompt_fit": "Denoising error with the prompt, minus that without one. Lower is better: below 0 the prior finds "
    "the prompt in the pictures.",
}
NUMBERS = tuple(name for name in MEANINGS if name != "views_seen")


@dataclass(frozen=True)
class Fits:
    """How well front, side and back fit V views around the splat, azimuth 0 first."""

    errors: Float[Tensor, "3 V"]  # of each direction, as in DIRECTIONS; infinite where no condition had the direction
    expected: Int[Tensor, "V"]  # the direction that the camera of each view sees, as its place in DIRECTIONS
    prompt: Float[Tensor, "V"]  # the error with the prompt and the view's own direction or camera, as in training
    blank: Float[Tensor, "V"]  # the error without a prompt

    @property
    def smooth(self) -> Float[Tensor, "3 V"]:
        """The errors averaged over each view, twice, and its two neighbours; infinite ones are left out."""
        near = torch.stack([self.errors.roll(step, 1) for step in (0, 0, 1, -1)])
        mean = torch.where(near.isfinite(), near, torch.nan).nanmean(0)
        return torch.where(mean.isnan(), torch.inf, mean)

    @property
    def seen(self) -> Int[Tensor, "V"]:
        """The direction that fits each view best, as its place in DIRECTIONS."""
        return self.smooth.argmin(0)

    @property
    def margin(self) -> Float[Tensor, "V"]:
        """The error of the second best direction over that of the best, minus 1; 0 where there is no second."""
        best, second, _ = self.smooth.sort(0).values
        return torch.where(second.isfinite(), second / best.clamp_min(1e-12) - 1.0, 0.0)


def prior_figures(
    gaussians: Gaussians, prompt: str, prior: Prior, settings: PromptSettings = PromptSettings()
) -> dict[str, float | int | str]:
    """All figures of :data:`MEANINGS`, which explains them. The splat must be on the prior's device.

    ``settings`` are those of the run: the words for each direction, and the thresholds between directions.

    Raises:
        PromptError: the prior cannot serve the prompt.
    """
    fits = measure_fits(gaussians, prompt, prior, settings)
    return {
        "fronts": arcs(fits.seen == DIRECTIONS.index("front")),
        "views_seen": "".join("FsB"[place] for place in fits.seen.tolist()),
        "view_agreement": int((fits.seen == fits.expected).sum()) / len(fits.seen),
        "view_margin": float(fits.margin.mean()),
        "prompt_fit": float((fits.prompt - fits.blank).mean()),
    }


def arcs(fronts: Bool[Tensor, "V"]) -> int:
    """The number of arcs of True on a circle, after each place has taken the majority of it and its two neighbours."""
    smooth = fronts.long() + fronts.roll(1).long() + fronts.roll(-1).long() >= 2
    return 1 if bool(smooth.all()) else int((smooth & ~smooth.roll(1)).sum())


@torch.no_grad()
def measure_fits(gaussians: Gaussians, prompt: str, prior: Prior, settings: PromptSettings = PromptSettings()) -> Fits:
    """Measure how well the views from all around fit each direction; the figures are computed from this. On the CPU.

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
        rings = [_turned(cameras, turn) for turn in TURNS]
        by_turn = torch.stack([_errors(prior, latents, text, ring, "positive") for ring in rings])
        directions = torch.stack([direction_of(ring, settings) for ring in rings])
        errors = torch.stack([torch.where(directions == place, by_turn, torch.inf).amin(0) for place in range(3)])
        own = by_turn[0]
    blank = _errors(prior, latents, text, cameras, "negative")
    order = cameras.azimuths.argsort()
    return Fits(errors[:, order].cpu(), expected[order].cpu(), own[order].cpu(), blank[order].cpu())


def _ring(prior: Prior, settings: PromptSettings) -> Cameras:
    """The cameras: none is overhead, all are in the prior's range, and those of a group follow each other."""
    group = prior.view_group
    azimuths = (torch.arange(AZIMUTHS) * (360.0 / AZIMUTHS)).reshape(group, -1).T.flatten()
    view = {"elevation": min(ELEVATION, settings.overhead), "distance": DISTANCE, "fov": FOV}
    if prior.camera_range:
        ranges = prior.camera_range.ranges()
        view = {name: min(max(value, ranges[name][0]), ranges[name][1]) for name, value in view.items()}
    elevations, distances, fovs = (torch.full_like(azimuths, value) for value in view.values())
    return look_at_origin(azimuths, elevations, distances, fovs, prior.image_size)


def _turned(cameras: Cameras, turn: float) -> Cameras:
    """The same cameras, ``turn`` degrees further around the object."""
    fovs = torch.rad2deg(2.0 * torch.atan(0.5 * cameras.width / cameras.Ks[:, 0, 0]))
    return look_at_origin(cameras.azimuths + turn, cameras.elevations, cameras.distances, fovs, cameras.width)


def _latents(gaussians: Gaussians, cameras: Cameras, prior: Prior) -> Float[Tensor, "V C h w"]:
    """The views over mid grey, encoded."""
    grey = torch.full((len(cameras), 3), 0.5, device=gaussians.means.device)
    images = render(gaussians, cameras, grey).images
    return torch.cat([prior.encode(batch) for batch in images.split(AT_ONCE)])


def _text(
    prompt: str, prior: Prior, settings: PromptSettings, cameras: Cameras
) -> tuple[EncodedPrompt, list[EncodedPrompt]]:
    """The prompt, and its texts for front, side and back; a prior that takes cameras has none of these."""
    takes_cameras = prior.camera_features(cameras) is not None
    text = prior.encode_text(prompt, "", replace(settings, direction="none" if takes_cameras else "view"))
    views = [text.views.get(name, text.positive) for name in DIRECTIONS[:3]]
    return text, [] if takes_cameras else [EncodedPrompt(view, text.negative) for view in views]


def _errors(
    prior: Prior, latents: Float[Tensor, "V C h w"], text: EncodedPrompt, cameras: Cameras, branch: str
) -> Float[Tensor, "V"]:
    """The mean denoising error of each view, conditioned on ``cameras`` and on the ``branch`` of ``text``."""
    size = max(1, AT_ONCE // prior.view_group) * prior.view_group
    batches = []
    for start in range(0, len(latents), size):
        rows = slice(start, start + size)
        noises, queries = zip(*_noised(prior, latents[rows], branch), strict=True)
        answers = prior.predict_noise(queries, prior.condition(text, cameras.pick(rows)))
        errors = [(eps - n).square().mean((1, 2, 3)) for eps, n in zip(answers, noises, strict=True)]
        batches.append(torch.stack(errors).mean(0))
    return torch.cat(batches)


def _noised(prior: Prior, latents: Float[Tensor, "B C h w"], branch: str) -> Iterator[tuple[Tensor, Query]]:
    """The latents at each timestep, and the noise that is in them."""
    generator = torch.Generator().manual_seed(SEED)
    for fraction in FRACTIONS:
        noise = torch.randn(latents.shape[1:], generator=generator).to(latents).expand_as(latents)
        t = torch.full((len(latents),), prior.schedule.index(fraction), device=latents.device)
        yield noise, Query(prior.schedule.add_noise(latents, noise, t), t, branch)
