"""Autoencoders: latents and pictures as diffusers has them, gradients by finite differences, half precision."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny
from diffusers.image_processor import VaeImageProcessor
from PIL import Image
from tiny import stable_diffusion
from torch import Tensor

from gsdistill.core.errors import BadFile, ConfigError, ModelNotFound
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.codec import LatentCodec
from gsdistill.prior.loading import load_prior

TO_PLANES, TO_PICTURES = VaeImageProcessor(), VaeImageProcessor(do_resize=False)


def full(**options: Any) -> AutoencoderKL:
    """Two halvings."""
    return AutoencoderKL(
        block_out_channels=(8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3, norm_num_groups=4, **options,
    )  # fmt: skip


def tiny(**options: Any) -> AutoencoderTiny:
    """Two halvings."""
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * 3, decoder_block_out_channels=(8,) * 3, num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1), **options,
    )  # fmt: skip


def deep(**options: Any) -> AutoencoderDC:
    """Two halvings."""
    return AutoencoderDC(
        latent_channels=4, attention_head_dim=4, encoder_block_types="ResBlock", decoder_block_types="ResBlock",
        encoder_block_out_channels=(8, 8, 16), decoder_block_out_channels=(8, 8, 16),
        encoder_layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1), encoder_qkv_multiscales=((), (), ()),
        decoder_qkv_multiscales=((), (), ()), **options,
    )  # fmt: skip


def frozen(vae: Any) -> Any:
    return vae.eval().requires_grad_(False)


def images(count: int = 2, height: int = 16, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, height, width, 3, generator=torch.Generator().manual_seed(seed))


def their_latents(vae: Any, pictures: torch.Tensor) -> torch.Tensor:
    """Pixels to -1..1 as pipelines do it, the mode of the posterior where there is one."""
    code = vae.encode(TO_PLANES.preprocess(pictures.permute(0, 3, 1, 2)))
    return code.latent_dist.mode() if hasattr(code, "latent_dist") else code[0]


CASES = [
    (full, {"scaling_factor": 0.18215}),  # Stable Diffusion
    (full, {"scaling_factor": 1.5305, "shift_factor": 0.0609, "latent_channels": 16}),  # SD3
    (tiny, {}),
    (tiny, {"scaling_factor": 0.7, "shift_factor": 0.1}),
    (deep, {"scaling_factor": 0.41407}),  # Sana
]


@pytest.mark.parametrize(("make", "options"), CASES)
def test_latents_and_pictures_are_the_pipelines(make, options):
    torch.manual_seed(0)
    vae, pictures = frozen(make(**options)), images()
    codec = LatentCodec(vae, 4)
    assert codec.size == 16
    scale, shift = options.get("scaling_factor", 1.0), options.get("shift_factor", 0.0)
    latents = codec.encode(pictures)
    torch.testing.assert_close(latents, (their_latents(vae, pictures) - shift) * scale, rtol=1e-6, atol=1e-6)
    decoded = [vae.decode(row[None] / scale + shift).sample for row in latents]
    theirs = TO_PICTURES.postprocess(torch.cat(decoded), output_type="pt").permute(0, 2, 3, 1)
    torch.testing.assert_close(codec.decode(latents), theirs, rtol=0, atol=1e-6)
    assert codec.decode(latents).requires_grad is False


MEAN, STD = [-1.6574, 1.886, -1.383, 2.5155], [8.4927, 5.9022, 6.5498, 5.2299]


def test_latents_are_centred_by_channel_where_the_config_says_so(tmp_path):
    """As diffusers' XL pipelines have it: (z - mean) scaling / std, and back; scaling and shift alone do not count."""
    torch.manual_seed(0)
    vae, pictures = frozen(full(scaling_factor=0.13, latents_mean=MEAN, latents_std=STD)), images()
    codec, mean, std = LatentCodec(vae, 4), torch.tensor(MEAN).view(1, 4, 1, 1), torch.tensor(STD).view(1, 4, 1, 1)
    latents = codec.encode(pictures)
    expected = (their_latents(vae, pictures) - mean) * 0.13 / std
    torch.testing.assert_close(latents, expected, rtol=1e-6, atol=1e-6)
    assert latents.dtype == codec.encode(pictures.half()).float().dtype == torch.float32
    decoded = vae.decode(expected * std / 0.13 + mean).sample
    theirs = TO_PICTURES.postprocess(decoded, output_type="pt").permute(0, 2, 3, 1)
    torch.testing.assert_close(codec.decode(latents), theirs, rtol=0, atol=1e-5)
    half = frozen(full(scaling_factor=0.13, latents_mean=MEAN))  # a mean without deviations is none
    half.load_state_dict(vae.state_dict())
    torch.testing.assert_close(LatentCodec(half, 4).encode(pictures), their_latents(vae, pictures) * 0.13)


