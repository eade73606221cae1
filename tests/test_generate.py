"""The main job from prompt to files, on the prior that ships: every stage for real, small."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
import signal
import threading
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from export.scenes import pebble
from PIL import Image
from plyfile import PlyData
from renderer.emulator import EMULATED
from rich.console import Console

from gsdistill import generate as generating
from gsdistill.cli.main import execute
from gsdistill.core.errors import BadFile, ConfigError, OutputError, PromptError, Stopped
from gsdistill.disk.lock import Claim
from gsdistill.disk.places import data_path
from gsdistill.export.ply import Ply
from gsdistill.generate import run
from gsdistill.models.catalogue import find_model
from gsdistill.prior.families.small.prior import WorldPrior
from gsdistill.representation.gaussians import GaussianScene
from gsdistill.run.config import resolve
from gsdistill.run.folder import RunFolder
from gsdistill.run.read import snapshots
from gsdistill.run.watch import SIGNALS, Interrupt
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.ply import read_vertices
from gsdistill.scene.read import read_splat
from gsdistill.settings.yaml import load_yaml
from gsdistill.testing import World
from gsdistill.training import checkpoint
from gsdistill.training.distiller import Distiller, Diverged

SMALL = {
    "prompt": "a red torus",
    "finish": "none",
    "iterations": 6,
    "views": 2,
    "checkpoint_every": 0,
    "preview_every": 3,
}
FILES = {
    "config.yaml", "snapshots", "start.png", "gaussians.ply", "views.png", "metrics.jsonl", "summary.json",
    "preview.png",
}  # fmt: skip
EXTRAS = {"turntable.mp4", "evaluation.json", "report.html"}


def digest(data: bytes) -> str:
    """Equal if and only if the files are; of a difference between bytes pytest would take minutes to tell."""
    return hashlib.sha256(data).hexdigest()


def generate(folder: Path, extras: bool = False, **settings) -> Path:
    """Generate one splat; the film and the report, which take longer than the steps, only where they are the matter."""
    return run(resolve({**SMALL, "output": str(folder), **settings}), Console(quiet=True), extras=extras)


@pytest.mark.parametrize("method", ["sds", "cds"])
def test_a_run_leaves_whole_files(method, tmp_path):
    folder = generate(tmp_path / "run", extras=True, method=method)
    assert {path.name for path in folder.iterdir()} == FILES | EXTRAS
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["network_evaluations"] == {"sds": 2, "cds": 4}[method] * 2 * 6
    assert set(summary["seconds_by_phase"]) == {
        "render", "encode", "network", "encode backward", "render backward", "optimise", "densify",
    }  # fmt: skip
    assert summary["gaussians"] == len(PlyData.read(folder / "gaussians.ply")["vertex"]) > 0
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 6]
    assert imageio_ffmpeg.count_frames_and_secs(folder / "turntable.mp4")[0] == 90
    assert resolve(load_yaml(folder / "config.yaml")) == resolve({**SMALL, "output": str(folder), "method": method})


CAREFUL = [file for file in sorted(data_path("configs").glob("*.yaml")) if load_yaml(file).get("negative_prompt")]


@pytest.mark.parametrize("file", CAREFUL, ids=lambda file: file.stem)
def test_the_negative_prompt_of_a_config_is_the_one_that_the_prior_encodes(file, monkeypatch):
    """That each method then asks for it, is in its contract."""
    prior, asked = World(), []
    encode = prior.encode_text
    monkeypatch.setattr(prior, "encode_text", lambda *texts: asked.append(texts[:2]) or encode(*texts))
    given = load_yaml(file)
    alone = {"prompt": "x", "prior": "sd15", "recipe": False, "init": {"name": "ball", "count": 4}}
    generating.prepared(resolve({**given, **alone}), prior, torch.device("cpu"))
    assert asked[0] == ("x", given["negative_prompt"])


def test_many_configs_have_a_negative_prompt():
    assert len(CAREFUL) >= 10


@pytest.mark.slow
def test_splats_are_kept_on_the_way_at_equal_steps(tmp_path):
    folder = generate(tmp_path / "run", iterations=7, snapshots=3)
    kept = snapshots(folder)
    assert list(kept) == [0, 3, 5, 7]  # 7 / 3 and 14 / 3 are no whole steps
    assert kept[7].read_bytes() == (folder / "gaussians.ply").read_bytes()
    assert len({path.read_bytes() for path in kept.values()}) == 4
    assert snapshots(generate(folder, iterations=7, snapshots=0, overwrite=True)) == {}


@pytest.mark.slow
def test_a_run_writes_the_formats_and_the_axes_that_are_asked_for(tmp_path):
    plain = generate(tmp_path / "plain")
    other = generate(tmp_path / "other", export={"formats": ["glb"], "frame": "y-up", "sh_pad": 3})
    assert {path.name for path in other.iterdir()} == FILES | {"gaussians.glb"}
    a, b = read_splat(plain / "gaussians.ply"), read_splat(other / "gaussians.ply")
    assert torch.equal(a.means, b.means) and b.sh_degree == 3 and not b.sh[:, 1:].any()
    assert np.array_equal(read_vertices(other / "gaussians.ply").columns["y"], a.means[:, 2].numpy())


@pytest.mark.slow
def test_what_a_format_does_not_hold_is_told_in_the_run(tmp_path):
    Ply(frame="world").write(pebble(300, 1), tmp_path / "stone.ply")
    console = Console(file=StringIO(), width=500)
    init, chosen = {"name": "ply", "path": str(tmp_path / "stone.ply")}, {"formats": ["splat"]}
    given = {**SMALL, "iterations": 1, "output": str(tmp_path / "run"), "init": init, "export": chosen}
    run(resolve(given), console, extras=False)
    assert "gaussians.splat: view-dependent colour is left out" in console.file.getvalue()


@pytest.mark.slow
def test_what_there_is_of_an_earlier_splat_goes(tmp_path):
    folder = generate(tmp_path / "run", extras=True, export={"formats": ["splat", "sog"]})
    assert {path.name for path in folder.iterdir()} == FILES | EXTRAS | {"gaussians.splat", "gaussians.sog"}
    (folder / "failure.json").write_text('{"error": "too many"}')
    again = generate(folder, export={"formats": ["glb"]}, overwrite=True)
    assert {path.name for path in again.iterdir()} == FILES | {"gaussians.glb"}


def test_a_seed_decides_the_splat_whatever_the_state_of_the_global_generator(tmp_path):
    ends = []
    for index, seed in enumerate((5, 5, 6)):
        torch.manual_seed(index)
        ends.append(digest((generate(tmp_path / str(index), seed=seed) / "gaussians.ply").read_bytes()))
    assert ends[0] == ends[1] != ends[2]


@pytest.mark.slow
def test_a_run_in_another_thread_is_the_same_run(tmp_path):
    """As of a server that answers each question in a thread of its own."""
    config = resolve({**SMALL, "iterations": 3, "output": str(tmp_path / "thread")})
    before, found = [signal.getsignal(number) for number in SIGNALS], []
    thread = threading.Thread(target=lambda: found.append(run(config, Console(quiet=True), extras=False)))
    thread.start()
    thread.join()
    assert found == [tmp_path / "thread"] and (found[0] / "summary.json").exists()
    assert [signal.getsignal(number) for number in SIGNALS] == before
    own = run(replace(config, output=tmp_path / "own"), Console(quiet=True), extras=False)
    first, second = (digest((folder / "gaussians.ply").read_bytes()) for folder in (own, found[0]))
    assert first == second


def test_a_run_in_which_no_step_counts_is_no_success(tmp_path, monkeypatch, capsys):
    """The first step tells what is wrong already, and not that guidance is."""
    monkeypatch.setattr(WorldPrior, "network", lambda self, x, *_: torch.full_like(x, torch.nan))
    words = ["--prompt", "a red torus", "--iterations", "4", "--views", "2", "--model.precision", "bfloat16"]
    assert execute(["generate", *words, "--output", str(tmp_path / "run")]) == 2
    told, error = (" ".join(text.split()) for text in capsys.readouterr())
    cause = (
        "the network of the prior shapes answers finite numbers with NaN or infinity: bfloat16 is too narrow for "
        "it, or its weights are broken, or those of a LoRA that was added: get the files again; try "
        "model.precision float32"
    )
    assert f"step 1: 100% of the steps changed nothing, as their gradient was not finite; {cause}" in told
    assert error.endswith(f"error: 4 of 4 steps had a gradient that is not finite; {cause}")
    assert checkpoint.find(tmp_path / "run" / "checkpoints") and not (tmp_path / "run" / "summary.json").exists()


def test_the_start_is_told_and_drawn_before_the_first_step(tmp_path, monkeypatch):
    """A red cloud of points is what start.png shows, also where the run dies in its first step."""
    rows = "\n".join(f"{x} {y} {z} 255 0 0" for x in (0, 1, 2) for y in (0, 1, 2) for z in (0, 1, 2))
    properties = [f"float {axis}" for axis in "xyz"] + [f"uchar {name}" for name in ("red", "green", "blue")]
    header = "\n".join(f"property {name}" for name in properties)
    cloud = tmp_path / "cloud.ply"
    cloud.write_text(f"ply\nformat ascii 1.0\nelement vertex 27\n{header}\nend_header\n{rows}\n")
    monkeypatch.setattr(Distiller, "step", lambda self: 1 / 0)
    told = StringIO()
    config = resolve({**SMALL, "output": str(tmp_path / "run"), "init": {"name": "ply", "path": str(cloud)}})
    with pytest.raises(ZeroDivisionError):
        run(config, Console(file=told, width=300))
    assert "start ply: 27 Gaussians, box" in told.getvalue() and "mean 1.00 0.00 0.00" in told.getvalue()
    sheet = np.asarray(Image.open(tmp_path / "run" / "start.png")).astype(int)
    assert (sheet[..., 0] - sheet[..., 1]).max() > 50 and (sheet[..., 1] - sheet[..., 0]).max() < 5


def test_what_loading_a_prior_has_to_say_is_printed(tmp_path, monkeypatch):
    def speaking(name, device, settings, say):
        say("a file goes before [a config]")
        raise BadFile("no more")

    monkeypatch.setattr(generating, "load_prior", speaking)
    console = Console(file=StringIO())
    with pytest.raises(BadFile, match="no more"):
        run(resolve({**SMALL, "output": str(tmp_path)}), console)
    assert console.file.getvalue() == "a file goes before [a config]\n"


@pytest.mark.slow
def test_the_final_cut_counts_as_pruning(tmp_path):
    """Eight Gaussians of which five are too faint to stay; one step changes them little."""
    opacity = torch.tensor([3.0] * 3 + [-4.0] * 5)
    Ply(frame="world").write(replace(pebble(8, 1), opacities=opacity), tmp_path / "stone.ply")
    init = {"name": "ply", "path": str(tmp_path / "stone.ply")}
    folder = generate(tmp_path / "run", iterations=1, init=init, densify={"final_opacity": 0.1})
    health = json.loads((folder / "summary.json").read_text())["health"]
    assert (health["pruned"], health["pruned_share"]) == (5, 5 / 8) and len(read_splat(folder / "gaussians.ply")) == 3


@pytest.mark.slow
def test_the_initialiser_reads_the_prompt_unless_it_has_its_own(tmp_path, monkeypatch):
    read = []
    create = Ball.create
    monkeypatch.setattr(Ball, "create", lambda self, prompt, *rest: read.append(prompt) or create(self, prompt, *rest))
    generate(tmp_path / "a", iterations=1)
    generate(tmp_path / "b", iterations=1, init_prompt="a blue cube")
    assert read == ["a red torus", "a blue cube"]


def test_views_make_whole_groups(tmp_path):
    with pytest.raises(ConfigError, match="views = 2 is no multiple of the 4 views of a group of cameras"):
        generate(tmp_path / "run", cameras={"group": 4})
    assert not (tmp_path / "run").exists()


def test_the_cli_runs_and_evaluates(tmp_path, capsys):
    folder = tmp_path / "cli"
    argv = ["generate", "--method", "sds", "--prompt", "a blue cube", "--iterations", "3", "--output", str(folder)]
    assert execute(argv) == 0
    told = capsys.readouterr().out
    kept = json.loads((folder / "evaluation.json").read_text())
    assert "time of a step" in told and f"looks like {kept['name']}" in told
    assert f"IoU {kept['iou']:.3f}, unseen views {kept['unseen_iou']:.3f}, PSNR {kept['psnr']:.1f} dB" in told
    assert execute(["evaluate", str(folder), "--json", str(tmp_path / "figures.json")]) == 0
    assert json.loads((tmp_path / "figures.json").read_text()) == kept
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    words = ["--truth", str(folder), "--json", str(tmp_path / "itself.json")]
    assert execute(["evaluate", str(folder / "gaussians.ply"), *words]) == 0
    itself = json.loads((tmp_path / "itself.json").read_text())
    assert itself["psnr"] == 100.0 and itself["surface_chamfer"] == 0.0 and "name" not in itself
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert execute(["render", str(folder / "gaussians.ply"), "--size", "32", "--frames", "4"]) == 0
    assert execute(argv) == 2
    assert "is not empty; --overwrite replaces it" in capsys.readouterr().err.replace("\n", " ")


def test_learns_a_sphere_in_a_few_seconds(tmp_path):
    """Not a picture of quality, only of direction: colour and size move to the prompt's."""
    folder = generate(tmp_path / "sphere", prompt="a yellow sphere", method="sds", iterations=30, views=2)
    scene = read_splat(folder / "gaussians.ply")
    opacity = scene.opacities.sigmoid()[:, None]
    color = ((0.5 + 0.28209479 * scene.sh[:, 0]) * opacity).sum(0) / opacity.sum()
    assert float(color[:2].min()) > float(color[2]) + 0.2  # red and green above blue


