"""Shap-E, with a tiny model of the real classes whose surface and colours are known.

Its network is W1 silu(W0 p + 10) + b1 of a place p and its sines: silu is the identity there but for 5e-4. Three rows
of W0 take the place alone; the fourth is drawn from the latents and only moves green. So every prompt gets the half
y < 0 of the cube, which is Shap-E's front half, red above, green at the side x > 0 and blue in front.
"""

import itertools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from gsdistill.core.errors import BadFile, ConfigError, ModelNotFound, PromptError
from gsdistill.core.structs import SH_C0
from gsdistill.disk.places import data_path
from gsdistill.scene.init.shap_e import ShapE

BIAS, STEEP = 10.0, 8.0
FAST = {"steps": 2, "grid": 24, "count": 500}
CORNERS = list(itertools.product((0, 1), repeat=3))


def edges():
    """The edges of a unit cube as pairs of corners, in diffusers' order: 4 along x, 4 along y, 4 along z."""
    for axis in range(3):
        for second, first in itertools.product((0, 1), repeat=2):
            ends = [[first, second], [first, second]]
            for end in (0, 1):
                ends[end].insert(axis, end)
            yield frozenset(tuple(end) for end in ends)


def marching_cubes():
    """Tables for a box: of its eight corners a cube has one inside, two along an edge, or four of a face."""
    cases, masks = torch.zeros(256, 5, 3, dtype=torch.long), torch.zeros(256, 5, dtype=torch.bool)
    numbered = list(enumerate(edges()))
    for case in range(1, 255):
        inside = {at for at in CORNERS if case >> (at[0] + 2 * at[1] + 4 * at[2]) & 1}
        spread = [len({at[axis] for at in inside}) for axis in range(3)]
        if len(inside) != spread[0] * spread[1] * spread[2] or len(inside) > 4:
            continue
        cut = [
            (number, torch.tensor(sorted(edge)).double().mean(0))
            for number, edge in numbered
            if len(edge & inside) == 1
        ]
        near = sorted(cut, key=lambda item: float((item[1] - cut[0][1]).norm()))
        ring = [near[0], near[1], *near[3:], near[2]]  # the farthest corner of a rectangle is the opposite one
        for place, (a, b) in enumerate(itertools.pairwise(number for number, _ in ring[1:])):
            cases[case, place], masks[case, place] = torch.tensor([ring[0][0], a, b]), True
    return cases, masks


def renderer():
    from diffusers.pipelines.shap_e import ShapERenderer

    sizes = {"d_latent": 8, "d_hidden": 4, "n_output": 12, "n_hidden_layers": 1, "insert_direction_at": None}
    made = ShapERenderer(param_names=["nerstf.mlp.0.weight"], param_shapes=[[4, 93]], **sizes)
    made.mesh_decoder.cases[:], made.mesh_decoder.masks[:] = marching_cubes()
    first, last = made.mlp.mlp
    projection = made.params_proj.projections["nerstf__mlp__0__weight"]
    with torch.no_grad():
        projection.proj.weight[: 3 * 93] = 0
        projection.proj.bias[:] = torch.eye(4, 93).flatten()
        projection.proj.bias[3 * 93 :] = 0
        projection.norm.weight[:] = 0.1
        first.bias[:] = BIAS
        last.weight[:] = 0
        last.weight[0, 1] = last.weight[5, 1] = -STEEP
        last.weight[3, 2] = last.weight[4, 0] = STEEP
        last.weight[4, 3] = 1.0
        last.bias[:] = -BIAS * last.weight.sum(dim=1)
    return made


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    from diffusers import HeunDiscreteScheduler, PriorTransformer, ShapEPipeline
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(data_path("assets", "shapes-prior", "tokenizer"))
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        projection_dim=16,
        max_position_embeddings=24,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    prior = PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=8, num_embeddings=4,
        embedding_proj_dim=16, time_embed_dim=16, clip_embed_dim=16, additional_embeddings=0, time_embed_act_fn="gelu",
        norm_in_type="layer", encoder_hid_proj_type=None, added_emb_type=None,
    )  # fmt: skip
    scheduler = HeunDiscreteScheduler(
        beta_schedule="exp", num_train_timesteps=1024, prediction_type="sample", use_karras_sigmas=True,
        clip_sample=True, clip_sample_range=1.0,
    )  # fmt: skip
    parts = {"prior": prior, "text_encoder": CLIPTextModelWithProjection(text), "tokenizer": tokenizer}
    folder = tmp_path_factory.mktemp("shap-e")
    ShapEPipeline(**parts, scheduler=scheduler, shap_e_renderer=renderer()).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def copied(model, tmp_path):
    return shutil.copytree(model, tmp_path / "copy")


