"""MVDream: views seen together, cameras as matrices, the published layout; against the network written out plainly."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from distillation.common import flat, step
from rich.console import Console
from tiny import mvdream
from torch import Tensor
from torch.nn import functional

from gsdistill.core.errors import BadFile, ConfigError
from gsdistill.core.structs import Cameras, Condition
from gsdistill.distillation.sds import SDS
from gsdistill.distillation.vsd import VSD
from gsdistill.generate import run
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Prior, Query
from gsdistill.prior.families.mvdream import UNET_CONFIG, JointAttention, MVDream, convert_unet
from gsdistill.prior.loading import load_prior
from gsdistill.prior.matrices import camera_matrices
from gsdistill.run.config import read_config, resolve
from gsdistill.scene.cameras.orbit import Orbit
from gsdistill.scene.viewpoints import look_at_origin, orbit
from gsdistill.settings.ramp import Ramp

HEADS = {8: 2, 16: 4}  # of the tiny network, by width
GROUPS = 4  # of its group norms
CAMERAS = Orbit(group=4).draw(8, 16, 0.0, torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mvdream.build(tmp_path_factory.mktemp("tiny-mvdream"))


@pytest.fixture
def prior(folder: Path) -> Prior:
    return load_prior(str(folder))


def told_by(prior: Prior, cameras: Cameras = CAMERAS) -> Condition:
    return prior.condition(prior.encode_text("a cat", "blur"), cameras)


def noisy(seed: int = 1, views: int = 8) -> Tensor:
    return torch.randn(views, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


T = torch.tensor([700] * 4 + [90] * 4)


# The published network, written out with the names of its checkpoint


def original_name(name: str, layers: int) -> str:
    """What the release calls a parameter of diffusers' U-Net with ``layers`` resnets a level."""
    fixed = {
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "class_embedding.linear_1": "camera_embed.0", "class_embedding.linear_2": "camera_embed.2",
    }  # fmt: skip
    module, _, kind = name.rpartition(".")
    if module in fixed:
        return f"{fixed[module]}.{kind}"
    inside = {
        "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
        "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
    }  # fmt: skip
    side, level, part, place, rest = re.fullmatch(
        r"(down|mid|up)_blocks?\.?(\d*)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name
    ).groups()  # pyright: ignore[reportOptionalMemberAccess]
    if part == "resnets":
        rest = f"{inside[rest.rpartition('.')[0]]}.{kind}"
    column = {"resnets": 0, "attentions": 1}.get(part, 0)
    if side == "mid":
        return f"middle_block.{1 if column else 2 * int(place)}.{rest}"
    first = int(level) * (layers + 1)
    if part == "downsamplers":
        return f"input_blocks.{first + layers + 1}.0.op.{kind}"
    if part == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if int(level) else 1}.conv.{kind}"
    if side == "down":
        return f"input_blocks.{1 + first + int(place)}.{column}.{rest}"
    return f"output_blocks.{first + int(place)}.{column}.{rest}"


def original(network: UNet2DConditionModel) -> dict[str, Tensor]:
    layers = network.config["layers_per_block"]
    return {original_name(name, layers): value for name, value in network.state_dict().items()}


