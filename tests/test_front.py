"""What `import gsdistill` shows, used as a notebook uses it."""

from __future__ import annotations

import base64
import copy
import html
import importlib.util
import io
import itertools
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import labs
import numpy as np
import pytest
import torch
from PIL import Image

import gsdistill as gs
from gsdistill import front, generate
from gsdistill.cli.main import execute
from gsdistill.core.errors import BadFile, ConfigError, Notice, OutOfMemory, OutputError, PromptError, Stopped
from gsdistill.core.structs import SH_C0, Gaussians, RenderOptions
from gsdistill.core.terminal import terminal
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.sds import SDS
from gsdistill.generate import prepared
from gsdistill.prior.analytic import AnalyticPrior
from gsdistill.renderer.base import check_backgrounds
from gsdistill.representation.gaussians import GaussianScene
from gsdistill.run.config import RunConfig, resolve
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.viewpoints import orbit
from gsdistill.settings.config import validate
from gsdistill.settings.registry import load
from gsdistill.settings.yaml import load_yaml
from gsdistill.testing import check_method, check_prior
from gsdistill.training import checkpoint
from gsdistill.training.distiller import Stage
from gsdistill.training.views import ViewSettings

ROOT = Path(gs.__file__).parent
BLOCKS, FRONT = (
    re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for folder in (ROOT, ROOT.parent)
)


@pytest.fixture(scope="module")
def prior():
    return gs.load_prior("shapes", "cpu")


@pytest.fixture
def lab(tmp_path):
    """An empty folder, in which we are."""
    with labs.lab(tmp_path) as folder:
        yield folder


@pytest.fixture
def ball():
    """One red Gaussian in the middle."""
    colour = (torch.tensor([[[1.0, 0.0, 0.0]]]) - 0.5) / SH_C0
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    return Gaussians(torch.zeros(1, 3), quats, torch.full((1, 3), -1.0), torch.full((1,), 6.0), colour)


def test_the_first_block_of_the_packages_readme_does_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(BLOCKS[0], "README.md", "exec"), names)
    said = capsys.readouterr().out.split()
    assert [said[i] for i in (0, 2, 4)] == ["20", "40", "60"]
    assert float(said[6]) > 0.6
    assert len(gs.load(tmp_path / "torus.ply")) == len(names["splat"])


def test_the_notebook_of_the_front_page_is_the_packages_and_runs(lab):
    assert len(FRONT) == 2
    assert textwrap.indent(FRONT[0], " " * 4, str.strip) in gs.__doc__
    names: dict = {}
    source = FRONT[0].replace("iterations=300", "iterations=2, views=1, resolution=16")
    exec(compile(source, "README.md", "exec"), names)
    assert names["run"].done == 2 and len(gs.load(lab / "torus.ply")) > 100


def test_the_method_of_the_front_page_runs_and_keeps_what_methods_promise(lab, prior):
    (lab / "mine.py").write_text(FRONT[1])
    check_method(load("gsdistill.distillation", "./mine.py:Mine", "method"))
    with pytest.warns(Notice, match="no recipe is known for .*Mine with the prior shapes"):
        run = gs.distil("a red torus", prior, method="./mine.py:Mine", iterations=2, views=1, resolution=16)
    assert [step.number for step in run] == [1, 2]


def test_the_prior_of_the_readme_is_distilled(lab):
    """Its world has one colour, and the splat takes it; a prompt that it does not know is refused in its words."""
    (lab / "colours.py").write_text(BLOCKS[1])
    prior = gs.load_prior("./colours.py:Colours", "cpu")
    check_prior(prior)
    run = gs.distil("a blue ball", prior, method="sds", iterations=30, views=2, background="grey", recipe=False)
    (red, green, blue), *_, (less_red, less_green, more_blue) = (step.images.mean((0, 1, 2)) for step in run)
    assert more_blue > blue + 0.05 and less_red < red - 0.02 and less_green < green - 0.02
    with pytest.raises(PromptError, match="'a chair' names no colour; known: red, green, blue"):
        gs.distil("a chair", "./colours.py:Colours", method="sds", device="cpu", recipe=False)


