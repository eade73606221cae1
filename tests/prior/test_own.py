"""A prior of one's own, named on the command line: it goes wherever one of ours goes, and who looks loads nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import labs
import pytest
import torch

import gsdistill as gs
from gsdistill.cli.main import execute
from gsdistill.core.errors import ConfigError, ModelNotFound, Notice
from gsdistill.core.terminal import terminal
from gsdistill.generate import run
from gsdistill.models.catalogue import find_model, is_outside, known, world_of
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.loading import group_of
from gsdistill.prior.own import load_class, make
from gsdistill.run.changes import check_places, checked_changes
from gsdistill.run.config import resolve
from gsdistill.run.read import read_run
from gsdistill.settings.yaml import load_yaml

CPU = torch.device("cpu")

SOURCE = '''
"""Priors of one's own."""

import torch
from torch.nn.functional import interpolate

from gsdistill import Prior
from gsdistill.core.errors import ModelNotFound
from gsdistill.prior.analytic import plain_schedule
from gsdistill.prior.prompts import EncodedPrompt
from gsdistill.core.structs import Embedding


class Greys(Prior):
    """Pictures of one grey are all there is: N(0.3, 0.1^2) by element given the prompt, N(0, 1) without."""

    name, schedule, image_size, latent_shape = "greys", plain_schedule(), 16, (3, 8, 8)

    def encode(self, images):
        return interpolate(images.permute(0, 3, 1, 2), (8, 8), mode="area") - 0.5

    def encode_text(self, prompt, negative_prompt, settings=None):
        return EncodedPrompt(Embedding(torch.ones(1, 1, 1)), Embedding(torch.zeros(1, 1, 1)))

    def network(self, latents, timesteps, text, cameras):
        alpha, sigma = self.schedule.at(timesteps, latents)
        told = text.tokens[:, :1, :, None] > 0
        mean, deviation = torch.where(told, 0.3, 0.0), torch.where(told, 0.1, 1.0)
        return sigma * (latents - alpha * mean) / ((deviation * alpha) ** 2 + sigma**2)


class Shown(Greys):
    def decode(self, latents):
        return interpolate(latents, (16, 16)).permute(0, 2, 3, 1) + 0.5


class Together(Greys):
    view_group = 4


class Alone(Greys):
    def __init__(self):
        pass


class Fails(Greys):
    def __init__(self, device):
        open("weights.pt")


class Says(Greys):
    def __init__(self, device):
        raise ModelNotFound("the weights are with my supervisor")


class Square(Greys):
    latent_shape = [3, 8, 8]


class Typed(Greys):
    prediction_type = "v-prediction"


class Elsewhere(Greys):
    def __init__(self, device):
        self.device = torch.device("meta")


class Nameless(Greys.__base__):
    encode, encode_text, network = Greys.encode, Greys.encode_text, Greys.network


class Undone(Greys.__base__):
    encode = Greys.encode
