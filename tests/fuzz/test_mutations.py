"""Files that are spoilt at random, a few hundred of each kind: each is read, or refused in one line of our own.

tests/fuzz/readers.py does the same with many more.
"""

from __future__ import annotations

import mmap
import time
from random import Random

import pytest
from fuzz import judge
from fuzz.formats import PICKLES, PLY, TENSORS
from fuzz.mutate import BYTES, JSON, TEXT, YAML, spoil
from fuzz.rig import Rig
from fuzz.targets import TARGETS

from gsdistill.core.errors import BadFile

MUTATIONS = {
    "diffusers folder": 4, "sweep": 2, "lora": 10, "run folder": 16, "command": 8, "point-e": 12, "shapes prior": 40,
    "config": 60,
}  # fmt: skip
MOST = 120


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_spoilt_is_read_or_refused_in_one_line(name, tmp_path):
    rig = Rig.built(name, tmp_path)
    kinds = set()
    for path, data in rig.sound.items():
        if name != "command" and path.stem != "old":  # PyTorch's files of before 1.6 are refused
            found = rig.judge(path, data)
            assert found.kind == "read", (path, found.told)
    for number in range(MUTATIONS.get(name, MOST)):
        path, data = rig.case(0, number)
        found = rig.judge(path, data)
        kinds.add(found.kind)
        assert found.kind != "finding", (number, path, found.told)
    assert "refused" in kinds
    assert all(path.read_bytes() == data for path, data in rig.sound.items())


def test_a_case_is_its_seed_and_its_number_alone(tmp_path):
    rig = Rig.built("splat", tmp_path)
    cases = [rig.case(0, number) for number in range(20)]
    assert cases == [rig.case(0, number) for number in range(20)] != [rig.case(1, number) for number in range(20)]


@pytest.mark.parametrize("ways", [BYTES, TEXT, JSON, YAML, TENSORS, PICKLES, PLY])
def test_no_mutator_fails_whatever_it_is_given(ways):
    rng = Random(0)
    for data in (
        b"",
        b"\0",
        b"{}",
        b"[1]",
        b"a: 1",
        b"ply\nend_header\n",
        bytes(range(256)),
        b"\x02" + bytes(7) + b"{}",
    ):
        for _ in range(40):
            assert isinstance(spoil(data, ways, rng), bytes)


# --- the judge


def raise_user_error(message):
    def read(path):
        raise BadFile(message)

    return read


def test_the_judge_knows_what_is_read_and_what_is_refused(tmp_path):
    assert judge.judged(lambda path: None, tmp_path).kind == "read"
    assert judge.judged(raise_user_error("not a PLY file"), tmp_path).kind == "refused"


@pytest.mark.parametrize("message", ["two\nlines", "", "cannot allocate 4 TB"])
def test_a_refusal_that_is_no_line_or_comes_too_late_is_a_finding(tmp_path, message):
    assert judge.judged(raise_user_error(message), tmp_path).kind == "finding"


def test_an_error_that_is_not_ours_is_a_finding(tmp_path):
    found = judge.judged(lambda path: 1 // 0, tmp_path)
    assert found.kind == "finding" and "ZeroDivisionError" in found.told


def fill_memory(path):
    """Of 60 MB, in pages of their own: what was compiled before may have left as much free."""
    with mmap.mmap(-1, 60 << 20) as area:
        for place in range(0, len(area), mmap.PAGESIZE):
            area[place] = 1


def test_time_and_memory_are_findings(tmp_path, monkeypatch):
    monkeypatch.setattr(judge, "SECONDS", 0.05)
    assert "longer than 0.05 s" in judge.judged(lambda path: time.sleep(5), tmp_path).told
    monkeypatch.setattr(judge, "SECONDS", 10.0)
    monkeypatch.setattr(judge, "MEGABYTES", 30.0)
    found = judge.judged(fill_memory, tmp_path)
    assert found.kind == "finding" and 55 < found.megabytes < 80
    assert judge.judged(lambda path: None, tmp_path).megabytes < 5