@pytest.fixture
def mirrored(lab):
    """The splat of the README that is its own mirror image, after the run of the README; and the names of both."""
    (lab / "mirrored.py").write_text(BLOCKS[2])
    names: dict = {}
    source = BLOCKS[3].replace("iterations=60", "iterations=12, views=2, resolution=32")
    exec(compile(source, "README.md", "exec"), names)
    return names


@pytest.mark.slow
def test_the_representation_of_the_readme_is_its_own_mirror_image(mirrored, lab):
    splat, run = gs.load(lab / "mirrored.ply"), mirrored["run"]
    assert len(splat) == len(run.representation) and run.done == 12
    pictures = gs.render(splat, orbit(4, 32), background=0.0)  # azimuths 0, 90, 180, 270
    assert float(pictures.std()) > 0.05
    for left, right in ((0, 0), (1, 3), (2, 2)):
        torch.testing.assert_close(pictures[left], pictures[right].flip(1), atol=2e-3, rtol=0)
    small = {"method": "sds", "iterations": 12, "views": 2, "resolution": 32, "device": "cpu"}
    again = gs.distil("a red torus", "shapes", representation="./mirrored.py:Mirrored", **small)
    start = again.representation.splat()
    assert not torch.allclose(run.representation.splat().sh[: len(start)], start.sh, atol=0.01)  # it has moved
    list(itertools.islice(again, 5))
    checkpoint.restore(again, checkpoint.read(checkpoint.save(again, lab, {})))
    again.run()
    ends = [one.representation.splat().tensors() for one in (run, again)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.slow
def test_a_representation_is_found_by_name_and_enters_stages(mirrored, lab, prior):
    found = load("gsdistill.representation", "./mirrored.py:Mirrored", "representation")
    with pytest.raises(
        ConfigError, match=r"^representation '\./mirrored\.py:torch' is no subclass of gsdistill\.repres"
    ):
        load("gsdistill.representation", "./mirrored.py:torch", "representation")
    assert load("gsdistill.representation", "gaussians", "representation") is GaussianScene
    labs.install(lab, "lab-of-mine", "[gsdistill.representations]\ntwin = mirrored:Mirrored\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(lab))
        assert load("gsdistill.representation", "twin", "representation").__name__ == "Mirrored"
        del sys.modules["mirrored"]
    ball = mirrored["run"].representation.splat()
    scene, text = found(ball, None, 2, torch.device("cpu")), prior.encode_text("a red torus", "")
    views, then = ViewSettings(1, 16), [Stage(CDS(), ViewSettings(2, 16), 2)]
    run = gs.Distiller(scene, prior, SDS(), text, views, 2, torch.Generator().manual_seed(0), then=then)
    counts = [float(scene.adam.state[scene.params["means"]].get("step", 0)) for _ in run]
    assert counts == [1, 0, 1, 2]  # another method begins with fresh moments


@pytest.mark.slow
def test_a_representation_of_ones_own_goes_the_whole_command_line(lab, capsys, monkeypatch):
    """Stopped after two of three steps it goes on to the bits of a run that was not."""
    (lab / "mirrored.py").write_text(BLOCKS[2])
    given = {"prompt": "a red torus", "method": "sds", "prior": "shapes", "representation": "./mirrored.py:Mirrored"}
    given |= {"iterations": 3, "views": 1, "resolution": 16, "init": {"name": "ball", "count": 20}, "snapshots": 0}
    console = terminal()
    whole = generate.run(resolve({**given, "output": "whole"}), console, extras=False)
    assert load_yaml(whole / "config.yaml")["representation"] == f"{lab / 'mirrored.py'}:Mirrored"
    assert len(gs.load(whole)) == len(gs.load("whole/gaussians.ply")) > 20

    class Stopper(gs.Listener):
        def on_step(self, step, run):
            assert step.count == 40
            if step.number == 2:
                run.stop()

    with pytest.raises(Stopped):
        generate.run(resolve({**given, "output": "cut"}), console, extras=False, listeners=[Stopper()])
    assert execute(["generate", "--config", "cut", "--resume"]) == 0
    assert (lab / "cut/gaussians.ply").read_bytes() == (whole / "gaussians.ply").read_bytes()
    capsys.readouterr()
    (lab / "two.py").write_text("from mirrored import *\nclass Two(Mirrored):\n    def __init__(self, initial): ...\n")
    monkeypatch.syspath_prepend(str(lab))
    for name, told in {
        "gausians": "unknown representation 'gausians'. Did you mean 'gaussians'?",
        "two.py:Two": "is made by Two(initial, settings, iterations, device), which its __init__ does not take",
        "two.py:Representation": "is abstract: it lacks ",
    }.items():
        assert execute(["generate", "--prompt", "x", "--representation", name, "--output", "none"]) == 2
        assert told in capsys.readouterr().err
    assert not (lab / "none").exists()
    del sys.modules["mirrored"]


@pytest.mark.slow
def test_the_listener_of_the_readme_writes_its_table_and_ends_what_takes_too_long(lab):
    source = BLOCKS[4].replace("iterations=40", "iterations=21, views=1, resolution=16, device='cpu'")
    for allowed, steps in ((600, [10, 20, 21]), (0, [1])):
        exec(compile(source.replace("seconds=600", f"seconds={allowed}"), "README.md", "exec"), {})
        head, *lines = (lab / "course.csv").read_text().splitlines()
        assert head == "step,loss,gaussians" and [int(line.split(",")[0]) for line in lines] == steps
        assert all(float(line.split(",")[1]) > 0 and int(line.split(",")[2]) > 100 for line in lines)


def test_the_door_is_light_and_lists_what_it_has():
    program = (
        "import sys, gsdistill; print(*dir(gsdistill)); print(*sorted({'torch', 'yaml', 'PIL'} & set(sys.modules)))"
    )
    listed, loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent
    ).stdout.splitlines()
    assert set(gs.__all__) <= set(listed.split()) and not {"Any", "importlib"} & set(listed.split())
    assert loaded == ""
    assert len(gs.__all__) <= 15 and all(getattr(gs, name).__doc__ for name in gs.__all__)
    assert gs.Splat is Gaussians
    assert (ROOT / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'distill'"):
        gs.distill  # noqa: B018


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pyright") is None, reason="no pyright")
def test_a_checker_of_types_knows_every_name_and_no_other(tmp_path):
    (tmp_path / "program.py").write_text(BLOCKS[0] + "".join(f"gs.{name}\n" for name in [*gs.__all__, "distill"]))
    words = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "program.py"]
    surroundings = {**os.environ, "PYTHONPATH": str(ROOT.parent)}
    told = subprocess.run(words, cwd=tmp_path, env=surroundings, capture_output=True, text=True, check=False).stdout
    errors = [one["message"] for one in json.loads(told)["generalDiagnostics"] if one["severity"] == "error"]
    assert errors == ['"distill" is not a known attribute of module "gsdistill"']


def test_distil_is_the_run_of_the_command_line(prior):
    """The same recipe, start and steps, to the last bit."""
    settings = {"iterations": 2, "views": 1, "resolution": 16, "seed": 3}
    run = gs.distil("a red torus", prior, method="cds", **settings)
    config = resolve({"prompt": "a red torus", "prior": "shapes", "method": "cds", "device": "cpu", **settings})
    assert run.method == config.method
    _, other = prepared(config, prior, torch.device("cpu"))
    for ours, theirs in zip(run, other, strict=True):
        assert torch.equal(ours.loss, theirs.loss)
    splats = [each.representation.splat().tensors() for each in (run, other)]
    assert all(torch.equal(value, splats[1][name]) for name, value in splats[0].items())


def test_a_method_that_is_an_object_stands_as_it_is_within_the_recipe(prior):
    by_name = gs.distil("a red torus", prior, method="sds")
    by_object = gs.distil("a red torus", prior, method=SDS(gs.Ramp(33.0, 33.0)))
    assert by_object.method == SDS(gs.Ramp(33.0, 33.0)) != by_name.method
    assert by_object.representation.settings == by_name.representation.settings  # of the recipe
    assert by_object.iterations == by_name.iterations


def test_terms_of_ones_own_are_added(prior):
    settings = {"method": "sds", "iterations": 1, "views": 1, "resolution": 16}
    plain, more = (
        next(iter(gs.distil("a red torus", prior, terms=terms, **settings)))
        for terms in ((), [lambda out, cameras, progress: 5.0 + 0.0 * out.alphas.sum()])
    )
    assert float(more.loss) == pytest.approx(float(plain.loss) + 5.0)


def test_it_is_told_where_no_recipe_is_known(prior):
    with warnings.catch_warnings():
        warnings.simplefilter("error", Notice)
        gs.distil("a red torus", prior, method="sds", iterations=1)
        gs.distil("a red torus", prior, method="ism", iterations=1, recipe=False)
    with pytest.warns(Notice, match="quality: draft, but iterations = 3, as given"):
        gs.distil("a red torus", prior, method="sds", iterations=3, quality="draft")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"output": "x"}, "output is of `gsdistill generate`: distil keeps no files; save() writes the splat"),
        ({"itertions": 3}, "unknown setting 'itertions' (value 3). Did you mean 'iterations'?"),
        ({"method": "sdss"}, "unknown method 'sdss'. Did you mean 'sds'?"),
        ({"iterations": 0}, "iterations = 0 is out of range; it must be at least 1"),
        ({"device": "meta"}, "device = 'meta'"),
    ],
)
def test_a_wrong_setting_is_one_sentence(prior, settings, told):
    with pytest.raises(ConfigError) as caught:
        gs.distil("a red torus", prior, **settings)
    assert str(caught.value).startswith(told)


