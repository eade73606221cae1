"""Priors in closed form: mixtures of isotropic Gaussians in any dimension, and finite sets of images.

For p(x0) = sum_k pi_k N(mu_k, tau_k^2 I), the noisy density is p_t(x) = sum_k pi_k N(alpha mu_k, v_k I) with
v_k = alpha^2 tau_k^2 + sigma^2, and eps(x, t) = -sigma grad log p_t(x) = sigma sum_k r_k(x) (x - alpha mu_k) / v_k,
where r_k are the posterior weights. With tau_k = 0 the data is a finite set of images mu_k, and eps is the answer of
their exact denoiser, the network that perfect training on that set would give. One mixture is for the prompt, one for
the empty prompt. Nothing is learned, so that everything seen here is due to the distillation method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.core.structs import Embedding
from gsdistill.models.card import Prediction
from gsdistill.prior.base import Prior, Student
from gsdistill.prior.conversions import prediction_of_noise
from gsdistill.prior.prompts import EncodedPrompt, PromptSettings
from gsdistill.prior.schedule import NoiseSchedule

__all__ = ["AnalyticPrior", "Mixture", "plain_schedule"]


@dataclass(frozen=True)
class Mixture:
    """K isotropic Gaussians in D dimensions. The weights sum to 1; deviations may be 0 where sigma is not.

    With deviations of 0 it is a finite set of points, and :meth:`noise` is their exact denoiser: see :meth:`of_images`.
    Everything is computed in float64 whatever the type of x, because near t = 0 squared distances are divided by
    sigma^2, and rounding in float32 would decide between two images. Matrix products do the work, so that B noisy
    images against K known ones take memory B K, not B K D.
    """

    weights: Float[Tensor, "K"]
    means: Float[Tensor, "K D"]
    deviations: Float[Tensor, "K"]

    @staticmethod
    def of_images(images: Float[Tensor, "K C h w"], weights: Float[Tensor, "K"] | None = None) -> Mixture:
        """The distribution that draws one of K images (or latents), equally often or in proportion to ``weights``.

        Its x0 prediction is the posterior mean sum_k r_k(x) x_k, r = softmax(log w_k - |x - alpha x_k|^2 / 2 sigma^2).

        Raises:
            ValueError: there are no images, or the weights are not K numbers >= 0 with a positive sum.
        """
        count = len(images)
        shares = torch.ones(count, dtype=torch.float64) if weights is None else weights.double()
        if count == 0 or shares.shape != (count,) or not bool((shares >= 0).all()) or not float(shares.sum()) > 0:
            raise ValueError(f"{count} images need as many weights >= 0 with a positive sum, not {shares.tolist()[:8]}")
        return Mixture(shares / shares.sum(), images.flatten(1).double(), torch.zeros(count, dtype=torch.float64))

    def log_density(
        self,
        x: Float[Tensor, "B D"],
        alpha: Float[Tensor, "B 1"] | None = None,
        sigma: Float[Tensor, "B 1"] | None = None,
    ) -> Float[Tensor, "B"]:
        """Exact log p_t(x) at signal and noise levels alpha and sigma, by default 1 and 0: the density of the data."""
        alpha = torch.ones_like(x[:, :1]) if alpha is None else alpha
        sigma = torch.zeros_like(x[:, :1]) if sigma is None else sigma
        return torch.logsumexp(self._terms(x, alpha, sigma)[0], dim=1).to(x)

    def noise(
        self, x: Float[Tensor, "B D"], alpha: Float[Tensor, "B 1"], sigma: Float[Tensor, "B 1"]
    ) -> Float[Tensor, "B D"]:
        """Exact eps(x, t) = -sigma grad log p_t(x)."""
        log_terms, variance = self._terms(x, alpha, sigma)
        share = torch.softmax(log_terms, dim=1) / variance
        pull = share.sum(1, keepdim=True) * x - alpha * (share @ self.means.to(share))
        return (sigma * pull).to(x)

    def _terms(
        self, x: Float[Tensor, "B D"], alpha: Float[Tensor, "B 1"], sigma: Float[Tensor, "B 1"]
    ) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        """The logarithm of each weighted Gaussian at x, and its variance, in float64."""
        x, alpha, sigma = x.double(), alpha.double(), sigma.double()
        weights, means, deviations = self.weights.to(x), self.means.to(x), self.deviations.to(x)
        variance = (alpha * deviations).square() + sigma.square()
        squared = x.square().sum(1, keepdim=True) - 2 * alpha * (x @ means.T) + alpha.square() * means.square().sum(1)
        log_scale = x.shape[1] * torch.log(2 * math.pi * variance)
        return weights.log() - 0.5 * (squared / variance + log_scale), variance


def plain_schedule(steps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012) -> NoiseSchedule:
    """Stable Diffusion's scaled-linear schedule of ``steps`` timesteps: the roots of the betas are evenly spaced."""
    betas = torch.linspace(beta_start**0.5, beta_end**0.5, steps, dtype=torch.float64).square()
    return NoiseSchedule.from_cumulative_alphas(torch.cumprod(1.0 - betas, 0))


