"""What can be named on the command line, and the steps that a run has kept."""

from __future__ import annotations

import gzip
import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pytest

from gsdistill.core.errors import BadFile, Notice
from gsdistill.export.formats import writer_for
from gsdistill.export.ply import Ply
from gsdistill.export.settings import ExportSettings
from gsdistill.scene.extent import UnitBall
from gsdistill.viewer.sources import find, gather, labels, stride
from gsdistill.viewer.splat import UNIT, ball_of


@pytest.fixture
def run(tmp_path, splat):
    """A finished run of 300 steps that kept steps 0, 100 and 200: 10, 11, 12 and at last 20 Gaussians."""
    folder = tmp_path / "runs" / "sds-seed0"
    for step, count in ((0, 10), (100, 11), (200, 12)):
        Ply().write(splat(count), folder / "snapshots" / f"step-{step:06d}.ply")
    Ply().write(splat(20), folder / "gaussians.ply")
    (folder / "summary.json").write_text(json.dumps({"iterations": 300}))
    return folder


def test_a_run_has_its_snapshots_and_at_last_its_splat(run):
    source = find(run)
    assert list(source.steps) == [0, 100, 200, 300]
    assert [len(source.at(step)) for step in (0, 99, 100, 250, 300, 999)] == [10, 10, 11, 12, 20, 20]


def test_before_the_first_step_is_the_first(run):
    (run / "snapshots" / "step-000000.ply").unlink()
    assert len(find(run).at(0)) == 11


def test_an_unfinished_run_has_its_snapshots(run):
    (run / "gaussians.ply").unlink()
    (run / "summary.json").unlink()
    assert len(find(run).at(999)) == 12


@pytest.mark.parametrize("summary", [None, "", "[]", '{"iterations": null}', '{"iterations": Infinity}'])
def test_without_a_summary_the_snapshots_stand_for_themselves(run, summary):
    (run / "summary.json").unlink()
    if summary is not None:
        (run / "summary.json").write_text(summary)
    source = find(run)
    assert [len(source.at(step)) for step in source.steps] == [10, 11, 12]


def test_without_summary_and_snapshots_there_is_the_splat(run):
    (run / "summary.json").unlink()
    for path in (run / "snapshots").iterdir():
        path.unlink()
    assert find(run).steps == {0: run / "gaussians.ply"}


def test_a_splat_is_read_once_and_only_when_asked_for(run, splat):
    source = find(run)
    (run / "snapshots" / "step-000100.ply").write_text("no splat")
    assert source.at(0) is source.at(50)
    with pytest.raises(BadFile, match=r"step-000100\.ply"):
        source.at(100)


def test_few_splats_stay_in_memory(run):
    source = find(run)
    source.steps.update({1000 + i: run / "gaussians.ply" for i in range(10)})
    seen = [source.at(1000 + i) for i in range(10)]
    assert [source.at(1000 + i) is seen[i] for i in (9, 6)] == [True, True]
    assert source.at(1000) is not seen[0]


def test_all_steps_lie_in_the_ball_of_the_last(run, splat):
    last = replace(splat(500), means=splat(500).means * 9)
    Ply().write(last, run / "gaussians.ply")
    source = find(run)
    assert source.ball != UnitBall()
    first = (splat(10).means.numpy() - source.ball.centre) / source.ball.radius
    np.testing.assert_allclose(source.at(0).centers * UNIT, first, atol=1e-6)


@pytest.mark.parametrize("name", ["a.spz", "a.sog", "a.splat", "a.compressed.ply", "a.glb", "a.ply.gz"])
def test_a_splat_of_any_format_is_a_source(tmp_path, splat, name):
    path = tmp_path / name.removesuffix(".gz")
    writer_for(path, ExportSettings()).write(splat(30), path)
    if name.endswith(".gz"):
        path.with_name(name).write_bytes(gzip.compress(path.read_bytes()))
    (source,), left_out = gather([tmp_path / name])
    np.testing.assert_allclose(source.ball.centre, ball_of(splat(30)).centre, atol=2e-3)
    assert len(source.at(0)) == 30 and not left_out


