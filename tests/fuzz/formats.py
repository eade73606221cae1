"""Ways to spoil a file by what it is: headers of safetensors and PLY, pickles, packed splats, and command lines."""

from __future__ import annotations

import gzip
import io
import json
import pickletools
import struct
import zipfile
from random import Random
from typing import Any

from fuzz.mutate import BYTES, INTEGERS, NUMBERS, WORDS, flip, graft, lines, number, spoil, words

DTYPES = ("F64", "F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64", "x")
KINDS = ("float", "double", "uchar", "int", "uint16", "list uchar int", "list double int", "list int float", "half", "")
OPERATIONS = (
    b"cos\nsystem\n(V:\ntR", b"cbuiltins\neval\n(V0\ntR", b"ctorch\nTensor\n)R", b"ccollections\nOrderedDict\n)R",
    b"(lp0\n", b"N", b"J\xff\xff\xff\x7f", b"0", b"2", b".", b"b", b"R",
)  # fmt: skip
FLAGS = ("--help", "-h", "--", "-", "--x", "--method", "--seed=1", "--optim.means", "-1", "\udcff")


def safetensors(data: bytes, rng: Random) -> bytes:
    """Graft the header of a safetensors file, or lie about a tensor or about the header's length."""
    try:
        (size,) = struct.unpack("<Q", data[:8])
        header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    except (struct.error, ValueError, RecursionError, OverflowError):
        return flip(data, rng)
    tensors = [name for name in header if isinstance(header[name], dict)] if isinstance(header, dict) else []
    header = lie(header, rng.choice(tensors), rng) if tensors and rng.random() < 0.6 else graft(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if rng.random() < 0.9 else rng.choice(INTEGERS)) + text + rest


def lie(header: dict[str, Any], name: str, rng: Random) -> dict[str, Any]:
    """Give a tensor another type, shape, place or name."""
    key = rng.choice(("dtype", "shape", "data_offsets", "name"))
    if key == "dtype":
        header[name][key] = rng.choice(DTYPES)
    elif key == "name":
        header[rng.choice((f"{name}.", name.upper(), "lora", "é", ""))] = header.pop(name)
    else:
        header[name][key] = rng.choices((*INTEGERS, -1, 4, 8), k=rng.choice((1, 2, 2, 5)))
    return header