class Published:
    """The network of the release on parameters with its own names; ``views`` in a row attend to each other."""

    def __init__(self, held: dict[str, Tensor], views: int = 4) -> None:
        self.held, self.views = held, views

    def linear(self, x: Tensor, name: str) -> Tensor:
        return functional.linear(x, self.held[f"{name}.weight"], self.held.get(f"{name}.bias"))

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = self.held[f"{name}.weight"]
        return functional.conv2d(x, weight, self.held[f"{name}.bias"], stride, weight.shape[-1] // 2)

    def norm(self, x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
        return functional.group_norm(x, GROUPS, self.held[f"{name}.weight"], self.held[f"{name}.bias"], eps)

    def layer_norm(self, x: Tensor, name: str) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], self.held[f"{name}.weight"], self.held[f"{name}.bias"])

    def mlp(self, x: Tensor, name: str) -> Tensor:
        return self.linear(functional.silu(self.linear(x, f"{name}.0")), f"{name}.2")

    def attend(self, x: Tensor, context: Tensor, name: str) -> Tensor:
        q, k, v = (self.linear(y, f"{name}.to_{part}") for y, part in ((x, "q"), (context, "k"), (context, "v")))
        heads = HEADS[x.shape[-1]]
        out = []
        for qh, kh, vh in zip(q.chunk(heads, -1), k.chunk(heads, -1), v.chunk(heads, -1), strict=True):
            out.append((qh @ kh.mT / qh.shape[-1] ** 0.5).softmax(-1) @ vh)
        return self.linear(torch.cat(out, -1), f"{name}.to_out.0")

    def resnet(self, x: Tensor, emb: Tensor, name: str) -> Tensor:
        h = self.conv(functional.silu(self.norm(x, f"{name}.in_layers.0")), f"{name}.in_layers.2")
        h = h + self.linear(functional.silu(emb), f"{name}.emb_layers.1")[:, :, None, None]
        h = self.conv(functional.silu(self.norm(h, f"{name}.out_layers.0")), f"{name}.out_layers.3")
        return h + (self.conv(x, f"{name}.skip_connection") if f"{name}.skip_connection.weight" in self.held else x)

    def transformer(self, x: Tensor, context: Tensor, name: str) -> Tensor:
        rows, channels, height, width = x.shape
        h = self.linear(self.norm(x, f"{name}.norm", 1e-6).flatten(2).mT, f"{name}.proj_in")
        block = f"{name}.transformer_blocks.0"
        normed = self.layer_norm(h, f"{block}.norm1")
        seen = [torch.cat([*group], 0)[None] for group in normed.split(self.views)]
        h = h + torch.cat([self.attend(g, g, f"{block}.attn1").reshape(-1, *h.shape[1:]) for g in seen])
        h = h + self.attend(self.layer_norm(h, f"{block}.norm2"), context, f"{block}.attn2")
        value, gate = self.linear(self.layer_norm(h, f"{block}.norm3"), f"{block}.ff.net.0.proj").chunk(2, -1)
        h = h + self.linear(value * functional.gelu(gate), f"{block}.ff.net.2")
        return x + self.linear(h, f"{name}.proj_out").mT.reshape(rows, channels, height, width)

    def block(self, x: Tensor, emb: Tensor, context: Tensor, name: str) -> Tensor:
        """What stands at ``name``.0, .1 and .2, told by the names of its parameters."""
        for place in range(3):
            inside = f"{name}.{place}"
            if f"{inside}.in_layers.0.weight" in self.held:
                x = self.resnet(x, emb, inside)
            elif f"{inside}.norm.weight" in self.held:
                x = self.transformer(x, context, inside)
            elif f"{inside}.op.weight" in self.held:
                x = self.conv(x, f"{inside}.op", stride=2)
            elif f"{inside}.conv.weight" in self.held:
                x = self.conv(functional.interpolate(x, scale_factor=2.0), f"{inside}.conv")
            elif f"{inside}.weight" in self.held:
                x = self.conv(x, inside)
        return x

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, context: Tensor, camera: Tensor) -> Tensor:
        half = self.held["time_embed.0.weight"].shape[1] // 2
        angles = t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
        emb = self.mlp(torch.cat([angles.cos(), angles.sin()], 1), "time_embed") + self.mlp(camera, "camera_embed")
        count = {side: len({n.split(".")[1] for n in self.held if n.startswith(side)}) for side in ("input", "output")}
        kept = []
        for place in range(count["input"]):
            x = self.block(x, emb, context, f"input_blocks.{place}")
            kept.append(x)
        x = self.block(x, emb, context, "middle_block")
        for place in range(count["output"]):
            x = self.block(torch.cat([x, kept.pop()], 1), emb, context, f"output_blocks.{place}")
        return self.conv(functional.silu(self.norm(x, "out.0")), "out.2")


def published(prior: MVDream, x: Tensor, t: Tensor, condition: Condition, branch: str) -> Tensor:
    held = original(prior._network)
    assert condition.cameras is not None
    return Published(held)(x, t, condition.branches[branch].tokens, condition.cameras)


