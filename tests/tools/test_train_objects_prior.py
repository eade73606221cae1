"""The objects prior's training: captions that say what their pictures show, and a model that loads and goes on."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gsdistill.learning.stream import Key
from gsdistill.prior.loading import load_prior
from gsdistill.scene.viewpoints import look_at_origin, orbit
from gsdistill.worlds.objects import Objects
from gsdistill.worlds.objects.captions import SOLIDS, nouns
from gsdistill.worlds.objects.catalogue import words
from gsdistill.worlds.objects.meshes import folder
from gsdistill.worlds.shapes import Shapes
from objects import needs_meshes

TOOLS = str(Path(__file__).parents[2] / "tools" / "train")
WORLD = Objects()


@pytest.fixture(scope="module")
def tool():
    sys.path.insert(0, TOOLS)
    yield importlib.import_module("objects_prior")
    sys.path.remove(TOOLS)


def settings(tool, folder: Path, **more):
    small = {"channels": (8, 8, 8), "batch": 2, "device": "cpu", "steps": 3}
    return tool.Settings(work=folder, output=folder / "out", **(small | more))


@needs_meshes
@pytest.mark.slow
def test_a_stopped_training_ends_as_an_unstopped_one_and_its_model_loads_and_goes_on(tool, tmp_path):
    tool.train(settings(tool, tmp_path / "whole"))
    tool.train(settings(tool, tmp_path / "cut", stop_after=2))
    assert not (tmp_path / "cut" / "out" / "unet").exists()
    tool.train(settings(tool, tmp_path / "cut"))
    whole, cut = (tmp_path / name / "out" for name in ("whole", "cut"))
    for part in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (whole / part).read_bytes() == (cut / part).read_bytes()
    prior = load_prior(str(whole))
    text = prior.encode_text("a teddy bear on a red chair", "")
    assert text.positive.pooled.shape == (1, 128) and text.positive.tokens.shape == (1, 20, 128)
    x = torch.zeros(2, *prior.latent_shape)
    assert prior.noise(x, torch.tensor([5, 900]), prior.condition(text, orbit(2, 64))).direction.isfinite().all()
    tool.train(settings(tool, tmp_path / "more", weights=whole, steps=1, lr=1e-12, seed=3))
    more = tmp_path / "more" / "out"
    for part in ("unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        for name, value in load_file(whole / part).items():
            torch.testing.assert_close(load_file(more / part)[name], value, rtol=2e-3, atol=1e-6)


@needs_meshes
def test_the_prior_reads_texts_as_its_training_did(tool, tmp_path):
    """Tokens, states and mean are those of the training's own encoder, by our reader and by transformers."""
    torch.manual_seed(0)
    model, text = tool.Model(len(tool.vocabulary()), (8, 8, 8)), "a t-rex on top of a jack-o-lantern"
    numbers = {word: number for number, word in enumerate(tool.vocabulary())}
    ids = torch.tensor([importlib.import_module("objects_data").tokens(numbers, text)])
    assert tool.make_tokenizer()([text], padding="max_length").input_ids == ids.tolist()
    states = model.text_encoder(ids).last_hidden_state
    words = (ids != len(numbers))[..., None]
    noise = tool.DDPMScheduler(beta_start=0.001, beta_end=0.01, beta_schedule="scaled_linear", prediction_type="sample")
    tool.export(settings(tool, tmp_path), model, noise, SimpleNamespace(done=0, seconds=0.0, history=[]))
    (embedding,) = load_prior(str(tmp_path / "out")).encode_texts([text])
    torch.testing.assert_close(embedding.tokens, states, rtol=2e-2, atol=2e-2)  # float16
    torch.testing.assert_close(embedding.pooled, (states * words).sum(1) / words.sum(1), rtol=2e-2, atol=2e-2)


@pytest.fixture(scope="module")
def pictures(tool):
    return importlib.import_module("objects_data").Pictures(folder(), words().first)


@needs_meshes
def test_a_picture_is_one_of_those_that_its_caption_may_mean(pictures):
    """The true picture of one of the layouts, from the picture's camera, in its light and over its background."""
    rng, compared = np.random.default_rng(2), 0
    for _ in range(60):
        picture, caption, azimuth, elevation = pictures.sample(rng)
        things = WORLD.parse(caption)
        if any(thing.color for thing in things):
            continue  # in a light of its own
        camera = look_at_origin(*(torch.tensor([float(x)]) for x in (azimuth, elevation, 3.2, 40.0)), 64)
        background = torch.from_numpy(picture[0, 0].astype(np.float32))[None]
        errors = []
        for layout in WORLD.meant(things):
            buffers = WORLD.trace(layout, camera, 3)
            body = buffers.fixed.movedim(1, -1) + (1 - buffers.coverage.sum(1))[..., None] * background
            errors.append(float((body[0].clamp(0, 1) - torch.from_numpy(picture)).abs().mean()))
        assert min(errors) < 2e-3, caption
        compared += 1
    assert compared > 10


@needs_meshes
def test_batches_follow_from_their_keys_and_hold_out_what_is_held_out(pictures, tool):
    a, b, c = (pictures.batch(6, 0.5, Key(0, step, 0)) for step in (1, 1, 2))
    assert torch.equal(a.images, b.images) and torch.equal(a.ids, b.ids) and not torch.equal(a.images, c.images)
    held_out = importlib.import_module("objects_data").HELD_OUT
    rng = np.random.default_rng(0)
    for _ in range(300):
        things = WORLD.parse(pictures.sample(rng)[1])
        assert not {(thing.color, thing.shape) for thing in things} & held_out
        assert all(thing.shape in SOLIDS or {*nouns(thing.shape)} & {*words().first} for thing in things)


def test_the_solids_of_the_training_are_those_of_the_shapes_world(tool):
    data = importlib.import_module("objects_data")
    for solid in SOLIDS:
        vertices = torch.from_numpy(data.solid_mesh(solid).vertices)
        assert float(Shapes().distance((solid,), vertices).abs().max()) < 1e-9, solid