def pickled(data: bytes, rng: Random) -> bytes:
    """Spoil a member of an archive of PyTorch, most often the pickle in it; or a bare pickle."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = rng.choice([*members, *[name for name in members if name.endswith(".pkl")] * 4])
    except Exception:  # zipfile raises anything on a broken archive
        return opcodes(data, rng)
    kind = rng.randrange(8)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[f"{name}{rng.choice(WORDS)}"[:200].encode("utf-8", "replace").decode()] = members[name]
    else:
        members[name] = opcodes(members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED,))) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return out.getvalue()


def opcodes(data: bytes, rng: Random) -> bytes:
    """Drop, repeat or replace one operation of a pickle, or smuggle one in."""
    try:
        starts = [place for _, _, place in pickletools.genops(data) if place is not None]
    except Exception:  # genops raises anything on a broken pickle
        return flip(data, rng)
    ends = [*starts[1:], len(data)]
    begin, end = rng.choice(list(zip(starts, ends, strict=True)))
    own, other = data[begin:end], rng.choice(OPERATIONS)
    return data[:begin] + rng.choice((b"", own * 2, other, other + own)) + data[end:]


def arguments(data: bytes, rng: Random) -> bytes:
    """Replace, drop, repeat, join, cut or add words of a command line, which is a JSON list."""
    try:
        found = json.loads(data)
    except ValueError:  # two files that became one
        found = ["generate", *rng.choices(WORDS, k=3)]
    place = rng.randrange(len(found))
    word, kind = found[place], rng.randrange(7)
    if kind == 0:
        del found[place]
    elif kind == 1:
        found.insert(place, rng.choice(found))
    elif kind == 2:
        found[place : place + 2] = ["=".join(found[place : place + 2])]
    elif kind == 3:
        found[place] = word[: rng.randint(0, len(word))]
    elif kind == 4:
        bare = word.strip("-")
        found[place] = rng.choice((word.upper(), word.replace("-", "_"), f"{word}=", f"--no-{bare}", f"{word}.x"))
    else:
        found[place : place + (kind == 5)] = [rng.choice((*NUMBERS, *WORDS, *FLAGS))]
    return json.dumps(found or [""]).encode()


def ply_header(data: bytes, rng: Random) -> bytes:
    """Lie in the header of a PLY file: counts, types, names, lists, the format."""
    rows = data.partition(b"end_header")[0].split(b"\n")
    place = rng.randrange(len(rows))
    name = rng.choice(("x", "y", "f_rest_0", "red", "vertex_indices", "é", ""))
    order = rng.choice(("ascii", "binary_little_endian", "binary_big_endian", "x"))
    line = rng.choice((
        f"element vertex {rng.choice(NUMBERS)}", f"element face {rng.choice(INTEGERS)}", "end_header", "ply",
        f"element {rng.choice(WORDS)} 3", f"property {rng.choice(KINDS)} {name}", f"format {order} 1.0",
        f"comment gsdistill frame {rng.choice(('rdf', 'y-up', 'x', ''))}", f"comment TextureFile {rng.choice(WORDS)}",
    )).encode("utf-8", "surrogatepass")  # fmt: skip
    if rng.random() < 0.3:
        parts = rows[place].split(b" ")
        parts[rng.randrange(len(parts))] = rng.choice(NUMBERS).encode()
        line = b" ".join(parts)
    rows[place : place + (rng.random() < 0.6)] = [line]
    _, mark, body = data.partition(b"end_header")
    return b"\n".join(rows) + mark + body


def packed_splat(data: bytes, rng: Random) -> bytes:
    """Spoil what is inside of a gzip file, a ZIP, an SPZ or a GLB, mostly what describes the rest; pack it again."""
    try:
        if data[:2] == b"\x1f\x8b":
            inner = gzip.decompress(data)
            head, rest = (inner[:24], inner[24:]) if rng.random() < 0.6 else (inner, b"")
            return gzip.compress(rng.choice((number, *BYTES))(head, rng) + rest, 1)
        if data[:2] == b"PK":
            return _bundle(data, rng)
        if data[:4] == b"NGSP":  # version 4, whose header and table are not packed
            return rng.choice((number, *BYTES))(data[:112], rng) + data[112:]
        (size,) = struct.unpack_from("<I", data, 12)
        text, rest = data[20 : 20 + size], data[20 + size :]
        text = json.dumps(graft(json.loads(text), rng)).encode() if rng.random() < 0.6 else words(text, rng)
        return data[:12] + struct.pack("<I", len(text)) + data[16:20] + text + rest
    except Exception:  # what an earlier mutator spoilt
        return flip(data, rng)


def _bundle(data: bytes, rng: Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as given:
        members = {name: given.read(name) for name in given.namelist()}
    name = rng.choice([*members, *["meta.json"] * len(members)])
    if name == "meta.json" and rng.random() < 0.8:
        members[name] = json.dumps(graft(json.loads(members[name]), rng)).encode()
    elif rng.random() < 0.15:
        del members[name]
    else:
        members[name] = spoil(members[name], BYTES, rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice((zipfile.ZIP_STORED,) * 3 + (zipfile.ZIP_DEFLATED,))) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return out.getvalue()


PACKED = (packed_splat, packed_splat, packed_splat, *BYTES)
TENSORS = (safetensors, safetensors, *BYTES)
PICKLES = (pickled, pickled, *BYTES)
PLY = (ply_header, ply_header, *BYTES, words, lines)
ARGUMENTS = (arguments,)
