"""The one place where the device of a run is chosen, prepared, and asked for its properties."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from gsdistill.core.errors import ConfigError, did_you_mean, first_line

__all__ = [
    "check_defaults",
    "choose",
    "describe",
    "exact_products",
    "failure",
    "fastest_float",
    "forget_peak",
    "heeds_found_inf",
    "listed",
    "multiplies_bfloat16",
    "out_of_memory",
    "peak_memory",
    "prepare",
    "processor",
    "recorder",
    "refusal",
    "widest_float",
]

if hasattr(os, "register_at_fork"):  # a forked child lacks OpenMP's threads, and torch would wait for them for ever
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

T = TypeVar("T")
CHOICES = ("auto", "cpu", "cuda", "mps")
APPLE = ("mps",)
WARM = 3  # calls before one is recorded
# Words in a plain RuntimeError of torch, its libraries or the C++ runtime when memory is short.
SHORT = (
    "can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc", "ALLOC_FAILED",
    "could not create a memory",
)  # fmt: skip
# Words in one when an accelerator, its driver or a library for it fails.
BROKEN = (
    "CUDA error", "CUDA driver", "CUDA unknown error", "cudaGetDeviceCount", "NVIDIA driver", "no kernel image",
    "cuDNN", "CUDNN_STATUS", "CUBLAS_STATUS", "CUSOLVER_STATUS", "HIP error", "MPS backend",
)  # fmt: skip


def choose(name: str, say: Callable[[str], None] = lambda line: None) -> torch.device:
    """Return the device called ``name``: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``, after trying it.

    ``auto`` is a CUDA device if there is one that can be used, else the CPU; if there is one that cannot be used,
    ``say`` gets a line with the reason. ``auto`` never takes ``mps``: no renderer of ours runs there, so that only the
    prior would compute on the GPU, which has not been tried.

    Raises:
        ConfigError: no such kind of device, or this machine has none that can be used.
    """
    kind, _, index = name.partition(":")
    if kind not in CHOICES or not (index.isdecimal() if ":" in name else True) or (index and kind != "cuda"):
        raise ConfigError(
            f"device = '{name}' is not a device.{did_you_mean(name, CHOICES)} Allowed: auto, cpu, cuda, cuda:1, mps"
        )
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        best = listed()
        reason = refusal(best) if best else None
        if reason:
            say(f"device: cpu ({best} is listed, and cannot be used: {reason})")
        return torch.device(best if best and not reason else "cpu")
    if kind == "cuda" and int(index or 0) >= count:
        raise ConfigError(f"device = '{name}': CUDA devices of this machine: {count}; use --device auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device = 'mps': this machine has no Apple GPU; use --device auto or cpu")
    if kind != "cpu" and (reason := refusal(name)):
        raise ConfigError(
            f"device = '{name}' is listed, and cannot be used: {reason}; use --device cpu, or a torch that fits the GPU"
        )
    return torch.device(name)


def check_defaults() -> None:
    """Refuse to work if the default type or device of torch was changed: our tensors would not fit each other.

    Raises:
        ConfigError: the default type is not float32, or the default device is not the CPU.
    """
    kind, place = torch.get_default_dtype(), torch.get_default_device()
    if kind != torch.float32 or place.type != "cpu":
        raise ConfigError(
            f"torch makes tensors of {str(kind).removeprefix('torch.')} on {place} by default, and float32 on cpu is "
            "needed: torch.set_default_dtype(torch.float32); torch.set_default_device('cpu')"
        )


def listed() -> str | None:
    """The accelerator that ``auto`` would try, ``cuda``, if torch lists one; else None."""
    return "cuda" if torch.cuda.is_available() and torch.cuda.device_count() else None


@lru_cache
def refusal(name: str) -> str | None:
    """Why an accelerator cannot be used: the first line of torch's error for a sum on it; None if the sum is right.

    It is tried once in a process. A device without free memory counts as usable, since a run may ask for less.
    """
    try:
        total = float((2.0 * torch.full((3,), 1.5, device=name)).sum())
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without it
        return None if out_of_memory(error) else first_line(error)
    return None if total == 9.0 else f"it computes 3 x 2 x 1.5 = {total:g}"


def prepare(device: torch.device, deterministic: bool = False) -> None:
    """Set this process up to compute on ``device``. Call it before anything is computed there.

    A numbered device becomes the current device of the calling thread, where events and libraries that name no device
    put their work. cuDNN tries its algorithms on each new shape (a run has few), unless ``deterministic`` is set.

    With ``deterministic`` this process computes the same bits as any other on this machine, as far as torch can. On a
    CPU torch then uses one thread, since the order of its sums depends on the number of threads. On a CUDA device it
    uses algorithms that sum in a fixed order, and warns where it has none. gsplat's backward still adds in the order in
    which threads arrive.
    """
    if device.index is not None:
        torch.accelerator.set_device_index(device.index)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Else torch fills new memory with NaN, to expose reads of unwritten memory: a kernel more for each tensor,
        # which changes no bit of a program without such reads.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        if device.type == "cpu":
            torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the machine or its accelerator has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in SHORT)


def failure(error: BaseException) -> str | None:
    """The first line of an error of an accelerator, its driver or a library for it; None for any other error."""
    broken = isinstance(error, torch.AcceleratorError)
    named = isinstance(error, RuntimeError) and any(words in str(error) for words in BROKEN)
    return first_line(error) if broken or named else None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the device is a processor that multiplies bfloat16 faster than float32: by AMX or AVX512_BF16."""
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def fastest_float(device: torch.device) -> torch.dtype:
    """The floating type that a device multiplies fastest in hardware: bfloat16, or float16 on older GPUs.

    It is float32 on a processor that has neither, and on Apple's GPUs, where the others have not been tried.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


def describe(device: torch.device) -> str:
    """Return a device for messages: a GPU with its name and memory, else the type and the machine's architecture."""
    if device.type != "cuda":
        return f"{device.type} ({platform.machine()})"
    properties = torch.cuda.get_device_properties(device)
    return f"{device} ({properties.name}, {properties.total_memory / 2**30:.0f} GiB)"


