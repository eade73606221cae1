"""The GPU backend as far as a CPU goes: each argument and answer of gsplat's, whose place the reference takes."""

from __future__ import annotations

import inspect
import math
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace

import gsplat.rendering
import pytest
import torch
from conftest import extensions
from renderer.emulator import EMULATED, ON_GPU
from renderer.scenes import PARAMETERS, ball, cast, loss_weights, views
from torch.utils import cpp_extension

from gsdistill.core.errors import ConfigError, Notice
from gsdistill.core.structs import SH_C0, Gaussians, RenderOptions
from gsdistill.disk.lock import Claim
from gsdistill.renderer import base, cuda, reference
from gsdistill.renderer.base import render
from gsdistill.scene.densify.gradient import Gradient

SIGNATURE = inspect.signature(gsplat.rendering.rasterization)
UNUSED = {  # what the stand-in does not know must have been left as gsplat has it
    name: parameter.default
    for name, parameter in SIGNATURE.parameters.items()
    if name in ("radius_clip", "sparse_grad", "absgrad", "camera_model", "covars", "with_ut", "with_eval3d")
    or name.endswith(("_coeffs", "_rs")) or name in ("rolling_shutter", "distributed")
}  # fmt: skip


def stand_in(*args, **kwargs):
    """Renders what it is given as the reference does, after the checks of gsplat's first lines."""
    bound = SIGNATURE.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    assert {name: given[name] for name in UNUSED} == UNUSED
    assert given["packed"] is False and given["render_mode"] == "RGB+D"
    N, C = len(given["means"]), len(given["viewmats"])
    shapes = {"means": (N, 3), "quats": (N, 4), "scales": (N, 3), "opacities": (N,), "backgrounds": (C, 3)}
    for name, shape in {**shapes, "viewmats": (C, 4, 4), "Ks": (C, 3, 3)}.items():
        assert given[name].shape == shape and given[name].dtype == torch.float32
    assert type(given["width"]) is type(given["height"]) is int
    colours, degree = given["colors"], given["sh_degree"]
    if degree is None:
        assert colours.shape == (N, 3)
        colours = (colours[:, None] - 0.5) / SH_C0
    else:
        assert colours.shape == (N, (degree + 1) ** 2, 3)
    planes, filtered = (given["near_plane"], given["far_plane"]), given["rasterize_mode"] == "antialiased"
    scene = Gaussians(
        given["means"], given["quats"], given["scales"].log(), given["opacities"].logit(), colours,
        options=RenderOptions(*planes, given["eps2d"], filtered),
    )  # fmt: skip
    means2d, radii, pictures = torch.zeros(C, N, 2), torch.zeros(C, N, 2, dtype=torch.int32), []
    lens = [(given["viewmats"][c], given["Ks"][c], given["width"], given["height"]) for c in range(C)]
    splats = [reference.project(scene, *one) for one in lens]
    for c, one in enumerate(splats):
        means2d = means2d.index_put((torch.tensor(c), one.index), one.means)
        radii[c, one.index, 0], radii[c, one.index, 1] = one.radii, (one.radii - 1).clamp_min(1)
    radii[0, splats[0].index[0], 1] = 0  # gsplat may leave one of the two; that Gaussian is not drawn
    for c, one in enumerate(splats):
        pictures.append(reference._view(one, means2d[c, one.index], given["width"], given["height"]))
    pixels = torch.stack(pictures).reshape(C, given["height"], given["width"], 5)
    alphas = pixels[..., 3:4]
    colours = pixels[..., :3] + (1 - alphas) * given["backgrounds"][:, None, None]
    return torch.cat([colours, pixels[..., 4:]], -1), alphas, {"means2d": means2d, "radii": radii}


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("degree", [0, 2])
def test_gsplat_is_asked_for_what_the_reference_renders(degree, antialiased):
    scene, cameras = ball(30, degree, seed=4), cast(views(2), torch.float32)
    options = RenderOptions(0.2, 50.0, 0.4, antialiased)
    scene.sh[:3] -= 3.0  # colours below 0, which are cut off
    backgrounds = torch.linspace(0, 1, 6).reshape(2, 3)
    found = {}
    for name in ("ours", "reference"):
        leaves = {key: getattr(scene, key).clone().requires_grad_() for key in PARAMETERS}
        parts = Gaussians(**leaves, options=options), cameras, backgrounds
        result = cuda.render_with(stand_in, *parts) if name == "ours" else render(*parts, "reference")
        pictures = (result.images, result.alphas, result.depths)
        sum((p * loss_weights(p.shape, seed)).sum() for seed, p in enumerate(pictures)).backward()
        found[name] = [*pictures, result.screen.grad, *(leaf.grad for leaf in leaves.values())], result.radii
    for ours, truth in zip(found["ours"][0], found["reference"][0], strict=True):
        torch.testing.assert_close(ours, truth, rtol=1e-4, atol=1e-4 * float(truth.detach().abs().max()))
    ours, truth = found["ours"][1], found["reference"][1]
    assert ours.dtype == truth.dtype == torch.int32 and ours.shape == truth.shape == (2, 30)
    assert int((ours != truth).sum()) == 1 and int(ours[ours != truth]) == 0