class Asked(Interrupt):
    """Ctrl-C in the third step."""

    polls = 0

    @property
    def asked(self) -> bool:
        self.polls += 1
        return self.polls >= 3

    @asked.setter
    def asked(self, value: bool) -> None: ...


@pytest.mark.slow
def test_a_stopped_run_shows_its_last_step_and_goes_on_to_the_same_end(tmp_path, monkeypatch, capsys):
    settings = ["--prompt", "a red torus", "--iterations", "6", "--views", "2", "--finish", "none"]
    command, output = ["generate", *settings, "--output", str(tmp_path / "cut")], tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(generating, "Interrupt", Asked)
        assert execute([*command, "--export.formats", "sog"]) == 130
    told = capsys.readouterr().out
    assert f"stopped; all is kept up to step 3; go on with: gsdistill generate --config {output} --resume" in told
    assert [path.stem for path in checkpoint.find(output / "checkpoints")] == ["step-000003", "step-000000"]
    assert list(snapshots(output)) == [0, 1, 2, 3] and (output / "report.html").exists()
    assert json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3
    assert (output / "gaussians.sog").exists() and not (output / "summary.json").exists()
    assert execute([*command, "--resume", "--seed", "9"]) == 2
    assert "cannot change seed = 9 (was 0) on its way" in " ".join(capsys.readouterr().err.split())
    assert execute([*command, "--resume"]) == 0
    assert not (output / "gaussians.sog").exists()  # it is of the step of the stop, and not asked for now
    assert load_yaml(output / "config.yaml")["export"]["formats"] == []
    assert not (output / "checkpoints").exists()
    whole = generate(tmp_path / "whole")
    assert digest((whole / "gaussians.ply").read_bytes()) == digest((output / "gaussians.ply").read_bytes())
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (whole, output)]
    assert summaries[0]["network_evaluations"] == summaries[1]["network_evaluations"] == 6 * 2 * 4
    capsys.readouterr()
    assert execute([*command, "--resume"]) == 0
    assert "is finished; nothing is left to do" in capsys.readouterr().out
    assert execute([*command, "--resume", "--method.guidance-scale", "9"]) == 2
    assert "method.guidance_scale = 9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"prompt": "a red zebra"}, PromptError, "unknown word 'zebra'"),
        ({"cameras": {"distance": [2.0, 2.0]}}, ConfigError, "cameras.distance.*trained on: 3.2 to 3.2"),
        ({"prior": "nowhere/at/all"}, ConfigError, "neither a known prior nor a folder"),
        ({"resume": True}, OutputError, "holds no checkpoint"),
    ],
)
def test_mistakes_are_named_before_the_work_and_touch_nothing(settings, error, message, tmp_path):
    with pytest.raises(error, match=message):
        generate(tmp_path / "new", **settings)
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "gaussians.ply").write_bytes(b"mine")
    with pytest.raises(error, match=message):
        generate(tmp_path / "old", **settings, overwrite="resume" not in settings)
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["gaussians.ply"]
    assert (tmp_path / "old" / "gaussians.ply").read_bytes() == b"mine"


