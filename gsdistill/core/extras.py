"""The packages that only some commands need: which extra they belong to, and the error if one is missing."""

from __future__ import annotations

import importlib.util

from gsdistill.core.errors import NotInstalled

__all__ = ["EXTRAS", "missing", "require"]

# for each extra of pyproject.toml: the modules that are imported, and the packages that contain them
EXTRAS: dict[str, dict[str, str]] = {
    "formats": {"gsply": "gsply", "zstandard": "zstandard"},
    "logs": {"tensorboard": "tensorboard", "wandb": "wandb"},
    "mesh": {"skimage": "scikit-image", "xatlas": "xatlas"},
    "viewer": {"viser": "viser"},
}


def missing(extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    return [package for module, package in EXTRAS[extra].items() if importlib.util.find_spec(module) is None]


def require(extra: str, doing: str, only: str = "") -> None:
    """Refuse something that needs an extra which is not installed; ``doing`` names it, as in "writing .spz".

    ``only`` names the one package of the extra that is needed, if not all are.

    Raises:
        NotInstalled: a package is missing; the message has the command that installs it.
    """
    lacking = [package for package in missing(extra) if only in ("", package)]
    if lacking:
        raise NotInstalled(
            f"{doing} needs {' and '.join(lacking)} (the extra '{extra}'): pip install {' '.join(lacking)}"
        )
