"""What every method and every prior promises, as functions that authors of outside ones run in their tests.

    from gsdistill.testing import check_method
    def test_mine(): check_method(Mine)

Each raises an AssertionError that says in a sentence which promise is broken. Methods are tried on a world whose noise
is known exactly: given the prompt its data is N(0.4, 0.3^2) in every element of a latent, without it N(0, 1). Words
that a method puts behind the prompt move the mean, by 0.01 a letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.core.structs import Cameras, Embedding, Guidance, Views
from gsdistill.distillation.base import Distillation, Moment, State
from gsdistill.distillation.surface_noise import ball
from gsdistill.models.card import Prediction
from gsdistill.prior.analytic import AnalyticPrior, Mixture, plain_schedule
from gsdistill.prior.base import Prior, Query
from gsdistill.prior.prompts import EncodedPrompt, PromptSettings, encode_with_endings
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.config import from_dict, to_dict

__all__ = ["METHOD_CHECKS", "check_method", "check_prior"]

SHAPE = (3, 2, 2)  # of the world's latents
ELEMENTS = 12
VIEWS = 4
MISSED = 0.5  # most of the variance of the noise in latents of almost nothing else that a prior may not find


class World(AnalyticPrior):
    """The world of the module; its network refuses gradients, and takes one sample at a time if it must."""

    def __init__(self, length: int = 1000, kind: Prediction = "epsilon", alone: bool = False) -> None:
        told, untold = (
            Mixture(torch.ones(1), torch.full((1, ELEMENTS), mean), torch.tensor([deviation]))
            for mean, deviation in ((0.4, 0.3), (0.0, 1.0))
        )
        super().__init__(told, untold, SHAPE, plain_schedule(length), kind)
        self.alone = alone

    def network(
        self,
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """Exact, and without a gradient."""
        _must(not latents.requires_grad, "the network is asked about latents that require a gradient")
        low, high = int(timesteps.min()), int(timesteps.max())
        _must(low >= 0 and high < len(self.schedule), f"the network is asked about t = {low}..{high}, out of schedule")
        if not self.alone:
            return self._moved(latents, timesteps, text)
        rows = torch.arange(len(latents)).split(1)
        return torch.cat([self._moved(latents[row], timesteps[row], text.pick(row)) for row in rows])

    def encode_text(
        self, prompt: str, negative_prompt: str, settings: PromptSettings = PromptSettings()
    ) -> EncodedPrompt:
        """Embeddings of one number each: 0 without the prompt, 1 for it, and 0.01 more for each letter of the text."""
        text = super().encode_text(prompt, negative_prompt, settings)
        return replace(text, positive=Embedding(text.positive.tokens + 0.01 * len(prompt)))

    def _moved(
        self, latents: Float[Tensor, "B C h w"], timesteps: Int[Tensor, "B"], text: Embedding
    ) -> Float[Tensor, "B C h w"]:
        """The prediction for data whose mean is moved by what a text's number has above 1."""
        alpha, sigma = self.schedule.at(timesteps, latents)
        off = (text.tokens[..., None] - 1).clamp_min(0).to(latents)
        raw = super().network(latents - alpha * off, timesteps, text, None)
        slopes = {"epsilon": 0.0, "v_prediction": -sigma, "sample": 1.0, "flow_prediction": -1.0}  # of x0 in each
        return raw + slopes[self.prediction_type] * off


def check_method(method: type[Distillation] | Distillation) -> None:
    """Try all :data:`METHOD_CHECKS` on a method, or on one with the defaults of its class.

    Raises:
        AssertionError: a promise is broken; the sentence begins with the name of the class.
    """
    made = method if isinstance(method, Distillation) else method()
    for check in METHOD_CHECKS.values():
        try:
            check(made)
        except AssertionError as error:
            raise AssertionError(f"{type(made).__name__}: {error}") from error


def settings_are_kept(method: Distillation) -> None:
    """A frozen dataclass, whose settings go to YAML and back."""
    parameters = getattr(method, "__dataclass_params__", None)
    _must(parameters is not None and parameters.frozen, "it is no frozen dataclass, by @dataclass(frozen=True)")
    again = from_dict(type(method), to_dict(method))
    _must(again == method, f"its settings come back from YAML as {again}")


def gradient_is_like_the_latents(method: Distillation) -> None:
    """Of their shape and type, finite, and not zero everywhere."""
    for dtype in (torch.float32, torch.float64):
        for progress in (0.0, 0.3, 1.0):
            gradient = _step(method, World(), _latents().to(dtype), progress)[0].gradient
            _must(gradient.shape == (VIEWS, *SHAPE), f"the gradient has the shape {list(gradient.shape)}")
            _must(gradient.dtype == dtype, f"the gradient of {dtype} latents is {gradient.dtype}")
            _must(bool(gradient.isfinite().all()), f"the gradient is not finite at progress {progress}")
            _must(bool(gradient.any()), f"the gradient is zero everywhere at progress {progress}")


