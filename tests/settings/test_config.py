"""Settings survive the way to YAML and back, and every mistake in them is one clear sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.core.ranges import bounded
from gsdistill.settings.config import defaults, from_dict, merge, named, to_dict, to_yaml, validate
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.yaml import load_yaml

FALLING = bounded(Ramp(101.0, 51.0), low=0)


@dataclass(frozen=True)
class Lens:
    fov: float = bounded(40.0, above=0, below=180)
    shift: tuple[float, float] = bounded((0.0, 1.0), low=-1, high=2)
    kind: Literal["pinhole", "fisheye"] = "pinhole"


@dataclass(frozen=True)
class Sub:
    scale: Ramp = FALLING
    names: tuple[str, ...] = ("a", "b")
    limit: float | None = None


@dataclass(frozen=True)
class Other:
    depth: int = 2


SUB = f"{__name__}:Sub"


@dataclass(frozen=True)
class Run:
    prompt: str
    count: int = bounded(3, low=1, high=9)
    quick: bool = False
    folder: Path | None = None
    lens: Lens = field(default_factory=Lens)
    method: object = named(lambda name: {SUB: Sub, "other": Other}[name], SUB)


MESSAGES = [
    ({"lenz": {}}, "unknown setting 'lenz' (value {}). Did you mean 'lens'? "
                   "Allowed: prompt, count, quick, folder, lens, method"),
    ({"lens": {"fow": 3}}, "unknown setting 'lens.fow' (value 3). Did you mean 'lens.fov'? "
                           "Allowed: lens.fov, lens.shift, lens.kind"),
    ({"lens": {"fov": 180}}, "lens.fov = 180 is out of range; it must be greater than 0 and less than 180"),
    ({"count": 0}, "count = 0 is out of range; it must be at least 1 and at most 9"),
    ({"count": 2.0}, "count = 2.0 has the wrong type; expected a whole number"),
    ({"count": True}, "count = True has the wrong type; expected a whole number"),
    ({"count": None}, "count = nothing has the wrong type; expected a whole number"),
    ({"quick": 1}, "quick = 1 has the wrong type; expected true or false"),
    ({"prompt": 7}, "prompt = 7 has the wrong type; expected text"),
    ({"prompt": "\udc80"}, "prompt = '\\udc80' is not valid Unicode text"),
    ({"folder": 7}, "folder = 7 has the wrong type; expected a path"),
    ({"lens": "wide"}, "lens = 'wide' has the wrong type; expected a mapping of fov, shift, kind"),
    ({"lens": {"fov": math.nan}}, "lens.fov = nan is not a finite number"),
    ({"lens": {"fov": math.inf}}, "lens.fov = inf is not a finite number"),
    ({"lens": {"fov": "40"}}, "lens.fov = '40' has the wrong type; expected a number"),
    ({"lens": {"shift": [0]}}, "lens.shift = [0] has the wrong type; expected a list of 2 values"),
    ({"lens": {"shift": [0, 3]}}, "lens.shift[1] = 3 is out of range; it must be at least -1 and at most 2"),
    ({"lens": {"kind": "pinole"}}, "lens.kind = 'pinole' is not a choice. Did you mean 'pinhole'? "
                                   "Allowed: pinhole, fisheye"),
    ({"method": {"scale": "5:-1"}}, "method.scale = -1.0 is out of range; it must be at least 0"),
    ({"method": {"scale": "5:x"}}, "method.scale: '5:x' is not a schedule; "
                                   "write 7.5, 101:51, 700:100:sqrt, 101:51@0.6, 0:10@0.4..0.8 or 0.98:0.5:step@0.2"),
    ({"method": {"scale": "5:1:sqr"}}, "method.scale: unknown schedule law 'sqr'. Did you mean 'sqrt'? "
                                       "Available: linear, sqrt, cosine, step, exp"),
    ({"method": {"scale": True}}, "method.scale = True has the wrong type; "
                                  "expected a number or a schedule such as 101:51"),
    ({"method": 3}, "method = 3 has the wrong type; expected a name, or a mapping with a name"),
    ({"method": {"name": 3}}, "method.name = 3 has the wrong type; expected text"),
]  # fmt: skip


@pytest.mark.parametrize(("mapping", "message"), MESSAGES, ids=[message[:40] for _, message in MESSAGES])
def test_a_mistake_names_path_value_and_what_is_allowed(mapping, message):
    with pytest.raises(ConfigError) as caught:
        from_dict(Run, {"prompt": "a cube", **mapping})
    assert str(caught.value) == message


def test_a_missing_setting_is_named():
    with pytest.raises(ConfigError, match="the setting 'prompt' is missing"):
        from_dict(Run, {})


def test_validate_finds_what_was_built_around_the_reader():
    assert validate(Run("x")) == Run("x")
    for wrong in (Run("x", lens=Lens(fov=math.nan)), Run("x", count=True), Run("x", method=Sub(limit="1"))):
        with pytest.raises(ConfigError):
            validate(wrong)


def test_whole_numbers_serve_as_floats_and_become_floats():
    fov = from_dict(Lens, {"fov": 50}).fov
    assert fov == 50.0
    assert isinstance(fov, float)


def test_a_value_error_of_a_settings_class_gets_its_path():
    @dataclass(frozen=True)
    class Picky:
        low: float = 0.0

        def __post_init__(self):
            if self.low > 1:
                raise ValueError("low is too high")

    with pytest.raises(ConfigError, match=r"^cameras: low is too high$"):
        from_dict(Picky, {"low": 2}, "cameras")


# Ramp


def test_ramp_reaches_its_end_at_until_and_stays():
    ramp = Ramp(2.0, 6.0, "linear", 0.5)
    assert [ramp(p) for p in (0.0, 0.25, 0.5, 0.7, 1.0)] == [2.0, 4.0, 6.0, 6.0, 6.0]


@pytest.mark.parametrize(
    ("law", "quarter"), [("linear", 0.25), ("sqrt", 0.5), ("cosine", 0.5 - 0.5 * math.cos(math.pi / 4))]
)
def test_ramp_laws(law, quarter):
    assert Ramp(10.0, 0.0, law)(0.25) == pytest.approx(10.0 - 10.0 * quarter)
    assert Ramp(10.0, 0.0, law, 0.4)(0.1) == pytest.approx(10.0 - 10.0 * quarter)


def test_the_law_exp_falls_by_equal_factors():
    ramp = Ramp(1.6e-4, 1.6e-6, "exp", 0.8)
    values = [ramp(p) for p in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)]
    factors = [after / before for before, after in pairwise(values)]
    assert factors == pytest.approx([0.1**0.5] * 4 + [1.0])
    assert values[0] == 1.6e-4
    with pytest.raises(ConfigError, match="law exp has ends above 0, not 1 and 0"):
        Ramp(1.0, 0.0, "exp")


@pytest.mark.parametrize(
    ("text", "ramp"),
    [
        ("7.5", Ramp(7.5, 7.5)),
        (7, Ramp(7.0, 7.0)),
        ("101:51", Ramp(101.0, 51.0)),
        ("700:100:sqrt", Ramp(700.0, 100.0, "sqrt")),
        ("101:51@0.6", Ramp(101.0, 51.0, "linear", 0.6)),
        ("1e-4:1e-6:exp@0.9", Ramp(1e-4, 1e-6, "exp", 0.9)),
        (".7:1e-2:cosine@.25", Ramp(0.7, 0.01, "cosine", 0.25)),
        ("0:10@0.4..0.8", Ramp(0.0, 10.0, "linear", 0.8, 0.4)),
        ("1:2:sqrt@.1..1", Ramp(1.0, 2.0, "sqrt", 1.0, 0.1)),
        ("0.98:0.5:step@0.2", Ramp(0.98, 0.5, "step", 0.2)),
    ],
)
def test_ramp_syntax(text, ramp):
    assert Ramp.parse(text) == ramp


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "1:",
        "1:2:3:4",
        "a",
        "1:2:",
        "1:2@",
        "1:2@0",
        "1:2@1.5",
        "nan",
        "1:inf",
        "1:2@nan",
        "1:2@0.4..",
        "1:2@..0.4",
        "1:2@0.4..0.4",
        "1:2@-1..1",
        "1:2:step@0.1..0.2",
        "1:2@0.1..0.2..0.3",
    ],
)
def test_ramp_refuses(text):
    with pytest.raises(ConfigError):
        Ramp.parse(text)


def test_a_ramp_of_what_is_no_number_is_refused():
    ends = vars(Ramp(1.0, 2.0)) | {"end": "2"}
    made = object.__new__(Ramp)
    vars(made).update(ends)  # past the check of types that tests have, and a user has not
    with pytest.raises(ConfigError, match=r"takes finite numbers, not 1\.0:2:0\.0:1\.0"):
        made.__post_init__()


def test_a_step_is_at_its_place_and_a_later_beginning_waits():
    step, late = Ramp(0.98, 0.5, "step", 0.2), Ramp(0.0, 10.0, "linear", 0.8, 0.4)
    assert [step(p) for p in (0.0, 0.1999, 0.2, 1.0)] == [0.98, 0.98, 0.5, 0.5]
    assert [late(p) for p in (0.0, 0.4, 0.5, 0.8, 1.0)] == pytest.approx([0.0, 0.0, 2.5, 10.0, 10.0])


FINITE = st.floats(allow_nan=False, allow_infinity=False)
RAMPS = st.builds(
    Ramp, FINITE, FINITE, st.sampled_from(["linear", "sqrt", "cosine"]), st.floats(0, 1, exclude_min=True)
)


@settings(deadline=None)
@given(RAMPS)
def test_ramp_text_round_trip(ramp):
    assert Ramp.parse(str(ramp)) == ramp


@settings(deadline=None)
@given(
    st.builds(Ramp, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.sampled_from(["linear", "sqrt", "cosine"])),
    st.floats(0, 1),
)
def test_ramp_stays_between_its_ends(ramp, progress):
    low, high = sorted((ramp.start, ramp.end))
    slack = 1e-9 * (1 + abs(low) + abs(high))
    assert low - slack <= ramp(progress) <= high + slack


# YAML

TEXT = st.text(max_size=30) | st.sampled_from(
    ["101:51", "1e-3", "no", "null", "~", "0x1F", "2020-01-01", "- a", "a: b", "#", ".inf", "a\x85b", "\u2028"]
)
RUNS = st.builds(
    Run,
    prompt=TEXT,
    count=st.integers(1, 9),
    quick=st.booleans(),
    folder=st.none() | st.just(Path("a b/ö")),
    lens=st.builds(
        Lens,
        st.floats(0.01, 179),
        st.tuples(st.floats(-1, 2), st.floats(-1, 2)),
        st.sampled_from(["pinhole", "fisheye"]),
    ),
    method=st.builds(
        Sub, RAMPS.filter(lambda r: r.start >= 0 and r.end >= 0), st.lists(TEXT).map(tuple), st.none() | FINITE
    ),
)


@pytest.mark.slow
@settings(deadline=None)
@given(RUNS)
def test_yaml_round_trip(tmp_path_factory, run):
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    path.write_bytes(to_yaml(run).encode())
    assert from_dict(Run, load_yaml(path)) == run
    again = yaml.safe_load(path.read_bytes())  # and any other reader sees the same text in the texts
    assert again["prompt"] == run.prompt
    assert tuple(again["method"]["names"]) == run.method.names


def test_plain_scalars_mean_what_they_look_like(tmp_path):
    (tmp_path / "a.yaml").write_text("a: 101:51\nb: 1e-3\nc: no\nd: 010\ne: 2020-01-01\nf: .5\ng: ~\nh: true\ni: 1_0\n")
    assert load_yaml(tmp_path / "a.yaml") == {
        "a": "101:51", "b": 0.001, "c": "no", "d": 10, "e": "2020-01-01", "f": 0.5, "g": None, "h": True, "i": "1_0",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\nc: 3\n", "line 3: not valid YAML: "),
        ("a: 1\na: 2\n", "line 2: not valid YAML: 'a' is given twice"),
        ("- 1\n- 2\n", "expected lines of 'name: value', found [1, 2]"),
        ("just text", "expected lines of 'name: value', found 'just text'"),
        ("a: !!python/object/apply:os.system [x]\n", "line 1: not valid YAML: the tag 'tag:yaml.org,2002:python/"),
        ("a: 1\nb: !own [x]\n", "line 2: not valid YAML: the tag '!own' is not read"),
        ("a: 1\nb: &x 2\nc: *x\n", "line 3: not valid YAML: aliases are not read"),
        ("a: \x07\n", "not valid YAML: "),
        ("[" * 3_000, "not valid YAML: "),
        ("? [1]\n: 2\n", "line 1: not valid YAML: "),
    ],
)
def test_broken_yaml_names_file_and_line(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(BadFile) as caught:
        load_yaml(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(BadFile, match="No such file"):
        load_yaml(tmp_path / "none.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(BadFile, match="not UTF-8 text"):
        load_yaml(tmp_path / "b.yaml")


def test_an_empty_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_yaml(tmp_path / "empty.yaml") == {}


# names and merging


def test_shorthand_and_mapping_name_the_same_class():
    assert from_dict(Run, {"prompt": "x", "method": "other"}).method == Other()
    assert from_dict(Run, {"prompt": "x", "method": {"name": "other", "depth": 5}}).method == Other(5)
    assert from_dict(Run, {"prompt": "x", "method": {"limit": 2}}).method == Sub(limit=2.0)


def test_to_dict_writes_the_name_of_a_named_setting():
    assert to_dict(Run("x"))["method"] == {"name": SUB, "scale": "101:51", "names": ["a", "b"], "limit": None}


def test_defaults_are_all_settings_but_the_required():
    assert defaults(Run) == {k: v for k, v in to_dict(Run("x")).items() if k != "prompt"}


def test_merge_goes_deep_and_leaves_its_arguments():
    low, high = {"a": {"x": 1, "y": 2}, "b": 3}, {"a": {"y": 5}, "c": 6}
    assert merge(low, high) == {"a": {"x": 1, "y": 5}, "b": 3, "c": 6}
    assert low == {"a": {"x": 1, "y": 2}, "b": 3}


@pytest.mark.parametrize(
    ("low", "high", "merged"),
    [
        ({"name": "cds", "a": 1}, {"b": 2}, {"name": "cds", "a": 1, "b": 2}),
        ({"name": "cds", "a": 1}, "cds", {"name": "cds", "a": 1}),
        ({"name": "cds", "a": 1}, {"name": "cds", "b": 2}, {"name": "cds", "a": 1, "b": 2}),
        ({"name": "cds", "a": 1}, "sds", {"name": "sds"}),
        ({"name": "cds", "a": 1}, {"name": "sds", "b": 2}, {"name": "sds", "b": 2}),
        ("cds", {"b": 2}, {"name": "cds", "b": 2}),
        ("cds", "sds", "sds"),
    ],
)
def test_merge_drops_the_settings_of_another_class(low, high, merged):
    assert merge({"method": low}, {"method": high}) == {"method": merged}


def test_settings_made_by_hand_are_taken_as_their_types_have_them():
    made = validate(Run("x", folder="a/b", lens=Lens(shift=[0, 1]), method="other"))  # type: ignore[arg-type]
    assert made == Run("x", folder=Path("a/b"), lens=Lens(shift=(0.0, 1.0)), method=Other())
    with pytest.raises(ConfigError, match=r"lens\.shift = 3 has the wrong type"):
        validate(Run("x", lens=Lens(shift=3)))  # type: ignore[arg-type]
