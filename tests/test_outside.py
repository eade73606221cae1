"""Classes from outside the package: named on the command line, kept in a run's folder, refused in one sentence."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import labs
import pytest
import torch
from labs import install

from gsdistill.cli.main import execute
from gsdistill.core.errors import ConfigError, Notice
from gsdistill.core.structs import Gaussians
from gsdistill.core.terminal import terminal
from gsdistill.distillation.base import Distillation
from gsdistill.export.formats import run_writers
from gsdistill.export.settings import RunExport
from gsdistill.front import load as load_splat
from gsdistill.front import save
from gsdistill.generate import run
from gsdistill.pages.choices import differences
from gsdistill.pages.gallery import write_gallery
from gsdistill.run.changes import checked_changes as changes
from gsdistill.run.config import RunConfig, resolve
from gsdistill.scene.init.base import Initialiser
from gsdistill.settings.config import defaults, from_dict, merge, name_of, to_dict
from gsdistill.settings.registry import at_hand, load, names, summary
from gsdistill.settings.yaml import load_yaml

METHODS, INITS = "gsdistill.distillation", "gsdistill.scene.init"

SOURCE = '''
"""A method and a start of one's own."""

from dataclasses import dataclass

import torch

from gsdistill.core.ranges import bounded
from gsdistill.distillation.base import Distillation, Moment
from gsdistill.settings.ramp import Ramp
from gsdistill.scene.densify.base import Densification, Densifier, DensifyReport
from gsdistill.scene.init.base import Initialiser, round_gaussians


@dataclass(frozen=True)
class Mine(Distillation):
    """Guided noise at low noise levels."""

    guidance_scale: float = bounded(7.5, low=1)  # omega, whatever that is

    def gradient(self, moment: Moment, state):
        t, eps = moment.draw_timesteps(Ramp(0.02, 0.02), Ramp(0.5, 0.5)), moment.draw_noise()
        alpha, sigma = moment.schedule.at(t, moment.x0)
        noise = moment.prior.noise(alpha * moment.x0 + sigma * eps, t, moment.condition)
        return moment.answer(noise.guided(self.guidance_scale) - eps, t), state


@dataclass(frozen=True)
class Dice(Initialiser):
    """Grey Gaussians in a cube."""

    count: int = bounded(80, low=1)  # how many

    def create(self, prompt, generator, device="cpu"):
        means = torch.rand(self.count, 3, generator=generator) - 0.5
        return round_gaussians(means, torch.full((self.count,), 0.1), 0.3, torch.full((self.count, 3), 0.5), 0)


@dataclass(frozen=True, kw_only=True)
class Halving(Densification):
    """Every other Gaussian goes."""

    after: int = bounded(2, low=1)  # so many steps

    def begin(self, iterations):
        return _Halving(self, iterations)


class _Halving(Densifier):
    def __init__(self, settings, iterations):
        super().__init__(settings, iterations)
        self.after = settings.after

    def refine(self, params, optimizers, done, generator):
        from gsplat.strategy.ops import remove
        if done != self.after:
            return None
        gone = torch.arange(len(params["means"])) % 2 == 0
        remove(params, optimizers, self.state, gone)
        return DensifyReport(len(gone), 0, int(gone.sum()), 0)


@dataclass(frozen=True)
class Undone(Distillation):
    pass


class Bare(Mine):
    pass