def random_numbers_are_of_the_moment(method: Distillation) -> None:
    """The same state of the moment's generator, the same gradient; another one, another gradient."""
    gradients = []
    for elsewhere, seed in ((1, 5), (2, 5), (1, 6)):
        torch.manual_seed(elsewhere)
        gradients.append(_step(method, World(), _latents(), seed=seed)[0].gradient)
    _must(torch.equal(*gradients[:2]), "the gradient depends on random numbers of others than the moment's generator")
    _must(not torch.equal(gradients[0], gradients[2]), "the gradient does not depend on the moment's generator")


def each_view_is_alone(method: Distillation) -> None:
    """What is in one view does not reach the gradient of the others."""
    moved = _latents()
    moved[-1] += 5.0
    first, second = (_step(method, World(), x0)[0].gradient for x0 in (_latents(), moved))
    _must(torch.equal(first[:-1], second[:-1]), "the gradient of a view depends on what the other views hold")
    _must(not torch.equal(first[-1], second[-1]), "the gradient of a view does not depend on what the view holds")


def batches_may_be_split(method: Distillation) -> None:
    """The network may answer sample by sample; and what it is asked is counted."""
    for alone in (False, True):
        world = World(alone=alone)
        guidance = _step(method, world, _latents())[0]
        told = f"it tells of {guidance.evaluations} network evaluations, and asked for {world.evaluations}"
        _must(guidance.evaluations == world.evaluations > 0, told)
    whole, split = (_step(method, World(alone=alone), _latents())[0].gradient for alone in (False, True))
    _must(torch.allclose(whole, split, rtol=1e-9, atol=1e-11), "the gradient changes where the network splits a batch")


def nothing_requires_a_gradient(method: Distillation) -> None:
    """Neither what is answered nor what is kept, in any mode of the caller."""
    with torch.enable_grad():
        guidance, before, after = _step(method, World(), _latents())
    with torch.no_grad():
        other = _step(method, World(), _latents())[0]
    _must(torch.equal(guidance.gradient, other.gradient), "the gradient changes under torch.no_grad")
    tensors = {"gradient": guidance.gradient, **guidance.figures, **before, **after}
    held = [name for name, tensor in tensors.items() if tensor.requires_grad]
    _must(not held, f"what it returns requires a gradient: {', '.join(held)}")


def state_is_tensors_that_stay(method: Distillation) -> None:
    """Nothing is changed in place; the next state has the names, shapes and types of the first."""
    before = method.init_state(World(), torch.Generator().manual_seed(1))
    _must(isinstance(before, Mapping), "the state is no mapping of names to tensors")
    odd = [name for name, value in before.items() if not isinstance(value, Tensor)]
    _must(not odd, f"the state holds what is no tensor: {', '.join(odd)}")
    copies, latents = {name: value.clone() for name, value in before.items()}, _latents()
    after = _step(method, World(), latents, state=before)[2]
    _must(torch.equal(latents, _latents()), "the latents are changed in place")
    _must(before.keys() == copies.keys() == after.keys(), "the next state has other names than the first")
    for name, value in before.items():
        _must(torch.equal(value, copies[name]), f"the state's {name} is changed in place: return a new one")
        same = (after[name].shape, after[name].dtype) == (value.shape, value.dtype)
        _must(same, f"the state's {name} changes its shape or type")


def any_prior_serves(method: Distillation) -> None:
    """Whatever the network predicts, and however long its schedule is."""
    expected = _step(method, World(), _latents())[0].gradient
    kinds: tuple[Prediction, ...] = ("v_prediction", "sample", "flow_prediction")
    for kind in kinds:
        gradient = _step(method, World(kind=kind), _latents())[0].gradient
        _must(torch.allclose(gradient, expected, rtol=1e-7, atol=1e-9), f"the gradient is another with a {kind} prior")
    for length in (50, 1024):
        for progress in (0.0, 0.5, 1.0):
            gradient = _step(method, World(length), _latents(), progress)[0].gradient
            _must(bool(gradient.isfinite().all()), f"the gradient is not finite with a schedule of {length} steps")


METHOD_CHECKS = {
    check.__name__: check
    for check in (
        settings_are_kept, state_is_tensors_that_stay, gradient_is_like_the_latents, random_numbers_are_of_the_moment,
        each_view_is_alone, batches_may_be_split, nothing_requires_a_gradient, any_prior_serves,
    )
}  # fmt: skip


