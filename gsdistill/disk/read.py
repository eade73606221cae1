"""Reads files that may hold anything: only regular files, of a bounded size, text in UTF-8, and JSON.

A pipe or a device in place of a file could block a reader for ever, an endless text would fill the memory, and a few
compressed bytes can unpack to a thousand times as many.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import reprlib
import stat
import tempfile
import zlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from gsdistill.core.errors import BadFile

__all__ = [
    "brief",
    "first_bytes",
    "most_unpacked",
    "open_file",
    "open_unpacked",
    "parse_any",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_records",
    "read_text",
    "unpacked",
]

LARGEST = 64 << 20  # bytes of a text
LARGEST_RECORDS = 256 << 20  # bytes of metrics.jsonl; a million steps take less
MOST_STEPS = 2**53  # the largest whole number that every reader of JSON holds exactly
_BRIEF = reprlib.Repr()
_BRIEF.maxstring = _BRIEF.maxother = _BRIEF.maxlong = 80  # characters
_BRIEF.maxlist = _BRIEF.maxdict = 12
LONGEST = 240  # characters of a value in a message
GZIP = b"\x1f\x8b\x08"  # how a gzip file begins
LAYERS = 2  # of gzip, one inside the other
FREE, TIMES = 16 << 20, 32  # a file may unpack to so many bytes, or to so many times its size if that is more
# So a FIFO cannot block us, and no child process inherits the file; Windows reads the bytes unchanged.
READING = sum(getattr(os, flag, 0) for flag in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))  # and O_RDONLY, which is 0
STEP = 1 << 20  # bytes that are unpacked at a time


def open_file(path: Path | str) -> BinaryIO:
    """Open a file for reading bytes.

    Raises:
        BadFile: it does not exist, is a folder, a pipe or a device, or may not be read.
    """
    try:
        number = os.open(path, READING)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadFile(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    kind = os.fstat(number).st_mode
    if not stat.S_ISREG(kind):
        os.close(number)
        raise BadFile(f"{path}: cannot be read: it is a {'folder' if stat.S_ISDIR(kind) else 'pipe or a device'}")
    return os.fdopen(number, "rb")


def most_unpacked(size: int) -> int:
    """Return how many bytes a compressed file of ``size`` bytes may unpack to; more is refused."""
    return max(FREE, TIMES * size)


def open_unpacked(path: Path | str) -> BinaryIO:
    """Open a file for reading bytes. A gzip file is unpacked to a temporary file without a name first.

    Raises:
        BadFile: as :func:`open_file`; or the gzip file is broken, or unpacks to more than :func:`most_unpacked`.
    """
    file = open_file(path)
    most = most_unpacked(os.fstat(file.fileno()).st_size)
    for _ in range(LAYERS):
        packed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        if not packed:
            break
        with file:
            file = unpacked(file, most, path)
    return file


def first_bytes(path: Path | str, count: int) -> bytes:
    """Return the first ``count`` bytes of a file, unpacked if it is a gzip file; empty if that is broken.

    Raises:
        BadFile: as :func:`open_file`.
    """
    with ExitStack() as opened:
        file: Any = opened.enter_context(open_file(path))
        try:
            for _ in range(LAYERS):
                packed = file.read(len(GZIP)) == GZIP
                file.seek(0)
                if packed:
                    file = opened.enter_context(gzip.GzipFile(fileobj=file, mode="rb"))
            return file.read(count)
        except (OSError, EOFError, zlib.error):
            return b""


def unpacked(packed: BinaryIO, most: int, path: Path | str) -> BinaryIO:
    """Unpack a gzip file to a temporary file without a name, and return that, open at its start.

    Raises:
        BadFile: it is broken, or holds more than ``most`` bytes. The message names ``path``.
    """
    try:
        with ExitStack() as failed, gzip.GzipFile(fileobj=packed) as stream:
            file = failed.enter_context(tempfile.TemporaryFile())
            while part := stream.read(STEP):
                file.write(part)
                if file.tell() > most:
                    held = f"it holds more than {most:,} bytes; gunzip it first if you trust it"
                    raise BadFile(f"{path}: cannot be unpacked: {held}")
            file.seek(0)
            failed.pop_all()
    except (OSError, EOFError, zlib.error) as error:
        raise BadFile(f"{path}: cannot be unpacked: {getattr(error, 'strerror', None) or error}") from error
    return file


def read_bytes(path: Path | str, largest: int = LARGEST) -> bytes:
    """Return the bytes of a file.

    Raises:
        BadFile: as :func:`open_file`, or it holds more than ``largest`` bytes.
    """
    with open_file(path) as file:
        try:
            data = file.read(largest + 1)
        except OSError as error:
            raise BadFile(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > largest:
        raise BadFile(f"{path}: cannot be read: it is larger than {largest:,} bytes")
    return data


def read_text(path: Path | str, largest: int = LARGEST) -> str:
    """Return the text of a file in UTF-8, with or without a byte order mark; every line end becomes a line feed.

    Raises:
        BadFile: as :func:`read_bytes`, or it is not UTF-8.
    """
    try:
        text = read_bytes(path, largest).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"{path}: cannot be read: it is not UTF-8 text: {error.reason} at byte {error.start}") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_json(path: Path | str) -> dict[str, Any]:
    """Return the JSON object that a file holds, read by :func:`parse_json`.

    Raises:
        BadFile: as :func:`read_text` and :func:`parse_json`.
    """
    return parse_json(read_text(path), str(path))


def read_records(path: Path | str) -> list[dict[str, Any]]:
    """Return the JSON objects in the lines of a file, each with a whole number as ``step``; none if there is no file.

    Raises:
        BadFile: as :func:`read_text`; or a line, which the message names, is not such a record.
    """
    records = []
    for place, line in enumerate(read_text(path, LARGEST_RECORDS).splitlines() if Path(path).exists() else [], start=1):
        record = parse_json(line, f"{path}, line {place}")
        step = record.get("step")
        if not isinstance(step, int) or isinstance(step, bool) or abs(step) > MOST_STEPS:
            raise BadFile(f"{path}, line {place}: the record names no step")
        records.append(record)
    return records


def parse_json(text: str, where: str) -> dict[str, Any]:
    """Return the JSON object that ``text`` holds; numbers that are not finite become None.

    Raises:
        BadFile: as :func:`parse_any`, or it holds another kind of value.
    """
    value = parse_any(text, where)
    if not isinstance(value, dict):
        raise BadFile(f"{where}: expected a JSON object, found {brief(value)}")
    return value


def parse_any(text: str, where: str) -> Any:
    """Return the JSON value that ``text`` holds; numbers that are not finite become None.

    Raises:
        BadFile: it is not JSON, is nested too deeply, or has text that is not Unicode. The message names ``where``.
    """
    try:
        value = json.loads(text, parse_constant=lambda name: None, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape")  # raises for a lone surrogate
    except RecursionError as error:
        raise BadFile(f"{where}: not valid JSON: it is nested too deeply") from error
    except ValueError as error:
        raise BadFile(f"{where}: not valid JSON: {error}") from error
    return value


def brief(value: object) -> str:
    """Return a value as a message shows it: as Python writes it, cut if it is long or deeply nested, in one line."""
    text = " ".join(_BRIEF.repr(value).split())  # a tensor's has several lines
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _finite(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None