def test_without_a_gradient_there_is_none_to_keep():
    with torch.no_grad():
        leaves = Gaussians(**{key: getattr(ball(5), key).clone().requires_grad_() for key in PARAMETERS})
        result = cuda.render_with(stand_in, leaves, cast(views(1), torch.float32), torch.zeros(1, 3))
    assert not result.images.requires_grad and not result.screen.requires_grad


def test_what_has_diverged_is_not_drawn_and_gets_no_gradient():
    """exp of a log scale above 88 is infinite; gsplat is given a size and an opacity that are no trouble."""
    scene, cameras, grey = ball(30), cast(views(2), torch.float32), torch.full((2, 3), 0.5)
    wild = torch.tensor([12.0, 88.0, 90.0, 1e30, math.inf, math.nan])
    scene.scales[: len(wild), 1] = wild
    given, found = [], {}

    def watched(**arguments):
        given.append(arguments)
        return stand_in(**arguments)

    for name in ("ours", "cpu", "reference"):
        leaves = {key: getattr(scene, key).clone().requires_grad_() for key in PARAMETERS}
        parts = Gaussians(**leaves), cameras, grey
        result = cuda.render_with(watched, *parts) if name == "ours" else render(*parts, name)
        (result.images * loss_weights(result.images.shape, 0)).sum().backward()
        assert not result.radii[:, : len(wild)].any() and result.radii[:, len(wild) :].any()
        for leaf in leaves.values():
            assert leaf.grad.isfinite().all() and not leaf.grad[: len(wild)].any() and leaf.grad.any()
        found[name] = result.images.detach()
    assert given[0]["scales"].isfinite().all() and not given[0]["opacities"][: len(wild)].any()
    for name in ("ours", "cpu"):
        torch.testing.assert_close(found[name], found["reference"], rtol=1e-4, atol=1e-5)


def test_a_scene_without_gaussians_has_a_gradient_of_its_screen():
    """Which a densifier asks for."""
    leaves = {key: getattr(ball(5), key)[:0].clone().requires_grad_() for key in PARAMETERS}
    out = cuda._empty(Gaussians(**leaves), cast(views(3), torch.float32), torch.full((3, 3), 0.25))
    assert torch.equal(out.images, torch.full((3, 20, 27, 3), 0.25)) and not out.alphas.any()
    (out.images.sum() + out.depths.sum()).backward()
    assert {key: leaf.grad.shape for key, leaf in leaves.items()} == {key: leaf.shape for key, leaf in leaves.items()}
    densifier = Gradient(enabled=True).begin(10)
    densifier.observe(out, torch.tensor(True))
    assert {name: len(value) for name, value in densifier.state_dict().items()} == {"grad2d": 0, "count": 0, "seen": 0}


@pytest.mark.parametrize("kernels", [EMULATED, ON_GPU])
def test_a_gpu_gathers_the_statistics_of_the_reference(kernels):
    scene, found = ball(200, seed=5), {}
    for place, backend in (("cpu", "reference"), (cuda.DEVICE, kernels)):
        leaves = {key: getattr(scene, key).detach().to(place).requires_grad_() for key in PARAMETERS}
        out = render(
            Gaussians(**leaves), cast(views(3), torch.float32, place), torch.ones(3, 3, device=place), backend=backend
        )
        (out.images * loss_weights(out.images.shape, 0).to(place, torch.float32)).sum().backward()
        densifier = Gradient(enabled=True).begin(10)
        densifier.observe(out, torch.tensor(True, device=place))
        found[backend] = {name: value.cpu() for name, value in densifier.state_dict().items()}
    ours, truth = found["cuda"], found["reference"]
    assert torch.equal(ours["count"], truth["count"])
    scale = float(truth["grad2d"].max())
    torch.testing.assert_close(ours["grad2d"], truth["grad2d"], rtol=1e-3, atol=1e-4 * scale)


def test_without_a_home_kernels_are_not_built_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pwd.getpwuid", lambda number: {}[number])
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "")  # to be as it was, afterwards
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    built = Path(cpp_extension._get_build_directory("x", verbose=False))
    assert built.is_relative_to(tmp_path / "~")
    cuda._choose_build_folder()
    built = Path(cpp_extension._get_build_directory("x", verbose=False))
    assert built.is_relative_to(tmp_path / f"gsdistill-{os.getuid()}" / "torch_extensions")


@pytest.mark.parametrize("backend", ["cpu", "reference", EMULATED, ON_GPU])
def test_every_backend_draws_what_a_device_is_tried_with(backend):
    place = torch.device(cuda.DEVICE if backend == "cuda" else "cpu")
    assert base._draw_test(backend, place) == pytest.approx((0.5, 0.25), abs=1e-5)


