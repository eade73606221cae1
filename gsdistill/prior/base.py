"""The one interface to diffusion priors and to students of their networks, and the one guidance rule.

Whatever a network predicts, methods see only the noise eps (conversions.py).
Guidance: eps_cfg = eps_u + omega h with h = eps_c - eps_u, so omega = 1 means none. With Perp-Neg (arXiv 2304.04968)
    h = h_+ + sum_i w_i perp(h_i, h_+),  h_i = eps_i - eps_u,  perp(a, b) = a - <a, b> / <b, b> b  per sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import Cameras, Condition, Embedding, Views, send
from gsdistill.core.threads import Turn
from gsdistill.models.card import Prediction
from gsdistill.prior.conversions import noise_from_prediction
from gsdistill.prior.matrices import camera_matrices
from gsdistill.prior.prompts import EncodedPrompt, PromptSettings, branches_for
from gsdistill.prior.schedule import NoiseSchedule

__all__ = [
    "ASKING",
    "CameraRange",
    "Noise",
    "Prior",
    "Query",
    "Rescale",
    "Student",
    "combine",
    "noise_from_prediction",
]

# Threads take turns to ask priors, for they may share one, with its count, its buffers and its students' hooks.
ASKING = Turn()


@dataclass(frozen=True)
class Query:
    """One question to the network: the noise in ``latents`` at ``timesteps``, given a branch of the condition."""

    latents: Float[Tensor, "B C h w"]
    timesteps: Int[Tensor, "B"]
    branch: str


@dataclass(frozen=True)
class Rescale:
    """CFG rescale at one (x_t, t) (arXiv 2305.08891, eq. 15 and 16, on x0 as MVDream does).

    With x0(eps) = (x_t - sigma_t eps) / alpha_t, the guided x0 is multiplied by phi std(x0(eps_c)) / std(x0(eps_cfg)) +
    1 - phi, and eps_cfg is computed from it again. Standard deviations are over all numbers of a group of views.
    """

    x_t: Float[Tensor, "B C h w"]
    alpha: Float[Tensor, "B 1 1 1"]
    sigma: Float[Tensor, "B 1 1 1"]
    share: float  # phi, 0..1
    group: int  # views that share one standard deviation

    def noise(
        self, guided: Float[Tensor, "B C h w"], conditional: Float[Tensor, "B C h w"]
    ) -> Float[Tensor, "B C h w"]:
        """The rescaled eps_cfg, from eps_cfg (``guided``) and eps_c (``conditional``)."""
        x0 = (self.x_t - self.sigma * guided) / self.alpha
        ratio = self._deviation((self.x_t - self.sigma * conditional) / self.alpha) / self._deviation(x0)
        return (self.x_t - self.alpha * (self.share * ratio + 1.0 - self.share) * x0) / self.sigma

    def _deviation(self, x0: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 1 1 1"]:
        each = x0.reshape(-1, self.group * x0[0].numel()).std(1).clamp_min(1e-8)
        return each.repeat_interleave(self.group)[:, None, None, None]


@dataclass(frozen=True)
class Noise:
    """The answers to the branches of the condition at one (x_t, t)."""

    conditional: Float[Tensor, "B C h w"]  # eps_c
    unconditional: Float[Tensor, "B C h w"]  # eps_u, of the empty or negative prompt
    direction: Float[Tensor, "B C h w"]  # h, with the Perp-Neg terms if there are perp branches
    rescale: Rescale | None = None

    def guided(self, guidance_scale: float) -> Float[Tensor, "B C h w"]:
        """The guidance rule: eps_u + omega h, rescaled if the prior has a CFG rescale."""
        eps = self.unconditional + guidance_scale * self.direction
        return eps if self.rescale is None else self.rescale.noise(eps, self.conditional)


@dataclass(frozen=True)
class CameraRange:
    """The cameras that a prior was trained on: a range of elevations, a fixed distance and a fixed field of view."""

    elevation: tuple[float, float]  # degrees, from least to most
    distance: float  # world units
    fov: float  # degrees

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The least and the most of each, by the names of the camera settings."""
        return {"elevation": self.elevation, "distance": (self.distance, self.distance), "fov": (self.fov, self.fov)}