def test_a_splat_goes_to_a_file_and_back(tmp_path, ball):
    for ending in ("ply", "splat", "glb"):
        file = gs.save(ball, tmp_path / "new" / f"ball.{ending}")
        back = gs.load(str(file))
        torch.testing.assert_close(back.means, ball.means, atol=1e-4, rtol=0)
        with pytest.raises(OutputError, match=r"exists; choose another name, or replace it with overwrite=True"):
            gs.save(ball, file)
        gs.save(ball, file, overwrite=True)
    with pytest.raises(ConfigError, match="names no format"):
        gs.save(ball, tmp_path / "ball.obj")
    with pytest.raises(ConfigError, match="a splat is expected, not int"):
        gs.save(7, tmp_path / "seven.ply")  # type: ignore[arg-type]
    with pytest.raises(BadFile, match=r"none\.ply"):
        gs.load(tmp_path / "none.ply")


def test_pictures_are_over_the_background_that_was_asked_for(ball):
    pictures = gs.render(ball, 3, 32, (0.0, 0.0, 1.0))
    assert pictures.shape == (3, 32, 32, 3) and not pictures.requires_grad
    assert torch.equal(pictures[:, 0, 0], torch.tensor([[0.0, 0.0, 1.0]]).expand(3, 3))
    torch.testing.assert_close(pictures[:, 16, 16], torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3), atol=0.02, rtol=0)
    assert torch.equal(gs.render(ball, orbit(2, 16), background=0.5)[:, 0, 0], torch.full((2, 3), 0.5))
    for wrong in ("red", (1.0, 0.0), 2.0, [[1.0, 1.0, 1.0]], float("nan")):
        with pytest.raises(ConfigError, match="is no grey value or RGB colour"):
            gs.render(ball, 1, 16, wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cameras = 0"):
        gs.render(ball, 0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ((1.0, 1.0, 1.0), "backgrounds is a tuple; one colour per camera is expected, a tensor of floats [4, 3]"),
        (torch.ones(3), "backgrounds is float32 [3]; one colour per camera is expected, a tensor of floats [4, 3]"),
        (torch.ones(1, 3), "backgrounds is float32 [1, 3]; one colour per camera is expected, "
                           "a tensor of floats [4, 3]"),
        (torch.ones(4, 3).long(), "backgrounds is int64 [4, 3]; one colour per camera is expected, "
                                  "a tensor of floats [4, 3]"),
    ],
)  # fmt: skip
def test_a_renderer_says_what_is_wrong_with_backgrounds(wrong, told):
    with pytest.raises(ConfigError) as caught:
        check_backgrounds(orbit(4, 8), wrong)
    assert str(caught.value) == told


