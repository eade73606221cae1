"""Files that leave a mark where they are run: pickles, and modules of Python that a config points to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

MODULE = """
from pathlib import Path
Path({mark!r}).touch()
from transformers import CLIPTextConfig, CLIPTokenizer
class Evil(CLIPTextConfig): pass
class EvilTokenizer(CLIPTokenizer): pass
"""
CLASSES = ("Config", "Model", "Tokenizer", "ImageProcessor", "Processor", "FeatureExtractor")


class Pickled:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.mark,)


def pickle_weights(folder: Path, mark: Path) -> list[Path]:
    """Put a pickle that leaves ``mark`` in the place of all safetensors files of a folder, and return them."""
    made = []
    for path in sorted(folder.rglob("*.safetensors")):
        name = "pytorch_model.bin" if path.name == "model.safetensors" else path.with_suffix(".bin").name
        torch.save({"weight": torch.zeros(1), "callback": Pickled(mark)}, path.with_name(name))
        path.unlink()
        made.append(path.with_name(name))
    return made


def plant(folder: Path, mark: Path) -> None:
    """Put a module that leaves ``mark`` beside every config of a model, and name it wherever a library may look."""
    for place in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        for name in ("evil.py", "modeling_evil.py", f"{place.name}.py", "pipeline.py", "__init__.py"):
            (place / name).write_text(MODULE.format(mark=str(mark)))
        for path in place.glob("*config.json"):
            auto = {f"Auto{kind}": "modeling_evil.Evil" for kind in CLASSES}
            auto["AutoTokenizer"] = ["modeling_evil.EvilTokenizer", None]
            _change(path, auto_map=auto, custom_pipeline="pipeline", custom_code=True, trust_remote_code=True)
    _change(folder / "model_index.json", custom_pipeline="pipeline", evil=["evil", "Evil"])


def _change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
