"""The one conversion between what a network predicts and the noise eps, in both directions.

    v:     v = alpha_t eps - sigma_t x0          eps = alpha_t v + sigma_t x_t
    x0:                                          eps = (x_t - alpha_t x0) / sigma_t
    flow:  u = eps - x0                          eps = (x_t + alpha_t u) / (alpha_t + sigma_t)
(alpha + sigma = 1 on rectified flow).
"""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor

from gsdistill.models.card import Prediction
from gsdistill.prior.schedule import NoiseSchedule

__all__ = ["noise_from_prediction", "prediction_of_noise"]


def noise_from_prediction(
    raw: Float[Tensor, "B C h w"],
    x_t: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    schedule: NoiseSchedule,
    kind: Prediction,
) -> Float[Tensor, "B C h w"]:
    """Convert a raw prediction of the given kind at (x_t, t) into eps."""
    alpha, sigma = schedule.at(t, x_t)
    if kind == "v_prediction":
        return alpha * raw + sigma * x_t
    if kind == "sample":
        return (x_t - alpha * raw) / sigma
    if kind == "flow_prediction":
        return (x_t + alpha * raw) / (alpha + sigma)
    return raw


def prediction_of_noise(
    eps: Float[Tensor, "B C h w"],
    x0: Float[Tensor, "B C h w"],
    t: Int[Tensor, "B"],
    schedule: NoiseSchedule,
    kind: Prediction,
) -> Float[Tensor, "B C h w"]:
    """What a network of the given kind should answer at x_t = alpha_t x0 + sigma_t eps."""
    if kind == "v_prediction":
        alpha, sigma = schedule.at(t, x0)
        return alpha * eps - sigma * x0
    return {"sample": x0, "flow_prediction": eps - x0}.get(kind, eps)
