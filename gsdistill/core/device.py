"""The one place where the device of a run is chosen, and asked what it is and what it holds."""

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

if hasattr(os, "register_at_fork"):  # a child has none of OpenMP's threads, for which torch would wait for ever
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))

T = TypeVar("T")
CHOICES = ("auto", "cpu", "cuda", "mps")
APPLE = ("mps",)
WARM = 3  # calls before one is recorded
# What torch, its libraries and the C++ runtime say in a plain RuntimeError where memory is short.
SHORT = (
    "can't allocate memory", "not enough memory", "out of memory", "std::bad_alloc", "ALLOC_FAILED",
    "could not create a memory",
)  # fmt: skip
# What they say in one where an accelerator, its driver or a library for it fails.
BROKEN = (
    "CUDA error", "CUDA driver", "CUDA unknown error", "cudaGetDeviceCount", "NVIDIA driver", "no kernel image",
    "cuDNN", "CUDNN_STATUS", "CUBLAS_STATUS", "CUSOLVER_STATUS", "HIP error", "MPS backend",
)  # fmt: skip


def choose(name: str, say: Callable[[str], None] = lambda line: None) -> torch.device:
    """Return the device called ``name``: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``, once it has computed.

    ``auto`` is a CUDA device where there is one, else the CPU; it never takes ``mps``: no renderer of ours runs there,
    so that a run draws on the CPU and only its prior computes on the GPU, which has not been tried.
    Where there is one that cannot be used, it is the CPU too, and ``say`` is told why.

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
    """Refuse that torch makes tensors otherwise than it does of itself: they would meet others, and not fit them.

    Raises:
        ConfigError: its default type or device is another.
    """
    kind, place = torch.get_default_dtype(), torch.get_default_device()
    if kind != torch.float32 or place.type != "cpu":
        raise ConfigError(
            f"torch makes tensors of {str(kind).removeprefix('torch.')} on {place} by default, and float32 on cpu is "
            "needed: torch.set_default_dtype(torch.float32); torch.set_default_device('cpu')"
        )


def listed() -> str | None:
    """The accelerator that ``auto`` would take, as far as torch lists one."""
    return "cuda" if torch.cuda.is_available() and torch.cuda.device_count() else None


@lru_cache
def refusal(name: str) -> str | None:
    """Why an accelerator cannot be used: what torch says of a first sum there, in one line; None where it is right.

    Tried once in a process. One without free memory can be used, by a run that asks for less.
    """
    try:
        total = float((2.0 * torch.full((3,), 1.5, device=name)).sum())
    except (RuntimeError, AssertionError) as error:  # AssertionError: of a torch that was built without it
        return None if out_of_memory(error) else first_line(error)
    return None if total == 9.0 else f"it computes 3 x 2 x 1.5 = {total:g}"


def prepare(device: torch.device, deterministic: bool = False) -> None:
    """Make this process compute on ``device``; called once it is chosen, and before anything is computed there.

    A numbered device becomes the current one of the calling thread: an event, and what a library makes without being
    told where, go there. cuDNN tries its algorithms on each shape, of which a run has few, unless it is to be
    ``deterministic``. That lets this process compute the same bits as any other on this machine, as far as torch can:
    on a CPU torch gets one thread, for the order of its sums follows their number. On a CUDA device it takes
    algorithms that sum in one order, and warns where it has none; gsplat's backward adds up in the order in which
    threads arrive, which nothing here changes.
    """
    if device.index is not None:
        torch.accelerator.set_device_index(device.index)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
        torch.use_deterministic_algorithms(True, warn_only=True)
        # It would write NaN into all memory that is asked for, to show who reads what nobody has written: a kernel
        # more for each tensor, and it changes no bit of a program that reads none.
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
    """What an accelerator, its driver or a library for it says where it fails, in one line; None of other errors."""
    broken = isinstance(error, torch.AcceleratorError)
    told = isinstance(error, RuntimeError) and any(words in str(error) for words in BROKEN)
    return first_line(error) if broken or told else None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether this is a processor that multiplies bfloat16 faster than float32: in tiles (AMX) or by AVX512_BF16."""
    return device.type == "cpu" and (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def fastest_float(device: torch.device) -> torch.dtype:
    """The floating type that a device multiplies fastest in its own circuits: bfloat16, or float16 on older GPUs.

    It is float32 on a processor that has neither, and on Apple's GPUs, where the others have not been tried.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if multiplies_bfloat16(device) else torch.float32


def describe(device: torch.device) -> str:
    """Return what a person calls a device: its name and memory, or the processor's architecture."""
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
    """The floating type of most digits that a device has: float64, or float32 where there is none."""
    return torch.float32 if device.type in APPLE else torch.float64


def heeds_found_inf(device: torch.device) -> bool:
    """Whether torch's fused Adam changes nothing where its argument ``found_inf`` is 1; Apple's kernel never reads it.

    Source: PyTorch, aten/src/ATen/native/mps/operations/FusedAdamKernelImpl.mm.
    """
    return device.type not in APPLE


def forget_peak(device: torch.device) -> None:
    """Let :func:`peak_memory` begin anew on a CUDA device; the peak of a process, and Apple's, stay what they were."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes held at once: of tensors on a CUDA device, else by this process in main memory.

    On an Apple GPU it is what torch has taken of its memory by now, which it seldom gives back. In main memory under
    Windows it is not known: 0.
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
    """Let an accelerator multiply float32 as it is, or faster, rounded to the 10 bits of TF32; nothing on a CPU.

    Left alone, PyTorch rounds in convolutions and not in matrix products. It is one choice for all of a process.
    """
    if device.type != "cpu":
        # Not by ``fp32_precision``: where that was written, readers of the older names raise, torch.compile among them.
        torch.set_float32_matmul_precision("highest" if exact else "high")
        torch.backends.cudnn.allow_tf32 = not exact


def recorder(device: torch.device) -> Callable[[Callable[[], T]], tuple[Callable[[], None], T]]:
    """What records the work that a function without arguments gives a CUDA device.

    It returns what does that work once more, on the same memory, and what the function returned, where the work leaves
    its results, which must be copied before other work of this recorder is done. The function must not wait for the
    device, and is called some times before it is recorded: libraries choose their algorithms and take memory then.

    Raises:
        ConfigError: of the setting model.graph: the device is none that records; or, once it is tried, cannot do so.
    """
    if device.type != "cuda":
        raise ConfigError(f"model.graph: only a CUDA device replays recorded calls, and this run is on {device}")
    return partial(_record, torch.cuda.graph_pool_handle())


def _record(pool: Any, work: Callable[[], T]) -> tuple[Callable[[], None], T]:
    """``pool``: memory that all of one recorder's works share, since results are copied before another is replayed."""
    here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
    aside.wait_stream(here)
    with torch.cuda.stream(aside):
        for _ in range(WARM):
            work()
    here.wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, pool, capture_error_mode="thread_local"):  # others may show the scene meanwhile
            result = work()
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        cause = first_line(error.__context__ or error)  # the end of a recording that failed fails too
        raise ConfigError(f"model.graph: this network's calls cannot be recorded: {cause}") from error
    return graph.replay, result