@pytest.mark.slow
def test_figures_have_the_truth_where_it_is_known(ball):
    assert 0 < gs.evaluate(ball, "a red sphere")["iou"] < 1
    assert "iou" not in gs.evaluate(ball)
    with pytest.warns(Notice, match="what needs a truth is left out"):
        assert "iou" not in gs.evaluate(ball, "a photograph of a hamburger")


def test_a_splat_shows_itself_turning(ball):
    pair = ball.each(lambda value: torch.cat([value, value]))
    pair.means[1, 0] = 0.8
    shown = pair._repr_html_()
    head, _, data = shown.partition("base64,")
    assert head == '<img alt="2 Gaussians" title="2 Gaussians" width="192" src="data:image/webp;'
    picture = Image.open(io.BytesIO(base64.b64decode(data.removesuffix('">'))))
    assert (picture.size, picture.n_frames) == ((192, 192), 16)
    red, green, blue = picture.convert("RGB").getpixel((96, 96))
    assert red > 200 and green < 60 and blue < 60
    assert min(picture.convert("RGB").getpixel((2, 2))) > 240
    far = replace(ball, means=ball.means + 50.0)
    assert far._repr_html_().startswith("<img")
    empty = ball.each(lambda value: value[:0])
    assert empty._repr_html_() == "<p>0 Gaussians</p>"