ANYTHING = [7]
'''


@pytest.fixture
def lab(tmp_path):
    """A folder with the file mine.py, in which we are."""
    with labs.lab(tmp_path, mine=SOURCE) as folder:
        yield folder


SMALL = ("--iterations", "4", "--resolution", "16", "--views", "1", "--no-recipe", "--snapshots", "0")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a run by an outside method and start, made by the command elsewhere; and what it printed."""
    home = tmp_path_factory.mktemp("home")
    (home / "mine.py").write_text(SOURCE)
    words = ["generate", "--prompt", "a red torus", *SMALL, "--method", "./mine.py:Mine"]
    words += ["--method.guidance-scale", "20", "--init", "./mine.py:Dice", "--init.count", "50"]
    words += ["--densify", "./mine.py:Halving", "--densify.enabled", "--densify.after", "3"]
    done = subprocess.run(
        [sys.executable, "-m", "gsdistill", *words], cwd=home, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return home / "outputs" / "a-red-torus" / "mine-seed0", done.stdout


@pytest.mark.slow
def test_an_outside_method_and_start_go_to_the_report(made):
    folder, said = made
    assert f"method {folder.parents[2] / 'mine.py'}:Mine" in said.replace("\n", "")
    settings = load_yaml(folder / "config.yaml")
    assert settings["method"] == {"name": f"{folder.parents[2] / 'mine.py'}:Mine", "clip": 0.0, "guidance_scale": 20.0}
    assert settings["init"] == {"name": f"{folder.parents[2] / 'mine.py'}:Dice", "count": 50}
    assert settings["densify"]["name"] == f"{folder.parents[2] / 'mine.py'}:Halving"
    assert len(load_splat(folder)) == 25
    page = (folder / "report.html").read_text()
    assert "# default 7.5" in page and "# default 80" in page
    assert "<title>" in page and "Mine" in page


@pytest.mark.slow
def test_a_run_with_an_outside_method_goes_on_from_another_folder(made, tmp_path, monkeypatch, lab, capsys):
    """What is resumed ends as what was never interrupted; the file is found wherever one is."""
    folder, _ = made
    whole = resolve({**load_yaml(folder / "config.yaml"), "output": tmp_path / "whole"})
    part = resolve({**load_yaml(folder / "config.yaml"), "output": tmp_path / "part", "checkpoint_every": 0})
    run(whole, terminal(), extras=False)
    with monkeypatch.context() as patch:
        patch.setattr("gsdistill.run.folder.RunFolder.log", interrupted_after_two_steps)
        with pytest.raises(KeyboardInterrupt):
            run(part, terminal(), extras=False)
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert execute(["generate", "--config", str(tmp_path / "part"), "--resume"]) == 0
    assert "going on from step" in capsys.readouterr().out
    first, second = ((tmp_path / name / "gaussians.ply").read_bytes() for name in ("whole", "part"))
    assert first == second


def interrupted_after_two_steps(folder, record):
    if record["step"] >= 2:
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_lost_file_is_named_on_resume(made, tmp_path, lab):
    """And another place of it can be given, but no other method."""
    settings = load_yaml(made[0] / "config.yaml")
    (tmp_path / "old.py").write_text(SOURCE)
    settings["method"]["name"] = f"{tmp_path / 'old.py'}:Mine"
    now = {**settings, "method": {**settings["method"], "name": f"{tmp_path / 'mine.py'}:Mine"}}
    with pytest.raises(ConfigError, match=r"cannot change method\.name"):
        changes(now, settings, tmp_path, accept=True)
    (tmp_path / "old.py").unlink()
    assert len(changes(now, settings, tmp_path, accept=True)) == 1
    with pytest.raises(ConfigError, match=r"there is no file .*old\.py$"):
        resolve(settings)


@pytest.mark.slow
def test_pages_show_what_others_ran_and_run_none_of_it(tmp_path, made, lab, capsys):
    """The folder of a stranger names a file that would leave a trace."""
    folder = tmp_path / "stranger"
    shutil.copytree(made[0], folder)
    trap, trace = tmp_path / "trap.py", tmp_path / "trace"
    trap.write_text(f"open({str(trace)!r}, 'w')\n" + SOURCE)
    text = (folder / "config.yaml").read_text().replace(str(made[0].parents[2] / "mine.py"), str(trap))
    assert str(trap) in text
    (folder / "config.yaml").write_text(text)
    for words in (["report", str(folder)], ["evaluate", str(folder)], ["render", str(folder)]):
        assert execute(words) == 0, capsys.readouterr().err
    write_gallery(tmp_path, terminal())
    assert "Mine" in (tmp_path / "gallery.html").read_text()
    assert not trace.exists()
    resolve(load_yaml(folder / "config.yaml"))
    assert trace.exists()  # the trap works


def test_a_name_is_kept_whole_and_is_the_same_from_everywhere(lab, tmp_path, monkeypatch):
    config = resolve({"prompt": "a red torus", "method": {"name": "./mine.py:Mine", "guidance_scale": 9}})
    assert name_of(config.method) == f"{tmp_path / 'mine.py'}:Mine"
    assert config.folder.name == "mine-seed0"
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    again = from_dict(RunConfig, to_dict(config))
    assert again == config
    assert type(again.method) is type(config.method)
    base = {"method": to_dict(config)["method"]}
    monkeypatch.chdir(tmp_path)
    kept = merge(base, {"method": "mine.py:Mine"})["method"]
    assert kept["guidance_scale"] == 9  # the settings of one class stay
    assert "guidance_scale" not in merge(base, {"method": "mine.py:Bare"})["method"]


def test_two_files_of_one_name_are_two_modules(lab, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine.py").write_text(SOURCE.replace("7.5", "3.5"))
    first, second = load(METHODS, "./mine.py:Mine"), load(METHODS, "b/mine.py:Mine")
    assert (first().guidance_scale, second().guidance_scale) == (7.5, 3.5)
    assert load(METHODS, str(tmp_path / "mine.py") + ":Mine") is first


def test_threads_that_ask_at_once_get_the_class_of_one_module(lab):
    (lab / "mine.slow.py").write_text(f"import time\ntime.sleep(0.3)\n{SOURCE}")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda name: load(METHODS, name), 3 * ["./mine.slow.py:Mine"]))
    assert len(set(found)) == 1 and found[0].__name__ == "Mine"


def test_a_module_that_python_finds_serves(lab, monkeypatch):
    monkeypatch.syspath_prepend(str(lab))
    cls = load(METHODS, "mine:Mine")
    assert issubclass(cls, Distillation)
    assert name_of(cls()) == "mine:Mine"
    assert issubclass(load(INITS, "mine:Dice", "initialiser"), Initialiser)


BAD = {
    "./mine.py": "method './mine.py' names no class; write module:Class or file.py:Class, as in ./mine.py:Mine",
    "mine.py:": "method 'mine.py:' names no class; write module:Class or file.py:Class, as in ./mine.py:Mine",
    ":Mine": "method ':Mine' names no class; write module:Class or file.py:Class, as in ./mine.py:Mine",
    r"C:\lab\mine.py": r"method 'C:\lab\mine.py' names no class; write module:Class or file.py:Class, as in "
                       "./mine.py:Mine",
    r"C:\lab\mine.py:Mine": r"method 'C:\lab\mine.py:Mine': there is no file {here}/C:\lab\mine.py",
    "none.py:Mine": "method 'none.py:Mine': there is no file {here}/none.py",
    "mine:Mine": "method 'mine:Mine': there is no module 'mine' that Python finds; the file mine.py here is "
                 "./mine.py:Mine",
    "json.nothing:Mine": "method 'json.nothing:Mine': there is no module 'json.nothing' that Python finds",
    "lab/mine:Mine": "method 'lab/mine:Mine': 'lab/mine' is neither a module nor a file that ends with .py",
    "./mine.py:Mien": "method './mine.py:Mien': there is no 'Mien' in {here}/mine.py. Did you mean 'Mine'?",
    "./mine.py:Dice": "method './mine.py:Dice' is no subclass of gsdistill.distillation.base.Distillation",
    "./mine.py:ANYTHING": "method './mine.py:ANYTHING' is no subclass of gsdistill.distillation.base.Distillation",
    "./mine.py:Undone": "method './mine.py:Undone' is abstract: it lacks gradient of "
                        "gsdistill.distillation.base.Distillation",
    "loose.py:Loose": "method 'loose.py:Loose' does not import: TypeError: cannot inherit non-frozen dataclass from a "
                      "frozen one ({here}/loose.py, line 3)",
    "./mine.py:Bare": "method './mine.py:Bare' is no frozen dataclass: write @dataclass(frozen=True) above the class",
    "broken.py:X": "method 'broken.py:X' does not import: ZeroDivisionError: division by zero ({here}/broken.py, "
                   "line 2)",
    "typo.py:X": "method 'typo.py:X' does not import: SyntaxError: invalid syntax (typo.py, line 1)",
    "stops.py:X": "method 'stops.py:X' does not import: SystemExit: 3 ({here}/stops.py, line 1)",
    "needs.py:X": "method 'needs.py:X' does not import: ModuleNotFoundError: No module named 'lab_of_nobody' "
                  "({here}/needs.py, line 1)",
    "twice.py:X": "method 'twice.py:X' does not import: TypeError: non-default argument 'b' follows default argument "
                  "({here}/twice.py, line 2)",
    "~nobody-at-all/mine.py:X": "method = '~nobody-at-all/mine.py': there is no user 'nobody-at-all' on this machine; "
                                "write the whole path, or ./~nobody-at-all for a folder of that name",
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_serve_is_one_sentence(name, lab):
    (lab / "broken.py").write_text("\n1/0\n")
    (lab / "typo.py").write_text("class 3\n")
    (lab / "stops.py").write_text("raise SystemExit(3)\n")
    (lab / "twice.py").write_text("from dataclasses import dataclass\n@dataclass\nclass X: a: int = 1; b: int\n")
    base = "from gsdistill.distillation.base import Distillation"
    (lab / "loose.py").write_text(
        f"import dataclasses\n{base}\n@dataclasses.dataclass\nclass Loose(Distillation): pass\n"
    )
    (lab / "needs.py").write_text("import lab_of_nobody\n")
    before = set(sys.modules)
    with pytest.raises(ConfigError) as caught:
        load(METHODS, name)
    assert str(caught.value) == BAD[name].replace("{here}", str(lab))
    assert not [name for name in set(sys.modules) - before if name.startswith(("broken", "typo", "stops", "needs"))]


def test_an_unknown_name_tells_of_ones_own(lab):
    with pytest.raises(ConfigError, match=r"Did you mean 'sds'\?.*, or one of your own as module:Class or fi"):
        load(METHODS, "sdss")
    with pytest.raises(ConfigError, match="unknown demonstration 'mine:Mine'"):  # a folder without a group takes none
        load("gsdistill.laboratory.demos", "mine:Mine", "demonstration")


POINTS = """
    [gsdistill.methods]
    low = mine:Mine
    [gsdistill.initialisers]
    dice = mine:Dice
"""


def test_an_installed_package_brings_names(lab, monkeypatch, capsys):
    install(lab, "lab-of-mine", POINTS)
    monkeypatch.syspath_prepend(str(lab))
    assert {"low", "sds"} < set(names(METHODS)) and "dice" in names(INITS)
    assert summary(METHODS, "low") == "mine:Mine of the package lab-of-mine"
    assert "mine" not in sys.modules  # a listing imports nothing
    cls = load(METHODS, "low")
    assert name_of(cls()) == "low" and at_hand(METHODS, "low") is cls
    config = resolve({"prompt": "a red torus", "method": {"name": "low", "guidance_scale": 3}, "init": "dice"})
    assert to_dict(config)["method"] == {"name": "low", "clip": 0.0, "guidance_scale": 3.0}
    assert differences(to_dict(config), defaults(RunConfig))["method.guidance_scale"] == 7.5


WRITER = '''
from dataclasses import dataclass
from gsdistill.export.base import Writer