class AnalyticPrior(Prior):
    """A prior of two mixtures, for the prompt and without it, over latents of ``latent_shape`` (C, h, w), D = C h w.

    ``prediction_type`` is what :meth:`network` returns, so that the conversions can be tested against each other.
    """

    def __init__(
        self,
        conditional: Mixture,
        unconditional: Mixture,
        latent_shape: tuple[int, int, int],
        schedule: NoiseSchedule | None = None,
        prediction_type: Prediction = "epsilon",
    ) -> None:
        self.name, self.evaluations, self.camera_range = "analytic", 0, None
        self.schedule = schedule or plain_schedule()
        self.prediction_type = prediction_type
        self.latent_shape, self.image_size = latent_shape, latent_shape[1]
        self._mixtures = (unconditional, conditional)

    def encode(self, images: Float[Tensor, "B H W 3"]) -> Float[Tensor, "B C h w"]:
        """Images in 0..1 as latents in -1..1, of the same size."""
        return 2.0 * images.permute(0, 3, 1, 2) - 1.0

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B H W 3"]:
        """Latents in -1..1 as images in 0..1."""
        return (0.5 * (latents + 1.0)).clamp(0, 1).permute(0, 2, 3, 1)

    def encode_text(
        self, prompt: str, negative_prompt: str, settings: PromptSettings = PromptSettings()
    ) -> EncodedPrompt:
        """Embeddings of one number each, 1 for the prompt and 0 without it; the words and the view are ignored."""
        return EncodedPrompt(Embedding(torch.ones(1, 1, 1)), Embedding(torch.zeros(1, 1, 1)))

    def network(
        self,
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """The exact prediction, of ``prediction_type``: noise, v, x0 or flow."""
        alpha, sigma = self.schedule.at(timesteps, latents)
        flat = latents.flatten(1)
        answers = [mixture.noise(flat, alpha[:, :, 0, 0], sigma[:, :, 0, 0]) for mixture in self._mixtures]
        eps = torch.where(text.tokens[:, 0] > 0.5, answers[1], answers[0]).view_as(latents)
        x0 = (latents - sigma * eps) / alpha
        return prediction_of_noise(eps, x0, timesteps, self.schedule, self.prediction_type)

    def student(self, rank: int, camera: bool = False) -> Student:
        """A student that adds B A (x, 1) to the exact noise, or B A (x, 1, c) with the camera's numbers c."""
        return _LinearStudent(self, rank, camera)


class _LinearStudent(Student):
    """eps_c(x) + B A (x, 1). For Gaussian renders the best noise prediction at one t has this form.

    With ``camera`` A has sixteen columns more, for the camera; as B is zero at first, even then it begins as the prior.
    """

    def __init__(self, prior: AnalyticPrior, rank: int, camera: bool) -> None:
        self.prior, self.camera, dimensions = prior, camera, math.prod(prior.latent_shape)
        self.shapes = {"A": (rank, dimensions + 1 + 16 * camera), "B": (dimensions, rank)}

    def initial(self, generator: torch.Generator) -> Float[Tensor, " P"]:
        """A normal with deviation 1 / rank, B zero, so that the student answers as the prior does."""
        a = torch.randn(self.shapes["A"], generator=generator) / self.shapes["A"][0]
        return torch.cat([a.flatten(), torch.zeros(math.prod(self.shapes["B"]))])

    def network(
        self,
        weights: Mapping[str, Tensor],
        latents: Float[Tensor, "B C h w"],
        timesteps: Int[Tensor, "B"],
        text: Embedding,
        cameras: Float[Tensor, "B F"] | None,
    ) -> Float[Tensor, "B C h w"]:
        """The prior's prediction, changed by what the correction of its noise makes of it."""
        alpha, sigma = self.prior.schedule.at(timesteps, latents)
        raw = self.prior.network(latents, timesteps, text, None)
        seen = torch.nn.functional.pad(latents.flatten(1), (0, 1), value=1.0)
        if self.camera and cameras is not None:
            seen = torch.cat([seen, cameras.to(seen)], 1)
        correction = (seen @ weights["A"].to(latents).T @ weights["B"].to(latents).T).view_as(latents)
        slopes = {
            "epsilon": 1.0, "v_prediction": 1 / alpha, "sample": -sigma / alpha, "flow_prediction": 1 + sigma / alpha,
        }  # fmt: skip
        return raw + slopes[self.prior.prediction_type] * correction
