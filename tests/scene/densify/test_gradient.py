import math

import pytest
import torch
from gsplat.strategy import DefaultStrategy
from scene.densify.common import GOOD, generator, high, in_step, make_render, make_scene, rows_of

from gsdistill.core.errors import ConfigError
from gsdistill.scene.densify.gradient import Gradient

GROW = {"enabled": True, "start": 0.0, "stop": 1.0, "every": 0.1, "grow_grad2d": 1.0, "grow_scale3d": 0.05}


def test_small_ones_are_duplicated_with_their_adam_state():
    params, optimizers = make_scene()
    old = {name: value.detach().clone() for name, value in params.items()}
    densifier = Gradient(**GROW).begin(10)
    densifier.observe(make_render(high(6, [1, 4])), GOOD)
    report = densifier.refine(params, optimizers, 1, generator())
    assert (report.n_before, report.n_grown, report.n_pruned, report.n_budget, report.n_after) == (6, 2, 0, 0, 8)
    for name, value in params.items():
        assert torch.equal(value, torch.cat([old[name], old[name][[1, 4]]]))
    assert rows_of(optimizers, params) == [1, 2, 3, 4, 5, 6, 0, 0]
    assert in_step(params, optimizers)


def test_large_ones_are_split_with_their_adam_state():
    params, optimizers = make_scene(std=0.1)
    old = {name: value.detach().clone() for name, value in params.items()}
    densifier = Gradient(**GROW).begin(10)
    densifier.observe(make_render(high(6, [2])), GOOD)
    report = densifier.refine(params, optimizers, 1, generator())
    assert (report.n_grown, report.n_after, len(params["means"])) == (1, 7, 7)
    assert torch.equal(params["sh"], torch.cat([old["sh"][[0, 1, 3, 4, 5]], old["sh"][[2, 2]]]))
    assert torch.allclose(params["scales"][5:].exp(), torch.full((2, 3), 0.1 / 1.6))
    halves = (params["means"][5:] - old["means"][2]).norm(dim=-1)
    assert (halves > 0).all() and (halves < 0.1 * 5).all()
    assert rows_of(optimizers, params) == [1, 2, 4, 5, 6, 0, 0]
    assert in_step(params, optimizers)


def test_transparent_and_oversized_ones_are_pruned():
    params, optimizers = make_scene()
    with torch.no_grad():
        params["opacities"][0], params["scales"][3, 1] = -8.0, 0.0  # a deviation of 1
    densifier = Gradient(**GROW).begin(10)
    densifier.observe(make_render(high(6, [])), GOOD)
    report = densifier.refine(params, optimizers, 1, generator())
    assert (report.n_grown, report.n_pruned, report.n_after) == (0, 2, 4)
    assert rows_of(optimizers, params) == [2, 3, 5, 6] and in_step(params, optimizers)


def test_a_gradient_in_any_view_counts():
    params, optimizers = make_scene()
    gradients = torch.zeros(3, 6, 2)
    gradients[1, 5] = 1.0
    densifier = Gradient(**GROW).begin(10)
    densifier.observe(make_render(gradients), GOOD)
    assert densifier.refine(params, optimizers, 1, generator()).n_grown == 1
    assert torch.equal(params["means"][6], params["means"][5])


def test_the_average_is_over_visible_views_in_half_images_times_views():
    gradients = torch.zeros(2, 2, 2)
    gradients[0, 0], gradients[1, 0] = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 8.0])
    gradients[0, 1] = torch.tensor([1.0, 0.0])
    radii = torch.tensor([[4, 4], [4, 0]], dtype=torch.int32)  # the second Gaussian is not in the second view
    densifier = Gradient(**GROW).begin(10)
    densifier.observe(make_render(gradients, radii, height=32, width=64), GOOD)
    state = densifier.state_dict()
    averages = state["grad2d"] / state["count"]
    assert averages.tolist() == [(3 * 32 * 2 + 8 * 16 * 2) / 2, 1 * 32 * 2]
    assert state["count"].tolist() == [2, 1] and state["seen"].tolist() == [2, 1]


def test_together_the_gradients_of_views_are_added_before_the_norm():
    """As GaussianDreamer does: opposite ones cancel, the number of views is no factor, and a step counts once."""
    gradients = torch.zeros(2, 3, 2)
    gradients[0, 0], gradients[1, 0] = torch.tensor([3.0, 0.0]), torch.tensor([0.0, 8.0])
    gradients[0, 1], gradients[1, 1] = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0])
    radii = torch.tensor([[4, 4, 0], [4, 0, 0]], dtype=torch.int32)
    densifier = Gradient(**GROW, together=True).begin(10)
    densifier.observe(make_render(gradients, radii, height=32, width=64), GOOD)
    state = densifier.state_dict()
    assert state["grad2d"].tolist() == [math.hypot(3 * 32, 8 * 16), 0.0, 0.0]
    assert state["count"].tolist() == [1, 1, 0] and state["seen"].tolist() == [1, 1, 0]