def loss_of_a_step(seed: int) -> float:
    run = gs.distil(
        "a red torus", "shapes", method="sds", iterations=1, views=1, resolution=16, seed=seed, device="cpu"
    )
    return float(run.step().loss)


def test_any_thread_serves():
    here = loss_of_a_step(1)
    assert threading.current_thread() is threading.main_thread()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(loss_of_a_step, 1).result() == here


def followed(run: gs.Distiller) -> tuple[list[torch.Tensor], int]:
    """Every loss, the scene at the end, and the evaluations that its steps tell of."""
    steps = list(run)
    return [*(step.loss for step in steps), *run.representation.params.values()], sum(s.evaluations for s in steps)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sds", "vsd"])
def test_two_threads_share_a_prior(method, prior):
    """Each run has the bits and the count that it has alone, whatever a method hangs on the network meanwhile."""

    def run(seed: int) -> tuple[list[torch.Tensor], int]:
        settings = {"iterations": 6, "views": 1, "resolution": 16, "seed": seed}
        return followed(gs.distil("a red torus", prior, method=method, **settings))

    alone = [run(seed) for seed in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(run, (0, 1)))
    for (values, count), (others, counted) in zip(alone, together, strict=True):
        assert all(torch.equal(value, other) for value, other in zip(values, others, strict=True))
        assert count == counted


