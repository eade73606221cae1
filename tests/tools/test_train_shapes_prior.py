"""The prior's training: a function of its settings, stopped or not; its data tells the truth about the world."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

TOOLS = Path(__file__).parents[2] / "tools" / "train"
SMALL = ["--steps", "4", "--batch", "2", "--processes", "1", "--views", "4", "2", "--channels", "8", "8", "8"]


def train(work: Path, *more: str) -> Path:
    command = [sys.executable, str(TOOLS / "shapes_prior.py"), "--work", str(work), "--output", str(work / "out")]
    subprocess.run([*command, *SMALL, *more], check=True, capture_output=True, timeout=300)
    return work / "out"


def test_a_stopped_training_ends_as_an_unstopped_one_and_its_model_loads(tmp_path):
    whole = train(tmp_path / "whole")
    assert not (train(tmp_path / "cut", "--stop-after", "2") / "unet").exists()
    cut = train(tmp_path / "cut")
    for part in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (whole / part).read_bytes() == (cut / part).read_bytes()
    from gsdistill.prior.loading import load_prior
    from gsdistill.scene.cameras import orbit

    prior = load_prior(str(whole))
    text = prior.encode_text("a red cube", "")
    noise = prior.noise(
        torch.zeros(2, *prior.latent_shape), torch.tensor([5, 900]), prior.condition(text, orbit(2, 32))
    )
    assert bool(noise.direction.isfinite().all())


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory):
    sys.path.insert(0, str(TOOLS))
    from shapes_data import Dataset

    yield Dataset(tmp_path_factory.mktemp("data"), 32, 6, 3, 0)
    sys.path.remove(str(TOOLS))


def test_a_batch_shows_what_its_caption_says(dataset):
    """Each captioned picture is the ray-cast picture of the parsed caption from its camera, over its own background."""
    from shapes_data import HELD_OUT

    from gsdistill.scene.cameras import look_at_origin
    from gsdistill.worlds.base import paint
    from gsdistill.worlds.shapes.captions import parse
    from gsdistill.worlds.shapes.raycast import trace
    from gsdistill.worlds.shapes.world import build

    batch = dataset.batch(40, 1, 2, 0, 0.1)
    dropped = 0
    for i, text in enumerate(batch.captions):
        if not text:
            dropped += 1
            continue
        things = parse(text)
        assert not any((thing.color, thing.shape) in HELD_OUT for thing in things)
        camera = look_at_origin(
            batch.azimuths[i : i + 1], batch.elevations[i : i + 1], torch.tensor([3.2]), torch.tensor([40.0]), 32
        )
        thing = build(things)
        background = batch.images[i, 0, 0][None]
        image, _ = paint(trace(thing.parts, camera), torch.from_numpy(thing.colors), background)
        torch.testing.assert_close(batch.images[i], image[0], atol=0.02, rtol=0)
    assert 0 < dropped < 12


def test_batches_depend_on_seed_step_and_rank_alone(dataset):
    same = dataset.batch(4, 0, 7, 0, 0.1)
    assert torch.equal(same.images, dataset.batch(4, 0, 7, 0, 0.1).images)
    for other in ((1, 7, 0), (0, 8, 0), (0, 7, 1)):
        assert not torch.equal(same.images, dataset.batch(4, *other, 0.1).images)