def test_thresholds_of_released_programs_in_our_unit():
    """The norms that they compare with their thresholds, from the position of a Gaussian in their own units.

    A Gaussian is moved on the screen of its view only: in 3D Gaussian Splatting in -1..1 across the image, in GSGEN in
    camera x / z. Every program sums over 4 views its weight times the loss of a view, over 4 or not.
    """
    focal, size, targets = 1.05, 64, torch.tensor([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2], [0.2, 0.1]])

    def norms(to_pixels, weight: float) -> torch.Tensor:
        moved = torch.zeros(4, 2, requires_grad=True)
        (weight * ((to_pixels(moved) / size - targets) ** 2).sum()).backward()
        assert moved.grad is not None
        return moved.grad.norm(dim=-1)

    def half_images(x):
        return 0.5 * size * x

    pixels = torch.zeros(4, 2, requires_grad=True)
    (((pixels / size - targets) ** 2).sum() / 4).backward()  # ours: the mean over views, its weight 1
    assert pixels.grad is not None
    densifier = Gradient(**GROW).begin(10)
    densifier.observe(make_render(pixels.grad[:, None], height=size, width=size), GOOD)
    ours = float(densifier.state_dict()["grad2d"]) / 4
    for threshold, theirs, here in (
        (0.01, norms(half_images, 1 / 4), 0.04),  # DreamGaussian with MVDream
        (0.01, norms(half_images, 0.1 / 4), 0.4),  # threestudio-3dgs
        (0.00075, norms(half_images, 0.1), 0.0075),  # LucidDreamer, whose views are not divided
        (0.02, norms(lambda x: focal * size * x, 0.1 / 4), 0.8 / 2.1),  # GSGEN
    ):
        assert float(theirs.mean()) / threshold == pytest.approx(ours / here, rel=1e-5)


def test_statistics_are_those_of_gsplat():
    """Over two steps, against DefaultStrategy's own way of gathering them."""
    params, optimizers = make_scene(count=50)
    strategy, random = DefaultStrategy(), generator(3)
    theirs, ours = strategy.initialize_state(), Gradient(**GROW).begin(10)
    for _ in range(2):
        gradients = torch.randn(4, 50, 2, generator=random)
        radii = torch.randint(0, 3, (4, 50), generator=random, dtype=torch.int32)
        render = make_render(gradients, radii)
        info = {"means2d": render.screen, "radii": radii[..., None].expand(-1, -1, 2), "gaussian_ids": None}
        info |= {"width": 64, "height": 32, "n_cameras": 4}
        strategy.step_post_backward(params, optimizers, theirs, 1, info)
        ours.observe(render, GOOD)
    state = ours.state_dict()
    assert torch.equal(state["count"], theirs["count"]) and torch.equal(state["seen"], theirs["count"].long())
    torch.testing.assert_close(state["grad2d"], theirs["grad2d"])


@pytest.mark.parametrize("seed", range(5))
def test_a_refinement_is_that_of_gsplat(seed, monkeypatch):
    """DefaultStrategy, from the statistics on: the same ones grow and go, in the same order and with the same draws.

    At step 4 it refines with these settings. What a GPU holds in reserve, which it gives back then, we keep.
    """
    random = generator(seed)
    (ours, our_adams), (theirs, their_adams) = make_scene(count=200), make_scene(count=200)
    scales, opacities = torch.randn(200, 3, generator=random) * 0.8 - 3, torch.randn(200, generator=random) * 3
    for params in (ours, theirs):
        params["scales"].data, params["opacities"].data = scales.clone(), opacities.clone()
    render = make_render(torch.randn(3, 200, 2, generator=random) * 0.03)
    strategy = DefaultStrategy(
        prune_opa=0.05, grow_grad2d=1.5, grow_scale3d=0.05, prune_scale3d=0.3, refine_start_iter=0, refine_every=2,
        reset_every=3,
    )  # fmt: skip
    info = {"means2d": render.screen, "radii": render.radii[..., None].expand(-1, -1, 2), "gaussian_ids": None}
    info |= {"width": 64, "height": 32, "n_cameras": 3}
    torch.manual_seed(int(torch.randint(2**62, (), generator=generator(seed))))
    strategy.step_post_backward(theirs, their_adams, state := strategy.initialize_state(), 4, info)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: pytest.fail("memory was given back"))
    settings = Gradient(**GROW | {"grow_grad2d": 1.5, "prune_opacity": 0.05, "prune_scale3d": 0.3})
    densifier = settings.begin(10)
    densifier.observe(render, GOOD)
    report = densifier.refine(ours, our_adams, 1, generator(seed))
    assert report.n_grown > 20 and report.n_pruned > 20 and report.n_after == len(theirs["means"])
    for name, value in theirs.items():
        assert torch.equal(ours[name], value)
        for key, moment in their_adams[name].state[value].items():
            assert torch.equal(our_adams[name].state[ours[name]][key], moment)
    assert all(torch.equal(densifier.state[name], state[name]) for name in ("grad2d", "count"))


