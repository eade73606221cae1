"""View-dependent prompts: the direction of view in words, mixed between directions, or separated by Perp-Neg.

Azimuth 0 is the front. ``view`` takes one of four texts by thresholds on the angles. ``interpolate`` mixes the
embeddings of the two nearest of front, side and back, r falling linearly with the azimuth a in (-180, 180]:
    |a| < 90:   r = 1 - |a| / 90,   r front + (1 - r) side
    |a| >= 90:  r = 2 - |a| / 90,   r side + (1 - r) back
``perp-neg`` (arXiv 2304.04968) adds the directions that the view does not show as negatives, with the weights -f,
f(r; a, b, c) = a exp(-b r) + c, by threestudio's rule and constants:
    |a| < 90:   front -f_fs(r),  side -f_sf(1 - r)
    |a| >= 90:  side -f_sb(r),   front -f_fsb(r)
where a curve is 0 beyond its cut-off. From above, all three use only the overhead text, and both weights are 0.

How released programs read, in these settings:
    threestudio, GSGEN, GaussianDreamer   front 45, back 135, overhead 60; their ``back_threshold`` is 180 - back
    DreamGaussian                         front 60, back 120, overhead 90, which is none; without MVDream its program
                                          never passes the azimuth on, so that every view gets the plain prompt
    ProlificDreamer, ScaleDreamer, CFD    front 30, back 150, overhead 60
    SJC                                   front 45, back 135, overhead 41.8, phrases ``prefix``
    stable-dreamfusion, LucidDreamer      ``interpolate``, overhead 90; with Perp-Neg f_fs (2, 2, 0), f_sf (2, 10, 0),
                                          f_sb (1, 10, 0), f_fsb (0, 0, 2), f_cuts (0.8, 0.8, 0.8, 1)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gsdistill.core.errors import ConfigError, PromptError
from gsdistill.core.ranges import bounded
from gsdistill.core.structs import Cameras, Embedding

__all__ = [
    "DIRECTIONS", "EncodedPrompt", "PromptSettings", "branches_for", "check_unicode", "direction_of",
    "encode_with_endings",
]  # fmt: skip

DIRECTIONS = ("front", "side", "back", "overhead")

PHRASES = {
    "suffix": {name: f"{{prompt}}, {name} view" for name in DIRECTIONS},
    "prefix": {name: f"{'backside' if name == 'back' else name} view of {{prompt}}" for name in DIRECTIONS},
}

Curve = tuple[float, float, float]


@dataclass(frozen=True)
class PromptSettings:
    """How the prompt depends on the view. Angles in degrees; a curve is a, b, c of a exp(-b r) + c."""

    # how the prompt names the view; auto is view, auto-perp-neg is perp-neg, both are none if the prior knows cameras
    direction: Literal["auto", "auto-perp-neg", "none", "view", "interpolate", "perp-neg"] = "auto"
    front: float = bounded(45.0, low=0, high=180)  # |azimuth| below is the front
    back: float = bounded(135.0, low=0, high=180)  # |azimuth| above is the back
    overhead: float = bounded(60.0, low=-90, high=90)  # an elevation above is overhead; 90: none is
    # where the words of the view stand: suffix "PROMPT, back view", prefix "backside view of PROMPT"
    phrases: Literal["suffix", "prefix"] = "suffix"
    front_prompt: str | None = None  # whole prompt of the front; none: the prompt in the phrase of the front
    side_prompt: str | None = None  # likewise of the sides
    back_prompt: str | None = None  # likewise of the back
    overhead_prompt: str | None = None  # likewise from above
    f_fs: Curve = (4.0, 0.5, -2.426)  # Perp-Neg: weight of front, before the sides
    f_sf: Curve = (4.0, 0.5, -2.426)  # of side, there
    f_sb: Curve = (1.0, 0.5, -0.606)  # of side, behind the sides
    f_fsb: Curve = (1.0, 0.5, 0.967)  # of front, there
    # Perp-Neg: r beyond which f_fs, f_sb and f_fsb are 0, and 1 - r beyond which f_sf is; in the order of the curves
    f_cuts: tuple[float, float, float, float] = bounded((1.0, 1.0, 1.0, 1.0), low=0, high=1)

    def __post_init__(self) -> None:
        if self.front > self.back:
            raise ConfigError(f"prompts.front = {self.front} exceeds prompts.back = {self.back}")

    def resolved(self, knows_cameras: bool) -> PromptSettings:
        """The same settings with ``auto`` and ``auto-perp-neg`` replaced, by whether the prior knows cameras."""
        meant = {"auto": "view", "auto-perp-neg": "perp-neg"}.get(self.direction)
        if meant is None:
            return self
        return replace(self, direction="none" if knows_cameras else meant)

    def ended(self, prompt: str, ending: str) -> PromptSettings:
        """The same with ``ending`` behind the prompt of each direction."""
        return replace(self, **{f"{name}_prompt": f"{text}{ending}" for name, text in self.texts(prompt).items()})

    def texts(self, prompt: str) -> dict[str, str]:
        """The prompt of each direction, by name; empty if ``direction`` is none."""
        if self.direction == "none":
            return {}
        phrases = PHRASES[self.phrases]
        return {
            name: getattr(self, f"{name}_prompt") or phrase.format(prompt=prompt) for name, phrase in phrases.items()
        }


@dataclass(frozen=True)
class EncodedPrompt:
    """The encoded texts, each with a batch of one, from which ``Prior.condition`` makes the branches of each view."""

    positive: Embedding  # of the prompt itself
    negative: Embedding
    views: Mapping[str, Embedding] = field(default_factory=dict)  # by names of DIRECTIONS; may be empty
    settings: PromptSettings = field(default_factory=lambda: PromptSettings(direction="none"))
    empty: Embedding | None = None  # of no words; None where ``negative`` is that
    endings: Mapping[str, EncodedPrompt] = field(default_factory=dict)  # the same with more words, by a method's names


def encode_with_endings(
    encode: Callable[[str, str, PromptSettings], EncodedPrompt],
    prompt: str,
    negative_prompt: str,
    settings: PromptSettings,
    endings: Mapping[str, str],
) -> EncodedPrompt:
    """The encoded prompts, and with them the prompt with each of the ``endings`` that a method asks for.

    Raises:
        PromptError: the prior cannot serve one; for an ending the message names the setting of the method.
    """
    text, ended = encode(prompt, negative_prompt, settings), {}
    for name, ending in endings.items():
        try:
            ended[name] = encode(f"{prompt}{ending}", negative_prompt, settings.ended(prompt, ending))
        except PromptError as error:
            told = f"method.{name} puts words behind the prompt that the prior cannot read: {error}"
            raise PromptError(f"{told} Set other words, or none: --method.{name} ''") from error
    return replace(text, endings=ended) if ended else text


def branches_for(text: EncodedPrompt, cameras: Cameras) -> tuple[dict[str, Embedding], Float[Tensor, "B R"]]:
    """The text branches for B cameras by name, and the weights of the Perp-Neg branches among them, R = 0 or 2.

    Besides those of guidance there are ``plain``, the prompt without words of the view, ``empty``, and the endings.
    """
    everywhere = torch.zeros(len(cameras), dtype=torch.long, device=text.positive.tokens.device)
    more = {"plain": text.positive.pick(everywhere), "empty": (text.empty or text.negative).pick(everywhere)}
    more |= {name: _guiding(ending, cameras)[0]["positive"] for name, ending in text.endings.items()}
    branches, weights = _guiding(text, cameras)
    return {**branches, **more}, weights


def _guiding(text: EncodedPrompt, cameras: Cameras) -> tuple[dict[str, Embedding], Float[Tensor, "B R"]]:
    """The branches of guidance and the weights of those of Perp-Neg."""
    device = text.positive.tokens.device
    everywhere = torch.zeros(len(cameras), dtype=torch.long, device=device)
    negative, none = text.negative.pick(everywhere), torch.zeros(len(cameras), 0, device=device)
    if not text.views:
        return {"positive": text.positive.pick(everywhere), "negative": negative}, none
    settings, texts = text.settings, Embedding.join([text.views[name] for name in DIRECTIONS])
    azimuth = _from_front(cameras.azimuths.to(device))
    above = cameras.elevations.to(device) > settings.overhead
    if settings.direction == "view":
        return {"positive": texts.pick(direction_of(cameras, settings).to(device)), "negative": negative}, none
    behind = azimuth >= 90
    r = torch.where(behind, 2 - azimuth / 90, 1 - azimuth / 90)
    nearer, farther = (torch.where(above, 3, everywhere + behind.long() + step) for step in (0, 1))
    branches = {"positive": texts.pick(nearer).mix(texts.pick(farther), 1 - r), "negative": negative}
    if settings.direction == "interpolate":
        return branches, none
    perp = {"perp0": texts.pick(behind.long()), "perp1": texts.pick(torch.where(behind, 0, 1))}
    return {**branches, **perp}, _weights(r, behind, settings) * ~above[:, None]


def direction_of(cameras: Cameras, settings: PromptSettings) -> Int[Tensor, "B"]:
    """The direction of each view by the thresholds of ``settings``, as an index into DIRECTIONS."""
    azimuth = _from_front(cameras.azimuths)
    side = (azimuth >= settings.front).long()
    back = (azimuth > settings.back).long()
    above = cameras.elevations > settings.overhead
    return torch.where(above, 3, torch.where(azimuth < settings.front, 0, side + back))


def _weights(r: Float[Tensor, "B"], behind: Bool[Tensor, "B"], settings: PromptSettings) -> Float[Tensor, "B 2"]:
    curves = zip((settings.f_fs, settings.f_sf, settings.f_sb, settings.f_fsb), settings.f_cuts, strict=True)
    front, side, *after = (_curve(at, *curve) for at, curve in zip((r, 1 - r, r, r), curves, strict=True))
    return -torch.where(behind[:, None], torch.stack(after, 1), torch.stack([front, side], 1))


def _curve(r: Float[Tensor, "B"], curve: Curve, cut: float) -> Float[Tensor, "B"]:
    scale, rate, shift = curve
    return torch.where(r > cut, 0.0, scale * torch.exp(-rate * r) + shift)


def _from_front(azimuths: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """|azimuth| in 0..180."""
    return (torch.remainder(azimuths + 180, 360) - 180).abs()


def check_unicode(text: str) -> str:
    """Return ``text`` if tokenizers can read it.

    Raises:
        PromptError: it has lone surrogates, which Python makes of bytes on the command line that are not UTF-8.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(f"the prompt {text!r} is not valid Unicode: {error.reason}") from error
    return text
