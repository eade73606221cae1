"""The prior's training: a function of its settings, stopped or not; its data tells the truth about the world."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from gsdistill.learning.stream import Key
from gsdistill.prior.loading import load_prior
from gsdistill.scene.viewpoints import orbit

TOOLS = str(Path(__file__).parents[2] / "tools" / "train")


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, TOOLS)
    yield importlib.import_module("shapes_prior")
    sys.path.remove(TOOLS)


@pytest.mark.slow
def test_a_stopped_training_ends_as_an_unstopped_one_and_its_model_loads(tool, tmp_path):
    def train(name: str, stop_after: int | None = None) -> Path:
        work, out, small = (
            tmp_path / name,
            tmp_path / name / "out",
            {"channels": (8, 8, 8), "views": (4, 2), "batch": 2},
        )
        tool.train(tool.Settings(work=work, output=out, device="cpu", steps=4, stop_after=stop_after, **small))
        return out

    whole = train("whole")
    assert not (train("cut", 2) / "unet").exists()
    cut = train("cut")
    for part in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (whole / part).read_bytes() == (cut / part).read_bytes()
    prior = load_prior(str(whole))
    text = prior.encode_text("a red cube", "")
    noise = prior.noise(
        torch.zeros(2, *prior.latent_shape), torch.tensor([5, 900]), prior.condition(text, orbit(2, 32))
    )
    assert bool(noise.direction.isfinite().all())


@pytest.fixture(scope="module")
def dataset(tool, tmp_path_factory: pytest.TempPathFactory):
    return tool.Dataset(tmp_path_factory.mktemp("data"), 32, 6, 3, 0)


@pytest.mark.slow
def test_a_batch_shows_what_its_caption_says(dataset):
    """Each captioned picture is the ray-cast picture of the parsed caption from its camera, over its own background."""
    from shapes_data import HELD_OUT

    from gsdistill.scene.viewpoints import look_at_origin
    from gsdistill.worlds.base import paint
    from gsdistill.worlds.shapes.captions import parse
    from gsdistill.worlds.shapes.raycast import trace
    from gsdistill.worlds.shapes.world import build

    batch = dataset.batch(40, 0.1, Key(1, 2, 0))
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


def test_batches_depend_on_seed_step_and_shard_alone(dataset):
    same = dataset.batch(4, 0.1, Key(0, 7, 0))
    assert torch.equal(same.images, dataset.batch(4, 0.1, Key(0, 7, 0)).images)
    for other in ((1, 7, 0), (0, 8, 0), (0, 7, 1)):
        assert not torch.equal(same.images, dataset.batch(4, 0.1, Key(*other)).images)
