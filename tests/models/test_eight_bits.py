"""Weights in eight bits: how far off they are, that packing twice changes nothing, and folders there and back."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from gsdistill.cli.main import execute
from gsdistill.core.errors import BadFile, OutputError
from gsdistill.models.catalogue import find_model
from gsdistill.models.eight_bits import EIGHT_BITS, SCALE, convert_folder, pack, unpack
from gsdistill.models.load import load_model
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.loading import load_prior
from gsdistill.scene.viewpoints import orbit

SHIPPED = Path(find_model("shapes")[0])
NETWORK = "unet/diffusion_pytorch_model"


def weights() -> dict[str, torch.Tensor]:
    """Rows of very different sizes, one of zeros."""
    torch.manual_seed(0)
    sizes = torch.tensor([1e-4, 1.0, 300.0, 0.0])
    return {
        "conv.weight": torch.randn(4, 3, 2, 2) * sizes[:, None, None, None],
        "linear.weight": torch.randn(4, 5) * sizes[:, None],
        "linear.bias": torch.randn(4),
        "conv_in.weight": torch.randn(4, 3, 3, 3),
    }


def test_each_row_is_off_by_half_a_step_at_most():
    for name, value in weights().items():
        back = unpack(pack({name: value}))[name].float()
        if value.ndim == 1 or name.startswith("conv_in"):
            assert torch.equal(back, value.half().float())
            continue
        step = value.flatten(1).abs().amax(1) / 127
        error = (back - value).flatten(1).abs().amax(1)
        assert (error <= 0.5 * step * 1.01 + value.flatten(1).abs().amax(1) * 2**-11 + 6e-8).all()  # float16's own
        assert torch.equal(back[3], torch.zeros_like(back[3]))


def test_packing_again_changes_nothing():
    once = pack(weights())
    twice = pack(unpack(once))
    assert {name for name, value in once.items() if value.dtype == torch.int8} == {"conv.weight", "linear.weight"}
    for name in ("conv.weight", "linear.weight"):
        assert torch.equal(once[name], twice[name])
        torch.testing.assert_close(once[name + SCALE], twice[name + SCALE], rtol=1e-3, atol=1e-9)


def test_a_folder_there_and_back(tmp_path, capsys):
    plain = tmp_path / "plain"
    assert execute(["prior", "unpack", "shapes", str(plain)]) == 0
    assert execute(["prior", "pack", str(plain), str(tmp_path / "packed")]) == 0
    packed = tmp_path / "packed"
    assert not (packed / f"{NETWORK}.safetensors").exists()
    assert (packed / f"{NETWORK}.{EIGHT_BITS}.safetensors").stat().st_size < 0.55 * (
        plain / f"{NETWORK}.safetensors"
    ).stat().st_size
    for folder in (plain, packed):
        for line in (folder / "SHA256SUMS").read_text().splitlines():
            digest, name = line.split()
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert (
        f"{packed}: {sum(p.stat().st_size for p in packed.rglob('*') if p.is_file()):,} bytes"
        in capsys.readouterr().out
    )
    theirs = UNet2DConditionModel.from_pretrained(plain / "unet").state_dict()  # diffusers itself
    ours = load_model(UNet2DConditionModel, packed, "unet", torch.float32, torch.device("cpu")).state_dict()
    for name, value in unpack(pack(theirs)).items():
        torch.testing.assert_close(ours[name], value.float())


def test_a_packed_prior_answers_as_the_plain_one_nearly(tmp_path):
    convert_folder(SHIPPED, tmp_path / "plain", packed=False)
    file, g = tmp_path / "plain" / f"{NETWORK}.safetensors", torch.Generator().manual_seed(1)
    held = load_file(file)  # on the steps of eight bits already, from which a per cent moves them
    save_file({k: (v * (1 + 0.01 * torch.randn(v.shape, generator=g))).to(v.dtype) for k, v in held.items()}, file)
    (tmp_path / "plain" / "SHA256SUMS").unlink()
    convert_folder(tmp_path / "plain", tmp_path / "packed", packed=True)
    plain, packed = (load_prior(str(tmp_path / n), settings=ModelSettings("float32")) for n in ("plain", "packed"))
    x, t = torch.randn(2, *plain.latent_shape, generator=torch.Generator().manual_seed(0)), torch.tensor([300, 800])
    a, b = (p.noise(x, t, p.condition(p.encode_text("a red chair", ""), orbit(2, 32))) for p in (plain, packed))
    assert 1e-4 < float((a.conditional - b.conditional).norm() / a.conditional.norm()) < 0.006
    assert float(torch.cosine_similarity(a.direction.flatten(), b.direction.flatten(), dim=0)) > 0.9988


def test_what_cannot_be_converted_is_refused_and_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match=f"{SHIPPED} exists"):
        convert_folder(SHIPPED, SHIPPED, packed=True)
    bare = shutil.copytree(SHIPPED, tmp_path / "bare", ignore=shutil.ignore_patterns("diffusion_pytorch_model*"))
    with pytest.raises(BadFile, match="there are no weights in safetensors"):
        convert_folder(bare, tmp_path / "packed", packed=True)
    (bare / f"{NETWORK}.safetensors").write_bytes(b"nonsense")
    with pytest.raises(BadFile, match="the weights cannot be read"):
        convert_folder(bare, tmp_path / "packed", packed=True)
    assert [path.name for path in tmp_path.iterdir()] == ["bare"]


def test_other_weights_of_the_same_name_stay_and_no_second_network_does(tmp_path):
    source = tmp_path / "source"
    convert_folder(SHIPPED, source, packed=False)
    (source / "vae").mkdir()
    save_file({"decoder.scale": torch.ones(2)}, source / "vae" / "diffusion_pytorch_model.safetensors")
    shutil.copy(source / f"{NETWORK}.safetensors", source / f"{NETWORK}.fp16.safetensors")
    packed = tmp_path / "new" / "packed"
    convert_folder(source, packed, packed=True)
    assert load_file(packed / "vae" / "diffusion_pytorch_model.safetensors").keys() == {"decoder.scale"}
    assert [*packed.glob("unet/*.safetensors")] == [packed / f"{NETWORK}.{EIGHT_BITS}.safetensors"]
    with pytest.raises(OutputError, match="lies in the folder that is copied"):
        convert_folder(source, source / "packed", packed=True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["packed"]


def test_what_is_no_scale_of_ours_and_what_is_no_float_stays():
    plain = {"norm.scale": torch.ones(3), "steps": torch.tensor([70_000])}
    assert all(torch.equal(unpack(pack(plain))[name], value) for name, value in plain.items())


def test_a_weight_without_its_scale_is_told(tmp_path):
    convert_folder(SHIPPED, tmp_path / "packed", packed=True)
    file = tmp_path / "packed" / f"{NETWORK}.{EIGHT_BITS}.safetensors"
    tensors = load_file(file)
    del tensors["time_embedding.linear_1.weight.scale"]
    save_file(tensors, file)
    (tmp_path / "packed" / "SHA256SUMS").unlink()
    with pytest.raises(BadFile, match=r"unet: the weights cannot be read.*time_embedding\.linear_1\.weight\.scale"):
        load_prior(str(tmp_path / "packed"))
