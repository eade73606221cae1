"""The command line: what is typed becomes a run, and what is mistyped becomes one line and exit code 2."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gsdistill import __version__, generate
from gsdistill.cli.main import PACKAGE, execute
from gsdistill.cli.manual import field_help
from gsdistill.core.errors import ConfigError, Notice
from gsdistill.disk.paths import anchored
from gsdistill.distillation.cds import CDS
from gsdistill.distillation.sds import SDS
from gsdistill.doctor.machine import findings
from gsdistill.run.config import RunConfig, fill_settings, read_config, resolve
from gsdistill.scene.cameras.orbit import Orbit, span
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.init.ply import Ply
from gsdistill.settings.config import from_dict, name_of, to_yaml
from gsdistill.settings.ramp import Ramp
from gsdistill.settings.registry import names
from gsdistill.settings.yaml import load_yaml
from gsdistill.sweep.plan import equal_steps
from gsdistill.sweep.settings import SweepSettings

COMMANDS = ["generate", *(name for name in names(PACKAGE) if name != "generate")]
SHIPPED = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
METHODS = names("gsdistill.distillation")
INITS = names("gsdistill.scene.init")
OWN = ", or one of your own as module:Class or file.py:Class"
RECIPE = "# What CDS needs here.\nmethod: {name: cds, near_min: 0.02}\niterations: 222\n"


@pytest.fixture(autouse=True)
def configs(tmp_path, monkeypatch):
    """The folder of shipped configs: a recipe for CDS with a setting of its own, and an empty one for each other."""
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "shapes-cds.yaml").write_text(RECIPE)
    for method in set(METHODS) - {"cds"}:
        (folder / f"shapes-{method}.yaml").write_text(f"# What {method.upper()} needs here.\nmethod: {method}\n")
    for module in ("gsdistill.run.config", "gsdistill.cli.commands.list"):
        monkeypatch.setattr(f"{module}.data_path", lambda *parts: tmp_path.joinpath(*parts))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def ran(monkeypatch):
    """The configs that reached the run."""
    calls = []
    monkeypatch.setattr(generate, "run", lambda config, console: calls.append(config))
    return calls


def mistake(capsys, *words):
    """Run a command line that is wrong; return its one line on stderr."""
    assert execute(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


# generate


def test_flags_reach_the_run(ran):
    words = "--prompt CUBE --method cds --method.guidance-scale 30:10:sqrt@0.5 --method.noise fresh"
    words += " --cameras.elevation -20 70 --init.count 99 --densify.budget=3000 --densify.enabled"
    words += " --seed 7 --output here --renderer.eps2d 1"
    assert execute(["generate", *words.replace("CUBE", "a_cube").split()]) == 0
    (run,) = ran
    assert run.prompt == "a_cube"
    assert isinstance(run.method, CDS)
    assert run.method.guidance_scale == Ramp(30.0, 10.0, "sqrt", 0.5)
    assert run.method.noise == "fresh"
    assert run.cameras.elevation == span(-20, 70)
    assert (run.init.count, run.densify.budget, run.densify.enabled) == (99, 3000, True)
    assert (run.seed, run.output, run.renderer.eps2d) == (7, Path.cwd() / "here", 1.0)


def test_a_densifier_is_named_and_has_its_own_flags(ran):
    words = ["generate", "--prompt", "x", "--prior", "shapes", "--method", "sds"]
    assert execute([*words, "--densify", "mcmc", "--densify.growth", "0.2"]) == 0
    densify = ran[0].densify
    assert (name_of(densify), densify.enabled, densify.growth) == ("mcmc", True, 0.2)
    assert execute([*words, "--densify", "gradient"]) == execute([*words, "--densify.budget", "7"]) == 0
    assert [name_of(run.densify) for run in ran] == ["mcmc", "gradient", "gradient"]
    assert not ran[1].densify.enabled and ran[2].densify.budget == 7


@pytest.mark.parametrize("words", [["--model.lora-scale=-1.5"], ["--model.lora-scale", "-1.5"]])
def test_a_lora_may_be_taken_the_other_way(ran, words):
    assert execute(["generate", "--prompt", "x", *words]) == 0
    assert ran[0].model.lora_scale == -1.5


def test_underscores_and_dashes_are_one(ran):
    execute(["generate", "--prompt", "x", "--method.guidance_scale", "5", "--negative_prompt", "y"])
    execute(["generate", "--prompt", "x", "--method.guidance-scale", "5", "--negative-prompt", "y"])
    assert ran[0] == ran[1]
    assert ran[0].method.guidance_scale == Ramp(5.0, 5.0)


def test_method_and_init_change_the_flags(ran):
    execute(["generate", "--prompt", "x", "--method", "sds", "--init=ply", "--init.path", "a.ply"])
    assert isinstance(ran[0].method, SDS)
    assert ran[0].init == Ply(path=Path.cwd() / "a.ply")


def test_flags_beat_the_config_which_beats_the_recipe_which_beats_the_defaults(ran, tmp_path):
    (tmp_path / "mine.yaml").write_text("prompt: a cube\nseed: 3\nviews: 2\nmethod: {near_min: 0.03}\n")
    execute(["generate", "--config", "mine.yaml", "--views", "6"])
    (run,) = ran
    assert (run.prompt, run.seed, run.views, run.iterations) == ("a cube", 3, 6, 222)
    assert run.method == replace(CDS(), near_min=0.03)


def test_the_recipe_belongs_to_its_method_and_prior():
    assert resolve({"prompt": "x"}).method == replace(CDS(), near_min=0.02)
    assert resolve({"prompt": "x", "method": "sds"}).method == SDS()
    assert resolve({"prompt": "x", "prior": "a/b"}).method == CDS()
    assert resolve({"prompt": "x", "prior": "a/b"}).iterations == RunConfig("x").iterations
    assert resolve({"prompt": "x", "recipe": False}).method == CDS()


def test_the_chosen_prior_is_written_down_and_said():
    said = []
    assert fill_settings({"device": "cpu"}, said.append)["prior"] == "shapes"
    assert len(said) == 1
    assert fill_settings({"prior": "shapes"}, said.append)["prior"] == "shapes"
    assert len(said) == 1


def test_a_config_of_another_method_gives_way_to_the_flag(ran, tmp_path):
    (tmp_path / "mine.yaml").write_text("prompt: x\nmethod: {name: cds, near_min: 0.03}\n")
    execute(["generate", "--config", "mine.yaml", "--method", "sds"])
    assert ran[0].method == SDS()


def test_dry_run_prints_what_config_reads_back(capsys, ran, tmp_path, monkeypatch):
    monkeypatch.setattr("gsdistill.cli.foresight.foresee", lambda config: iter(["time: about [5] s"]))
    words = [
        "generate",
        "--prompt",
        "a [red] torus: 'x'",
        "--method.clip",
        "1:3",
        "--cameras.fov",
        "30",
        "50",
        "--resume",
    ]
    assert execute([*words, "--dry-run"]) == 0
    text, told = capsys.readouterr()
    assert ran == []
    assert "time: about [5] s\n" in told
    (tmp_path / "resolved.yaml").write_text(text)
    assert execute(["generate", "--config", "resolved.yaml"]) == 0
    assert execute(words) == 0
    assert ran[0] == ran[1]
    assert yaml.safe_load(text)["method"]["name"] == "cds"


@pytest.mark.parametrize("file", SHIPPED, ids=[file.stem for file in SHIPPED])
def test_every_shipped_config_is_short_explained_and_right(file):
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(text.splitlines()) < 30
    run = resolve({"prompt": "x", **load_yaml(file)})
    for name, value in load_yaml(file).items():
        if isinstance(value, int):
            assert getattr(run, name) == value


def test_the_folder_of_a_run_and_a_shipped_name_are_configs(tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_text("prompt: x\n")
    assert read_config("old") == {"prompt": "x"}
    assert read_config("shapes-cds") == {"method": {"name": "cds", "near_min": 0.02}, "iterations": 222}
    with pytest.raises(ConfigError) as caught:
        read_config("shape-cds")
    shipped = ", ".join(f"shapes-{method}" for method in METHODS)
    message = "unknown config 'shape-cds'. Did you mean 'shapes-cds'? Available: "
    assert str(caught.value) == f"{message}{shipped}, or the path of a YAML file"


def test_a_home_is_written_out_wherever_a_run_is_told_a_path(ran, tmp_path, monkeypatch):
    """On the command line, where bash leaves it alone behind a sign of equality, and in YAML."""
    home = tmp_path / "home"
    (home / "models" / "mine").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    text = "prompt: x\noutput: ~/runs/x\nprior: ~/models/mine\nmodel: {lora: [~/a.safetensors], config: ~/models}\n"
    (home / "mine.yaml").write_text(text)
    assert execute(["generate", "--config=~/mine.yaml"]) == 0
    words = ["--output=~/runs/x", "--prior=~/models/mine", "--model.lora=~/a.safetensors", "--model.config=~/models"]
    assert execute(["generate", "--prompt", "x", *words]) == 0
    assert ran[0] == ran[1]
    assert (ran[0].output, ran[0].prior) == (home / "runs" / "x", str(home / "models" / "mine"))
    assert (ran[0].model.lora, ran[0].model.config) == ((home / "a.safetensors",), str(home / "models"))
    settings = SweepSettings(prompts=("a red torus",), methods=("cds",), configs=("cds=~/sweep.yaml",))
    (home / "sweep.yaml").write_text("method: {name: cds, guidance_scale: 7}\n")
    assert equal_steps(settings)[0].config.method.guidance_scale == Ramp(7.0, 7.0)


def test_a_prompt_and_a_name_are_no_paths(ran, tmp_path):
    """Though folders of these names lie here."""
    for name in ("shapes", "~", "a red torus"):
        (tmp_path / name).mkdir()
    assert execute(["generate", "--prompt", "a red torus", "--negative-prompt=~", "--prior", "shapes"]) == 0
    assert (ran[0].prompt, ran[0].negative_prompt, ran[0].prior) == ("a red torus", "~", "shapes")


RUNS = st.builds(
    RunConfig,
    prompt=st.text(min_size=1, max_size=20).filter(str.strip),
    negative_prompt=st.text(max_size=20),
    method=st.builds(CDS, guidance_scale=st.builds(Ramp, st.floats(0, 1e3), st.floats(0, 1e3)), t_max=st.floats(0.3, 1))
    | st.builds(SDS),
    init=st.builds(Ball, count=st.integers(1, 9999))
    | st.builds(Ply, path=st.sampled_from([Path("a b.ply"), Path("/ö/x.ply")])),
    seed=st.integers(0, 2**32 - 1),
    output=st.none() | st.just(Path("out/ü")),
    overwrite=st.booleans(),
    cameras=st.builds(Orbit, elevation=st.builds(span, st.floats(-90, 0), st.floats(0, 90))),
)


@pytest.mark.slow
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(RUNS)
def test_a_written_run_reads_back_equal(tmp_path, run):
    (tmp_path / "run.yaml").write_bytes(to_yaml(run).encode())
    again = load_yaml(tmp_path / "run.yaml")
    assert from_dict(RunConfig, again) == run
    assert resolve(again) == anchored(replace(run, prior="shapes"))


def test_the_folder_of_a_run():
    assert RunConfig("../A red Torus!", seed=4).folder == Path("outputs/a-red-torus/cds-seed4")
    assert RunConfig("x", output=Path("here")).folder == Path("here")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "no prompt; say what to make, as in --prompt 'a red torus'"),
        ("--prompt=", "no prompt; say what to make, as in --prompt 'a red torus'"),
        ("--prompt x --method sdss",
         f"unknown method 'sdss'. Did you mean 'sds'? Available: {', '.join(METHODS)}{OWN}"),
        ("--prompt x --init spere",
         f"unknown initialiser 'spere'. Did you mean 'sphere'? Available: {', '.join(INITS)}{OWN}"),
        ("--prompt x --metod sds", "unknown flag '--metod'. Did you mean '--method'? See gsdistill generate --help"),
        ("--prompt x --sed=3", "unknown flag '--sed'. Did you mean '--seed'? See gsdistill generate --help"),
        ("--prompt a red --seed=3",
         "'a' 'red' are several prompts: put one in quotes, as in --prompt 'a red torus'; gsdistill sweep --prompts "
         "'a red torus' 'a blue cube' makes several"),
        ("--prompt=x 3",
         "'x' '3' are several prompts: put one in quotes, as in --prompt 'a red torus'; gsdistill sweep --prompts "
         "'a red torus' 'a blue cube' makes several"),
        ("x --prompt=x", "unexpected argument 'x'; see gsdistill generate --help"),
        ("--prompt x --views 3 4", "unexpected argument '4'; see gsdistill generate --help"),
        ("--prompt x --viewer=yes", "the flag '--viewer' takes no value; see gsdistill generate --help"),
        ("--prompt x -s 3", "unknown flag '-s'. See gsdistill generate --help"),
        ("--prompt x --iter 3", "unknown flag '--iter'. Did you mean '--iterations'? See gsdistill generate --help"),
        ("--prompt x --seed", "the flag '--seed' lacks a value; see gsdistill generate --help"),
        ("--prompt x --cameras.fov 3 --seed 1",
         "the flag '--cameras.fov' takes 2 values; see gsdistill generate --help"),
        ("--prompt x --seed -1", "seed = -1 is out of range; it must be at least 0 and at most 4294967295"),
        ("--prompt x --iterations 1e3", "iterations = 1000.0 has the wrong type; expected a whole number"),
        ("--prompt x --views many", "views = 'many' has the wrong type; expected a whole number"),
        ("--prompt x --cameras.fov 5 181",
         "cameras.fov[1] = 181.0 is out of range; it must be greater than 0 and less than 180"),
        ("--prompt x --method.clip 3:q",
         "method.clip: '3:q' is not a schedule; write 7.5, 101:51, 700:100:sqrt, 101:51@0.6, "
         "0:10@0.4..0.8 or 0.98:0.5:step@0.2"),
        ("--prompt x --method.noise new", "method.noise = 'new' is not a choice. Allowed: fixed, antithetic, fresh"),
        ("--prompt x --init ply", "the setting 'init.path' is missing"),
        ("--prompt x --device gpu",
         "device = 'gpu' is not a device. Did you mean 'cpu'? Allowed: auto, cpu, cuda, cuda:1, mps"),
        ("--prompt x --resume --overwrite",
         "resume and overwrite exclude each other: go on with the earlier run, or replace it"),
        ("--prompt x --accept-changes", "--accept-changes needs --resume: without it all settings are new"),
        ("--prompt x --config none.yaml", "none.yaml: cannot be read: No such file or directory"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(capsys, ran, monkeypatch, words, message):
    monkeypatch.setenv("COLUMNS", "40")
    assert mistake(capsys, "generate", *words.split()) == message
    assert ran == []


def test_a_misspelt_setting_lists_its_group(capsys):
    line = mistake(capsys, "generate", "--prompt", "x", "--cameras.elevatoin", "1", "2")
    assert line.startswith(
        "unknown flag '--cameras.elevatoin'. Did you mean '--cameras.elevation'? Allowed: --cameras.azimuth, "
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("promt: x\n", "unknown setting 'promt' (value 'x'). Did you mean 'prompt'? Allowed: prompt, "),
        (
            "prompt: x\ndensify: {bugdet: 3}\n",
            "unknown setting 'densify.bugdet' (value 3). Did you mean 'densify.budget'? ",
        ),
        ("prompt: x\nmethod: {name: sds, near: 3}\n", "unknown setting 'method.near' (value 3). "),
        ("prompt: x\nmethod: 3\n", "method = 3 has the wrong type; expected a name, or a mapping with a name"),
        ("prompt: x\nprior: [1]\n", "prior = [1] has the wrong type; expected text"),
        ("prompt: x\ndevice: 0\n", "device = 0 has the wrong type; expected text"),
        ("prompt: x\ncameras: 3\n", "cameras = 3 has the wrong type; expected a name, or a mapping with a name"),
        ("prompt: x\ncameras: [\n", "bad.yaml, line 3: not valid YAML: "),
        ("prompt: x\nprompt: y\n", "bad.yaml, line 2: not valid YAML: 'prompt' is given twice"),
        ("- prompt\n", "bad.yaml: expected lines of 'name: value', found "),
    ],
)
def test_a_mistake_in_a_config_file(capsys, ran, tmp_path, text, message):
    (tmp_path / "bad.yaml").write_text(text)
    assert mistake(capsys, "generate", "--config", "bad.yaml").startswith(message)
    assert ran == []


def test_what_a_user_typed_is_neither_markup_nor_control_sequence(capsys):
    long = "[red]" + "x" * 300 + "[/red]"
    assert mistake(capsys, "generate", "--prompt", "x", "--method", f"{long}\x1b[2J\ny").startswith(
        f"unknown method '{long}\\x1b[2J y'."
    )


def test_help_shows_defaults_comments_and_ranges(capsys):
    assert execute(["generate", "--help-all"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "--method.near-min FLOAT lowest n (default: 0.02; at least 0 and at most 0.98)",
        "--cameras.elevation RAMP RAMP degrees above the horizon",
        "--init.count INT",
        "--densify.enabled ",
        "--recipe, --no-recipe ",
        "--prompt TEXT What to make, in quotes, as in \"a red torus\". (required)",
        "--dry-run",
    ):  # fmt: skip
        assert part in text
    assert execute(["generate", "--method", "sds", "--init", "ply", "--help-all"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--method.near-min" not in text
    assert (
        "--init.path PATH of a splat of any format, of the folder of a run, or of a point cloud, .ply (required)"
        in text
    )


def test_every_setting_of_a_run_has_its_flag(capsys):
    execute(["generate", "--help-all"])
    text = capsys.readouterr().out

    def flags(values, prefix):
        for name, value in values.items():
            flag = f"{prefix}{name.replace('_', '-')}"
            yield from flags(value, f"{flag}.") if isinstance(value, dict) else [flag]

    plain = yaml.safe_load(to_yaml(RunConfig("x")))
    del plain["stages"]  # which only a config can say
    for named in ("method", "init", "cameras", "densify", "background", "finish"):
        del plain[named]["name"]
    for flag in [*flags(plain, "--"), "--method", "--init", "--cameras", "--densify", "--finish"]:
        assert re.search(rf"^  {flag}[ ,\n]", text, re.MULTILINE)


def test_field_help_reads_the_comment_behind_or_above():
    assert field_help(Orbit)["fov"] == "degrees, of the whole (square) image"
    assert field_help(CDS)["near_min"] == "lowest n"


# the other commands


def test_version_and_overview(capsys):
    assert execute(["--version"]) == 0
    assert capsys.readouterr().out == f"gsdistill {__version__}\n"
    assert execute(["--help"]) == 0
    text = capsys.readouterr().out
    assert execute([]) == 2
    assert capsys.readouterr().out == text
    for command in ("generate", "render", "evaluate", "list", "doctor"):
        assert f"  {command} " in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("genrate",
         f"unknown command 'genrate'. Did you mean 'generate'? Available: {', '.join(COMMANDS)}"),
        ("--verson", f"unknown flag '--verson'. Available: {', '.join(COMMANDS)}"),
        ("render", "SOURCE is missing; see gsdistill render --help"),
        ("render none.ply --size 9000", "size = 9000 is out of range; it must be at least 8 and at most 4096"),
        ("render none.ply", "none.ply: cannot be read: No such file or directory"),
        ("evaluate", "SPLAT is missing; see gsdistill evaluate --help"),
        ("list method",
         "what = 'method' is not a choice. Did you mean 'methods'? Allowed: methods, priors, inits, representations, "
         "cameras, densifiers, backgrounds, finishes, configs, prompts, formats, demos, worlds, vocabulary, all"),
        ("doctor --fix", "unknown flag '--fix'. See gsdistill doctor --help"),
    ],
)  # fmt: skip
def test_mistakes_of_the_other_commands(capsys, words, message):
    assert mistake(capsys, *words.split()) == message


def test_traceback_shows_where(capsys):
    assert execute(["list", "--traceback", "method"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("error: what = 'method'")


@pytest.mark.parametrize("filters", ["default", "ignore", "error"])
def test_a_notice_is_one_line_once_whatever_the_filters_are(filters, capsys, monkeypatch):
    def run(config, console):
        for _ in range(2):
            warnings.warn("the file [x]\nalso holds y", Notice, stacklevel=1)

    monkeypatch.setattr(generate, "run", run)
    with warnings.catch_warnings():
        warnings.simplefilter(filters)
        shown = warnings.showwarning
        assert execute(["generate", "--prompt", "x", "--prior", "shapes"]) == 0
        assert warnings.showwarning is shown
    assert capsys.readouterr().err == "warning: the file [x] also holds y\n"


def test_warnings_of_others_stay_theirs(monkeypatch):
    monkeypatch.setattr(generate, "run", lambda config, console: warnings.warn("old", DeprecationWarning, stacklevel=1))
    with pytest.warns(DeprecationWarning, match="old"):
        assert execute(["generate", "--prompt", "x", "--prior", "shapes"]) == 0


def test_an_interrupt_is_130(capsys, monkeypatch):
    def interrupt(config, console):
        raise KeyboardInterrupt

    monkeypatch.setattr(generate, "run", interrupt)
    assert execute(["generate", "--prompt", "x"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_list_shows_names_and_first_lines(capsys):
    assert execute(["list"]) == 0
    text = capsys.readouterr().out
    for start in (
        "methods\n",
        "  cds         CDS: ",
        "  sds-bridge  SDS-Bridge: ",
        "priors\n",
        "  shapes ",
        "inits\n",
        "  sphere  ",
        "representations\n",
        "  gaussians  ",
        "cameras\n",
        "  orbit  ",
        "densifiers\n",
        "  mcmc  ",
        "configs\n",
    ):
        assert start in text
    assert execute(["list", "configs"]) == 0
    width = len("shapes-") + max(map(len, METHODS)) + 2
    expected = [f"  {f'shapes-{method}':<{width}}What {method.upper()} needs here." for method in METHODS]
    assert capsys.readouterr().out.splitlines() == expected


def test_evaluate_shows_the_figures_and_writes_them(capsys, monkeypatch, tmp_path):
    figures = {"iou": 0.87654321, "name": "a [red] torus", "name_right": True, "unseen_psnr": 21.5, "of others": 3}
    monkeypatch.setattr("gsdistill.cli.evaluation.gather", lambda splat, *more: {**figures, "run": str(splat)})
    Path("outputs/x").mkdir(parents=True)
    assert execute(["evaluate", "outputs/x", "--json", "figures/x.json"]) == 0
    text = capsys.readouterr().out
    for part in ("iou", "0.8765", "a [red] torus", "yes", "unseen views", "21.5", "others", "of others"):
        assert part in text
    assert json.loads((tmp_path / "figures" / "x.json").read_text()) == {**figures, "run": "outputs/x"}
    assert json.loads(Path("outputs/x/evaluation.json").read_text()) == {**figures, "run": "outputs/x"}


def test_evaluate_says_what_it_needs_to_know(capsys, tmp_path):
    Path("torus.ply").write_text("ply")
    line = mistake(capsys, "evaluate", "torus.ply", "--prior", "shapes")
    assert line == "prior = 'shapes' is asked about a prompt: add --prompt"
    assert mistake(capsys, "evaluate", "taurus.ply") == "taurus.ply: there is no such file or folder"
    line = mistake(capsys, "evaluate", "torus.ply", "--prompt", "a red torus", "--truth", "torus.glb")
    assert line == "prompt and truth are two truths; give one of them, or --prior, which the prompt is for"
    line = mistake(capsys, "evaluate", "torus.ply", "--prompt", "a red torus", "--truth-frame", "y-up")
    assert line == "truth_frame = y-up is of a truth: add --truth FILE"
    assert "the object of 'a corgi' is not known" in mistake(capsys, "evaluate", "torus.ply", "--prompt", "a corgi")


def unread(*words):
    """A command whose output nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        command = [sys.executable, "-m", "gsdistill", *words]
        return subprocess.run(command, cwd=Path(__file__).parents[2], stdout=out, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("words", ["--help", "list all"])
def test_a_lost_reader_ends_the_output_without_a_word(words):
    done = unread(*words.split())
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.slow
def test_a_run_whose_reader_is_lost_says_how_it_goes_on(tmp_path):
    run = tmp_path / "run"
    done = unread("generate", "--prompt", "a red torus", "--prior", "shapes", "--views", "1", "--output", str(run))
    way = f"warning: all is kept up to step 0; go on with: gsdistill generate --config {run} --resume"
    assert (done.returncode, done.stderr.strip()) == (141, way)


def test_doctor_names_the_cure_of_what_is_missing(capsys, monkeypatch):
    assert execute(["doctor"]) == 0
    text = capsys.readouterr().out
    for part in ("torch", "gsplat", "numba", "ffmpeg", "device", "threads", "hub cache", "shapes", "sd15"):
        assert f"  {part} " in text
    monkeypatch.setattr("gsdistill.models.catalogue.cached_source", lambda name: None)
    monkeypatch.setattr("gsdistill.doctor.machine._version", lambda package: None)
    lost = {finding.name: finding for finding in findings()}
    assert lost["numba"].found is None
    assert lost["numba"].cure == "pip install numba"
    assert lost["sd15"].found is None
    assert lost["sd15"].cure == "gsdistill doctor --prior sd15"
    assert execute(["doctor"]) == 0
    assert "-> pip install numba" in capsys.readouterr().out


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["bogus"], 2)])
def test_python_m_gsdistill_passes_the_exit_code_on(words, code):
    done = subprocess.run(
        [sys.executable, "-m", "gsdistill", *words], cwd=Path(__file__).parents[2], capture_output=True
    )
    assert done.returncode == code