def test_what_is_not_sound_is_cleaned_when_asked(tmp_path, splat):
    Ply().write(splat(30), tmp_path / "a.ply")
    data = (tmp_path / "a.ply").read_bytes()
    start = data.index(b"end_header\n") + 11
    (tmp_path / "a.ply").write_bytes(data[:start] + b"\0\0\xc0\x7f" + data[start + 4 :])
    with pytest.raises(BadFile, match="1 of its 30 Gaussians are not sound"):
        find(tmp_path / "a.ply").at(0)
    with pytest.warns(Notice, match="1 of its 30 Gaussians are left out"):
        assert len(find(tmp_path / "a.ply", clean=True).at(0)) == 29


def test_axes_that_are_taken_for_granted_are_told(tmp_path, splat):
    for name in ("a.splat", "a.sog"):
        writer_for(tmp_path / name, ExportSettings()).write(splat(30), tmp_path / name)
    with pytest.warns(Notice) as told:
        find(tmp_path / "a.splat").at(0)
    usual = "right, down, front (rdf), as is usual with its format; --frame is for others"
    line = f"{tmp_path / 'a.splat'} does not name its axes: taken to be in {usual}"
    assert {str(one.message) for one in told} == {line}
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        find(tmp_path / "a.splat", "rdf").at(0)
        find(tmp_path / "a.sog").at(0)


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(BadFile, match="there is no such file"):
        find(tmp_path / "nothing.ply")
    with pytest.raises(BadFile, match=r"holds neither gaussians\.ply nor snapshots"):
        find(tmp_path)


def test_of_many_what_holds_no_splat_is_left_out(tmp_path, run, splat):
    """As outputs/*/* does behind a sweep and a demonstration."""
    Ply().write(splat(3), tmp_path / "without-suffix")
    (tmp_path / "play2d" / "trap").mkdir(parents=True)
    others = [tmp_path / name for name in ("play2d/trap", "play2d/trap/figure.png", "results.json", "mesh.glb", "runs")]
    for path in others[1:-1]:
        path.write_bytes(b"glTF" if path.suffix == ".glb" else b"\x89PNG")
    sources, left_out = gather([others[0], run, *others[1:], tmp_path / "without-suffix"])
    assert [source.path for source in sources] == [run, tmp_path / "without-suffix"]
    assert left_out == others
    for path in others:
        with pytest.raises(BadFile, match=re.escape(str(path))):
            gather([path, path])[0][0].at(0)


def test_of_many_what_is_broken_or_missing_is_still_an_error(tmp_path, run):
    (tmp_path / "broken.ply").write_bytes(b"cut")
    with pytest.raises(BadFile, match=r"broken\.ply"):
        gather([run, tmp_path / "broken.ply"])[0][1].at(0)
    with pytest.raises(BadFile, match="there is no such file"):
        gather([run, tmp_path / "mistyped.ply"])


def test_the_stride_meets_every_step_of_all(tmp_path, run, splat):
    Ply().write(splat(3), tmp_path / "other" / "snapshots" / "step-000150.ply")
    assert stride([find(run)]) == (0, 300, 100)
    assert stride([find(run), find(tmp_path / "other")]) == (0, 300, 50)
    assert stride([find(tmp_path / "other")]) == (150, 150, 1)


def test_labels_tell_apart(tmp_path, run):
    file = run / "gaussians.ply"
    same = run / "snapshots" / "step-000000.ply"
    other = tmp_path / "step-000000.ply"
    other.write_bytes(same.read_bytes())
    assert labels([find(run), find(file)]) == ["runs/sds-seed0", "gaussians.ply"]
    assert labels([find(same), find(other)]) == ["snapshots/step-000000.ply", f"{tmp_path.name}/step-000000.ply"]
    assert labels([find(file), find(file)]) == ["gaussians.ply"] * 2
    twin = tmp_path / "others" / "runs" / "sds-seed0"
    (twin / "snapshots").mkdir(parents=True)
    (twin / "snapshots" / same.name).write_bytes(same.read_bytes())
    assert labels([find(run), find(twin)]) == [f"{tmp_path.name}/runs/sds-seed0", "others/runs/sds-seed0"]
