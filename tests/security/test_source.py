"""What the source may not do, read from the source: run what a file says, or speak to the network in other places."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from gsdistill.settings import yaml as yaml_dialect

ROOT = Path(__file__).parents[2]
MODULES = sorted([*(ROOT / "gsdistill").rglob("*.py"), *(ROOT / "tools").rglob("*.py")])
SOURCES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in MODULES}

# Modules that turn bytes into objects of any class, or into code.
RUNNERS = {"dill", "shelve", "marshal", "cloudpickle", "joblib", "code", "pty", "xmlrpc", "torch.package", "torch.hub"}
# Functions that run a text, or start a shell.
SHELLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput", "pty.spawn"}
# Loaders that do so unless a keyword has this very value.
LOADERS = {"torch.load": ("weights_only", True)}
# Keywords that must not have another value than this, whatever is called.
KEYWORDS = {"trust_remote_code": False, "allow_pickle": False, "shell": False, "use_safetensors": True}
NEVER = {"custom_pipeline", "custom_revision"}  # code of a model's repository

NETWORK = {
    "asyncio", "ftplib", "http", "huggingface_hub", "httpx", "requests", "smtplib", "socket", "ssl", "telnetlib",
    "urllib.request", "urllib3", "viser", "webbrowser", "websockets",
}  # fmt: skip
SPEAKERS = {
    "gsdistill/doctor/machine.py": {"huggingface_hub"},  # where the cache is
    "gsdistill/doctor/model.py": {"huggingface_hub"},  # likewise
    "gsdistill/point_e/weights.py": {"http", "urllib.request"},  # fetches OpenAI's files
    "gsdistill/models/hub.py": {"huggingface_hub"},  # fetches models
    "gsdistill/viewer/command.py": {"viser", "webbrowser"},
    "gsdistill/viewer/guard.py": {"http", "socket", "viser", "websockets"},
    "gsdistill/viewer/panel.py": {"viser"},
    "gsdistill/viewer/server.py": {"socket", "viser"},
    "gsdistill/viewer/stage.py": {"viser"},
}


def called(node: ast.expr) -> str:
    """The dotted name of what is called, as far as it is one."""
    if isinstance(node, ast.Attribute):
        return f"{called(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(tree: ast.AST) -> set[str]:
    """The full names of modules that are imported, and of what is taken from them."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def faults(source: str) -> list[str]:
    """What of a module's source could run what a file says."""
    return [fault for node in ast.walk(ast.parse(source)) for fault in _faults(node)]


def _faults(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = imported(node)
        yield from sorted(name for name in names if any(name == bad or name.startswith(f"{bad}.") for bad in RUNNERS))
        yield from (name for name in names if name.startswith(("pickle.", "yaml.", "torch.load", "os.system")))
    elif isinstance(node, ast.Attribute) and called(node.value) == "pickle" and node.attr != "UnpicklingError":
        yield f"pickle.{node.attr}"
    elif isinstance(node, ast.Call):
        yield from _faults_of_call(node)


def _faults_of_call(node: ast.Call) -> Iterator[str]:
    name = called(node.func)
    given = {word.arg: word.value.value if isinstance(word.value, ast.Constant) else ... for word in node.keywords}
    if name in SHELLS or name.startswith(("os.exec", "os.spawn")):
        yield name
    if name.startswith("yaml.") and name.endswith(("load", "load_all")) and name != "yaml.safe_load":
        loaders = [word.value.id for word in node.keywords if word.arg == "Loader" and isinstance(word.value, ast.Name)]
        if loaders != ["_Loader"]:  # of yaml_dialect.py
            yield name
    if name in LOADERS:
        keyword, value = LOADERS[name]
        if given.get(keyword) is not value:
            yield f"{name} without {keyword}={value}"
    for keyword in given:
        if keyword in NEVER or (keyword in KEYWORDS and given[keyword] is not KEYWORDS[keyword]):
            yield f"{keyword} of {name}"


def speaks(tree: ast.AST) -> set[str]:
    """The modules of the network that are imported."""
    names = imported(tree)
    return {bad for bad in NETWORK if any(name == bad or name.startswith(f"{bad}.") for name in names)}


def test_nothing_runs_what_a_file_says():
    assert len(SOURCES) > 200
    found = {name: faults(source) for name, source in SOURCES.items()}
    assert {name: what for name, what in found.items() if what} == {}


def test_settings_are_read_by_a_safe_loader():
    assert issubclass(yaml_dialect._Loader, yaml.BaseLoader)  # which makes texts, lists and mappings alone


def test_few_modules_speak_to_the_network():
    ours = {name: speaks(ast.parse(source)) for name, source in SOURCES.items() if name.startswith("gsdistill/")}
    assert {name: words for name, words in ours.items() if words} == SPEAKERS


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.load(file)",
        "import pickle\nread = pickle.loads",
        "from pickle import loads",
        "import shelve",
        "from joblib import load",
        "import torch.hub",
        "from torch import hub",
        "eval(text)",
        "exec(text)",
        "__import__(name)",
        "os.system(text)",
        "os.execvp(*words)",
        "subprocess.run(text, shell=True)",
        "subprocess.run(text, shell=flag)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=flag)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.unsafe_load(text)",
        "yaml.full_load(text)",
        "from yaml import load",
        "kind.from_pretrained(folder, trust_remote_code=True)",
        "kind.from_pretrained(folder, use_safetensors=False)",
        "kind.from_pretrained(folder, custom_pipeline=name)",
        "def f():\n    if x:\n        return [exec(t) for t in ts]",
    ],
)
def test_the_judge_sees_it(source):
    assert faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\ntry: pass\nexcept pickle.UnpicklingError: pass",
        "torch.load(path, weights_only=True)",
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "model.eval()",
        "torch.compile(model)",
        "re.compile(pattern)",
        "subprocess.run([sys.executable])",
    ],
)
def test_the_judge_lets_it_pass(source):
    assert faults(source) == []


def test_the_judge_hears_who_speaks():
    assert speaks(ast.parse("def f():\n    from urllib import request")) == {"urllib.request"}
    assert speaks(ast.parse("from urllib.parse import quote")) == set()