@pytest.fixture
def build(tmp_path, monkeypatch):
    """A machine with a toolkit and without kernels; ``build.make`` stands for what gsplat does when it is imported."""
    made = SimpleNamespace(folder=tmp_path / "gsplat_cuda", csrc=None, make=lambda: ModuleType("kernels"), claims=[])

    def load(name):
        if name == "gsplat.csrc":
            raise made.csrc or ModuleNotFoundError("No module named 'gsplat.csrc'", name=name)
        assert name == "gsplat.cuda._backend"
        with Claim(tmp_path / "gsplat_cuda.lock") as claim:
            made.claims.append(claim.take())
        return SimpleNamespace(_C=made.make())

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", "/usr/local/cuda")
    monkeypatch.setattr(cuda, "importlib", SimpleNamespace(import_module=load))
    for cached in (cuda._lack, cuda._load):
        cached.cache_clear()
    yield made
    for cached in (cuda._lack, cuda._load):
        cached.cache_clear()


def told() -> list[str]:
    """What is told while the kernels are loaded, twice."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        cuda._load()
        cuda._load()
    return [str(one.message) for one in found if one.category is Notice]


def test_ready_kernels_are_taken_without_a_word(monkeypatch):
    cuda._lack.cache_clear()
    cuda._load.cache_clear()
    monkeypatch.setitem(sys.modules, "gsplat.csrc", ModuleType("gsplat.csrc"))
    assert told() == [] and not cuda.compiles()
    cuda._lack.cache_clear()
    cuda._load.cache_clear()


def test_that_kernels_are_compiled_is_said_before(build):
    (line,) = told()
    assert cuda.compiles() and build.claims == [False]  # once, and while nobody else is let in
    assert line.startswith("gsplat has no compiled kernels here; compiling them") and "takes minutes" in line


def test_kernels_that_have_been_compiled_are_loaded_without_a_word(build):
    build.folder.mkdir()
    (build.folder / "gsplat_cuda.so").touch()
    assert told() == [] and build.claims == [False] and not cuda.compiles()


def test_kernels_for_another_torch_are_told_apart_from_none(build):
    build.csrc = ImportError("csrc.so: undefined symbol: _ZN3c105ErrorC2E\nmore")
    (line,) = told()
    reason = f"gsplat's compiled kernels do not load with torch {torch.__version__} (csrc.so: undefined symbol"
    assert line.startswith(reason) and "compiling them" in line and "more" not in line


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("Error building extension 'gsplat_cuda': nvcc fatal\nmore"), "Error building extension"),
        (RuntimeError("Ninja is required to load C++ extensions"), "Ninja is required"),
        (ImportError("gsplat_cuda.so: undefined symbol"), "gsplat_cuda.so: undefined symbol"),
        (OSError("CUDA_HOME environment variable is not set"), "CUDA_HOME"),
    ],
)
def test_a_build_that_fails_is_one_sentence(build, error, reason):
    def fail():
        raise error

    build.make = fail
    with pytest.raises(ConfigError, match=reason) as caught, pytest.warns(Notice):
        cuda._load()
    assert "\n" not in str(caught.value) and str(build.folder) in str(caught.value)
    assert "install a gsplat wheel" in str(caught.value) and "--device cpu" in str(caught.value)


def test_without_a_toolkit_or_its_compiler_the_wheel_is_named(build, monkeypatch):
    build.make = lambda: None
    with pytest.raises(ConfigError, match=r"/usr/local/cuda has no compiler; install a gsplat wheel"), pytest.warns():
        cuda._load()
    monkeypatch.setattr(cpp_extension, "CUDA_HOME", None)
    build.claims.clear()
    with pytest.raises(ConfigError, match="no compiled kernels here, and there is no CUDA toolkit to compile them"):
        cuda._load()
    assert not build.claims and not cuda.compiles()


def test_a_process_that_compiles_is_waited_for(build, tmp_path, monkeypatch):
    waits = []
    with Claim(tmp_path / "gsplat_cuda.lock") as other:
        assert other.take()

        def sleep(seconds):
            waits.append(seconds)
            assert not build.claims
            if len(waits) == 3:
                build.folder.mkdir(exist_ok=True)
                (build.folder / "gsplat_cuda.so").touch()
                other.__exit__(None, None, None)

        monkeypatch.setattr(cuda.time, "sleep", sleep)
        (line,) = told()
    assert len(waits) == 3 and build.claims == [False]
    assert line == f"another process is compiling gsplat's kernels in {build.folder}; waiting for it"


def test_these_tests_take_the_kernels_that_are_compiled_already(tmp_path, monkeypatch):
    """Where torch has them, whatever cache the tests have."""
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    before = cpp_extension._get_build_directory("gsplat_cuda", verbose=False)
    folder = extensions()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "tests"))
    assert cpp_extension._get_build_directory("gsplat_cuda", verbose=False) == before