def test_the_noise_is_that_of_the_published_network(prior):
    condition, x = told_by(prior), noisy()
    noise = prior.noise(x, T, condition)
    expected = {branch: published(prior, x, T, condition, branch) for branch in ("positive", "negative")}
    torch.testing.assert_close(noise.conditional, expected["positive"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(noise.unconditional, expected["negative"], rtol=1e-4, atol=1e-5)
    assert (prior.latent_shape, prior.image_size, prior.view_group) == ((4, 8, 8), 16, 4)
    assert prior.evaluations == 16


def test_guidance_and_rescale_by_groups_of_the_published_network(folder):
    prior = load_prior(str(folder), settings=ModelSettings(guidance_rescale=0.5))
    condition, x = told_by(prior), noisy(2)
    guided = prior.noise(x, T, condition).guided(50.0)
    eps_c, eps_u = (published(prior, x, T, condition, branch) for branch in ("positive", "negative"))
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = (1 - betas).cumprod(0)
    for views in (slice(0, 4), slice(4, 8)):
        alpha, sigma = (float(level[T[views][0]].sqrt()) for level in (abar, 1 - abar))
        x0_c, x0 = ((x[views] - sigma * eps) / alpha for eps in (eps_c[views], (eps_u + 50 * (eps_c - eps_u))[views]))
        x0 = 0.5 * x0 * x0_c.std() / x0.std() + 0.5 * x0
        torch.testing.assert_close(guided[views], (x[views] - alpha * x0) / sigma, rtol=1e-3, atol=1e-3)


# Attention


def attention(seed: int = 0) -> Attention:
    torch.manual_seed(seed)
    return Attention(query_dim=12, heads=3, dim_head=4)


def test_joint_attention_is_a_softmax_over_the_tokens_of_all_views():
    module, tokens = attention(), torch.randn(6, 5, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer = JointAttention(3)(module, tokens)
        for group in (0, 1):
            every = tokens[3 * group : 3 * group + 3].reshape(15, 12)
            q, k, v = ((every @ part.weight.T).view(15, 3, 4) for part in (module.to_q, module.to_k, module.to_v))
            out = torch.zeros(15, 3, 4)
            for head in range(3):
                for i in range(15):
                    scores = torch.stack([q[i, head] @ k[j, head] / 2 for j in range(15)]).exp()
                    out[i, head] = sum(scores[j] * v[j, head] for j in range(15)) / scores.sum()
            expected = out.reshape(15, 12) @ module.to_out[0].weight.T + module.to_out[0].bias
            torch.testing.assert_close(answer[3 * group : 3 * group + 3].reshape(15, 12), expected)


def test_joint_attention_of_one_view_is_the_stock_one():
    module, tokens = attention(), torch.randn(6, 5, 12, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(JointAttention(1)(module, tokens), AttnProcessor2_0()(module, tokens))
        assert not torch.allclose(JointAttention(2)(module, tokens), AttnProcessor2_0()(module, tokens), atol=1e-3)


def test_self_attention_alone_is_joint(prior):
    kinds = {name: type(processor) for name, processor in prior._network.attn_processors.items()}
    assert len(kinds) == 14
    for name, kind in kinds.items():
        assert kind is (JointAttention if ".attn1." in name else AttnProcessor2_0)


def answers(prior: Prior, x: Tensor, cameras: Cameras, t: Tensor = T) -> Tensor:
    return prior.noise(x, t, told_by(prior, cameras)).guided(7.0)


def test_groups_trade_places_and_do_not_see_each_other(prior):
    x, other = noisy(), torch.tensor([4, 5, 6, 7, 0, 1, 2, 3])
    plain, traded = answers(prior, x, CAMERAS), answers(prior, x[other], CAMERAS.pick(other), T[other])
    torch.testing.assert_close(traded, plain[other], rtol=1e-4, atol=1e-5)
    alone = answers(prior, x[:4], CAMERAS.pick(slice(0, 4)), T[:4])
    torch.testing.assert_close(alone, plain[:4], rtol=1e-4, atol=1e-5)


def test_views_of_a_group_trade_places_with_their_cameras(prior):
    x, order = noisy(), torch.tensor([2, 0, 3, 1, 4, 7, 5, 6])
    plain = answers(prior, x, CAMERAS)
    torch.testing.assert_close(answers(prior, x[order], CAMERAS.pick(order)), plain[order], rtol=1e-4, atol=1e-5)
    assert float((answers(prior, x[order], CAMERAS) - plain[order]).abs().max()) > 1e-3  # the cameras count


def test_a_view_reaches_the_other_three_and_no_other_group(prior):
    x = noisy()
    changed = x.clone()
    changed[1] += 1.0
    apart = (answers(prior, changed, CAMERAS) - answers(prior, x, CAMERAS)).abs().amax((1, 2, 3))
    assert float(apart[:4].min()) > 1e-4 and float(apart[4:].max()) < 1e-5


def test_views_that_make_no_group_are_refused(prior):
    with pytest.raises(ConfigError, match=r"^views = 6: the prior .* sees 4 views together, so it needs a multiple"):
        told_by(prior, orbit(6, 16))


# Cameras


@pytest.mark.parametrize(
    ("azimuth", "elevation", "rows"),
    [
        (0.0, 0.0, [[0, 0, 1, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]),
        (90.0, 0.0, [[-1, 0, 0, 0], [0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 1]]),
        (270.0, 0.0, [[1, 0, 0, 0], [0, 0, -1, -1], [0, 1, 0, 0], [0, 0, 0, 1]]),
        (0.0, 30.0, [[0, -0.5, 0.75**0.5, 0.75**0.5], [1, 0, 0, 0], [0, 0.75**0.5, 0.5, 0.5], [0, 0, 0, 1]]),
    ],
)
@pytest.mark.parametrize("distance", [1.5, 3.2])
def test_matrices_by_hand(azimuth, elevation, rows, distance):
    """Columns: right, up, backwards, position; the distance is not told."""
    cameras = look_at_origin(*(torch.tensor([value]) for value in (azimuth, elevation, distance, 40.0)), 16)
    matrices = camera_matrices(cameras, unit=True)
    torch.testing.assert_close(matrices, torch.tensor(rows).float().reshape(1, 16), rtol=0, atol=1e-6)


def test_matrices_are_the_releases_a_quarter_turn_on():
    """Its azimuth counts from -y, where it puts the sides of things; position, axes by cross products with z."""
    elevations = torch.tensor([-20.0, 0.0, 15.0, 30.0, 60.0]).repeat_interleave(8)
    azimuths = torch.arange(8).repeat(5) * 45.0 + 7.0
    cameras = look_at_origin(azimuths, elevations, torch.full((40,), 3.2), torch.full((40,), 40.0), 16)
    for matrix, azimuth, elevation in zip(camera_matrices(cameras, unit=True), azimuths + 90, elevations, strict=True):
        a, e = math.radians(azimuth), math.radians(elevation)
        position = torch.tensor([math.cos(e) * math.sin(a), -math.cos(e) * math.cos(a), math.sin(e)])
        right = functional.normalize(torch.linalg.cross(-position, torch.tensor([0.0, 0.0, 1.0])), dim=0)
        columns = [right, torch.linalg.cross(right, -position), position, position]
        expected = torch.cat([torch.stack(columns, 1), torch.tensor([[0.0, 0.0, 0.0, 1.0]])])
        torch.testing.assert_close(matrix.view(4, 4), expected, rtol=0, atol=1e-6)


def test_the_text_gets_no_words_for_the_view(prior):
    text = prior.encode_text("a cat", "")
    assert text.settings.direction == "none" and not text.views
    condition = prior.condition(text, CAMERAS)
    assert condition.guiding == ["positive", "negative"]
    assert torch.equal(condition.branches["positive"].tokens[0], condition.branches["positive"].tokens[2])
    assert prior.camera_range is None


# The student of VSD


def test_the_student_sees_views_together_too(prior):
    condition, query = told_by(prior), Query(noisy(), T, "positive")
    (before,) = prior.predict_noise([query], condition)
    student = prior.student(2)
    weights = student.initial(torch.Generator().manual_seed(0))
    torch.testing.assert_close(student.predict_noise(weights, query, condition), before, rtol=1e-5, atol=1e-5)
    assert torch.equal(prior.predict_noise([query], condition)[0], before)
    weights = weights + 0.05
    changed = query.latents.clone()
    changed[5] += 1.0
    own, other = (student.predict_noise(weights, Query(x, T, "positive"), condition) for x in (query.latents, changed))
    apart = (other - own).abs().amax((1, 2, 3))
    assert float((own - before).abs().max()) > 1e-2
    assert float(apart[4:].min()) > 1e-4 and float(apart[:4].max()) < 1e-5
    assert any(isinstance(processor, JointAttention) for processor in prior._network.attn_processors.values())


@pytest.mark.slow
def test_vsd_trains_the_student(prior):
    method, condition = VSD(flat(7.5), lora_rate=0.01), told_by(prior)
    x0, losses = prior.encode(torch.rand(8, 16, 16, 3, generator=torch.Generator().manual_seed(0))), []
    state = method.init_state(prior, torch.Generator().manual_seed(0))
    for _ in range(8):
        result = step(method, prior, x0, CAMERAS, seed=3, state=state, condition=condition)
        losses.append(float(result.guidance.figures["lora_loss"]))
        state = result.after
    assert all(later < now for now, later in pairwise(losses))


# The checkpoint


def tiny_network(seed: int = 3) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(**mvdream.UNET)


@pytest.mark.parametrize("whole", [True, False])
def test_a_checkpoint_in_the_original_layout_gives_the_same_network(whole):
    network = tiny_network()
    held = original(network)
    if whole:
        held = {f"model.diffusion_model.{name}": value for name, value in held.items()}
        held |= {"first_stage_model.encoder.conv_in.weight": torch.zeros(1), "betas": torch.zeros(1000)}
    converted = convert_unet(held, mvdream.UNET)
    assert converted.keys() == network.state_dict().keys()
    assert all(torch.equal(value, converted[name]) for name, value in network.state_dict().items())


def test_the_converted_network_answers_as_the_checkpoint_does(prior):
    held = original(tiny_network())
    prior._network.load_state_dict(convert_unet(held, mvdream.UNET), strict=True)
    condition, x = told_by(prior), noisy(4)
    expected = Published(held)(x, T, condition.branches["positive"].tokens, condition.cameras)
    torch.testing.assert_close(prior.noise(x, T, condition).conditional, expected, rtol=1e-4, atol=1e-5)


def test_the_published_architecture():
    """Names, shapes and numbers of the release: Stable Diffusion 2.1's 865,910,724 parameters and the camera's."""
    with torch.device("meta"):
        network = UNet2DConditionModel(**UNET_CONFIG)
    held = original(network)
    known = {
        "camera_embed.0.weight": (1280, 16), "camera_embed.2.weight": (1280, 1280), "time_embed.0.weight": (1280, 320),
        "input_blocks.0.0.weight": (320, 4, 3, 3), "input_blocks.3.0.op.weight": (320, 320, 3, 3),
        "input_blocks.1.1.proj_in.weight": (320, 320), "input_blocks.4.0.skip_connection.weight": (640, 320, 1, 1),
        "input_blocks.8.1.transformer_blocks.0.attn2.to_k.weight": (1280, 1024),
        "input_blocks.11.0.out_layers.3.weight": (1280, 1280, 3, 3),
        "middle_block.1.transformer_blocks.0.ff.net.0.proj.weight": (10240, 1280),
        "output_blocks.2.1.conv.weight": (1280, 1280, 3, 3), "output_blocks.5.2.conv.weight": (1280, 1280, 3, 3),
        "output_blocks.8.2.conv.weight": (640, 640, 3, 3), "output_blocks.11.0.in_layers.2.weight": (320, 640, 3, 3),
        "out.2.weight": (4, 320, 3, 3),
    }  # fmt: skip
    assert {name: tuple(held[name].shape) for name in known} == known
    assert sum(value.numel() for value in held.values()) == 865_910_724 + 16 * 1280 + 1280 * 1280 + 2 * 1280
    assert len(held) == len(network.state_dict()) == 690
    network.load_state_dict(convert_unet(held), strict=True, assign=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("strange", r"layout; not understood: input_blocks.1.0.lora.weight, nonsense$"),
        ("plain", r"missing: class_embedding.linear_1.bias, .*, class_embedding.linear_2.weight$"),
        ("shape", r"of another shape: class_embedding.linear_1.weight$"),
        ("diffusers", r"not understood: class_embedding.linear_1.bias, .* and \d+ more; missing: .* and \d+ more$"),
        ("empty", r"missing: class_embedding.linear_1.bias, .* and \d+ more$"),
    ],
)
def test_what_is_no_such_checkpoint_is_named(damage, message):
    network = tiny_network()
    held = original(network)
    if damage == "strange":
        held |= {"nonsense": torch.zeros(1), "input_blocks.1.0.lora.weight": torch.zeros(1)}
    elif damage == "plain":
        held = {name: value for name, value in held.items() if "camera" not in name}
    elif damage == "shape":
        held["camera_embed.0.weight"] = torch.zeros(32, 12)
    else:
        held = network.state_dict() if damage == "diffusers" else {}
    with pytest.raises(BadFile, match=message):
        convert_unet(held, mvdream.UNET)


# A run


def generate(folder: Path, output: Path, **settings) -> Path:
    small = {
        "prompt": "a cat", "method": {"name": "sds", "guidance_scale": 50, "weighting": "snr"}, "prior": str(folder),
        "init": {"name": "ball", "count": 60}, "iterations": 3, "output": str(output),
        "model": {"guidance_rescale": 0.5}, **settings,
    }  # fmt: skip
    return run(resolve(small), Console(quiet=True), extras=False)


@pytest.mark.slow
@pytest.mark.parametrize("views", [4, 8])
def test_three_steps_of_a_run(views, folder, tmp_path):
    done = generate(folder, tmp_path / "run", views=views)
    summary = json.loads((done / "summary.json").read_text())
    assert summary["network_evaluations"] == 3 * 2 * views and summary["skipped_steps"] == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"views": 6}, r"^views = 6 is no multiple of the 4 views of a group"),
        ({"cameras": {"group": 2}}, r"^cameras.group = 2: the prior .* sees 4 views together"),
    ],
)
def test_a_run_without_whole_groups_is_refused(settings, message, folder, tmp_path):
    with pytest.raises(ConfigError, match=message):
        generate(folder, tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_the_released_settings():
    """t falls from 0.98 over 0.8 of 10,000 steps, of which each half is a stage with ramps of its own."""
    config = resolve({"prompt": "a cat", "prior": "shapes", **read_config("sds-mvdream")})
    low, high = Ramp(0.98, 0.02, until=0.8), Ramp(0.98, 0.5, until=0.8)
    assert [(part.iterations, part.views, part.resolution) for part in config.parts] == [(5000, 8, 64), (5000, 4, 256)]
    for done in range(0, 10_000, 500):
        method, progress = config.parts[done // 5000].method, done % 5000 / 5000
        assert method.guidance_scale == flat(50.0) and method.weighting == "snr" and method.shared_timestep
        assert (method.t_min(progress), method.t_max(progress)) == pytest.approx((low(done / 1e4), high(done / 1e4)))
    assert config.model.guidance_rescale == 0.5 and config.cameras.group is None


def test_the_released_loss_is_weight_snr(prior, monkeypatch):
    """Its gradient is x0 - x0_hat for x0_hat = (x_t - sigma eps_cfg) / alpha, rescaled."""
    prior.guidance_rescale = 0.5
    x0, condition = prior.encode(torch.rand(8, 16, 16, 3, generator=torch.Generator().manual_seed(0))), told_by(prior)
    asked, noise = [], prior.noise
    monkeypatch.setattr(prior, "noise", lambda x_t, t, told: asked.append((x_t, t)) or noise(x_t, t, told))
    result = step(SDS(flat(50.0), flat(0.3), flat(0.9), weighting="snr"), prior, x0, CAMERAS, condition=condition)
    ((x_t, t),) = asked
    alpha, sigma = prior.schedule.at(t, x0)
    x0_hat = (x_t - sigma * noise(x_t, t, condition).guided(50.0)) / alpha
    torch.testing.assert_close(result.gradient, x0 - x0_hat, rtol=1e-3, atol=1e-4)
