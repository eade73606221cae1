import pytest
import torch

from gsdistill.scene.init.sphere import Sphere
from gsdistill.structs import SH_C0


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ks_distance(values: torch.Tensor) -> float:
    """Kolmogorov-Smirnov distance of values in 0..1 from the uniform distribution."""
    steps = torch.arange(1, len(values) + 1) / len(values)
    return (values.sort().values - steps).abs().max().item()


def test_the_ball_is_filled_uniformly():
    means = Sphere(count=4000, radius=0.6).create("", generator()).means / 0.6
    radii = means.norm(dim=-1)
    assert radii.max() <= 1 + 1e-6
    assert ks_distance(radii**3) < 0.03  # 1.63 / sqrt(4000) is the 1 % bound
    assert ks_distance((means[:, 2] / radii + 1) / 2) < 0.03  # the height of a uniform direction is uniform
    assert ks_distance(torch.atan2(means[:, 1], means[:, 0]) / (2 * torch.pi) + 0.5) < 0.03


def test_the_surface_option_puts_all_on_the_sphere():
    radii = Sphere(count=500, radius=0.4, surface=True).create("", generator()).means.norm(dim=-1)
    assert torch.allclose(radii, torch.full((500,), 0.4))


@pytest.mark.parametrize("degree", [0, 3])
def test_parameters_decode_to_the_settings(degree):
    scene = Sphere(count=1000, radius=0.5, opacity=0.3, scale=0.8, color=0.7, sh_degree=degree).create("", generator())
    assert len(scene) == 1000 and scene.sh_degree == degree and scene.sh.shape == (1000, (degree + 1) ** 2, 3)
    assert torch.allclose(scene.scales.exp(), torch.full((1000, 3), 0.8 * 0.5 / 10))
    assert torch.allclose(scene.opacities.sigmoid(), torch.full((1000,), 0.3))
    assert torch.allclose(0.5 + SH_C0 * scene.sh[:, 0], torch.full((1000, 3), 0.7))
    assert not scene.sh[:, 1:].any()
    assert torch.equal(scene.quats, torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(1000, 4))
    assert {tensor.dtype for tensor in vars(scene).values()} == {torch.float32}


def test_the_generator_alone_decides():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = (Sphere(count=50).create("", generator(seed)).means for seed in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)