class Prior(ABC):
    """A text-to-image diffusion model, as distillation methods and the training loop see it.

    A prior of your own has ``encode``, ``encode_text``, ``network`` and the first four attributes; ``Mine(device)``
    makes it.
    """

    name: str
    schedule: NoiseSchedule
    image_size: int  # pixels
    latent_shape: tuple[int, int, int]  # C, h, w
    device: torch.device = torch.device("cpu")  # where it computes
    prediction_type: Prediction = "epsilon"
    camera_range: CameraRange | None = None  # None: any camera is fine
    evaluations: int = 0  # samples that went through the network so far
    view_group: int = 1  # the network sees so many consecutive views at once, at equal steps of azimuth
    guidance_rescale: float = 0.0  # phi of CFG rescale, 0 for none

    def __init__(self, device: torch.device | str = "cpu") -> None:
        """Compute on ``device``. A subclass that loads something there has its own ``__init__``."""
        self.device = torch.device(device)

    @abstractmethod
    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Latents of images in 0..1 of any size, differentiable."""

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Images in 0..1 of latents, without a gradient. Only `gsdistill play2d` needs it, no run does.

        Raises:
            ConfigError: the prior has no decoder.
        """
        raise ConfigError(f"the prior {self.name} shows no pictures of its latents: it has no `decode`")

    @abstractmethod
    def encode_text(
        self, prompt: str, negative_prompt: str, settings: PromptSettings = PromptSettings()
    ) -> EncodedPrompt:
        """Encode the prompt, the negative prompt, and a text for each direction of view if ``settings`` ask for it.

        Raises:
            PromptError: the prior cannot serve a prompt.
        """

    def camera_features(self, cameras: Cameras) -> Float[Tensor, "B F"] | None:
        """The features of the cameras that condition the network; None for a network without any."""
        return None

    @property
    def knows_cameras(self) -> bool:
        """Whether cameras condition the network."""
        return type(self).camera_features is not Prior.camera_features

    def condition(self, text: EncodedPrompt, cameras: Cameras) -> Condition:
        """The texts and camera features that condition the network for each view."""
        branches, weights = branches_for(text, cameras)
        return Condition(branches, weights, self.camera_features(cameras))

    @abstractmethod
    def network(
        self,
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """The network's raw prediction, of ``prediction_type``; ``cameras`` are the condition's camera features."""

    def student(self, rank: int, camera: bool = False) -> Student:
        """A student of the given rank, for methods that tune the network (VSD); it shares the network's weights.

        With ``camera`` it has an embedding of the camera of its own, which is for networks that know no cameras.

        Raises:
            ConfigError: the prior has none.
        """
        raise ConfigError(f"the prior {self.name} cannot be tuned, which this method does: it has no `student`")

    def predict_noise(self, queries: Sequence[Query], condition: Condition) -> list[Float[Tensor, "B C h w"]]:
        """The noise that each query asks for, by one batched network call without a gradient.

        Raises:
            ConfigError: the condition lacks the text that a query asks for.
        """
        count = len(queries)
        if lacking := [query.branch for query in queries if query.branch not in condition.branches]:
            told = "a method's own texts are encoded by encode_with_endings of gsdistill.prior.prompts"
            raise ConfigError(f"there is no text '{lacking[0]}' among {', '.join(condition.branches)}: {told}")
        latents = torch.cat([query.latents for query in queries])
        timesteps = torch.cat([query.timesteps for query in queries]).to(latents.device)
        text = Embedding.join([condition.branches[query.branch] for query in queries])
        cameras = None if condition.cameras is None else condition.cameras.repeat(count, 1)
        with torch.no_grad():
            raw = self.network(latents, timesteps, text, cameras)
            eps = noise_from_prediction(raw.to(latents), latents, timesteps, self.schedule, self.prediction_type)
        self.evaluations += len(latents)
        return list(eps.chunk(count))

    def noise(self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"], condition: Condition) -> Noise:
        """The noise for the guiding branches of the condition at one (x_t, t), by one network call."""
        names = condition.guiding
        answers = self.predict_noise([Query(x_t, t, name) for name in names], condition)
        return combine(dict(zip(names, answers, strict=True)), condition, self.rescale(x_t, t))

    def rescale(self, x_t: Float[Tensor, "B C h w"], t: Int[Tensor, "B"]) -> Rescale | None:
        """The CFG rescale at one (x_t, t); None if this prior has none."""
        if self.guidance_rescale == 0:
            return None
        return Rescale(x_t, *self.schedule.at(t, x_t), self.guidance_rescale, self.view_group)


class Student(ABC):
    """A prior's network with a low-rank correction (LoRA, arXiv 2106.09685), whose weights the caller holds and trains.

    The weights are one flat tensor, so that an optimiser step is a few operations, and not a few for each of hundreds
    of matrices. ``shapes`` has the shape of each matrix by name, in the order of the tensor.
    """

    prior: Prior  # whose network, noise levels and kind of prediction it has
    shapes: dict[str, tuple[int, int]]
    camera: bool = False  # whether it has an embedding of the camera of its own
    asker: Prior | None = None  # the prior that counts its evaluations, if that is another than ``prior``

    @abstractmethod
    def initial(self, generator: torch.Generator) -> Float[Tensor, " P"]:
        """Initial weights, with which the student answers as the prior does, up to the embedding of the camera."""

    @abstractmethod
    def network(
        self,
        weights: Mapping[str, Tensor],
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """The raw prediction, differentiable in ``weights``, which are the matrices by name.

        ``cameras`` are 16 numbers each if the student has its own embedding, else what the prior's network takes.
        """

    def told(self, condition: Condition, views: Views) -> Condition:
        """The condition of the prior with the cameras of the views as this student is told them."""
        if not self.camera:
            return condition if self.prior.knows_cameras else replace(condition, cameras=None)
        return replace(condition, cameras=send(camera_matrices(views.cameras), views.latents))

    def named(self, weights: Float[Tensor, " P"]) -> dict[str, Tensor]:
        """The matrices in the flat weights by name, as views."""
        parts = weights.split([rows * columns for rows, columns in self.shapes.values()])
        return {name: part.view(self.shapes[name]) for name, part in zip(self.shapes, parts, strict=True)}

    def predict(self, weights: Float[Tensor, " P"], query: Query, told: Condition) -> Float[Tensor, "B C h w"]:
        """The network's own prediction, of ``prior.prediction_type``, differentiable in the flat ``weights``."""
        x_t, t = query.latents, query.timesteps.to(query.latents.device)
        parts = self.named(weights.to(x_t.device))
        raw = self.network(parts, x_t, t, told.branches[query.branch], told.cameras)
        (self.asker or self.prior).evaluations += len(x_t)
        return raw.to(x_t)

    def predict_noise(self, weights: Float[Tensor, " P"], query: Query, told: Condition) -> Float[Tensor, "B C h w"]:
        """The noise that the query asks for, differentiable in the flat ``weights``."""
        raw, t = self.predict(weights, query, told), query.timesteps.to(query.latents.device)
        return noise_from_prediction(raw, query.latents, t, self.prior.schedule, self.prior.prediction_type)


def combine(eps: dict[str, Float[Tensor, "B C h w"]], condition: Condition, rescale: Rescale | None = None) -> Noise:
    """Form the direction h from the noise ``eps`` of each branch at one (x_t, t); ``rescale`` is passed on."""
    conditional, unconditional = eps["positive"], eps["negative"]
    direction = main = conditional - unconditional
    for column in range(condition.perp_weights.shape[1]):
        weight = condition.perp_weights[:, column, None, None, None].to(main)
        direction = direction + weight * _perpendicular(eps[f"perp{column}"] - unconditional, main)
    return Noise(conditional, unconditional, direction, rescale)


def _perpendicular(a: Float[Tensor, "B C h w"], b: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
    along = (a * b).sum((1, 2, 3), keepdim=True) / (b * b).sum((1, 2, 3), keepdim=True).clamp_min(1e-20)
    return a - along * b