@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_and_version_load_nothing_heavy(words):
    program = f"import sys; from gsdistill.cli.main import execute; execute({words!r}); "
    program += "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], capture_output=True)
    assert done.returncode == 0, done.stderr


def test_a_prompt_comes_from_a_file(tmp_path, monkeypatch, ran):
    monkeypatch.chdir(tmp_path)
    Path("prompt.txt").write_text("\ufeff# mine\n\n a red torus \n", encoding="utf-8")
    assert execute(["generate", "--prompt-file", "prompt.txt"]) == 0
    assert ran[0].prompt == "a red torus"


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (None, "", "prompt.txt: cannot be read: No such file or directory"),
        (b" \n", "", "the prompt file prompt.txt holds no prompt"),
        (
            b"a cube\n# two\na cone\n",
            "",
            "prompt.txt holds 2 prompts, one on each line, and this command takes one; gsdistill sweep --prompt-file "
            "prompt.txt makes them all",
        ),
        (b"\xff\xfe", "", "prompt.txt: cannot be read: it is not UTF-8 text: invalid start byte at byte 0"),
        (b"a cube", "--prompt x", "--prompt and --prompt-file exclude each other"),
    ],
)
def test_a_prompt_file_that_does_not_serve(content, words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("prompt.txt").write_bytes(content)
    assert execute(["generate", "--prompt-file", "prompt.txt", *words.split()]) == 2
    assert message in capsys.readouterr().err


def test_offline_goes_offline_before_anything_is_asked_for(ran, monkeypatch):
    asked = []
    monkeypatch.setattr("gsdistill.models.hub.go_offline", lambda: asked.append(len(ran)))
    assert execute(["generate", "--prompt", "a red cube", "--offline"]) == 0
    assert asked == [0] and len(ran) == 1
