"""Gaussians that are none: what other programs leave in their files, refused or cleaned, and counted in either case.

What was made or changed by hand in a program is refused too, where its tensors have not the forms of a splat.

Left out, for nothing tells what they were: a value that is NaN, an infinite position, colour or rotation, and a
deviation that is infinitely large. Mended, for what is meant is plain:

* an infinite logit of opacity is quite opaque or quite transparent, and becomes 20 or -20;
* an infinitely small deviation is that of a disc, and its logarithm becomes -20;
* a quaternion of zeros, which programs write that never turn anything, becomes 1 0 0 0.
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

__all__ = ["check_splat", "sound"]

# Of the tensors of a splat, behind the number of Gaussians.
FORMS = {"means": [(3,)], "quats": [(4,)], "scales": [(3,)], "opacities": [()], "sh": [(k, 3) for k in (1, 4, 9, 16)]}

LEAST_LENGTH = 1e-12  # of a quaternion


def sound(gaussians: Gaussians, path: Path | str, clean: bool = False) -> Gaussians:
    """Return the Gaussians whose values are all finite and whose quaternions are not zero; the same ones if all are so.

    With ``clean`` a Notice tells how many were left out or mended, and why.

    Raises:
        BadFile: some are not sound, and ``clean`` is not set; or none is left.
    """
    count, (gone, bad, found) = len(gaussians), _found(gaussians)
    if not found:
        return gaussians
    if not clean:
        raise BadFile(
            f"{path}: {bad:,} of its {count:,} Gaussians are not sound: {found}; --clean (of a start: --init.clean) "
            "leaves them out or mends them"
        )
    left = int((~gone).sum())
    if not left:
        raise BadFile(f"{path}: no Gaussian is left of its {count:,}: {found}")
    tell(f"{path}: {count - left:,} of its {count:,} Gaussians are left out and {bad - count + left:,} mended: {found}")
    rest = gaussians.each(lambda value: value[~gone])
    zero = (rest.quats.double().norm(dim=-1, keepdim=True) < LEAST_LENGTH).expand_as(rest.quats)
    return replace(
        rest,
        quats=torch.where(zero, torch.tensor([1.0, 0.0, 0.0, 0.0]), rest.quats),
        scales=torch.where(rest.scales.isneginf(), NARROWEST, rest.scales),
        opacities=torch.where(rest.opacities.isinf(), rest.opacities.clamp(-OPAQUE, OPAQUE), rest.opacities),
    )


def check_splat(splat: Gaussians) -> None:
    """Refuse a splat that was made or changed by hand into none.

    Raises:
        ConfigError: a tensor has not the form of a splat's, an option is out of its range, or some of the Gaussians are
            not sound.
    """
    means: object = splat.means
    count, place = (len(means), means.device) if isinstance(means, Tensor) and means.ndim else (0, None)
    for name, tails in FORMS.items():
        value: object = getattr(splat, name)
        if not isinstance(value, Tensor):
            told = f"a {type(value).__name__}"
        elif not (value.is_floating_point() and value.shape in [(count, *tail) for tail in tails]):
            told = f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
        elif value.device != place:
            told = f"on {value.device}, and means are on {place}"
        else:
            continue
        forms = " or ".join(f"[{', '.join(map(str, ('N', *tail)))}]" for tail in tails)
        raise ConfigError(f"{name} of the splat is {told}; floats {forms} are expected, with the N and device of means")
    if not isinstance(splat.options, RenderOptions):
        raise ConfigError(f"options of the splat is a {type(splat.options).__name__}; RenderOptions are expected")
    validate(splat.options, "options")
    _, bad, found = _found(on_processor(splat))
    if found:
        raise ConfigError(f"{bad:,} of the splat's {count:,} Gaussians are not sound: {found}")


def _found(gaussians: Gaussians) -> tuple[Bool[Tensor, "N"], int, str]:
    """Which are left out, how many are not sound, and in words what is wrong with them: none where all are sound."""
    lost, mended = _lost(gaussians), _mended(gaussians)
    gone = torch.stack(list(lost.values())).any(dim=0)
    kinds = {name: int(rows.sum()) for name, rows in lost.items()}
    kinds |= {name: int((rows & ~gone).sum()) for name, rows in mended.items()}
    listed = ", ".join(f"{number:,} {name}" for name, number in kinds.items() if number)
    bad = int((gone | torch.stack(list(mended.values())).any(dim=0)).sum())
    return gone, bad, listed


def _lost(gaussians: Gaussians) -> dict[str, Bool[Tensor, "N"]]:
    """Which rows are left out, by what is wrong with them; each for its first reason alone."""
    tensors = gaussians.tensors()
    fields = {name: value.flatten(1) if value.ndim > 1 else value[:, None] for name, value in tensors.items()}
    nan = [name for name, value in fields.items() if value.isnan().any()]
    reasons = {
        f"with NaN in {' '.join(nan)}": torch.stack([v.isnan().any(dim=1) for v in fields.values()]).any(dim=0),
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
    """Which rows are mended, by what is wrong with them."""
    return {
        "of an infinite opacity": gaussians.opacities.isinf(),
        "of no size": gaussians.scales.isneginf().any(dim=1),
        "without a rotation": gaussians.quats.double().norm(dim=-1) < LEAST_LENGTH,
    }
