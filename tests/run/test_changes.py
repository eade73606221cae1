"""Which settings of a run may differ when it goes on: paths differ where they lead to different places."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gsdistill.core.errors import ConfigError
from gsdistill.disk.paths import anchored, may_be_path
from gsdistill.run.changes import BEFORE, OF_KINDS, check_places, checked_changes, differing, leaves
from gsdistill.run.config import RunConfig, read_config, resolve
from gsdistill.scene.init.ball import Ball
from gsdistill.scene.init.point_e import PointE
from gsdistill.settings.config import to_dict, to_yaml
from gsdistill.settings.yaml import dump
from gsdistill.training.backgrounds.black import Black
from gsdistill.training.backgrounds.white import White


@dataclass(frozen=True)
class Start:
    path: Path = Path("start.ply")


@dataclass(frozen=True)
class Model:
    lora: tuple[Path, ...] = (Path("a.safetensors"), Path("b.safetensors"))


@dataclass(frozen=True)
class Run:
    prompt: str = "x"
    prior: str = field(default="models/mine", metadata=may_be_path(lambda: ("known",)))
    output: Path | None = None
    init: Start = field(default_factory=Start)
    model: Model = field(default_factory=Model)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """The working directory ``here`` with all files of a run, whose folder is ``here/outputs/x/run``."""
    (tmp_path / "here" / "models" / "mine").mkdir(parents=True)
    (tmp_path / "here" / "outputs" / "x" / "run").mkdir(parents=True)
    for name in ("start.ply", "a.safetensors", "b.safetensors"):
        (tmp_path / "here" / name).write_text(name)
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def run_folder(here: Path, settings: Run) -> Path:
    folder = here / "outputs" / "x" / "run"
    (folder / "config.yaml").write_text(to_yaml(settings))
    return folder


def differ(now: Run, before: Run, here: Path) -> list[str]:
    return list(differing(to_dict(now), to_dict(before), run_folder(here, before)))


def test_a_file_by_another_name_is_the_same(here, monkeypatch):
    (here.parent / "link").symlink_to(here)
    monkeypatch.chdir(here.parent / "there")
    before = Run(f"{here}", f"{here}/models/mine", None, Start(here / "start.ply"), Model((here / "a.safetensors",)))
    other = here.parent / "link"
    now = Run(f"{here}", f"{other}/models/mine", None, Start(other / "start.ply"), Model((other / "a.safetensors",)))
    assert differ(now, before, here) == []
    (here.parent / "copy.ply").write_text("start.ply")
    lora = Model((here / "b.safetensors",))
    now = Run(f"{here}", "known", None, Start(here.parent / "copy.ply"), lora)
    assert differ(now, before, here) == ["prior", "init.path", "model.lora"]


@pytest.mark.parametrize("output", [None, Path("outputs/x/run")])
def test_paths_as_they_were_typed_mean_what_they_did_where_the_run_was_started(output, here, monkeypatch):
    before = Run(output=output)
    whole = anchored(before)
    assert differ(whole, before, here) == []
    monkeypatch.chdir(here.parent / "there")
    assert differ(whole, before, here) == []
    (here.parent / "there" / "models" / "mine").mkdir(parents=True)
    assert differ(anchored(before), before, here) == ["prior", "init.path", "model.lora"]


def test_a_name_of_the_hub_is_compared_as_it_is(here):
    assert differ(Run(prior="owner/model"), Run(prior="owner/model"), here) == []
    assert differ(Run(prior="owner/model"), Run(prior="owner/other"), here) == ["prior"]


def test_a_densifier_stays_while_its_settings_may_change(here):
    before, folder = {"densify": {"name": "gradient", "budget": 5}}, here / "outputs" / "x" / "run"
    with pytest.raises(ConfigError, match=r"cannot change densify\.name = mcmc \(was gradient\)"):
        checked_changes({"densify": {"name": "mcmc", "budget": 5}}, before, folder, accept=True)
    now = {"densify": {"name": "gradient", "budget": 6}}
    assert checked_changes(now, before, folder, accept=True) == ["densify.budget = 6 (was 5)"]
    assert checked_changes(now, {"densify": {"budget": 6}}, folder, accept=False) == []  # of a run without a name


def test_a_setting_that_a_part_of_an_older_run_does_not_have_was_as_before(here):
    before, folder = {"prompts": {"front": 45.0}}, here / "outputs" / "x" / "run"
    old = {"prompts": {"front": 45.0, "phrases": "suffix", "f_cuts": [1.0, 1.0, 1.0, 1.0]}}
    assert checked_changes(old, before, folder, accept=False) == []
    now = {"prompts": {**old["prompts"], "phrases": "prefix", "f_cuts": [0.8, 0.8, 0.8, 1.0]}}
    lines = [
        "prompts.phrases = prefix (was suffix)",
        "prompts.f_cuts = [0.8, 0.8, 0.8, 1.0] (was [1.0, 1.0, 1.0, 1.0])",
    ]
    assert checked_changes(now, before, folder, accept=True) == lines


def test_a_setting_that_an_older_run_does_not_have_was_as_it_was_then(here):
    """Also one among others, and a rule of the optimiser, whose moments the checkpoint holds, stays."""
    folder = here / "outputs" / "x" / "run"
    before = {"optim": {"betas": [0.9, 0.99]}, "pictures": {"depth": 0.1, "flip": 0.5}, "finish": {"name": "sds"}}
    now = {
        "optim": {"betas": [0.9, 0.99], **BEFORE["optim"]},
        "pictures": {"depth": 0.1, "flip": 0.5, "normals": 0.0},
        "finish": {"name": "sds"},
    }
    assert differing(now, before, folder) == {}
    later = {**now, "optim": {**now["optim"], "eps": 1e-8}, "pictures": {**now["pictures"], "normals": 0.2}}
    told = ["pictures.normals = 0.2 (was 0.0)", "optim.eps = 1e-08 (was 1e-15)"]
    assert checked_changes(later, before, folder, accept=True) == told
    with pytest.raises(ConfigError, match=r"cannot change optim\.rule = adan \(was adam\)"):
        checked_changes({**now, "optim": {**now["optim"], "rule": "adan"}}, before, folder, accept=True)


def test_settings_that_older_runs_do_not_have_exist_and_are_off_by_default():
    cloud, usual = (dict(leaves(to_dict(config))) for config in (RunConfig("x", init=PointE()), RunConfig("x")))
    assert dict(leaves({**BEFORE, **OF_KINDS})).items() <= {**cloud, **usual}.items()


def test_an_initialiser_has_what_it_has_and_an_older_one_had_it_as_before(here):
    folder = here / "outputs" / "x" / "run"
    for kind, start, setting in (("ball", Ball(), {"spacing": "rms"}), ("point-e", PointE(), {"copies": 20})):
        now = {"init": {"name": kind, **to_dict(start)}}
        older = {"init": {name: value for name, value in now["init"].items() if name not in OF_KINDS["init"]}}
        assert differing(now, older, folder) == {}
        (name,) = setting
        assert set(differing({"init": {**now["init"], **setting}}, older, folder)) == {f"init.{name}"}


def test_an_older_run_does_not_get_what_recipes_say_today(tmp_path):
    """The recipe of ISM has twenty copies of every point, and gives way to black and to random colours."""
    saved = {"prompt": "x", "prior": "sd21-base", "method": {"name": "ism"}, "resume": False, "background": "white"}
    saved |= {"init": {"name": "point-e", "limit": 4096}, "stages": [{"iterations": 5, "background": "black"}]}
    (tmp_path / "config.yaml").write_text(dump(saved))
    again = resolve(read_config(str(tmp_path)))
    assert (again.init.copies, again.init.spread, again.init.colors, again.init.spacing) == (1, 0.0, "cloud", "own")
    assert again.background == White()
    assert again.parts[0].background == Black()
    assert differing(to_dict(again), {**saved, "iterations": again.iterations}, tmp_path) == {}


def test_what_is_gone_may_be_named_anew_where_changes_are_accepted(here):
    before, now = Run(prior="/gone/models/mine", init=Start(here / "start.ply")), anchored(Run())
    folder = run_folder(here, before)
    change = f"prior = {here}/models/mine (was /gone/models/mine)"
    with pytest.raises(ConfigError, match="--accept-changes goes on with these"):
        checked_changes(to_dict(now), to_dict(before), folder, accept=False)
    assert checked_changes(to_dict(now), to_dict(before), folder, accept=True) == [change]
    for there in (str(here / "models"), "owner/model", "known"):
        with pytest.raises(ConfigError, match="cannot change prior"):
            checked_changes(to_dict(now), to_dict(Run(prior=there)), folder, accept=True)


def test_places_that_are_lost_are_told_with_where_the_run_has_them(here, monkeypatch):
    folder = run_folder(here, Run())
    check_places(anchored(Run()), folder)
    monkeypatch.chdir(here.parent / "there")
    for config, told in (
        (anchored(Run()), f"prior = 'models/mine': there is no such file or folder; the run in {folder} has it at "
                          f"{here}/models/mine: name it with --prior"),
        (anchored(Run(prior="known")), f"init.path = '{Path.cwd()}/start.ply': there is no such file or folder; the "
                                       f"run in {folder} has it at {here}/start.ply: name it with --init.path"),
        (Run(prior="/gone"), f"prior = '/gone': there is no such file or folder; the run in {folder} has it at "
                             f"{here}/models/mine: name it with --prior"),
        (anchored(Run(prior="known", init=Start(here / "start.ply"))),
         f"model.lora = '{Path.cwd()}/a.safetensors': there is no such file or folder; the run in {folder} has it at "
         f"{here}/a.safetensors: name it with --model.lora"),
        (Run(prior="known", model=Model((Path("/c.ply"),)), init=Start(here / "start.ply")),
         "model.lora = '/c.ply': there is no such file or folder; say where it is now with --model.lora and "
         "--accept-changes"),
    ):  # fmt: skip
        with pytest.raises(ConfigError) as caught:
            check_places(config, folder)
        assert str(caught.value) == told
    (folder / "config.yaml").unlink()
    with pytest.raises(ConfigError, match="say where it is now with --prior and --accept-changes"):
        check_places(Run(prior="/gone"), folder)
    check_places(anchored(Run("x", "owner/model", Path("new"), Start(here / "start.ply"), Model(()))), folder)