def cloud(folder, prompt="a red mug", seed=0, **settings):
    generator = torch.Generator().manual_seed(seed)
    return ShapE(model=str(folder), **{**FAST, **settings}).cloud(prompt, generator, "cpu")


def test_the_surface_and_its_axes(model):
    made = cloud(model, count=2000)
    x, y, z = made.points.unbind(dim=1)
    assert (
        made.points.shape == made.colors.shape == (2000, 3) and made.points.dtype == made.colors.dtype == torch.float32
    )
    # Shap-E's y < 0 is our x > 0; its marching cubes reach one cell beyond the cube on every side
    low, high = made.points.amin(0), made.points.amax(0)
    assert low[0].abs() < 0.1 and all(abs(value - 1) < 0.1 for value in (high[0], -low[1], high[1], -low[2], high[2]))
    # every point lies on one of the six faces of the slab
    walls = torch.stack([x - low[0], high[0] - x, y - low[1], high[1] - y, z - low[2], high[2] - z]).amin(0)
    assert (walls < 0.05).float().mean() > 0.95 and walls.max() < 0.1


def test_the_colours_are_what_the_network_says(model):
    made = cloud(model, count=2000)
    x, y, z = made.points.unbind(dim=1)
    red, green, blue = made.colors.unbind(dim=1)
    # sigmoid of the linear rows; diffusers makes linear light of them, and we sRGB again
    assert (red - torch.sigmoid(STEEP * z)).abs().mean() < 0.05
    assert (blue - torch.sigmoid(STEEP * x)).abs().mean() < 0.05
    assert green[y > 0.5].mean() > 0.9 and green[y < -0.5].mean() < 0.1


@pytest.mark.slow
def test_the_same_run_gets_the_same_and_another_prompt_seed_or_model_its_own(model, copied, monkeypatch):
    first = cloud(model)
    others = [
        cloud(model, "a blue cube"),
        cloud(model, seed=1),
        cloud(model, guidance_scale=1.0),
        cloud(model, steps=3),
    ]
    assert not any(torch.equal(first.colors, other.colors) for other in others)
    monkeypatch.setattr("gsdistill.scene.init.shap_e.load_model", None)
    kept = cloud(model)  # nothing is loaded
    assert torch.equal(kept.points, first.points) and torch.equal(kept.colors, first.colors)
    with pytest.raises(TypeError):
        cloud(copied)  # the same weights elsewhere are another model


def test_the_cache_does_not_move_the_generator_and_azimuth_is_not_in_it(model, monkeypatch):
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    first, second = (ShapE(model=str(model), **FAST).create("a red mug", generator) for generator in generators)
    assert torch.equal(first.means, second.means) and torch.equal(first.sh, second.sh)
    assert torch.equal(*(generator.get_state() for generator in generators))
    monkeypatch.setattr("gsdistill.scene.init.shap_e.load_model", None)
    straight, quarter = cloud(model, seed=3), cloud(model, seed=3, azimuth=90.0)
    expected = torch.stack([-straight.points[:, 1], straight.points[:, 0], straight.points[:, 2]], dim=1)
    assert torch.allclose(quarter.points, expected, atol=1e-6)