@pytest.mark.parametrize(
    ("mean", "std"), [(MEAN, [1.0, 1.0]), (MEAN, [1.0, 0.0, 1.0, 1.0]), (["a"] * 4, STD), (3, STD)]
)
def test_means_and_deviations_that_are_none(mean, std):
    with pytest.raises(BadFile, match=r"config has latents_(mean|std) = .*, where 4 (positive )?numbers belong"):
        LatentCodec(full(latents_mean=mean, latents_std=std), 4)


@pytest.mark.parametrize(("make", "options"), [case for case in CASES if case[0] is not deep])  # it counts in float32
def test_the_images_gradient_is_the_difference_of_latents(make, options):
    torch.manual_seed(0)
    codec = LatentCodec(frozen(make(**options).double()), 4)
    generator = torch.Generator().manual_seed(3)
    pictures = images(1, 24, 24).double().requires_grad_()  # resized on the way
    aim = torch.randn(codec.encode(pictures).shape, generator=generator, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((codec.encode(pictures) * aim).sum(), pictures)
    way, step = torch.randn(pictures.shape, generator=generator, dtype=torch.float64), 1e-6
    ahead, behind = ((codec.encode(pictures.detach() + s * way) * aim).sum() for s in (step, -step))
    assert float((gradient * way).sum()) == pytest.approx(float(ahead - behind) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("size", [(40, 40), (12, 12), (23, 31)])
def test_images_are_resized_as_pillow_does_it(size):
    """Bilinear, with the filter widened where it shrinks."""
    torch.manual_seed(0)
    codec, pictures = LatentCodec(frozen(full()), 4), images(1, *size)
    planes = [Image.fromarray(plane.numpy()) for plane in pictures[0].permute(2, 0, 1)]
    small = np.stack([np.asarray(plane.resize((16, 16), Image.Resampling.BILINEAR)) for plane in planes], 2)
    torch.testing.assert_close(codec.encode(pictures), codec.encode(torch.from_numpy(small)[None]), rtol=0, atol=1e-5)


def test_rows_do_not_know_each_other():
    torch.manual_seed(0)
    codec, pictures = LatentCodec(frozen(full()), 4), images(3)
    alone = torch.cat([codec.encode(pictures[row : row + 1]) for row in range(3)])
    torch.testing.assert_close(codec.encode(pictures), alone, rtol=0, atol=1e-6)
    shown = codec.decode(alone)
    assert shown.shape == (3, 16, 16, 3) and float(shown.min()) >= 0 and float(shown.max()) <= 1
    torch.testing.assert_close(codec.decode(alone[1:2]), shown[1:2], rtol=0, atol=0)


@pytest.mark.parametrize("make", [full, tiny, deep])
@pytest.mark.parametrize(("dtype", "bounds"), [(torch.float16, (5e-3, 5e-2)), (torch.bfloat16, (5e-2, 1.5e-1))])
def test_half_precision_is_near_forward_and_backward(dtype, bounds, make):
    """Relative to float32, of latents and gradients (the tiny one's are of steps, its activation is ReLU)."""
    torch.manual_seed(0)
    vae, found = frozen(make()), []
    for kind in (torch.float32, dtype):
        leaf = images().requires_grad_()
        latents = LatentCodec(vae.to(kind), 4).encode(leaf)
        latents.square().sum().backward()
        assert latents.dtype == leaf.grad.dtype == torch.float32 and bool(leaf.grad.isfinite().all())
        found.append((latents.detach(), leaf.grad))
    for single, half, bound in zip(*found, bounds, strict=True):
        assert 0 < float((single - half).norm() / single.norm()) < bound


def image_gradient(encode: Callable[[Tensor], Tensor], aim: Tensor, count: int = 2) -> Tensor:
    """The images' gradient where the latents' is ``aim``."""
    leaf = images(count).requires_grad_()
    encode(leaf).backward(aim)
    assert leaf.grad is not None
    return leaf.grad


def error(got: Tensor, truth: Tensor) -> float:
    """Relative, with norms that float32 can hold."""
    scale = truth.abs().max()
    return float((got / scale - truth / scale).norm() / (truth / scale).norm())


@pytest.mark.parametrize("size", [1e-20, 1e-7, 1e-5, 1e-3, 1.0, 1e3, 1e6])
def test_a_small_gradient_keeps_its_digits_in_float16(size):
    """A thousandth off at any size, where float16 itself would lose it below 1e-4 and overflow above 1e4."""
    torch.manual_seed(0)
    vae, aim = frozen(full()), size * torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(3))
    truth = image_gradient(LatentCodec(vae, 4).encode, aim)
    vae.half()
    assert error(image_gradient(LatentCodec(vae, 4).encode, aim), truth) < 0.005

    def plain(leaf: Tensor) -> Tensor:
        return vae.encode((2 * leaf.permute(0, 3, 1, 2) - 1).half()).latent_dist.mean.float() * 0.18215

    lost = error(image_gradient(plain, aim), truth)
    assert not lost < 0.05 if size < 1e-4 or size > 1e5 else lost < 0.02


@pytest.mark.parametrize("make", [full, tiny, deep])
def test_each_image_has_a_factor_of_its_own(make):
    """A gradient of 1e-6 beside one of 1e4 is what it is alone, and bits of one image do not depend on the others."""
    torch.manual_seed(0)
    vae = frozen(make()).half()
    codec = LatentCodec(vae, 4)
    aim = torch.randn(codec.encode(images(3)).shape, generator=torch.Generator().manual_seed(3))
    both = image_gradient(codec.encode, aim, 3)
    sizes = 2.0 ** torch.tensor([-20.0, 0.0, 13.0])[:, None, None, None]
    assert torch.equal(image_gradient(codec.encode, sizes * aim, 3), sizes * both)


@pytest.mark.parametrize("value", [0.0, 1e-42, torch.inf, torch.nan])
def test_gradients_that_no_factor_helps(value):
    """None at all is none; one that is not finite is not made finite, and stays in its image."""
    torch.manual_seed(0)
    codec, aim = LatentCodec(frozen(full()).half(), 4), torch.ones(2, 4, 4, 4)
    usual = image_gradient(codec.encode, aim)
    aim[0] = 0.0
    aim[0, 1, 2, 2] = value
    found = image_gradient(codec.encode, aim)
    assert torch.equal(found[1], usual[1])
    assert bool(found[0].isfinite().all()) is (value < 1) and (value != 0.0 or not bool(found[0].any()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_are_left_alone(dtype):
    """Bit for bit: their smallest numbers are those of float32."""
    torch.manual_seed(0)
    vae, aim = frozen(full()).to(dtype), 1e-5 * torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(3))

    def plain(leaf: Tensor) -> Tensor:
        return vae.encode((2 * leaf.permute(0, 3, 1, 2) - 1).to(dtype)).latent_dist.mean.float() * 0.18215

    assert torch.equal(image_gradient(LatentCodec(vae, 4).encode, aim), image_gradient(plain, aim))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_encoder_that_recomputes_holds_less_and_answers_alike(dtype):
    torch.manual_seed(0)
    vae, found, held = frozen(full()).to(dtype), [], []
    for recompute in (False, True):
        codec, leaf, kept = LatentCodec(vae, 8, recompute=recompute), images(2, 32, 32).requires_grad_(), {}

        def pack(value: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        weights = {value.untyped_storage().data_ptr() for value in vae.parameters()}
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            latents = codec.encode(leaf)
        held.append(sum(size for place, size in kept.items() if place not in weights))
        (1e-5 * latents).sum().backward()
        assert leaf.grad is not None
        found.append((latents.detach(), leaf.grad))
    assert 0 < held[1] < held[0] / 3
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        assert torch.equal(codec.encode(images(2, 32, 32)), found[0][0])


@pytest.mark.parametrize("make", [tiny, deep])
def test_an_encoder_that_cannot_recompute(make):
    message = r"model\.recompute_encoder is for an AutoencoderKL, and this model's is an Autoencoder(Tiny|DC)"
    with pytest.raises(ConfigError, match=message):
        LatentCodec(make(), 4, recompute=True)


def test_the_settings_let_the_encoder_recompute(model):
    assert load_prior(str(model), settings=ModelSettings(recompute_encoder=True))._codec._vae.is_gradient_checkpointing
    assert not load_prior(str(model))._codec._vae.is_gradient_checkpointing


def test_float16_overflows_where_float32_does_not(tmp_path):
    """An autoencoder that needs ``force_upcast``: the XL family's answer is finite, the plain one's is not."""
    from tiny import sdxl

    def answer(folder: Path, precision: str) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = images(1).requires_grad_()
        latents = load_prior(str(folder), settings=ModelSettings(precision=precision)).encode(leaf)
        latents.sum().backward()
        return latents.detach(), leaf.grad

    folders = stable_diffusion.build(tmp_path / "sd"), sdxl.build(tmp_path / "sdxl")
    for folder in folders:
        vae = AutoencoderKL.from_pretrained(folder, subfolder="vae", low_cpu_mem_usage=False)
        vae.encoder.conv_in.weight.data *= 6e4 / vae.encoder.conv_in.weight.abs().max()
        vae.save_pretrained(folder / "vae")
    plain, large = (answer(folder, "float16") for folder in folders)
    assert not bool(plain[0].isfinite().all())
    for got, whole in zip(large, answer(folders[1], "float32"), strict=True):
        assert bool(got.isfinite().all()) and torch.equal(got, whole)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion.build(tmp_path_factory.mktemp("sd"))


def small_folder(path: Path) -> Path:
    """A tiny autoencoder with the one halving of the tiny Stable Diffusion."""
    torch.manual_seed(1)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    ).save_pretrained(path)  # fmt: skip
    return path


def test_the_settings_name_another_autoencoder(model, tmp_path):
    """A tiny one in a folder of its own: what the prior encodes and decodes is what it does."""
    folder = small_folder(tmp_path / "taesd")
    prior = load_prior(str(model), settings=ModelSettings(vae=str(folder)))
    assert (prior.latent_shape, prior.image_size) == ((4, 8, 8), 16)
    vae, pictures = frozen(AutoencoderTiny.from_pretrained(folder)), images()
    torch.testing.assert_close(prior.encode(pictures), their_latents(vae, pictures), rtol=0, atol=1e-6)
    latents = prior.encode(pictures)
    shown = TO_PICTURES.postprocess(vae.decode(latents).sample, output_type="pt").permute(0, 2, 3, 1)
    torch.testing.assert_close(prior.decode(latents), shown, rtol=0, atol=1e-6)
    assert float((load_prior(str(model)).encode(pictures) - latents).abs().max()) > 1e-2


@pytest.mark.parametrize("damage", ["nothing there", "another model", "no json", "no weights"])
def test_a_folder_that_holds_no_autoencoder_is_named(damage, model, tmp_path):
    folder = small_folder(tmp_path / "taesd")
    if damage == "nothing there":
        shutil.rmtree(folder)
    elif damage == "another model":
        shutil.copy(model / "unet/config.json", folder / "config.json")
    elif damage == "no json":
        (folder / "config.json").write_text("{")
    else:
        (folder / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises((ConfigError, ModelNotFound, BadFile), match="taesd") as caught:
        load_prior(str(model), settings=ModelSettings(vae=str(folder)))
    assert "\n" not in str(caught.value)


def test_pixels_have_no_use_for_an_autoencoder(tmp_path):
    stable_diffusion.vae().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"model\.vae = '.*': this prior works on pixels"):
        load_prior("shapes", settings=ModelSettings(vae=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"model\.recompute_encoder: this prior works on pixels"):
        load_prior("shapes", settings=ModelSettings(recompute_encoder=True))