def processor() -> str:
    """Return the model of this machine's processor, or its architecture where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def widest_float(device: torch.device) -> torch.dtype:
    """The widest floating type that a device has: float64, or float32 on Apple's GPUs."""
    return torch.float32 if device.type in APPLE else torch.float64


def heeds_found_inf(device: torch.device) -> bool:
    """Whether torch's fused Adam leaves the parameters alone if its ``found_inf`` is 1; Apple's kernel never reads it.

    Source: PyTorch, aten/src/ATen/native/mps/operations/FusedAdamKernelImpl.mm.
    """
    return device.type not in APPLE


def forget_peak(device: torch.device) -> None:
    """Reset :func:`peak_memory` of a CUDA device; the figures of other devices cannot be reset."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held at once: by tensors on a CUDA device, else by this process in main memory.

    On an Apple GPU it is the memory that torch holds now, which it seldom gives back. For main memory under Windows it
    is not known, and 0 is returned.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def exact_products(exact: bool, device: torch.device) -> None:
    """Let an accelerator multiply float32 in full (``exact``), or faster in TF32 with 10 bits; no effect for a CPU.

    By default PyTorch uses TF32 in convolutions and not in matrix products. The setting is one for the whole process.
    """
    if device.type != "cpu":
        # Not by ``fp32_precision``: once that is set, code that reads the older names raises, torch.compile among it.
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact


def recorder(device: torch.device) -> Callable[[Callable[[], T]], tuple[Callable[[], None], T]]:
    """Return a function that records the work which a call of its argument gives a CUDA device, as a CUDA graph.

    It returns a function that does that work again on the same memory, and the result of the call: each replay writes
    its result there. Copy the result before anything else of this recorder is replayed. The recorded call must not wait
    for the device. It is made 3 times before, because libraries then choose algorithms and take memory.

    Raises:
        ConfigError: the device is not a CUDA device. The returned function raises it if the call cannot be recorded.
    """
    if device.type != "cuda":
        raise ConfigError(f"model.graph: only a CUDA device replays recorded calls, and this run is on {device}")
    return partial(_record, torch.cuda.graph_pool_handle())


def _record(pool: Any, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
    """``pool``: memory that all recordings of one recorder share, since a result is copied before the next replay."""
    here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        for _ in range(WARM):
            work()
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, pool, capture_error_mode="thread_local"):  # other threads may draw meanwhile
            result = work()
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        cause = first_line(error.__context__ or error)  # if recording failed, ending it fails too
        raise ConfigError(f"model.graph: this network's calls cannot be recorded: {cause}") from error
    return graph.replay, result