def test_gaussians_have_the_colours(model):
    scene = ShapE(model=str(model), **FAST).create("a red mug", torch.Generator().manual_seed(0))
    top = scene.means[:, 2] > 0.3
    assert len(scene) == 500 and scene.means.norm(dim=1).max() < 0.9001
    assert (0.5 + SH_C0 * scene.sh[top, 0, 0]).mean() > 0.9 and (0.5 + SH_C0 * scene.sh[~top, 0, 0]).mean() < 0.6


def edit(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


def test_a_model_that_makes_no_surface_says_so(copied):
    weights = copied / "shap_e_renderer" / "diffusion_pytorch_model.safetensors"
    edit(weights, lambda held: (held["mlp.mlp.1.weight"].zero_(), held["mlp.mlp.1.bias"].fill_(-1.0)))
    with pytest.raises(PromptError, match=r"no surface of 'a red mug'; another --seed or more --init.steps may help"):
        cloud(copied)


def test_a_long_prompt_is_refused(model):
    with pytest.raises(PromptError, match=r"has \d+ tokens, Shap-E reads 24 at most"):
        cloud(model, "a red mug " * 30)


@pytest.mark.parametrize("part", ["prior", "text_encoder", "tokenizer", "scheduler", "shap_e_renderer"])
def test_a_missing_part_is_one_sentence(copied, part):
    shutil.rmtree(copied / part)
    with pytest.raises(ModelNotFound, match=rf"lacks a part: {part}/\w+\.json is missing$"):
        cloud(copied)


def test_a_tokenizer_without_its_words_is_refused(copied):
    (copied / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFound, match="the words of tokenizer are missing"):
        cloud(copied)


@pytest.mark.parametrize("part", ["prior", "text_encoder", "shap_e_renderer"])
def test_weights_that_are_cut_or_lack_a_tensor_are_refused(copied, part):
    weights = next((copied / part).glob("*.safetensors"))
    whole = weights.read_bytes()
    edit(weights, lambda held: held.pop(min(held)))
    with pytest.raises(BadFile, match="has no weights for 1 tensors"):
        cloud(copied)
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadFile, match=rf"the weights .*/{part}/.*\.safetensors are corrupted"):
        cloud(copied)


def test_a_wrong_folder_name_or_part_is_refused(copied, tmp_path, monkeypatch):
    with pytest.raises(ModelNotFound, match=r"lacks a part: prior/config\.json is missing"):
        cloud(tmp_path)
    with pytest.raises(ModelNotFound, match="'nix' is neither a folder nor a hub id such as openai/shap-e"):
        cloud("nix")
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="there is no folder or file 'models/shap-e'; in models there is nothing"):
        cloud("models/shap-e")
    config = copied / "prior" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"_class_name": "UNet2DModel"}))
    with pytest.raises(BadFile, match="is of class UNet2DModel, where PriorTransformer belongs"):
        cloud(copied)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, and no network."""

    def refuse(*arguments):
        raise OSError("no network in a test")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    return tmp_path / "hub" / "models--openai--shap-e"


def test_a_model_that_is_nowhere(hub, monkeypatch):
    with pytest.raises(ModelNotFound, match=r"cannot get openai/shap-e: .*; --init\.model takes a folder"):
        cloud("openai/shap-e")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("socket.getaddrinfo", lambda *arguments: pytest.fail("asked the network"))
    with pytest.raises(ModelNotFound, match=r"cannot get openai/shap-e: .*offline"):
        cloud("openai/shap-e")


def test_a_model_of_the_hub_is_found_in_the_cache(model, hub):
    (hub / "refs").mkdir(parents=True)
    (hub / "refs" / "main").write_text("0" * 40)
    shutil.copytree(model, hub / "snapshots" / ("0" * 40))
    assert torch.equal(cloud("openai/shap-e").colors, cloud(model).colors)