@pytest.mark.slow
def test_a_run_is_pickled_and_copied_with_its_prior(prior):
    """The weights are not sent; what comes back goes on as the run itself does, and apart from it."""
    settings = {"method": "cds", "iterations": 4, "views": 1, "resolution": 16, "finish": "none"}
    run = gs.distil("a red torus", prior, **settings, densify={"enabled": True, "start": 0, "stop": 1, "every": 0.25})
    run.step()
    assert len(sent := pickle.dumps(prior)) < 100_000
    others = [pickle.loads(pickle.dumps(run)), copy.deepcopy(run)]
    (values, count), *copied = [followed(each) for each in (run, *others)]
    for found, counted in copied:
        assert count == counted and all(torch.equal(one, other) for one, other in zip(values, found, strict=True))
    assert pickle.loads(sent).folder == prior.folder


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"means": torch.zeros(1, 2)}, "means of the splat is float32 [1, 2]; floats [N, 3] are expected"),
        ({"scales": torch.zeros(2, 3)}, "scales of the splat is float32 [2, 3]; floats [N, 3] are expected"),
        ({"opacities": torch.zeros(1, 1)}, "opacities of the splat is float32 [1, 1]; floats [N] are expected"),
        ({"quats": torch.zeros(1, 4).long()}, "quats of the splat is int64 [1, 4]; floats [N, 4] are expected"),
        ({"sh": torch.zeros(1, 2, 3)}, "sh of the splat is float32 [1, 2, 3]; floats [N, 1, 3] or [N, 4, 3] or "),
        ({"sh": torch.zeros(1, 1, 3, device="meta")}, "sh of the splat is on meta, and means are on cpu"),
        ({"means": [[0.0, 0.0, 0.0]]}, "means of the splat is a list; floats [N, 3] are expected"),
        ({"options": None}, "options of the splat is a NoneType; RenderOptions are expected"),
        ({"options": RenderOptions(near=-1.0)}, "options.near = -1.0 is out of range"),
        ({"means": torch.full((1, 3), torch.nan)}, "1 of the splat's 1 Gaussians are not sound: 1 with NaN in means"),
        ({"quats": torch.zeros(1, 4)}, "1 of the splat's 1 Gaussians are not sound: 1 without a rotation"),
    ],
)
def test_a_splat_that_is_none_is_refused_and_a_notebook_shows_why(ball, change, told, tmp_path):
    spoilt = copy.copy(ball)
    vars(spoilt).update(change)  # past the check of types that tests have, and a user has not
    for ask in (gs.render, gs.evaluate, lambda splat: gs.save(splat, tmp_path / "spoilt.ply")):
        with pytest.raises(ConfigError) as caught:
            ask(spoilt)
        assert str(caught.value).startswith(told)
    assert spoilt._repr_html_() == f"<p>{html.escape(str(caught.value))}</p>"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_splat_of_half_precision_is_drawn_measured_and_saved(ball, tmp_path):
    half = ball.each(torch.Tensor.half)
    torch.testing.assert_close(gs.render(half, 1, 16).float(), gs.render(ball, 1, 16), atol=0.01, rtol=0)
    assert gs.evaluate(half, "a red sphere").keys() == gs.evaluate(ball, "a red sphere").keys()
    assert half._repr_html_().startswith("<img") and gs.save(half, tmp_path / "half.ply").is_file()


def test_a_splat_equals_itself_alone(ball):
    """Where a comparison of their tensors would be an error."""
    pair = ball.each(lambda value: torch.cat([value, value]))
    assert pair == pair and pair != replace(pair, sh=pair.sh + 1) and pair != ball
    assert [ball, pair].index(pair) == 1 and len({ball, pair, pair}) == 2


@pytest.mark.parametrize(
    ("change", "back", "value", "told"),
    [
        (torch.set_default_dtype, torch.float32, torch.float64, "float64 on cpu"),
        (torch.set_default_device, None, "meta", "float32 on meta"),
    ],
)
def test_other_defaults_of_torch_are_refused(change, back, value, told, prior, ball, tmp_path):
    asked = {
        gs.load_prior: ("shapes",), gs.distil: ("a red torus", prior), gs.load: (tmp_path,), gs.render: (ball,),
        gs.evaluate: (ball,), gs.save: (ball, tmp_path / "ball.ply"),
    }  # fmt: skip
    change(value)
    try:
        for ask, given in asked.items():
            with pytest.raises(ConfigError, match=f"torch makes tensors of {told} by default, and float32 on cpu is"):
                ask(*given)
    finally:
        change(back)


