"""`gsdistill bench` as it is typed: real steps of a small model, its file, the comparison, and what is refused."""

from __future__ import annotations

import copy
import io
import json
import shutil

import pytest
import torch
from rich.console import Console
from tiny import stable_diffusion

from gsdistill.bench.report import compare, show
from gsdistill.cli.main import execute
from gsdistill.prior import random_weights

SMALL = (
    *("--steps", "3", "--warmup", "1", "--views", "2", "--resolution", "16"),
    *("--init.count", "40", "--method", "sds", "--no-recipe"),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Architectures of which sd15 is a small one: configs, and nothing else."""
    built = stable_diffusion.build(tmp_path_factory.mktemp("built") / "sd15")
    home = tmp_path_factory.mktemp("architectures")
    for part in ("unet", "vae", "scheduler"):
        (home / "sd15" / part).mkdir(parents=True)
        (config,) = (built / part).glob("*config.json")
        shutil.copy(config, home / "sd15" / part)
    shutil.copy(built / "model_index.json", home / "sd15")
    return home


@pytest.fixture
def measured(folder, tmp_path, monkeypatch, capsys):
    """The figures of one measurement, and what was printed."""
    monkeypatch.setattr(random_weights, "FOLDER", folder)
    file = tmp_path / "new" / "a.json"
    threads = torch.get_num_threads()
    try:
        assert execute(["bench", "--random-weights", "sd15", *SMALL, "--threads", "1", "--json", str(file)]) == 0
    finally:
        torch.set_num_threads(threads)
    return json.loads(file.read_text()), capsys.readouterr().out


def mistake(capsys, *words):
    assert execute(["bench", *words]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


def test_a_measurement(measured):
    found, printed = measured
    assert (found["format"], found["version"]) == ("gsdistill bench", 1)
    run = found["run"]
    assert (run["method"], run["prior"], run["gaussians"], run["views"], run["resolution"]) == (
        "sds",
        "sd15",
        40,
        2,
        16,
    )
    settings = found["settings"]
    assert (settings["random_weights"], settings["steps"], settings["warmup"]) == (True, 3, 1)
    assert found["evaluations_per_step"] == 4
    assert found["flops"]["network"] > 0 and found["flops"]["encode"] > 0
    assert 0 < found["network_share_of_matmul"] < 1
    assert (found["environment"]["threads"], found["environment"]["precision"]) == (1, "float32")
    for name in (*found["phases"], "sds, sd15: 40 Gaussians, 2 view(s) of 16 px, float32", "1 thread(s)"):
        assert name in printed


def lines(report, *found):
    console = Console(width=200, record=True, file=io.StringIO())
    report(console, *found)
    return console.export_text().splitlines()


@pytest.mark.slow
def test_a_comparison_is_of_b_over_a(measured):
    before, _ = measured
    after = copy.deepcopy(before)
    after["phases"]["render"]["median_ms"] = 4 * before["phases"]["render"]["median_ms"]
    after["steps_per_second"] = before["steps_per_second"] / 2
    table = {line.split("│")[1].strip(): line.split("│") for line in lines(compare, before, after) if "│" in line}
    assert table["render ms"][4].strip() == "4.000"
    assert table["steps per second"][4].strip() == "0.500"
    assert table["network ms"][4].strip() == "1.000"
    assert not [line for line in lines(compare, before, after) if "warning" in line]


@pytest.mark.slow
def test_a_comparison_of_what_differs_warns(measured):
    before, _ = measured
    after = copy.deepcopy(before)
    after["environment"]["device"] = "another"
    after["settings"]["method"]["guidance_scale"] = 3.0
    warnings = [line for line in lines(compare, before, after) if "warning" in line]
    assert [line.partition(": ")[2].partition(": ")[0] for line in warnings] == [
        "not the same environment",
        "not the same settings",
    ]
    assert warnings[0].endswith(f"device {before['environment']['device']} and another")
    assert "method.guidance_scale" in warnings[1]


@pytest.mark.slow
def test_steps_without_an_update_are_told(measured):
    found, _ = measured
    assert not [line for line in lines(show, found) if "steps skipped" in line]
    found["run"]["skipped_steps"] = 2
    (told,) = [line for line in lines(show, found) if "steps skipped" in line]
    assert told.endswith(": 2")


@pytest.mark.slow
def test_random_weights_take_the_place_of_a_configs_prior(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(random_weights, "FOLDER", folder)
    config, kept = tmp_path / "run.yaml", tmp_path / "a.json"
    config.write_text("prior: shapes\nprompt: a blue cube\n")
    words = ["bench", "--random-weights", "sd15", "--config", str(config), *SMALL, "--json", str(kept)]
    assert execute(words) == 0
    found = json.loads(kept.read_text())
    assert found["run"]["prior"] == "sd15" and found["settings"]["prompt"] == "a blue cube"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "value"),
    [("run", {}), ("phases", [1]), ("step", {}), ("matmul", None), ("phases", {"render": 3})],
    ids=str,
)
def test_a_file_that_is_not_whole_is_named(part, value, measured, tmp_path, capsys):
    whole, broken = tmp_path / "whole.json", tmp_path / "broken.json"
    whole.write_text(json.dumps(measured[0]))
    broken.write_text(json.dumps({**measured[0], part: value}))
    assert "broken.json is not whole" in mistake(capsys, "--compare", str(whole), str(broken))


def test_the_prior_may_be_any(capsys, tmp_path):
    words = ["--prior", "shapes", "--method", "sds", "--steps", "1", "--warmup", "1", "--views", "1", "--device", "cpu"]
    assert execute(["bench", *words, "--json", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert (found["run"]["prior"], found["run"]["gaussians"], found["run"]["resolution"]) == ("shapes", 1000, 64)
    assert found["flops"]["encode"] == 0 < found["flops"]["network"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--random-weights sdlx", "random_weights = 'sdlx' is no architecture. Did you mean 'sdxl'?"),
        ("--random-weights if --prior sdxl", "--random-weights if and --prior sdxl exclude each other"),
        ("--random-weights sd15 --model.revision abc", "model.revision = 'abc' is of a model's files"),
        ("--random-weights sd15 --model.config sd15", "model.config = 'sd15' is of a model's files"),
        ("--random-weights=", "random_weights = '' is no architecture"),
        ("--resume", "--resume is of the files of a run"),
        ("--log-every 3", "--log-every is of the files of a run"),
        ("--steps 0", "steps = 0 is out of range; it must be at least 1 and at most 1000"),
        ("--compare a.json", "the flag '--compare' takes 2 values"),
        ("--compare a.json b.json --json c.json", "--compare reads two files and measures nothing: it takes no other"),
        ("--warm-up 3", "unknown flag '--warm-up'. Did you mean '--warmup'?"),
        ("--method sdd", "unknown method 'sdd'."),
    ],
)
def test_mistakes(capsys, words, message):
    assert message in mistake(capsys, *words.split())


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_ceiling_is_of_the_precision_in_which_the_network_multiplies(precision, capsys, tmp_path):
    words = f"--steps 1 --warmup 1 --views 1 --device cpu --model.precision {precision}".split()
    assert execute(["bench", *words, "--json", str(tmp_path / "a.json")]) == 0
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["environment"]["precision"] == found["matmul"]["dtype"] == precision
