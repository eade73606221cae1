"""What a library raises, as an error of ours that says in one sentence what could not be done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gsdistill.core.device import out_of_memory
from gsdistill.core.errors import UserError, first_line

__all__ = ["failing_as"]


@contextmanager
def failing_as(kind: type[UserError], sentence: str, advice: str = "") -> Iterator[None]:
    """Raise ``kind`` in place of any error in the block: the sentence, a colon, what the error says, and the advice.

    The libraries raise anything on a broken file, so that there is no list of errors to expect. Errors of ours say
    enough already, and where memory is short no file is to blame: both pass.

    Raises:
        UserError: ``kind``, from the error.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, UserError) or out_of_memory(error):
            raise
        raise kind(f"{sentence}: {first_line(error)}{advice}") from error