def check_prior(prior: Prior, prompt: str = "a red torus") -> None:
    """Try what every prior promises, with a ``prompt`` that it knows: shapes, gradients, counts, and the true noise.

    In latents of almost nothing but noise it must find that noise: a network of v or x0 that is taken for one of noise
    does not.

    Raises:
        AssertionError: a promise is broken; the sentence begins with the prior's name.
    """
    try:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            _try_pictures(prior)
            _try_noise(prior, prompt)
    except AssertionError as error:
        raise AssertionError(f"{getattr(prior, 'name', type(prior).__name__)}: {error}") from error


def _try_pictures(prior: Prior) -> None:
    lacking = [name for name in ("name", "schedule", "image_size", "latent_shape") if not hasattr(prior, name)]
    _must(not lacking, f"it lacks {', '.join(lacking)}")
    images = torch.rand(2, prior.image_size, prior.image_size, 3, device=prior.device, requires_grad=True)
    latents = prior.encode(images)
    wanted = [2, *prior.latent_shape]
    _must(list(latents.shape) == wanted, f"`encode` gives {list(latents.shape)}, where latent_shape says {wanted}")
    (slope,) = torch.autograd.grad(latents.square().sum(), images, allow_unused=True)
    _must(slope is not None and bool(slope.any()), "`encode` is not differentiable")
    _must(bool(slope.isfinite().all()), "the gradient of `encode` is not finite")


def _try_noise(prior: Prior, prompt: str) -> None:
    count = max(VIEWS, prior.view_group)
    cameras = _cameras_of(prior, count)
    with torch.no_grad():
        condition = prior.condition(prior.encode_text(prompt, ""), cameras)
        rows = {name: len(text.tokens) for name, text in condition.branches.items()}
        _must({"positive", "negative"} <= rows.keys(), "`encode_text` gives no positive and negative text")
        _must(set(rows.values()) == {count}, f"`condition` gives {rows} rows of text for {count} cameras")
        without = prior.condition(prior.encode_text(prompt, prompt), cameras).branches["empty"]
        same = torch.equal(without.tokens, condition.branches["negative"].tokens)
        _must(same, "beside a negative prompt `encode_text` gives no `empty` text, which ISM, CSD and NFSD ask")
        grey = torch.full((count, prior.image_size, prior.image_size, 3), 0.5, device=prior.device)
        x0 = prior.encode(grey)
        eps = torch.randn_like(x0)
        t = torch.full((count,), prior.schedule.index(0.9), device=prior.device)
        alpha, sigma = prior.schedule.at(t, x0)
        x_t, before = alpha * x0 + sigma * eps, prior.evaluations
        found, again = (prior.predict_noise([Query(x_t, t, "positive")], condition)[0] for _ in range(2))
    _must(found.shape == x_t.shape, f"the noise of latents {list(x_t.shape)} has the shape {list(found.shape)}")
    _must(prior.evaluations - before == 2 * count, "`evaluations` does not count the samples through the network")
    _must(torch.equal(found, again), "the same question has two answers: is the network in training mode?")
    _must(bool(found.isfinite().all()), "the noise is not finite")
    missed = float((found - eps).square().mean() / eps.square().mean())
    told = f"of the noise in latents of almost nothing else it misses {missed:.0%}, where {MISSED:.0%} are allowed"
    _must(missed <= MISSED, f"{told}: is prediction_type = {prior.prediction_type} right?")


def _cameras_of(prior: Prior, count: int) -> Cameras:
    known = prior.camera_range
    if known is None:
        return orbit(count, prior.image_size)
    return orbit(count, prior.image_size, sum(known.elevation) / 2, known.distance, known.fov)


def _step(
    method: Distillation,
    prior: World,
    latents: Float[Tensor, "B C h w"],
    progress: float = 0.3,
    seed: int = 0,
    state: State | None = None,
) -> tuple[Guidance, State, State]:
    """The answer of a step, and the state before and after."""
    cameras, generator = orbit(len(latents), 8), torch.Generator().manual_seed(seed)
    before = method.init_state(prior, generator) if state is None else state
    views = Views(latents, torch.ones_like(latents[:, :1]), cameras)
    text = encode_with_endings(prior.encode_text, "", "", PromptSettings(), method.endings())
    condition = prior.condition(text, cameras)
    surface = ball(cameras, SHAPE[1:]) if "surface" in method.NEEDS else None
    moment = Moment(prior, views, condition, progress, generator, surface=surface)
    guidance, after = method.clipped(moment, before)
    return guidance, before, after


def _latents() -> Float[Tensor, "B C h w"]:
    return torch.randn(VIEWS, *SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def _must(kept: bool, told: str) -> None:
    if not kept:
        raise AssertionError(told)
