"""Broken Gaussians, as other programs leave them in files: refused or cleaned, and counted in either case.

A splat that a program made or changed is refused too if its tensors do not have the shapes of a splat.

Gaussians are left out if nothing shows what they were: a value is NaN, a position, colour or rotation is infinite, or a
deviation is infinitely large. They are mended if the meaning is plain:

* an infinite logit of opacity means opaque or transparent, and becomes 20 or -20;
* an infinitely small deviation is that of a disc, and its logarithm becomes -20;
* a quaternion of zeros, as programs write it that never rotate, becomes 1 0 0 0.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from gsdistill.core.errors import BadFile, ConfigError, tell
from gsdistill.core.structs import Gaussians, RenderOptions, on_processor
from gsdistill.scene.limits import NARROWEST, OPAQUE
from gsdistill.settings.config import validate

__all__ = ["check_splat", "ensure_sound"]

# The shapes of a splat's tensors, behind the number of Gaussians.
FORMS = {"means": [(3,)], "quats": [(4,)], "scales": [(3,)], "opacities": [()], "sh": [(k, 3) for k in (1, 4, 9, 16)]}

LEAST_LENGTH = 1e-12  # of a quaternion


def ensure_sound(gaussians: Gaussians, path: Path | str, clean: bool = False) -> Gaussians:
    """Return Gaussians whose values are all finite and whose quaternions are not zero; the same ones if all are so.

    With ``clean`` the others are left out or mended, and a Notice says how many and why.

    Raises:
        BadFile: some are not sound, and ``clean`` is not set; or none is left.
    """
    count, (lost, bad, reasons) = len(gaussians), _inspect(gaussians)
    if not bad:
        return gaussians
    if not clean:
        raise BadFile(
            f"{path}: {bad:,} of its {count:,} Gaussians are not sound: {reasons}; --clean (of a start: --init.clean) "
            "leaves them out or mends them"
        )
    n_lost = int(lost.sum())
    if n_lost == count:
        raise BadFile(f"{path}: no Gaussian is left of its {count:,}: {reasons}")
    tell(f"{path}: {n_lost:,} of its {count:,} Gaussians are left out and {bad - n_lost:,} mended: {reasons}")
    rest = gaussians.each(lambda value: value[~lost])
    zero = (rest.quats.double().norm(dim=-1, keepdim=True) < LEAST_LENGTH).expand_as(rest.quats)
    return replace(
        rest,
        quats=torch.where(zero, torch.tensor([1.0, 0.0, 0.0, 0.0]), rest.quats),
        scales=torch.where(rest.scales.isneginf(), NARROWEST, rest.scales),
        opacities=torch.where(rest.opacities.isinf(), rest.opacities.clamp(-OPAQUE, OPAQUE), rest.opacities),
    )


def check_splat(splat: Gaussians) -> None:
    """Refuse a splat that a program made or changed wrongly.

    Raises:
        ConfigError: a tensor has a wrong shape, type or device, an option is out of its range, or some of the Gaussians
            are not sound.
    """
    means: object = splat.means
    count, place = (len(means), means.device) if isinstance(means, Tensor) and means.ndim else (0, None)
    for name, tails in FORMS.items():
        value: object = getattr(splat, name)
        if not isinstance(value, Tensor):
            kind = f"a {type(value).__name__}"
        elif not (value.is_floating_point() and value.shape in [(count, *tail) for tail in tails]):
            kind = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        elif value.device != place:
            kind = f"on {value.device}, and means are on {place}"
        else:
            continue
        forms = " or ".join(f"[{', '.join(map(str, ('N', *tail)))}]" for tail in tails)
        raise ConfigError(f"{name} of the splat is {kind}; floats {forms} are expected, with the N and device of means")
    if not isinstance(splat.options, RenderOptions):
        raise ConfigError(f"options of the splat is a {type(splat.options).__name__}; RenderOptions are expected")
    validate(splat.options, "options")
    _, bad, reasons = _inspect(on_processor(splat))
    if bad:
        raise ConfigError(f"{bad:,} of the splat's {count:,} Gaussians are not sound: {reasons}")


def _inspect(gaussians: Gaussians) -> tuple[Bool[Tensor, "N"], int, str]:
    """Which Gaussians are to be left out, how many are not sound, and what is wrong with them in words."""
    by_loss, by_mending = _lost(gaussians), _mended(gaussians)
    lost = torch.stack(list(by_loss.values())).any(dim=0)
    counts = {reason: int(rows.sum()) for reason, rows in by_loss.items()}
    counts |= {reason: int((rows & ~lost).sum()) for reason, rows in by_mending.items()}
    bad = int((lost | torch.stack(list(by_mending.values())).any(dim=0)).sum())
    return lost, bad, ", ".join(f"{number:,} {reason}" for reason, number in counts.items() if number)


def _lost(gaussians: Gaussians) -> dict[str, Bool[Tensor, "N"]]:
    """Which Gaussians are to be left out, by what is wrong with them; each for its first reason alone."""
    fields = {name: value[:, None].flatten(1) for name, value in gaussians.tensors().items()}
    nan = [name for name, value in fields.items() if value.isnan().any()]
    reasons = {
        f"with NaN in {' '.join(nan)}": torch.cat(list(fields.values()), dim=1).isnan().any(dim=1),
        "at an infinite position": fields["means"].isinf().any(dim=1),
        "of an infinite size": fields["scales"].isposinf().any(dim=1),
        "of an infinite rotation": fields["quats"].isinf().any(dim=1),
        "of an infinite colour": fields["sh"].isinf().any(dim=1),
    }
    before = torch.zeros(len(gaussians), dtype=torch.bool)
    for name, rows in reasons.items():
        reasons[name] = rows & ~before
        before = before | rows
    return reasons


def _mended(gaussians: Gaussians) -> dict[str, Bool[Tensor, "N"]]:
    """Which Gaussians can be mended, by what is wrong with them."""
    return {
        "of an infinite opacity": gaussians.opacities.isinf(),
        "of no size": gaussians.scales.isneginf().any(dim=1),
        "without a rotation": gaussians.quats.double().norm(dim=-1) < LEAST_LENGTH,
    }