def test_mistakes_on_the_command_line_are_one_line_and_exit_two(tmp_path, capsys):
    taken = tmp_path / "file"
    taken.write_text("mine")
    bad_ply = tmp_path / "bad.ply"
    bad_ply.write_bytes(b"ply\nformat binary_little_endian 1.0\nelement vertex 5\nend_header\n")
    (tmp_path / "link").symlink_to("gone")
    base = ["generate", "--prompt", "a red cube", "--output", str(tmp_path / "o")]
    for argv, word in (
        ([*base, "--method", "cdss"], "cds"),
        ([*base, "--method.guidance-scal", "3"], "guidance-scale"),
        ([*base, "--iterations", "0"], "iterations"),
        ([*base[:2], "a red zebra", *base[3:]], "zebra"),
        ([*base[:4], str(taken)], "is a file"),
        ([*base[:4], str(tmp_path / "link")], "is a link to gone, which is not there"),
        (["render", "x.ply", "--output", str(tmp_path / "link")], "is a link to gone, which is not there"),
        (["render", str(bad_ply)], "bad.ply"),
        (["evaluate", str(tmp_path)], "config.yaml"),
    ):
        assert execute(argv) == 2, argv
        captured = capsys.readouterr()
        assert word in captured.err and "Traceback" not in captured.err
    assert taken.read_text() == "mine"


