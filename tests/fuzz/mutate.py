"""Ways to spoil any file: its bytes, lines and words, and trees of JSON and YAML; all drawn with one generator.

A mutator takes what a file holds and a ``random.Random``, and returns what a worse one holds. None fails: what it does
not understand, because an earlier mutator spoilt it, it hands on as bytes.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

Mutator = Callable[[bytes, Random], bytes]

INTEGERS = (0, 1, 2, 3, 7, 127, 128, 255, 256, 32767, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**64 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-38, 3.4e38, 1e300, float("inf"), float("-inf"), float("nan"))
NUMBERS = (
    "0", "-0", "-1", "1", "2", "007", "1e3", "1e400", "-1e400", "nan", "inf", "-inf", ".nan", ".inf", "1e-400", "0x10",
    "1_000", "4294967296", "9223372036854775808", "99999999999999999999", "1" * 400, "9" * 5000, "1.5", "½", "١٢", "",
)  # fmt: skip
WORDS = (
    "", " ", "null", "true", "no", "~", "none", "[]", "{}", "[[[[", "{a: {b: {c: 1}}}", "*a", "&a", "%", "#", ":",
    "- -", "!!python/name:os.system", "!!binary aGk=", "<<: {a: 1}", "? ", "|", ">", "'", '"', "--", "=", "@", "\0",
    "\\0", "\\ud800", "\u2028", "\ufeff", "\u202e", "é", "😀", "a\u0301", "101:51", "1:2:3:4", "1:0:cosine@0",
    "700:100:sqrt", "@0.5", "x" * 3000, "../../../etc/passwd", "/dev/zero", "/", ".", "auto", "cds", "point-e", "cpu",
)  # fmt: skip


def spoil(data: bytes, mutators: tuple[Mutator, ...], rng: Random) -> bytes:
    """One to four mutations one after the other, most often one."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        data = rng.choice(mutators)(data, rng)
    return data


# --- bytes


def flip(data: bytes, rng: Random) -> bytes:
    """One bit, or a few."""
    spoilt = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8)) if data else 0):
        spoilt[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(spoilt)


def cut(data: bytes, rng: Random) -> bytes:
    """The beginning, or the end."""
    place = rng.randint(0, len(data))
    return data[:place] if rng.random() < 0.8 else data[place:]


def move(data: bytes, rng: Random) -> bytes:
    """Drop, repeat, overwrite with noise or exchange a stretch."""
    a, b = sorted(rng.randint(0, len(data)) for _ in range(2))
    b = min(b, a + rng.choice((1, 4, 16, 400)))
    kind = rng.randrange(4)
    if kind == 0:
        return data[:a] + data[b:]
    if kind == 1:
        return data[:b] + data[a:b] * rng.choice((1, 2, 50)) + data[b:]
    if kind == 2:
        return data[:a] + rng.randbytes(b - a) + data[b:]
    c = rng.randint(b, len(data))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def number(data: bytes, rng: Random) -> bytes:
    """Overwrite some bytes with a number that programs stumble over."""
    value, size = rng.choice(INTEGERS), rng.choice("BHIQ")
    packed = struct.pack(f"{rng.choice('<>')}{size}", value % (1 << 8 * struct.calcsize(size)))
    if rng.random() < 0.4:
        kind = rng.choice("fd")
        wide = rng.choice(FLOATS)
        packed = struct.pack(f"{rng.choice('<>')}{kind}", wide if kind == "d" or abs(wide) < 1e38 else float("inf"))
    place = rng.randint(0, max(0, len(data) - len(packed)))
    return data[:place] + packed + data[place + len(packed) :]


BYTES = (flip, cut, move, number)


# --- text


def lines(data: bytes, rng: Random) -> bytes:
    """Drop, repeat, exchange or indent lines, or change how they end."""
    rows = data.split(b"\n")
    a, b = rng.randrange(len(rows)), rng.randrange(len(rows))
    kind = rng.randrange(5)
    if kind == 0:
        del rows[a]
    elif kind == 1:
        rows[a:a] = [rows[b]] * rng.choice((1, 2, 200))
    elif kind == 2:
        rows[a], rows[b] = rows[b], rows[a]
    elif kind == 3:
        rows[a] = rng.choice((b" ", b"\t", b"  ", b"- ")) + rows[a]
    return rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\r")).join(rows)


def words(data: bytes, rng: Random) -> bytes:
    """Put an odd number or word in the place of one, or between two."""
    odd = rng.choice(NUMBERS if rng.random() < 0.5 else WORDS).encode("utf-8", "surrogatepass")
    tokens = [match.span() for match in re.finditer(rb"[^\s:,\[\]{}\"']+", data)] or [(0, 0)]
    a, b = rng.choice(tokens)
    return data[:a] + odd + data[b if rng.random() < 0.8 else a :]


def recode(data: bytes, rng: Random) -> bytes:
    """Another encoding, or a mark of one."""
    text = data.decode("utf-8", "replace")
    codes = ("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-7")
    return rng.choice((b"\xef\xbb\xbf" + data, b"\xff" + data, data + b"\0", text.encode(rng.choice(codes), "replace")))


TEXT = (lines, words, words, recode, flip, cut, move)


# --- trees


def odd(rng: Random, depth: int = 0) -> Any:
    """A value that no setting expects."""
    if depth < 3 and rng.random() < 0.3:
        inner = [odd(rng, depth + 1) for _ in range(rng.randrange(4))]
        return inner if rng.random() < 0.5 else {rng.choice(WORDS): item for item in inner}
    number = rng.choice((rng.choice(INTEGERS), -rng.choice(INTEGERS), rng.choice(FLOATS), 0.5, 10**400))
    return rng.choice((None, True, False, number, number, rng.choice(WORDS), rng.choice(WORDS)))


def graft(tree: Any, rng: Random) -> Any:
    """Replace, drop, add or exchange a branch somewhere in a tree of lists and mappings."""
    if not isinstance(tree, (dict, list)) or not tree or rng.random() < 0.1:
        return odd(rng)
    places = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    place, kind = rng.choice(places), rng.randrange(6)
    if kind < 3:
        tree[place] = graft(tree[place], rng)
    elif kind == 3:
        del tree[place]
    elif kind == 4:
        tree[place] = tree[rng.choice(places)]
    elif isinstance(tree, dict):
        tree[rng.choice((*WORDS, f"{place}s", f"{place} "))] = odd(rng)
    else:
        tree.append(odd(rng))
    return tree


def json_tree(data: bytes, rng: Random) -> bytes:
    """Graft a JSON document, or one line of many."""
    rows = data.splitlines() if data.count(b"\n{") else [data]
    place = rng.randrange(len(rows))
    try:
        found = graft(json.loads(rows[place]), rng)
    except (ValueError, RecursionError):
        return flip(data, rng)
    rows[place] = json.dumps(found).encode()
    if rng.random() < 0.05:
        rows[place] = b"[" * 100_000
    return b"\n".join(rows)


def yaml_tree(data: bytes, rng: Random) -> bytes:
    """Graft a YAML document."""
    try:
        tree = graft(yaml.load(data, yaml.CSafeLoader), rng)
        return yaml.dump(tree, allow_unicode=True, sort_keys=False, Dumper=yaml.CSafeDumper).encode("utf-8", "replace")
    except (yaml.YAMLError, ValueError, RecursionError, TypeError):
        return words(data, rng)


JSON = (json_tree, json_tree, *TEXT)
YAML = (yaml_tree, yaml_tree, *TEXT)