class Place:
    """A path as other libraries have them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __fspath__(self) -> str:
        return self.name


@pytest.mark.parametrize("kind", [str, Path, os.fsencode, Place])
def test_paths_are_what_python_opens(ball, kind, tmp_path):
    name = str(tmp_path / "r\u00f6t \u7403.ply")
    assert gs.save(ball, kind(name)) == Path(name)
    assert len(gs.load(kind(name))) == 1


def test_whole_numbers_may_be_those_of_numpy(ball):
    assert gs.render(ball, np.int64(2), np.int32(8)).shape == (2, 8, 8, 3)


def test_a_picture_without_memory_is_said(ball, monkeypatch):
    def short(*given):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(front, "drawn", short)
    with pytest.raises(OutOfMemory, match="no memory for 2 pictures of 16 x 16 pixels; ask for fewer or smaller ones"):
        gs.render(ball, 2, 16)


def test_devices_may_be_those_of_torch(prior):
    run = gs.distil("a red torus", prior, method="sds", iterations=1, device=torch.device("cpu"))
    assert run.representation.device == gs.load_prior("shapes", torch.device("cpu")).device == torch.device("cpu")


FORK = """
import os, signal, torch, gsdistill.front
torch.set_num_threads(2)
torch.ones(1 << 22).exp().sum()
child = os.fork()
if not child:
    signal.alarm(20)
    torch.ones(1 << 22).exp().sum()
    os._exit(0)
raise SystemExit(os.waitpid(child, 0)[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_computes_though_its_parent_had_threads():
    subprocess.run([sys.executable, "-c", FORK], check=True, cwd=ROOT.parent)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_pools_of_processes_serve(how):
    here = loss_of_a_step(1)
    with multiprocessing.get_context(how).Pool(1) as pool:
        assert pool.map_async(loss_of_a_step, [1]).get(200) == [here]


def test_settings_made_by_hand_may_be_texts():
    config = validate(RunConfig("a red torus", prior=ROOT, method="sds", output="x", init="ball"))  # type: ignore[arg-type]
    assert (config.prior, config.output, type(config.method)) == (str(ROOT), Path("x"), SDS)
    with pytest.raises(ConfigError, match=r"lora = 'a\.safetensors' has the wrong type"):
        gs.load_prior("shapes", lora="a.safetensors")


def test_a_prior_is_found_by_auto_and_by_path(prior):
    assert gs.load_prior("auto", "cpu").name == "shapes"
    assert gs.load_prior(prior.folder).name == "shapes"


class Nothing(AnalyticPrior):
    """Says nothing of itself."""

    def __init__(self): ...


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda prior, ball: gs.distil("a red torus", prior, model={"precision": "float16"}), "give it to load_prior"),
        (lambda prior, ball: gs.distil("a red torus", prior, terms=lambda *given: 0.0), r"as in terms=\[mine\]"),
        (lambda prior, ball: gs.distil("a red torus", prior, terms=[5]), r"terms = \[5\]: a list of functions"),
        (
            lambda prior, ball: gs.distil("a red torus", prior, method=gs.Splat),
            "method = <class .*, or an object of Distillation",
        ),
        (
            lambda prior, ball: gs.distil("a red torus", prior, method=Ball()),
            "method = Ball.*, or an object of Distillation",
        ),
        (
            lambda prior, ball: gs.distil("a red torus", prior, init=SDS),
            "init = <class .*, or an object of Initialiser",
        ),
        (
            lambda prior, ball: gs.distil("a red torus", Nothing()),
            "the prior Nothing lacks name, schedule, image_size, l",
        ),
        (lambda prior, ball: gs.distil("a red torus", prior, device=None), "device = .None. is not a device"),
        (lambda prior, ball: gs.load_prior("shapes", None), "device = 'None' is not a device"),
        (lambda prior, ball: gs.load_prior("shapes", lora=["a.safetensors"]), "lora: there is no file a.safetensors"),
        (lambda prior, ball: gs.load_prior("shapes", vae=3), "vae = 3 has the wrong type"),
        (lambda prior, ball: validate(RunConfig(5)), "prompt = 5 has the wrong type; expected text"),  # type: ignore[arg-type]
        (lambda prior, ball: gs.render(ball, 2, 16, torch.ones(1, 3)), r"= tensor\(\[\[1\., 1\., 1\.\]\]\) is no grey"),  # type: ignore[arg-type]
        (lambda prior, ball: gs.render(ball, 2, 16, torch.ones(2, 3)), r"= tensor\(\[\[1\., 1\., 1\.\], \[1"),  # type: ignore[arg-type]
        (lambda prior, ball: gs.distil("a red torus", prior, terms=None), r"terms = None: .*, as in terms=\[mine\]"),
        (lambda prior, ball: gs.distil("a red torus", prior, terms=(1,)), r"terms = \[1\]: .*, as in terms=\[mine\]"),
        (lambda prior, ball: gs.distil("a red torus", 3), "prior = 3: a name or a path is expected"),
        (
            lambda prior, ball: gs.distil("a red torus", prior, init=gs.Ramp(1, 1)),
            "init = Ramp.*, or an object of Init",
        ),
        (lambda prior, ball: gs.distil("a red torus", prior, init=ball), "init = Gaussians.*, or an object of Init"),
        (
            lambda prior, ball: gs.distil("a red torus", prior, method=gs.Distillation),
            "method = Distillation: .*abstract",
        ),
        (lambda prior, ball: gs.distil("a red torus", prior, method=int), "method = <class 'int'>: a name"),
        (lambda prior, ball: gs.load_prior(["shapes"]), r"prior = \['shapes'\]: a name or a path is expected"),
        (lambda prior, ball: gs.load_prior("shapes", None), "device = 'None' is not a device"),
        (lambda prior, ball: gs.load(3), "path = 3: the path of a file is expected"),
        (lambda prior, ball: gs.save(ball, "a\0.ply"), "is no name of a file"),
        (lambda prior, ball: gs.evaluate(ball, 3), "prompt = 3: a text is expected"),
        (lambda prior, ball: gs.evaluate(ball.each(lambda value: value[:0])), "has no Gaussian"),
        (lambda prior, ball: gs.render(ball, 1, 1.5), r"size = 1\.5: a whole number from 1 on is expected"),
        (lambda prior, ball: gs.distil("a red torus", prior, logs=("tensorboard",)), "logs is of `gsdistill generate`"),
        (lambda prior, ball: gs.evaluate("torus.ply"), "a splat is expected, not str"),
        (lambda prior, ball: gs.render(ball, 4.0), "a whole number from 1 on, or Cameras, is expected"),
        (lambda prior, ball: gs.render(ball, True), "a whole number from 1 on, or Cameras, is expected"),
    ],
)
def test_what_is_asked_wrongly_is_said(ask, told, prior, ball):
    with pytest.raises(ConfigError, match=told):
        ask(prior, ball)