'''

SMALL = ("--method", "sds", "--iterations", "3", "--views", "1", "--snapshots", "0")


@pytest.fixture
def lab(tmp_path):
    """A folder with the file mine.py, in which we are."""
    with labs.lab(tmp_path, mine=SOURCE) as folder:
        yield folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run with an outside prior, made by the command in another folder than that of the file."""
    with labs.lab(tmp_path_factory.mktemp("home"), mine=SOURCE) as home:
        (home / "else").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(home / "else")
            assert execute(["generate", "--prompt", "a red torus", *SMALL, "--prior", "../mine.py:Greys"]) == 0
    return home / "else" / "outputs" / "a-red-torus" / "sds-seed0"


def home_of(run: Path) -> Path:
    return run.parents[3]


@pytest.mark.slow
def test_a_run_keeps_the_whole_name_and_shows_the_short_one(made):
    assert load_yaml(made / "config.yaml")["prior"] == f"{home_of(made) / 'mine.py'}:Greys"
    assert "prior Greys, seed 0" in (made / "report.html").read_text()
    assert json.loads((made / "summary.json").read_text())["network_evaluations"] == 6


@pytest.mark.slow
def test_a_run_goes_on_from_another_folder_to_the_same_end(made, lab, tmp_path, monkeypatch, capsys):
    settings = load_yaml(made / "config.yaml")
    part = resolve({**settings, "output": tmp_path / "part", "checkpoint_every": 0})
    with monkeypatch.context() as patch:
        patch.setattr("gsdistill.run.folder.RunFolder.log", interrupted_after_two_steps)
        with pytest.raises(KeyboardInterrupt):
            run(part, terminal(), extras=False)
    assert execute(["generate", "--config", str(tmp_path / "part"), "--resume"]) == 0
    assert "going on from step" in capsys.readouterr().out
    assert (tmp_path / "part" / "gaussians.ply").read_bytes() == (made / "gaussians.ply").read_bytes()


def interrupted_after_two_steps(folder, record):
    if record["step"] >= 2:
        raise KeyboardInterrupt


def test_a_file_that_is_gone_is_named_on_resume(made, lab, tmp_path):
    """And another place of it can be given, but no other class."""
    before = {**load_yaml(made / "config.yaml"), "prior": f"{tmp_path / 'old.py'}:Greys"}
    now = {**before, "prior": f"{tmp_path / 'mine.py'}:Greys"}
    assert len(checked_changes(now, before, tmp_path, accept=True)) == 1
    with pytest.raises(ConfigError, match=r"prior = '.*old\.py:Greys': there is no such file or folder; say where it"):
        check_places(resolve(before), tmp_path)
    (tmp_path / "old.py").symlink_to("mine.py")
    assert not checked_changes(now, before, tmp_path, accept=False)
    with pytest.raises(ConfigError, match="cannot change prior"):
        checked_changes({**now, "prior": now["prior"].replace("Greys", "Shown")}, before, tmp_path, accept=True)


def test_who_only_looks_loads_nothing(made, lab, tmp_path, capsys):
    """The folder of a stranger names a file that would leave a trace."""
    folder, trap, trace = tmp_path / "stranger", tmp_path / "trap.py", tmp_path / "trace"
    shutil.copytree(made, folder)
    trap.write_text(f"open({str(trace)!r}, 'w')\n" + SOURCE)
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace(str(home_of(made) / "mine.py"), str(trap)))
    name = read_run(folder).settings["prior"]
    assert name == f"{trap}:Greys" and world_of(name) is None
    for words in (["report", str(folder)], ["evaluate", str(folder)], ["gallery", str(tmp_path)]):
        assert execute(words) == 0, capsys.readouterr().err
    assert "Greys, seed 0" in (tmp_path / "gallery.html").read_text()
    assert execute(["generate", "--config", str(folder), "--output", "new", "--dry-run"]) == 0
    assert trace.exists()  # the trap works


def test_it_is_asked_what_it_sees(made, lab):
    """It tells nothing of directions, so that all of them fit alike; and who was asked is told as the run has it."""
    folder = lab / "run"
    shutil.copytree(made, folder)
    assert execute(["evaluate", str(folder), "--prior", "mine.py:Greys"]) == 0
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["judge"] == f"{lab / 'mine.py'}:Greys"
    assert found["view_margin"] == 0 and found["prompt_fit"] < 0
    assert execute(["report", str(folder)]) == 0
    assert ">Greys<" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_sweep_takes_it(lab, capsys):
    words = ["sweep", "--prior", "./mine.py:Greys", "--prior-figures", "--methods", "sds", "cds", "--seeds", "0"]
    words += ["--prompts", "a grey", "--iterations", "2", "--output", "sweep"]
    assert execute(words) == 0 and "fronts 1; " in capsys.readouterr().out
    rows = json.loads((lab / "sweep" / "results.json").read_text())["rows"]
    assert [row["fronts"] for row in rows] == [1, 1, 1]
    assert execute(words) == 0 and "fronts 1; " not in capsys.readouterr().out  # nothing is left to do
    assert execute([*words[:2], "./mine.py:Alone", *words[3:-1], "new"]) == 2
    assert not (lab / "new").exists()


def test_play2d_bench_and_doctor_take_it(lab, capsys):
    assert (
        execute(["play2d", "--prior", "mine.py:Shown", "--method", "sds", "--samples", "2", "--descent.steps", "2"])
        == 0
    )
    assert (lab / "outputs" / "play2d" / "Shown-sds-seed0" / "figure.png").exists()
    assert execute(["bench", "--prior", "./mine.py:Greys", "--method", "sds", "--steps", "1", "--warmup", "1"]) == 0
    capsys.readouterr()
    assert execute(["doctor", "--prior", "mine.py:Greys"]) == 0
    assert f"Greys of {lab / 'mine.py'}" in capsys.readouterr().out


def test_a_dry_run_makes_none_and_says_so(lab, capsys):
    assert execute(["generate", "--prompt", "a grey", "--prior", "./mine.py:Fails", "--dry-run"]) == 0
    told = capsys.readouterr()
    assert f"time, memory and download: not known for {lab / 'mine.py'}:Fails" in told.err
    assert f"prior: {lab / 'mine.py'}:Fails" in told.out


def test_the_front_door_takes_it_too(lab):
    prior = gs.load_prior("./mine.py:Greys", "cpu")
    assert prior.name == "greys" and prior.device == CPU
    with pytest.warns(Notice, match=r"no recipe is known for sds with the prior .*mine\.py:Greys"):
        steps = gs.distil("a grey", "mine.py:Greys", method="sds", device="cpu", iterations=2, views=1)
    assert [step.number for step in steps] == [1, 2]


def test_what_a_class_says_serves_before_it_is_made(lab, capsys):
    assert group_of("./mine.py:Together") == 4 and group_of("./mine.py:Greys") == 1
    assert execute(["generate", "--prompt", "a grey", "--prior", "./mine.py:Together", "--views", "3"]) == 2
    assert "views = 3 is no multiple of the 4 views" in capsys.readouterr().err


BAD = {
    "Alone": "is made by Alone(device), which its __init__ does not take",
    "Fails": "does not load: FileNotFoundError: [Errno 2] No such file or directory: 'weights.pt' ({file}, line 48)",
    "Square": ": latent_shape = [3, 8, 8] is not a tuple of channels, height and width",
    "Typed": ": prediction_type = 'v-prediction'. Did you mean 'v_prediction'? Allowed: epsilon, v_prediction, sample, "
             "flow_prediction",
    "Elsewhere": "computes on meta, not on cpu: let it keep the device that it is made with as self.device, or take "
                 "--device meta",
    "Nameless": "lacks name, schedule, image_size, latent_shape: attributes that every gsdistill.Prior has",
    "Undone": "is abstract: it lacks encode_text, network of gsdistill.prior.base.Prior",
    "torch": "is no subclass of gsdistill.prior.base.Prior",
    "Grays": ": there is no 'Grays' in {file}. Did you mean 'Greys'?",
}  # fmt: skip


@pytest.mark.parametrize("label", BAD)
def test_what_can_be_no_prior_is_refused_in_one_sentence(label, lab, capsys):
    name, file = f"./mine.py:{label}", str(lab / "mine.py")
    with pytest.raises(ConfigError) as caught:
        make(name, CPU)
    told = f"prior '{name}' {BAD[label]}".replace(" :", ":").replace("{file}", file)
    assert str(caught.value) == told
    assert execute(["generate", "--prompt", "a grey", "--prior", name]) == 2
    assert told.partition("' ")[2] in capsys.readouterr().err


def test_what_it_says_itself_passes(lab):
    with pytest.raises(ModelNotFound, match="the weights are with my supervisor"):
        make("./mine.py:Says", CPU)
    with pytest.raises(ConfigError, match=r"^model\.precision = 'float16' is of models that gsdistill loads"):
        gs.load_prior("./mine.py:Greys", "cpu", precision="float16")
    assert make("./mine.py:Greys", CPU, ModelSettings()).name == "greys"


def test_other_names_are_not_mistaken_for_classes(lab):
    (lab / "a:b").mkdir()
    (lab / "c.py").mkdir()
    for name in (
        r"C:\models\sd",
        "C:/models/sd",
        "owner/name:tag",
        "owner/name",
        "a:b",
        "c.py",
        "shapes",
        "auto",
        "lab/x:X",
    ):
        assert not is_outside(name), name
    for name in ("mine.py", "./mine.py:Greys", "mine:Greys", "my.lab:Greys", r"C:\lab\mine.py:Greys"):
        assert is_outside(name), name
    assert find_model("a:b") == ("a:b",)
    with pytest.raises(
        ConfigError, match=r"prior = 'C:\\models\\sd' is neither a known prior .*or one of your own as mod"
    ):
        find_model(r"C:\models\sd")
    with pytest.raises(ConfigError, match=r"^prior 'mine\.py' names no class; write module:Class or file\.py:Class"):
        load_class("mine.py")


def test_an_installed_package_brings_names(lab, monkeypatch, capsys):
    labs.install(lab, "lab-of-mine", "[gsdistill.priors]\ngreys = mine:Greys\nsd15 = mine:Greys\nshapes = mine:Greys\n")
    monkeypatch.syspath_prepend(str(lab))
    (lab / "greys").mkdir()  # a name is a name, whatever lies here
    assert known()[-1] == "greys" and is_outside("greys") and not is_outside("sd15")
    assert execute(["list", "priors"]) == 0
    assert "greys           mine:Greys of the package lab-of-mine" in capsys.readouterr().out
    assert resolve({"prompt": "a grey", "prior": "greys"}).prior == "greys"
    assert gs.load_prior("greys", "cpu").name == "greys"
    with pytest.raises(ConfigError, match=r"Did you mean 'greys'\? Known: auto, shapes, .*, greys, a diffusers folder"):
        gs.load_prior("gerys", "cpu")
    with pytest.warns(
        Notice, match="the prior 'shapes' is gsdistill's own; that of the package lab-of-mine is mine:Greys"
    ):
        assert gs.load_prior("shapes", "cpu").name == "shapes"
