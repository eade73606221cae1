"""Figures from times that are known, and the file they are kept in."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest

from gsdistill.bench.figures import environment, figures, read_figures
from gsdistill.bench.flops import Ceiling, Flops
from gsdistill.bench.timing import Timing
from gsdistill.cli.main import execute
from gsdistill.core.errors import BadFile
from gsdistill.disk.write import write_json
from gsdistill.distillation.sds import SDS
from gsdistill.run.config import RunConfig
from gsdistill.training.backgrounds.grey import Grey
from gsdistill.training.views import ViewSettings

CONFIG = RunConfig("a", method=SDS(), prior="sd15")


@pytest.fixture
def timing():
    phases = {"render": [1.0, 2.0, 3.0, 4.0, 5.0], "network": [10.0] * 5, "encode": [0.5] * 5}
    steps = [12.0, 13.0, 14.0, 15.0, 16.0]
    return Timing(ViewSettings(3, 64, Grey()), phases, steps, 80.0, 20, 1, 77, 123_456, Flops(6_000, 6, 100, 150))


@pytest.fixture
def found(timing, tmp_path):
    import torch

    told = figures(timing, Ceiling(400.0, 512, "float32"), CONFIG, {"steps": 5})
    return {**told, "environment": environment(torch.device("cpu"), "float32")}


def test_medians_quartiles_and_shares(found):
    assert found["phases"]["render"] == {
        "median_ms": 3_000.0, "low_ms": 2_000.0, "high_ms": 4_000.0, "mean_ms": 3_000.0, "share": 15 / 70,
    }  # fmt: skip
    assert found["phases"]["rest"]["median_ms"] == pytest.approx(500.0)
    assert sum(phase["share"] for phase in found["phases"].values()) == pytest.approx(1.0)
    assert found["step"]["median_ms"] == 14_000.0


def test_rates(found):
    assert found["steps_per_second"] == 5 / 80
    assert found["evaluations_per_step"] == 4
    assert found["evaluations_per_second"] == 20 / 80
    assert found["network_flops_per_second"] == pytest.approx(20 * 1_000 / 50)
    assert found["network_share_of_matmul"] == pytest.approx(20 * 1_000 / 50 / 400)
    assert found["flops"] == {"step": 4_250, "network": 4_000, "encode": 100, "encode backward": 150}


def test_the_settings_are_the_runs_and_the_benchs(found):
    settings = found["settings"]
    assert (settings["method"]["name"], settings["views"], settings["steps"]) == ("sds", 4, 5)
    assert not {"output", "resume", "overwrite", "log_every"} & settings.keys()
    assert found["run"] == {
        "method": "sds", "prior": "sd15", "gaussians": 77, "views": 3, "resolution": 64, "skipped_steps": 1,
    }  # fmt: skip


def test_one_step_has_a_spread_too(timing):
    from dataclasses import replace

    one = replace(timing, phases={name: times[:1] for name, times in timing.phases.items()}, steps=[12.0])
    told = figures(one, Ceiling(400.0, 512, "float32"), CONFIG, {})
    assert told["step"] == {"median_ms": 12_000.0, "low_ms": 12_000.0, "high_ms": 12_000.0, "mean_ms": 12_000.0}


def test_the_place_is_told(found):
    import numba
    import torch

    place = found["environment"]
    assert place["versions"]["torch"] == version("torch")
    assert place["versions"]["numba"] == numba.__version__
    assert place["threads"] == torch.get_num_threads()
    assert set(place["versions"]) == {"gsdistill", "torch", "numba", "diffusers", "gsplat"}


def test_a_file_reads_back(found, tmp_path):
    write_json(tmp_path / "a.json", found)
    assert read_figures(tmp_path / "a.json") == found


def broken(found, tmp_path):
    """Each way in which a file cannot serve, and what is said."""
    files = {
        "not valid JSON": "{",
        "expected a JSON object, found [1]": "[1]",
        "is not a measurement of `gsdistill bench --json`": "{}",
        "is of version 7 of the format, which must be 1": json.dumps({**found, "version": 7}),
        "is not whole: there is no 'phases'": json.dumps({k: v for k, v in found.items() if k != "phases"}),
    }
    for number, (words, text) in enumerate(files.items()):
        path = tmp_path / f"{number}.json"
        path.write_text(text)
        yield path, words
    yield tmp_path / "none.json", "cannot be read: No such file or directory"


def test_other_files_are_refused(found, tmp_path, capsys):
    for path, words in broken(found, tmp_path):
        with pytest.raises(BadFile) as caught:
            read_figures(path)
        assert str(caught.value).startswith(str(path)) and words in str(caught.value)
        assert execute(["bench", "--compare", str(path), str(path)]) == 2
        assert words in " ".join(capsys.readouterr().err.split())
