"""What a run may optimise: a splat, bare pictures, many scenes of one network; and losses of anybody's own."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import nn

from gsdistill.core.errors import BadFile
from gsdistill.core.structs import Gaussians, Render
from gsdistill.distillation.fsd import FSD
from gsdistill.distillation.sds import SDS
from gsdistill.prior.analytic import AnalyticPrior, Mixture
from gsdistill.renderer.base import render
from gsdistill.representation.base import Representation
from gsdistill.representation.gaussians import GaussianScene, SceneSettings
from gsdistill.representation.optimizer import OptimSettings
from gsdistill.scene.densify.gradient import Gradient
from gsdistill.scene.init.ball import Ball
from gsdistill.settings.ramp import Ramp
from gsdistill.training import checkpoint
from gsdistill.training.backgrounds.black import Black
from gsdistill.training.distiller import Distiller, Term
from gsdistill.training.views import ViewSettings

SIZE = 16
CPU = torch.device("cpu")
VIEWS = ViewSettings(2, SIZE, Black())
CLEAN = SDS(guidance_scale=Ramp(1.0, 1.0), weighting="uniform")


class Network(Representation):
    """Gaussians that a small network moves, colours and shows, out of a code for each of its scenes."""

    def __init__(self, ball: Gaussians, scenes: int = 2) -> None:
        torch.manual_seed(0)
        self.device, self.ball, self.chosen = CPU, ball, 0
        self.codes, self.net = nn.Embedding(scenes, 8), nn.Sequential(nn.Linear(11, 32), nn.SiLU(), nn.Linear(32, 7))
        self.adam = torch.optim.Adam([*self.codes.parameters(), *self.net.parameters()], 0.03)

    def __len__(self):
        return len(self.ball)

    def splat(self):
        code = self.codes.weight[self.chosen].expand(len(self.ball), -1)
        move, opacity, colour = self.net(torch.cat([code, self.ball.means], 1)).split([3, 1, 3], 1)
        return replace(
            self.ball,
            means=self.ball.means + 0.1 * move,
            opacities=self.ball.opacities + opacity[:, 0],
            sh=self.ball.sh + colour[:, None],
        )

    def render(self, cameras, backgrounds):
        return render(self.splat(), cameras, backgrounds)

    def update(self, progress):
        self.adam.step()
        self.adam.zero_grad()
        return torch.tensor(True)

    def state(self):
        moments = [value for state in self.adam.state_dict()["state"].values() for value in state.values()]
        return {**self.net.state_dict(), **self.codes.state_dict(), **{f"adam.{i}": v for i, v in enumerate(moments)}}

    def misfit(self, state):
        return next((name for name in self.net.state_dict() if name not in state), None)

    def restore(self, state):
        self.net.load_state_dict({name: state[name] for name in self.net.state_dict()})
        self.codes.load_state_dict({"weight": state["weight"]})


class Pictures(Representation):
    """One picture a view, whatever the camera: the two-dimensional case."""

    def __init__(self) -> None:
        self.device, self.pixels = CPU, nn.Parameter(torch.full((2, SIZE, SIZE, 3), 0.5))
        self.adam = torch.optim.Adam([self.pixels], 0.05)

    def __len__(self):
        return len(self.pixels)

    def render(self, cameras, backgrounds):
        one = torch.ones_like(self.pixels[..., :1])
        return Render(self.pixels, one, one, torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.int32))

    def update(self, progress):
        self.adam.step()
        self.adam.zero_grad()
        return torch.tensor(True)

    def state(self):
        return {"pixels": self.pixels}

    def misfit(self, state):
        return None if state["pixels"].shape == self.pixels.shape else "pixels"

    def restore(self, state):
        self.pixels.data.copy_(state["pixels"])

    def splat(self):
        raise BadFile("pictures are no splat")


class Latents(Representation):
    """A prior's latents themselves, where they are planes in -1..1 of pictures, by steps of plain descent."""

    def __init__(self, start: torch.Tensor, rate: float) -> None:
        self.device, self.rate, self.x = CPU, rate, nn.Parameter(start.clone())

    def __len__(self):
        return len(self.x)

    def render(self, cameras, backgrounds):
        images = 0.5 * (self.x.permute(0, 2, 3, 1) + 1.0)
        one, screen = torch.ones_like(images[..., :1]), torch.zeros(len(self), 0, 2)
        return Render(images, one, one, screen, torch.zeros(len(self), 0, dtype=torch.int32))

    def update(self, progress):
        gradient, self.x.grad = self.x.grad, None
        self.x.data -= self.rate * gradient
        return torch.tensor(True)

    def state(self):
        return {"x": self.x}

    def misfit(self, state):
        return None if state["x"].shape == self.x.shape else "x"

    def restore(self, state):
        self.x.data.copy_(state["x"])

    def splat(self):
        raise BadFile("latents are no splat")


def ball(count: int = 40) -> Gaussians:
    return Ball(count=count).create("", torch.Generator().manual_seed(3))


def world(*colour: float) -> AnalyticPrior:
    """All pictures are of one colour, -1 to 1."""
    picture = torch.tensor(colour, dtype=torch.float64).repeat_interleave(SIZE * SIZE)[None]
    mixture = Mixture(torch.ones(1), picture, torch.tensor([0.2]))
    return AnalyticPrior(mixture, mixture, (3, SIZE, SIZE))


def distiller(scene: Representation, prior: AnalyticPrior, steps: int, **more) -> Distiller:
    text, generator = prior.encode_text("", ""), torch.Generator().manual_seed(1)
    return Distiller(scene, prior, CLEAN, text, VIEWS, steps, generator, **more)


