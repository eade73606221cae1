"""A whole model's folder with random weights, to go through all that loads one where none can be downloaded.

    python tools/gpu/random_model.py FOLDER [--architecture sd21-base] [--device cpu]
    python tools/gpu/random_model.py FOLDER --tiny

Network and autoencoder are of the published size, in float16, with the weights that their modules draw for themselves;
the text encoder has two layers of the width that the network reads, and its tokenizer knows letters alone. --tiny: in
FOLDER come folders of models of a few kilobytes instead, those of tests/tiny for Stable Diffusion, SDXL and MVDream.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import diffusers
import torch

from gsdistill.prior.random_weights import FOLDER

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from tiny import mvdream, sdxl, stable_diffusion
from tiny.words import tokenizer

TINY = {"stable_diffusion": stable_diffusion, "sdxl": sdxl, "mvdream": mvdream}


def build(folder: Path, architecture: str, device: str) -> None:
    """Write a folder of Stable Diffusion's layout at full size."""
    torch.manual_seed(0)
    shutil.copytree(FOLDER / architecture, folder, dirs_exist_ok=True)
    for part, kind in (("vae", diffusers.AutoencoderKL), ("unet", diffusers.UNet2DConditionModel)):
        config = json.loads((folder / part / "config.json").read_text(encoding="utf-8"))
        with torch.device(device):
            model: Any = kind.from_config(config)
        model.half().save_pretrained(folder / part)
    stable_diffusion.text_encoder(model.config.cross_attention_dim).save_pretrained(folder / "text_encoder")
    tokenizer().save_pretrained(folder / "tokenizer")


def main() -> None:
    """Write the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--architecture", default="sd21-base", choices=("sd15", "sd21-base"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tiny", action="store_true", help="small models of three families, each in its folder")
    options = parser.parse_args()
    if options.tiny:
        for name, family in TINY.items():
            family.build(options.folder / name)
    else:
        build(options.folder, options.architecture, options.device)


if __name__ == "__main__":
    main()
