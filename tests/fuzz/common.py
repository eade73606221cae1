"""What the tests of broken files share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gsdistill.core.errors import BadFile, UserError


def refused(read: Callable[[Any], object], path: Any, error: type[UserError] = BadFile) -> str:
    """The one line in which ``read`` refuses what is at ``path``."""
    with pytest.raises(error) as caught:
        read(path)
    text = str(caught.value)
    assert text and "\n" not in text
    return text