def cut(folder: Path, step: int, monkeypatch, **settings) -> None:
    """A run that dies of a bug after ``step`` steps."""

    def dying(run):
        for record in real(run):
            yield record
            if record.number == step:
                raise ZeroDivisionError

    real = Distiller.__iter__
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(Distiller, "__iter__", dying)
        generate(folder, **settings)


@pytest.mark.parametrize("renderer", ["cpu", EMULATED])
@pytest.mark.parametrize(
    ("method", "finish", "made"),
    [
        pytest.param("cds", "none", 3, id="cds"),
        pytest.param("vsd", "none", 3, id="vsd", marks=pytest.mark.slow),
        pytest.param("cds", {"name": "sds", "share": 0.5}, 3, id="cds-between-stages", marks=pytest.mark.slow),
        pytest.param("vsd", "sds", 5, id="vsd-in-the-finish", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_died_goes_on_bit_for_bit(method, finish, made, renderer, tmp_path, monkeypatch):
    """Three steps, then three more in a run of its own, are six; a densification lies on either side."""
    grow = {"enabled": True, "start": 0.0, "stop": 1.0, "every": 1 / 3, "grow_grad2d": 1e-4, "budget": 1200}
    settings = {"method": method, "views": 1, "densify": grow, "snapshots": 0, "checkpoint_every": 1000}
    settings["finish"] = finish
    whole = generate(tmp_path / "whole", **settings)
    cut(tmp_path / "cut", made, monkeypatch, **settings)
    assert [path.stem for path in checkpoint.find(tmp_path / "cut" / "checkpoints")] == [
        f"step-00000{made}",
        "step-000000",
    ]
    again = generate(tmp_path / "cut", **settings, resume=True)
    assert digest((whole / "gaussians.ply").read_bytes()) == digest((again / "gaussians.ply").read_bytes())
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (whole, again)]
    assert summaries[0]["gaussians"] == summaries[1]["gaussians"] > 1000


@pytest.mark.slow
def test_changed_settings_are_told_refused_and_taken_where_that_is_said(tmp_path, monkeypatch):
    cut(tmp_path / "run", 3, monkeypatch)
    changed = {"iterations": 8, "method": {"name": "cds", "guidance_scale": 5.0}}
    with pytest.raises(
        ConfigError, match=r"method.guidance_scale = 5.0 \(was .*iterations = 8 \(was 6\).*--accept-changes goes"
    ):
        generate(tmp_path / "run", **changed, resume=True)
    with pytest.raises(ConfigError, match=r"cannot change method\.name = sds"):
        generate(tmp_path / "run", method="sds", resume=True, accept_changes=True)
    with pytest.raises(ConfigError, match=r"iterations = 2: the run in .* has made 3 steps already"):
        generate(tmp_path / "run", iterations=2, resume=True, accept_changes=True)
    told = StringIO()
    config = resolve({**SMALL, "output": str(tmp_path / "run"), **changed, "resume": True, "accept_changes": True})
    run(config, Console(file=told, width=300), extras=False)
    assert "from step 3 on: method.guidance_scale = 5.0 (was" in told.getvalue()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["iterations"] == 8
    assert load_yaml(tmp_path / "run" / "config.yaml")["iterations"] == 8


def test_an_error_in_a_step_is_told_with_the_way_on(tmp_path, monkeypatch):
    told = StringIO()
    monkeypatch.setattr(Distiller, "step", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(resolve({**SMALL, "output": str(tmp_path / "a run")}), Console(file=told, width=300))
    assert (
        f"all is kept up to step 0; go on with: gsdistill generate --config '{tmp_path / 'a run'}' --resume"
        in told.getvalue()
    )


@pytest.mark.slow
def test_a_finished_run_with_other_settings_has_nothing_to_go_on_from(tmp_path):
    generate(tmp_path / "run", iterations=2)
    for more in ({"iterations": 3}, {"seed": 4}):
        with pytest.raises(ConfigError, match=r"is finished, with other settings: .* \(was .\); --overwrite makes"):
            generate(tmp_path / "run", **{"iterations": 2, **more}, resume=True, accept_changes=True)


@pytest.mark.slow
def test_a_folder_that_was_moved_goes_on_where_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(generating, "Interrupt", Asked)
        assert execute(["generate", "--prompt", "a red torus", "--iterations", "4", "--views", "1"]) == 130
    Path("outputs/a-red-torus/cds-sds-seed0").rename("moved")
    assert execute(["generate", "--config", "moved", "--resume"]) == 0
    assert Path("moved/summary.json").exists() and not Path("outputs/a-red-torus/cds-sds-seed0").exists()
    assert load_yaml("moved/config.yaml")["output"] == str(tmp_path / "moved")
    capsys.readouterr()


# Paths


PLACES = """
prior: models/shapes
init: {name: ply, path: start.ply}
prompt: a red torus
iterations: 4
views: 1
snapshots: 0
"""


@pytest.fixture(params=["now"])
def begun(request, tmp_path, monkeypatch) -> Path:
    """The folder ``here``, in which a run with a model and a start of its own was stopped after three steps.

    The version ``before`` kept paths as they were typed.
    """
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    shutil.copytree(find_model("shapes")[0], here / "models" / "shapes")
    Ply().write(Ball(count=50).create("", torch.Generator().manual_seed(0)), here / "start.ply")
    (here / "mine.yaml").write_text(PLACES)
    monkeypatch.chdir(here)
    for name in ("run.folder.write_turntable", "run.folder.write_contact_sheet", "generate.write_report"):
        monkeypatch.setattr(f"gsdistill.{name}", lambda *arguments, **settings: None)
    with monkeypatch.context() as patch:
        if request.param == "before":
            for module in ("generate", "run.config"):
                patch.setattr(f"gsdistill.{module}.anchored", lambda config: config)
        patch.setattr(generating, "Interrupt", Asked)
        assert execute(["generate", "--config", "mine.yaml", "--output", "run"]) == 130
    monkeypatch.chdir(there)
    return here


before = pytest.mark.parametrize("begun", ["before"], indirect=True)


def test_a_run_goes_on_from_any_directory(begun, capsys):
    settings = load_yaml(begun / "run" / "config.yaml")
    assert (settings["prior"], settings["init"]["path"], settings["output"]) == (
        f"{begun}/models/shapes", f"{begun}/start.ply", f"{begun}/run",
    )  # fmt: skip
    assert execute(["generate", "--config", "../here/run", "--resume"]) == 0
    assert json.loads((begun / "run" / "summary.json").read_text())["iterations"] == 4
    capsys.readouterr()


@pytest.mark.slow
def test_what_was_moved_with_the_run_is_named_once_more(begun, capsys, monkeypatch):
    moved = begun.rename(begun.parent / "moved")
    monkeypatch.chdir(moved)
    command = ["generate", "--config", "run", "--resume"]
    for words, name, lost in (([], "prior", "models/shapes"), (["--prior", "models/shapes"], "init.path", "start.ply")):
        assert execute([*command, *words]) == 2
        assert capsys.readouterr().err.endswith(
            f"error: {name} = '{begun}/{lost}': there is no such file or folder; say where it is now with --{name} and "
            "--accept-changes\n"
        )
    words = ["--prior", "models/shapes", "--init.path", "start.ply"]
    assert execute([*command, *words]) == 2
    assert "--accept-changes goes on with these" in capsys.readouterr().err
    assert execute([*command, *words, "--accept-changes"]) == 0
    assert f"from step 3 on: prior = {moved}/models/shapes (was {begun}/models/shapes)" in capsys.readouterr().out
    assert load_yaml("run/config.yaml")["init"]["path"] == f"{moved}/start.ply"


@pytest.mark.slow
@before
def test_an_earlier_versions_run_goes_on_where_it_was_started(begun, monkeypatch, capsys):
    assert load_yaml(begun / "run" / "config.yaml")["prior"] == "models/shapes"
    monkeypatch.chdir(begun)
    assert execute(["generate", "--config", "run", "--resume"]) == 0
    assert load_yaml("run/config.yaml")["prior"] == f"{begun}/models/shapes"
    assert "from step 3 on:" not in capsys.readouterr().out


@pytest.mark.slow
@before
def test_an_earlier_versions_run_says_elsewhere_where_its_files_are(begun, monkeypatch, capsys):
    """The hub, which could know a model of that name, is not asked."""
    words = ["generate", "--config", "../here/run", "--resume"]
    with monkeypatch.context() as patch:
        patch.setattr("gsdistill.generate.load_prior", lambda *arguments: pytest.fail("it was looked for"))
        for name, value, path in (
            ("prior", "models/shapes", "models/shapes"),
            ("init.path", Path.cwd() / "start.ply", "start.ply"),
        ):
            assert execute(words) == 2
            assert capsys.readouterr().err == (
                f"error: {name} = '{value}': there is no such file or folder; the run in {begun}/run has it at "
                f"{begun}/{path}: name it with --{name}\n"
            )
            words += [f"--{name}", f"../here/{path}"]
    assert execute(words) == 0
    capsys.readouterr()


@pytest.mark.slow
def test_a_damaged_checkpoint_goes_and_later_snapshots_with_it(tmp_path, monkeypatch):
    cut(tmp_path / "run", 4, monkeypatch)
    newest, older = checkpoint.find(tmp_path / "run" / "checkpoints")
    newest.write_bytes(b"broken")
    assert list(snapshots(tmp_path / "run")) == [0, 1, 2, 3, 4]
    told = StringIO()
    config = resolve({**SMALL, "output": str(tmp_path / "run"), "resume": True, "accept_changes": True, "snapshots": 2})
    monkeypatch.setattr(Distiller, "__iter__", lambda self: iter(()))
    with pytest.raises(Stopped):
        run(config, Console(file=told, width=300))
    assert "step-000004.safetensors is not a whole checkpoint" in told.getvalue()
    assert checkpoint.find(tmp_path / "run" / "checkpoints") == [older]
    assert list(snapshots(tmp_path / "run")) == [0, 1, 2, 3]


def test_a_run_whose_folder_was_taken_over_writes_no_more(tmp_path, monkeypatch):
    real = Distiller.__iter__

    def stolen(self):
        for record in real(self):
            if record.number == 2:
                shutil.rmtree(tmp_path / "run")
                assert theirs.take()
                (tmp_path / "run" / "mine").write_text("mine")
            yield record

    monkeypatch.setattr(Distiller, "__iter__", stolen)
    with Claim(tmp_path / "run" / ".lock") as theirs:
        with pytest.raises(OutputError, match="had vanished, and another run has taken its name"):
            generate(tmp_path / "run", snapshots=0, preview_every=100)
        assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "mine"}


@pytest.mark.slow
def test_a_diverged_run_does_not_become_a_success_by_going_on(tmp_path, monkeypatch):
    monkeypatch.setattr("gsdistill.training.distiller.MAX_SKIPPED", 2)
    monkeypatch.setattr(GaussianScene, "update", lambda *arguments: torch.tensor(False))
    for more in ({}, {"resume": True}):
        with pytest.raises(Diverged, match="6 of 6 steps had a gradient that is not finite; --resume --accept-changes"):
            generate(tmp_path / "run", **more)
    monkeypatch.undo()
    changed = {"iterations": 8, "optim": {"sh": 0.01}, "resume": True, "accept_changes": True}
    summary = json.loads((generate(tmp_path / "run", **changed) / "summary.json").read_text())
    assert (summary["iterations"], summary["skipped_steps"]) == (8, 6)


@pytest.mark.slow
def test_of_two_damaged_checkpoints_nothing_is_overwritten(tmp_path, monkeypatch):
    cut(tmp_path / "run", 3, monkeypatch)
    for path in checkpoint.find(tmp_path / "run" / "checkpoints"):
        path.write_bytes(b"broken")
    with pytest.raises(BadFile, match=r"step-000003\.safetensors is not a whole checkpoint.*step-000002"):
        generate(tmp_path / "run", resume=True)
    assert {path.read_bytes() for path in checkpoint.find(tmp_path / "run" / "checkpoints")} == {b"broken"}


def test_the_folder_of_a_run_at_work_is_refused(tmp_path, monkeypatch):
    cut(tmp_path / "run", 3, monkeypatch)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()}
    with Claim(tmp_path / "run" / ".lock") as claim:
        assert claim.take()
        for how in ({"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputError, match="another run is at work in"):
                generate(tmp_path / "run", **how)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").iterdir()} == before


def test_checkpoints_take_a_fiftieth_of_the_time_at_most(tmp_path, monkeypatch):
    """On a clock that tells: a step takes a second, a checkpoint half a minute."""
    now, saved = [0.0], []

    def slow(run, *others):
        now[0] += 30
        saved.append(run.done)

    monkeypatch.setattr("gsdistill.run.folder.time.perf_counter", lambda: now[0])
    folder = RunFolder(tmp_path, {})
    monkeypatch.setattr("gsdistill.run.folder.checkpoint.save", slow)
    state = SimpleNamespace(done=0, representation=SimpleNamespace(device="cpu"))
    for state.done in range(10_000):
        now[0] += 1
        folder.save(state, after=5)
    gaps = [b - a for a, b in itertools.pairwise(saved)]
    assert saved[0] == 4 and set(gaps) == {1500}
    folder.save(state)
    assert saved[-1] == 9_999