@dataclass(frozen=True)
class Xyz(Writer):
    """Places as text."""

    highest_degree = 0

    def encode(self, gaussians, draft):
        draft.write_text("".join(f"{x:.3f} {y:.3f} {z:.3f}\\n" for x, y, z in gaussians.means.tolist()))
        return []
'''


def test_an_installed_package_brings_a_format(lab, monkeypatch, capsys):
    """Its name is the ending of its files."""
    install(lab, "lab-of-mine", "[gsdistill.writers]\nxyz = mine_writer:Xyz\n")
    (lab / "mine_writer.py").write_text(WRITER)
    monkeypatch.syspath_prepend(str(lab))
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    splat = Gaussians(torch.tensor([[0.1, 0.2, 0.3]]), quats, torch.zeros(1, 3), torch.zeros(1), torch.zeros(1, 1, 3))
    save(splat, "a.xyz")
    assert (lab / "a.xyz").read_text() == "-0.200 -0.300 0.100\n"  # right, down, front
    save(splat, "a.ply")
    assert execute(["export", "a.ply", "b.xyz"]) == 0
    assert (lab / "b.xyz").read_text() == (lab / "a.xyz").read_text()
    (writer,) = [one for name, one in run_writers(RunExport(formats=("xyz",))).items() if name == "gaussians.xyz"]
    with pytest.raises(ConfigError, match=r"^sh_pad = 2: \.xyz holds no view-dependent colour"):
        replace(writer, sh_pad=2).check()
    with pytest.raises(ConfigError, match=r"unknown format 'xyzz'\. Did you mean 'xyz'\?"):
        RunExport(formats=("xyzz",))
    assert execute(["list", "formats"]) == 0
    assert "xyz             mine_writer:Xyz of the package lab-of-mine" in capsys.readouterr().out


def test_an_installed_package_does_not_take_our_names(lab, monkeypatch):
    install(lab, "lab-of-mine", "[gsdistill.methods]\nsds = mine:Mine\n")
    monkeypatch.syspath_prepend(str(lab))
    with pytest.warns(Notice, match="'sds' is gsdistill's own; that of the package lab-of-mine is mine:Mine"):
        assert load(METHODS, "sds").__name__ == "SDS"


def test_two_packages_of_one_name_are_refused(lab, monkeypatch):
    install(lab, "lab-of-mine", "[gsdistill.methods]\nlow = mine:Mine\n")
    install(lab, "lab-of-others", "[gsdistill.methods]\nlow = theirs:Mine\n")
    monkeypatch.syspath_prepend(str(lab))
    with pytest.raises(ConfigError) as caught:
        load(METHODS, "low")
    told = str(caught.value)
    assert told.startswith("method 'low' is of the package lab-of-")
    assert "(mine:Mine)" in told and "(theirs:Mine)" in told


def test_a_class_that_was_never_named_is_named_by_its_module(lab, monkeypatch):
    monkeypatch.syspath_prepend(str(lab))
    import mine  # type: ignore[import-not-found]

    config = resolve({"prompt": "a red torus", "method": mine.Mine(9.0)})
    assert to_dict(config)["method"] == {"name": "mine:Mine", "clip": 0.0, "guidance_scale": 9.0}
    assert from_dict(RunConfig, to_dict(config)) == config


@pytest.mark.slow
def test_a_program_is_its_file(lab):
    """A method in the file that runs is found again from its folder, without running the file twice."""
    (lab / "program.py").write_text(
        SOURCE
        + textwrap.dedent("""
            print("once")
            from gsdistill.settings.config import from_dict, to_dict
            from gsdistill.run.config import RunConfig, resolve
            config = resolve({"prompt": "a red torus", "method": Mine(9.0)})
            print(to_dict(config)["method"]["name"])
            assert from_dict(RunConfig, to_dict(config)) == config
        """)
    )
    done = subprocess.run([sys.executable, "program.py"], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["once", f"{lab / 'program.py'}:Mine"], done.stderr


def test_a_page_loads_no_package_that_a_run_names():
    assert at_hand("gsdistill.distillation", "nobodys") is None
    assert at_hand("gsdistill.distillation", "sds").__name__ == "SDS"


@pytest.mark.parametrize("name", [5, [1]])
@pytest.mark.parametrize("key", ["method", "init", "cameras", "densify", "background"])
def test_a_name_that_is_no_text_is_refused(key, name):
    with pytest.raises(ConfigError, match=r"is no name; expected text|expected"):
        resolve({"prompt": "a red torus", "prior": "shapes", key: {"name": name}})