def test_a_bad_step_leaves_no_trace_in_the_statistics():
    densifier = Gradient(**GROW).begin(10)
    densifier.observe(make_render(high(6, [1])), GOOD)
    before = densifier.state_dict()
    densifier.observe(make_render(high(6, [1, 2]) * torch.nan), ~GOOD)
    after = densifier.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_statistics_add_up_over_steps_and_start_anew_after_a_refinement():
    params, optimizers = make_scene()
    densifier = Gradient(**GROW | {"every": 0.2}).begin(10)
    for done in (1, 2):
        densifier.observe(make_render(high(6, [done])), GOOD)
        report = densifier.refine(params, optimizers, done, generator())
        assert (report is None) == (done == 1)
    assert report.n_grown == 2
    assert all(not value.any() and len(value) == 8 for value in densifier.state_dict().values())


def test_the_budget_removes_the_least_important():
    params, optimizers = make_scene(count=6)
    with torch.no_grad():
        params["opacities"].copy_(torch.tensor([0.9, 0.1, 0.8, 0.2, 0.7, 0.3]).logit())
    densifier = Gradient(**GROW | {"budget": 4}).begin(10)
    densifier.observe(make_render(high(6, [])), GOOD)
    report = densifier.refine(params, optimizers, 1, generator())
    assert (report.n_budget, report.n_after) == (2, 4)
    assert rows_of(optimizers, params) == [1, 3, 5, 6] and in_step(params, optimizers)


def test_the_budget_holds_after_every_step_of_a_growing_run():
    params, optimizers = make_scene(count=30)
    densifier, g = Gradient(**GROW | {"budget": 50}).begin(20), generator()
    counts = []
    for done in range(1, 21):
        count = len(params["means"])
        densifier.observe(make_render(high(count, list(range(count)), views=2)), GOOD)
        densifier.refine(params, optimizers, done, g)
        counts.append(len(params["means"]))
    assert counts[0] == 30 and counts[1] == 50 and max(counts) == 50 and in_step(params, optimizers)


def test_refinements_come_when_they_are_due():
    params, optimizers = make_scene()
    densifier = Gradient(**GROW | {"start": 0.2, "stop": 0.65, "every": 0.1}).begin(40)
    due = []
    for done in range(1, 41):
        densifier.observe(make_render(high(6, [])), GOOD)
        if densifier.refine(params, optimizers, done, generator()):
            due.append(done)
    assert due == [12, 16, 20, 24]


def test_opacities_are_reset_when_due_and_at_no_other_time():
    params, optimizers = make_scene()
    settings = Gradient(**GROW | {"every": 1.0, "stop": 0.8, "reset_every": 0.3, "prune_opacity": 0.02})
    densifier, resets = settings.begin(10), []
    for done in range(1, 11):
        densifier.observe(make_render(high(6, [])), GOOD)
        densifier.refine(params, optimizers, done, generator())
        if torch.allclose(params["opacities"].sigmoid(), torch.tensor(0.04)):
            assert not optimizers["opacities"].state[params["opacities"]]["exp_avg"].any()
            resets.append(done)
            with torch.no_grad():
                params["opacities"].fill_(0.0)
        assert in_step(params, optimizers)
    assert resets == [3, 6]


def test_a_refinement_that_would_leave_nothing_is_put_off():
    params, optimizers = make_scene(opacity=0.001)
    densifier = Gradient(**GROW).begin(10)
    densifier.observe(make_render(high(6, [0])), GOOD)
    report = densifier.refine(params, optimizers, 1, generator())
    assert (report.n_grown, report.n_pruned, len(params["means"])) == (0, 0, 6)


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match=r"densify\.start = 0\.8 lies after densify\.stop = 0\.2"):
        Gradient(start=0.8, stop=0.2)
    render = make_render(high(6, []))
    render.screen.grad = None
    with pytest.raises(ValueError, match="after backward"):
        Gradient(**GROW).begin(10).observe(render, GOOD)
