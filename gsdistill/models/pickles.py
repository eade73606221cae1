"""Reads PyTorch's own files, archives of a pickle and the numbers of its tensors; nothing but tensors is built.

Torch's own ``weights_only`` builds more: with ``bytearray(N)`` a file of a few bytes takes any amount of memory, and so
does ``OrderedDict(x)`` of a tensor whose strides are zero. Therefore every pickle is checked first, without running it.

Two kinds are refused: bare pickles, as PyTorch wrote them before 1.6 (2020), which can make the reader take any amount
of memory; and archives with compressed members, which PyTorch does not write and which can unpack to a thousand times
their size.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from gsdistill.core.errors import BadFile
from gsdistill.core.failing import failing_as
from gsdistill.disk.read import brief

__all__ = ["read_pickle"]

LARGEST = 8 << 20  # bytes of a pickle; a tensor takes about two hundred
# What state dicts and checkpoints of Lightning (epochs, callbacks, optimizers) call, and with which arguments, as
# :func:`_check` writes them. A Counter is in the state of MultiStepLR.
CALLS = {
    "torch._utils _rebuild_tensor_v2": r".*",
    "torch._utils _rebuild_tensor_v3": r".*",
    "torch._utils _rebuild_parameter": r".*",
    "torch device": r".*",
    "torch Size": r"\(tuple\)",
    "collections OrderedDict": r"\(\)",
    "collections Counter": r"\((dict)?\)",
}
DICTS = ("collections OrderedDict", "collections Counter")
# The operations of protocol 2 that PyTorch writes. Other ways to name and to build things are not among them.
OPERATIONS = (
    "PROTO", "STOP", "MARK", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "BINGET", "LONG_BINGET", "BINPUT", "LONG_BINPUT",
    "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING",
    "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM",
    "SETITEMS",
)  # fmt: skip


def read_pickle(path: Path, device: str = "cpu") -> Any:
    """Return the object in a file, with tensors on ``device``; on ``meta`` no values are read.

    Raises:
        BadFile: it is not such an archive, is cut off or damaged, or pickles more than tensors, which is not run.
        MemoryError, RuntimeError: there is no memory for it (:func:`gsdistill.core.device.out_of_memory`).
    """
    with failing_as(BadFile, f"{path} cannot be read as a checkpoint of PyTorch"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a pickle's protocol and strings; what it holds is what decides
        with zipfile.ZipFile(path) as archive:
            odd = [item.filename for item in archive.infolist() if item.compress_type != zipfile.ZIP_STORED]
        if odd:
            raise BadFile(f"{path} is compressed ({odd[0]!r}), as PyTorch's files are not, and is not read")
        reader = torch._C.PyTorchFileReader(str(path))  # torch's: another may find another pickle in the same file
        if (size := _size(reader, "data.pkl")) > LARGEST:
            raise BadFile(f"{path}: its pickle has {size} bytes, where one of tensors has {LARGEST} at most")
        try:
            _check(path, reader.get_record("data.pkl"))
            return torch.load(path, map_location=device, weights_only=True, mmap=True)
        except (pickle.UnpicklingError, LookupError) as error:
            # torch's own words say how to read it unsafely; those of a stack or memo only what it lacks
            raise ValueError("its pickle is broken") from error


def _size(reader: Any, record: str) -> int:
    """The bytes of a record. PyTorch 2.11 must read it to know; its size is then bounded by the file's."""
    return reader.get_record_size(record) if hasattr(reader, "get_record_size") else len(reader.get_record(record))


def _check(path: Path, data: bytes) -> None:
    """Go through a pickle with the kinds of objects on the stack, in place of the objects.

    A kind is a global's module and name, ``()`` for an empty tuple, ``(kind)`` for a tuple of one, or pickletools' own.

    Raises:
        BadFile: it names, calls or does something that no file of tensors needs. Other errors: it is broken.
    """
    stack: list[str] = []
    memo: dict[Any, str] = {}
    for operation, argument, _ in pickletools.genops(data):
        name = operation.name
        if name not in OPERATIONS:
            raise _more(path, f"the operation {name}")
        if name == "GLOBAL":
            if not _is_plain(str(argument)):
                raise _more(path, _dotted(argument))
            stack.append(str(argument))
        elif name.endswith("BINPUT"):
            memo[argument] = stack[-1]
        elif name.endswith("BINGET"):
            stack.append(memo[argument])
        elif name in ("REDUCE", "BUILD"):
            second, first = stack.pop(), stack.pop()
            if name == "BUILD" and (first, second) != ("dict", "dict"):  # a state dict and its metadata
                raise _more(path, "a state for what is no dictionary")
            if name == "REDUCE" and not (first in CALLS and re.fullmatch(CALLS[first], second)):
                raise _more(path, f"a call of {_dotted(first)}")
            stack.append("dict" if name == "BUILD" or first in DICTS else "any")
        else:
            _move(stack, operation)


def _move(stack: list[str], operation: pickletools.OpcodeInfo) -> None:
    """Change the stack of kinds as the operation changes that of objects."""
    before = [kind.name for kind in operation.stack_before]
    if "mark" in before:
        while stack.pop() != "mark":
            pass
        before = before[: before.index("mark")]
    popped = [stack.pop() for _ in before]
    if operation.name == "EMPTY_TUPLE":
        stack.append("()")
    elif operation.name == "TUPLE1":
        stack.append("(tuple)" if popped[0].startswith("(") else f"({popped[0]})")
    else:
        stack.extend(kind.name for kind in operation.stack_after)


def _is_plain(name: str) -> bool:
    """Whether a global is one of CALLS, a class of storages or a dtype; the last two are only named, not called."""
    module, _, thing = name.partition(" ")
    if name in CALLS or name == "torch.storage UntypedStorage":
        return True
    storage = re.fullmatch(r"[A-Z]\w*Storage", thing) is not None
    return module == "torch" and (storage or isinstance(getattr(torch, thing, None), torch.dtype))


def _dotted(name: Any) -> str:
    return brief(str(name).replace(" ", "."))


def _more(path: Path, what: str) -> BadFile:
    return BadFile(
        f"{path} is a pickle of more than tensors ({what}), which could run any code or take any memory, and is not "
        "read; convert it to .safetensors where you trust it"
    )