def test_pictures_become_the_only_one_of_their_world():
    scene = Pictures()
    for step in distiller(scene, world(-0.8, -0.8, 0.2), 60):
        assert step.count == 2 and bool(step.finite)
    assert torch.allclose(scene.pixels.mean((0, 1, 2)), torch.tensor([0.1, 0.1, 0.6]), atol=0.05)


def test_bare_latents_descend_as_by_hand(gaussian_prior):
    """x' = x - rate g / B with FSD's g = eps_c(x_t) - eps on N(0.4, 0.3^2), in closed form."""
    start = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    method = FSD(Ramp(1.0, 1.0), Ramp(0.9, 0.1), noise="fixed", background="same", weighting="uniform")
    scene, text = Latents(start, 0.3), gaussian_prior.encode_text("", "")
    run = Distiller(scene, gaussian_prior, method, text, VIEWS, 4, torch.Generator().manual_seed(0))
    eps, schedule, x = run.method_state["noise"].double(), gaussian_prior.schedule, start
    for step, t in zip(run, (900, 700, 500, 300), strict=True):
        alpha, sigma = schedule.alphas[t], schedule.sigmas[t]
        x_t = alpha * x + sigma * eps
        x = x - 0.3 * (sigma * (x_t - alpha * 0.4) / (alpha**2 * 0.09 + sigma**2) - eps) / 2
        torch.testing.assert_close(scene.x.data, x, rtol=1e-6, atol=1e-8)
        assert step.evaluations == 4


@pytest.mark.slow
def test_one_network_learns_two_worlds():
    """A step of the one, a step of the other: amortised distillation, with nothing but the public parts."""
    scene, colours = Network(ball()), []
    runs = [distiller(scene, prior, 60) for prior in (world(0.2, -0.8, -0.8), world(-0.8, -0.8, 0.2))]
    for _ in range(60):
        for number, run in enumerate(runs):
            scene.chosen = number
            run.step()
    for number in range(2):
        scene.chosen = number
        with torch.no_grad():
            splat = scene.splat()
        weight = splat.opacities.sigmoid()[:, None]
        colours.append(((0.5 + 0.28209479 * splat.sh[:, 0]) * weight).sum(0) / weight.sum())
    assert float(colours[0][0] - colours[0][2]) > 0.2 and float(colours[1][2] - colours[1][0]) > 0.2


def leftwards(scene: GaussianScene) -> Term:
    """A loss that falls where Gaussians go to the left."""
    return lambda render, cameras, progress: 1e6 * scene.params["means"][:, 0].sum()


def test_a_term_adds_its_loss():
    prior, ends = world(0.0, 0.0, 0.0), []
    for wanted in (False, True):
        scene = GaussianScene(ball(), SceneSettings(), 10, CPU)
        before = scene.params["means"].detach().clone()
        run = distiller(scene, prior, 10, terms=[leftwards(scene)] if wanted else [])
        losses = [float(step.loss) for step in islice(run, 5)]
        ends.append((losses, scene.params["means"].detach() - before))
    assert ends[0][0] != ends[1][0]
    assert (ends[1][1][:, 0] < -0.02).all() and not (ends[0][1][:, 0] < -0.02).all()


SCENES = {
    "splat": lambda: GaussianScene(ball(), SceneSettings(), 8, CPU),
    "network": lambda: Network(ball()),
    "pictures": Pictures,
    "latents": lambda: Latents(torch.zeros(2, 3, SIZE, SIZE), 0.3),
}


@pytest.mark.parametrize("make", SCENES.values(), ids=SCENES)
def test_each_is_kept_by_a_checkpoint_and_comes_back(make, tmp_path):
    prior = world(-0.8, -0.8, 0.2)
    run = distiller(make(), prior, 8)
    list(islice(run, 4))
    again = distiller(make(), prior, 8)
    checkpoint.restore(again, checkpoint.read(checkpoint.save(run, tmp_path, {})))
    assert again.done == 4 and torch.equal(again.generator.get_state(), run.generator.get_state())
    for name, value in run.representation.state().items():
        if "adam" not in name or isinstance(run.representation, GaussianScene):
            assert torch.equal(again.representation.state()[name], value), name


def test_the_first_step_of_adam_is_the_rate_in_the_unit_of_the_settings():
    """And of the extent, which the farthest Gaussian has, unless the settings say world units."""
    start, rate = ball(), Ramp(0.02, 0.01)
    relative, absolute = OptimSettings(means=rate), OptimSettings(means=rate, means_unit="world")
    for optim, length in ((relative, float(start.means.norm(dim=-1).max())), (absolute, 1.0)):
        scene = GaussianScene(start, SceneSettings(optim=optim), 8, CPU)
        for value in scene.params.values():
            value.grad = torch.ones_like(value)
        scene.update(0.5)
        moved = start.means - scene.params["means"].detach()
        assert torch.allclose(moved, torch.full_like(moved, 0.015 * length), rtol=1e-4)


def test_a_checkpoint_of_another_representation_is_refused(tmp_path):
    prior = world(-0.8, -0.8, 0.2)
    path = checkpoint.save(distiller(Pictures(), prior, 8), tmp_path, {})
    run = distiller(GaussianScene(ball(), SceneSettings(densify=Gradient(enabled=True)), 8, CPU), prior, 8)
    with pytest.raises(BadFile, match="does not fit a run with these settings: counts"):
        checkpoint.restore(run, checkpoint.read(path))
