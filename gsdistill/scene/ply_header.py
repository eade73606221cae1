"""The header of a PLY file as programs write it, rewritten for the libraries that parse it.

Programs write comments of any bytes, lines that end in LF, CR or CRLF, blanks before these, and a byte order mark. The
libraries accept plain ASCII without any of that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from io import BufferedReader, BytesIO, FileIO
from pathlib import Path

from gsdistill.core.errors import BadFile

__all__ = ["LONGEST", "Header", "Rewritten", "begins", "read_header", "with_sound_header"]

LONGEST = 4 << 20  # bytes; programs write whole camera paths and histories into comments
FIRST = re.compile(rb"(?:\xef\xbb\xbf)?ply[ \t]*(\r\n|\n|\r)")
REMARKS = ("", "comment", "obj_info")  # the first words of lines that tell nothing about the data


@dataclass(frozen=True)
class Header:
    """The lines between ``ply`` and ``end_header``, without blanks at their ends."""

    lines: tuple[str, ...]
    size: int  # bytes of the file before the data

    @property
    def comments(self) -> list[str]:
        """The text of its comments."""
        return [line.removeprefix("comment").strip() for line in self.lines if _keyword(line) == "comment"]

    @property
    def plain(self) -> bytes:
        """The same header in ASCII, with an empty comment for each remark, so that line numbers stay true."""
        return _joined(["comment" if _keyword(line) in REMARKS else _ascii(line) for line in self.lines])

    @property
    def with_texture(self) -> bytes:
        """The same header without remarks, except those that name a texture, which follow the format; in UTF-8."""
        lines = [_ascii(line) for line in self.lines if _keyword(line) not in REMARKS]
        textures = [f"comment {text}" for text in self.comments if text.lower().startswith("texturefile")]
        return _joined([*lines[:1], *textures, *lines[1:]])


class Rewritten(BufferedReader):
    """A PLY file with another header; the data stay in the file, so that numpy can map them."""

    def __init__(self, raw: FileIO, header: bytes, size: int) -> None:
        super().__init__(raw)
        self._header = BytesIO(header)
        self.seek(size)

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most ``size`` bytes: the rest of the header first, then the data."""
        return self._header.read(size) or super().read(size)


def read_header(start: bytes, path: Path | str) -> Header:
    """Return the header of a file from its first 4 MiB or more; ``path`` is named in errors.

    Raises:
        BadFile: the file does not begin as a PLY file does, or its header has no end.
    """
    start = start[:LONGEST]
    if not begins(start):
        raise BadFile(f"{path}: not a PLY file; it does not begin with 'ply'")
    first = FIRST.match(start)
    ends = rb"\r" if first and first[1] == b"\r" else rb"\r?\n"
    last = re.search(rb"[\r\n]end_header[ \t]*" + ends, start) if first else None
    if first is None or last is None:
        within = f" within the {LONGEST:,} bytes that are read of it" if len(start) == LONGEST else ""
        raise BadFile(f"{path}: not a sound PLY file; its header does not end{within}")
    lines = re.split(rb"\r\n|\n|\r", start[first.end() : last.start()]) if last.start() > first.end() else []
    return Header(tuple(_decoded(line).strip() for line in lines), last.end())


def with_sound_header(data: bytes, path: Path | str) -> bytes:
    """Return the bytes of a PLY file with a header that trimesh reads; bytes of any other file as they are.

    Raises:
        BadFile: its header has no end; ``path`` is named.
    """
    if not begins(data):
        return data
    header = read_header(data, path)
    return header.with_texture + data[header.size :]


def begins(data: bytes) -> bool:
    """Whether the first bytes of a file are those of a PLY."""
    return data[:6].removeprefix(b"\xef\xbb\xbf").startswith(b"ply")


def _keyword(line: str) -> str:
    return line.split(None, 1)[0] if line else ""


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        return line.decode("latin-1")


def _ascii(line: str) -> str:
    """The line with escapes for letters outside of ASCII, which the name of a property may have."""
    return line.encode("ascii", "backslashreplace").decode("ascii")


def _joined(lines: list[str]) -> bytes:
    return "\n".join(["ply", *lines, "end_header", ""]).encode("utf-8")
