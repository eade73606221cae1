"""Turns the errors of libraries into errors of ours, which say in one sentence what could not be done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gsdistill.core.device import out_of_memory
from gsdistill.core.errors import UserError, first_line

__all__ = ["failing_as"]


@contextmanager
def failing_as(kind: type[UserError], sentence: str, advice: str = "") -> Iterator[None]:
    """Raise ``kind`` in place of any error in the block: ``sentence``, a colon, the error's first line, ``advice``.

    All errors are caught, because libraries raise any kind on a broken file. Errors of ours, which are clear already,
    and a lack of memory, for which no file is to blame, pass unchanged.

    Raises:
        UserError: ``kind``, with the error as its cause.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        raise kind(f"{sentence}: {first_line(error)}{advice}") from error
