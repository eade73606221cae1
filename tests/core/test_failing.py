import pytest
import torch

from gsdistill.core.errors import BadFile, PromptError, first_line
from gsdistill.core.failing import failing_as


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("too long\nand more"), "too long"),
        (RuntimeError("  \n"), "RuntimeError"),
        (AssertionError(), "AssertionError"),
        (KeyError("beta_start"), "there is no 'beta_start'"),
        (KeyError("no such file in the archive"), "'no such file in the archive'"),
        (RuntimeError("Error in loading state_dict for Net:\n\tMissing key: weight\n\tand more"), "Error in loading "
         "state_dict for Net: Missing key: weight"),
        (OSError(2, "No such file", "a b"), "[Errno 2] No such file: 'a b'"),
    ],
)  # fmt: skip
def test_an_error_of_a_library_becomes_one_sentence_that_keeps_its_cause(error, said):
    with pytest.raises(BadFile) as caught, failing_as(BadFile, "a.ply is broken", "; fetch it again"):
        raise error
    assert str(caught.value) == f"a.ply is broken: {said}; fetch it again"
    assert caught.value.__cause__ is error and first_line(error) == said


@pytest.mark.parametrize(
    "error",
    [
        PromptError("too long"), BadFile("b.ply: cut off"), MemoryError(), KeyboardInterrupt(), SystemExit(3),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_errors_of_ours_and_a_lack_of_memory_and_the_users_stop_pass(error):
    with pytest.raises(type(error)) as caught, failing_as(BadFile, "a.ply is broken"):
        raise error
    assert caught.value is error


def test_what_goes_well_is_left_alone():
    with failing_as(BadFile, "a.ply is broken"):
        done = 1
    assert done == 1
