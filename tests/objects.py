"""What tests of everyday objects need: the meshes, where the variable GSDISTILL_OBJECTS names their folder."""

from __future__ import annotations

import pytest

from gsdistill.worlds.base import World, world_named
from gsdistill.worlds.objects.meshes import VARIABLE, folder

__all__ = ["known_world", "needs_meshes"]

needs_meshes = pytest.mark.skipif(folder() is None, reason=f"{VARIABLE} names no folder of meshes")


def known_world(name: str) -> World:
    """A world whose truth is at hand; without it the test is skipped."""
    if name == "objects" and folder() is None:
        pytest.skip(f"{VARIABLE} names no folder of meshes")
    return world_named(name)