@pytest.mark.slow
def test_what_the_type_checker_of_the_tests_would_not_let_through():
    """Settings made by hand as notebooks make them, and one listener in place of a list."""
    program = """if True:
        import gsdistill as gs
        from gsdistill.prior.loading import load_prior
        from gsdistill.prior.families.base import ModelSettings
        run = gs.distil("a red torus", "shapes", method="sds", device="cpu", iterations=1)
        for ask in (
            lambda: load_prior("shapes", settings=ModelSettings(lora=("a.safetensors",))),
            lambda: run.run(gs.Listener()),
            lambda: run.run([gs.Listener]),
        ):
            try:
                ask()
            except ValueError as error:
                print(error)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT.parent)
    listeners = "run takes a list of Listeners, as in run([mine])"
    assert done.stdout.splitlines() == ["model.lora: there is no file a.safetensors", listeners, listeners]


def test_a_method_and_a_start_may_be_classes(prior):
    run = gs.distil("a red torus", prior, method=SDS, init=Ball, iterations=2)
    assert run.method == SDS() and len(run.representation) == Ball().count
    assert validate(RunConfig("a red torus", method=SDS)).method == SDS()  # type: ignore[arg-type]


def test_a_device_may_be_one_of_torch():
    loaded = gs.load_prior("shapes", torch.device("cpu"))
    run = gs.distil("a red torus", loaded, method="sds", device=torch.device("cpu"))
    assert run.representation.device == loaded.device
