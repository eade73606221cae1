"""Calls of a network recorded and replayed, compiled, laid out; float32 as it is or rounded."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import deepfloyd, mvdream, sana, sd3, sdxl, stable_diffusion
from tiny.steps import load, normal
from torch.utils._python_dispatch import TorchDispatchMode

from gsdistill.core import device
from gsdistill.core.errors import ConfigError
from gsdistill.core.structs import Condition, Embedding, to_device
from gsdistill.models.pipelines import FAMILIES
from gsdistill.models.settings import ModelSettings
from gsdistill.prior.base import Query
from gsdistill.prior.families.running import Graphs, answering
from gsdistill.prior.loading import leaf_of, load_prior
from gsdistill.prior.prompts import PromptSettings
from gsdistill.scene.viewpoints import orbit

TINY = {
    "StableDiffusionPipeline": stable_diffusion, "StableDiffusionXLPipeline": sdxl, "MVDreamPipeline": mvdream,
    "IFPipeline": deepfloyd, "StableDiffusion3Pipeline": sd3, "SanaPipeline": sana,
}  # fmt: skip
PLAIN = PromptSettings("none")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stable_diffusion.build(tmp_path_factory.mktemp("tiny-sd"))


class Recorder:
    """A device's recorder whose replay does the work again, on the same buffers and into the same answer."""

    def __init__(self) -> None:
        self.records = self.replays = 0

    def __call__(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        self.records += 1
        answer = torch.full_like(work(), torch.nan)  # what is recorded has not been done

        def replay() -> None:
            self.replays += 1
            answer.copy_(work())

        return replay, answer


def asked(prior: Any, text: str = "a red torus", count: int = 4) -> Condition:
    return prior.condition(prior.encode_text(text, "", PLAIN), orbit(count, 8))


def queries(prior: Any, count: int, seed: int, branches: tuple[str, ...] = ("positive", "negative")) -> list[Query]:
    times = torch.arange(count) // 4 * 300 + 50 * seed + 20  # those of a group of views are one
    return [Query(normal(count, *prior.latent_shape, seed=seed), times, branch) for branch in branches]


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", TINY)
def test_replayed_answers_are_those_of_the_network(pipeline, tmp_path, monkeypatch):
    """Other latents, timesteps, texts and cameras reach the recorded call; each form is recorded once."""
    model, recorder = TINY[pipeline].build(tmp_path / "model"), Recorder()
    monkeypatch.setattr("gsdistill.prior.families.base.recorder", lambda device: recorder)
    prior, recorded = (load(leaf_of(FAMILIES[pipeline]), model, ModelSettings(graph=graph)) for graph in (False, True))
    conditions = {(text, count): asked(prior, text, count) for text in ("a red torus", "a cat") for count in (4, 8)}
    questions = [
        (queries(prior, count, seed, branches), conditions[text, count])
        for seed, (text, count, branches) in enumerate(
            [
                ("a red torus", 4, ("positive", "negative")), ("a cat", 4, ("positive", "negative")),
                ("a cat", 8, ("positive",)), ("a red torus", 4, ("negative",)), ("a red torus", 8, ("negative",)),
            ]
        )
    ]  # fmt: skip
    expected = [prior.predict_noise(*question) for question in questions]
    found = [recorded.predict_noise(*question) for question in questions]  # all kept: each has memory of its own
    for one, other in zip(expected, found, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    assert (recorder.records, recorder.replays) == (2, 5)  # of 8 rows and of 4


def test_a_form_is_shapes_types_and_what_is_there():
    seen, recorder = [], Recorder()

    def call(latents: Any, timesteps: Any, text: Embedding, cameras: Any) -> torch.Tensor:
        seen.append((latents, text.tokens))
        more = sum(value.sum() for value in (text.pooled, text.mask, cameras) if value is not None)
        return latents * timesteps[:, None, None, None] + text.tokens.sum() + more

    graphs = Graphs(call, recorder)
    latents, times, tokens = normal(2, 4, 3, 3), torch.tensor([1, 2]), normal(2, 5, 6)
    other = Embedding(normal(2, 7, 6, seed=1), normal(2, 3, seed=2))
    masked, cameras = Embedding(tokens, mask=torch.ones(2, 5, dtype=torch.bool)), normal(2, 4, seed=3)
    forms = [
        (latents, times, Embedding(tokens), None), (latents.double(), times, Embedding(tokens), None),
        (latents[:1], times[:1], Embedding(tokens[:1]), None), (latents, times, other, None),
        (latents, times, masked, None), (latents, times, masked, cameras),
        (latents, times, Embedding(tokens, cameras), None), (latents, times, Embedding(tokens), cameras),
    ]  # fmt: skip
    for _ in range(2):
        for form in forms:
            assert torch.equal(graphs(*form), call(*form))
    assert recorder.records == len(forms)
    # Another layout of the same numbers is no other form.
    assert torch.equal(graphs(latents.to(memory_format=torch.channels_last), *forms[0][1:]), call(*forms[0]))
    assert torch.equal(graphs(latents[:1].expand(2, 4, 3, 3), *forms[0][1:])[0], call(*forms[0])[0])
    assert recorder.records == len(forms)


def test_what_watches_operations_sees_the_networks(folder):
    """So that a step's operations can be counted: a replay would hide them."""

    class Count(TorchDispatchMode):
        products = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.products += func is torch.ops.aten.convolution.default
            return func(*args, **(kwargs or {}))

    prior, recorder = load_prior(str(folder)), Recorder()
    prior._answer = Graphs(prior._ask, recorder)
    with Count() as count:
        prior.predict_noise(queries(prior, 4, 0), asked(prior))
    assert count.products > 5 and recorder.records == 0


def test_a_student_beside_a_recorded_network(folder):
    """It comes after the recording; the prior answers as before, the student as it does without a graph."""
    plain, prior, recorder = load_prior(str(folder)), load_prior(str(folder)), Recorder()
    prior._answer = Graphs(prior._ask, recorder)
    found = []
    for each in (plain, prior):
        condition, (query,) = asked(each), queries(each, 4, 0, ("positive",))
        (before,) = each.predict_noise([query], condition)
        student = each.student(2)
        weights = (student.initial(torch.Generator().manual_seed(0)) + 0.1).requires_grad_()
        own = student.predict_noise(weights, query, condition)
        own.square().sum().backward()
        (after,) = each.predict_noise([query], condition)
        assert torch.equal(before, after) and float((own.detach() - before).abs().max()) > 1e-2
        assert weights.grad is not None
        found.append((before, own.detach(), weights.grad))
    assert recorder.records == 1
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("where", ["cpu", "meta", "mps"])
def test_only_one_kind_of_device_records(where, folder):
    """Said before any weights are looked for."""
    message = f"model.graph: only a CUDA device replays recorded calls, and this run is on {where}"
    with pytest.raises(ConfigError, match=message):
        load(leaf_of(FAMILIES["StableDiffusionPipeline"]), folder / "nothing", ModelSettings(graph=True), where)


def test_what_is_compiled_is_not_recorded_too():
    with pytest.raises(ConfigError, match=r"model\.compile and model\.graph exclude each other"):
        ModelSettings(compile=True, graph=True)


@pytest.fixture
def pretended(monkeypatch) -> list[str]:
    """What a CUDA device would be told, in order, without one."""
    told: list[str] = []

    class Stream:
        def __init__(self, name: str = "side") -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            told.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def within(name: str) -> Iterator[None]:
        told.append(f"to {name}")
        yield
        told.append(f"end of {name}")

    graph = SimpleNamespace(replay=lambda: told.append("replay"))
    stand_ins = {
        "Stream": Stream, "current_stream": lambda: Stream("main"), "stream": lambda stream: within(stream.name),
        "CUDAGraph": lambda: graph, "graph": lambda one, pool, capture_error_mode: within(f"graph in {pool}"),
        "graph_pool_handle": lambda: "pool",
    }  # fmt: skip
    for name, value in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, value)
    return told


def test_the_order_of_a_recording(pretended):
    """Called beside the main stream until all is chosen and allocated, with waits both ways; then recorded once."""
    replay, answer = device.recorder(torch.device("cuda"))(lambda: pretended.append("work") or "answer")
    assert answer == "answer"
    replay()
    assert pretended == [
        "side waits for main", "to side", "work", "work", "work", "end of side", "main waits for side",
        "to graph in pool", "work", "end of graph in pool", "replay",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ("CUDA out of memory", RuntimeError, "^CUDA out of memory"),
        ("operation not permitted", ConfigError, r"model\.graph: this network's calls cannot be recorded: .*permitted"),
    ],
)
def test_a_call_that_cannot_be_recorded(said, error, message, pretended):
    def work() -> None:
        if pretended[-1].startswith("to graph"):
            raise RuntimeError(f"{said}\nwith more lines")

    with pytest.raises(error, match=message) as caught:
        device.recorder(torch.device("cuda"))(work)
    assert error is RuntimeError or "\n" not in str(caught.value)


Answer = namedtuple("Answer", "sample")


class Doubling(torch.nn.Module):
    """Answers as networks of diffusers do."""

    def forward(self, sample: torch.Tensor) -> Answer:
        return Answer(2.0 * sample + sample.shape[0])


def test_each_number_of_samples_is_compiled_on_its_own(monkeypatch):
    """Once each, and never with a number left open, as torch would have it from the second one on."""
    compiled, real = [], torch.compile

    def backend(graph: Any, inputs: list[Any]) -> Any:
        compiled.append([value for value in inputs if not isinstance(value, torch.Tensor)])
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda module, **options: real(module, backend=backend, dynamic=options.get("dynamic"))
    )
    call = answering(Doubling(), True)
    for rows in (4, 8, 12, 4, 8):
        assert torch.equal(call(sample=torch.ones(rows, 3)), torch.full((rows, 3), 2.0 + rows))
    assert compiled == [[], [], []]


@pytest.mark.parametrize("layout", ["auto", "channels_last", "contiguous"])
@pytest.mark.parametrize("where", ["cpu", "meta"])
def test_the_layout_is_that_of_weights_and_images(layout, where, folder):
    prior = load(leaf_of(FAMILIES["StableDiffusionPipeline"]), folder, ModelSettings(layout=layout), where)
    last, seen = layout == "channels_last" or (layout == "auto" and where != "cpu"), []
    for part in (prior._network, prior._codec._vae):
        weights = [value for value in part.parameters() if value.ndim == 4 and min(value.shape[1:]) > 1]
        assert weights and all(value.is_contiguous(memory_format=torch.channels_last) is last for value in weights)
    encoder = prior._codec._vae.encoder
    encoder.conv_in.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    prior.encode(torch.rand(2, 16, 16, 3, device=where))
    assert layout == "auto" or seen[0].is_contiguous(memory_format=torch.channels_last) is last


def test_the_layout_changes_no_answer(folder):
    found = []
    for layout in ("auto", "channels_last", "contiguous"):
        prior = load_prior(str(folder), settings=ModelSettings(layout=layout))
        images = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
        prior.encode(images).square().sum().backward()
        found.append((images.grad, *prior.predict_noise(queries(prior, 4, 1), asked(prior))))
    for one, other, third in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one, third, rtol=1e-4, atol=1e-5)


@pytest.fixture
def rounding() -> Iterator[None]:
    """What torch does with float32, put back."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.slow
@pytest.mark.usefixtures("rounding")
def test_float32_is_rounded_where_only_the_autoencoder_is_whole(folder, tmp_path):
    """Else what is in float32 is exact; read by both of the names that torch has for it."""
    large, backends = sdxl.build(tmp_path / "sdxl"), torch.backends
    for model, kind, precision, exact in (
        (large, "StableDiffusionXLPipeline", "auto", False),
        (large, "StableDiffusionXLPipeline", "float32", True),
        (large, "StableDiffusionXLPipeline", "float16", False),
        (large, "StableDiffusionXLPipeline", "bfloat16", True),
        (folder, "StableDiffusionPipeline", "auto", True),
    ):
        prior = load(leaf_of(FAMILIES[kind]), model, ModelSettings(precision=precision), "meta")
        assert (prior._codec._vae.dtype == torch.float32 != prior.dtype) is not exact
        assert torch.get_float32_matmul_precision() == ("highest" if exact else "high")
        assert backends.cudnn.allow_tf32 is not exact
        for place in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn):
            assert (place.fp32_precision == "tf32") is not exact
    device.exact_products(False, torch.device("cpu"))
    assert torch.get_float32_matmul_precision() == "highest"


def on_a_gpu(test: Callable[..., None]) -> Callable[..., None]:
    return pytest.mark.gpu(pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")(test))


@on_a_gpu
@pytest.mark.usefixtures("rounding")
def test_float32_on_a_gpu_is_exact_where_it_was_asked_for(folder):
    load_prior(str(folder), "cuda", ModelSettings(precision="float32"))
    images, weights = normal(2, 256, 16, 16), normal(64, 256, 3, 3, seed=1)
    a, b = normal(256, 1024), normal(1024, 64, seed=1)
    for work, given in ((torch.nn.functional.conv2d, (images, weights)), (torch.mm, (a, b))):
        truth, got = work(*(x.double() for x in given)), work(*(x.cuda() for x in given)).cpu().double()
        assert float((got - truth).norm() / truth.norm()) < 1e-5  # TF32: 3e-4


@on_a_gpu
@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("recompute", [False, True])
def test_a_half_encoder_on_a_gpu_keeps_small_gradients(layout, recompute, folder):
    images, found = torch.rand(2, 16, 16, 3, generator=torch.Generator().manual_seed(0)), []
    for precision in ("float32", "float16"):
        settings = ModelSettings(precision=precision, layout=layout, recompute_encoder=recompute)
        leaf = images.cuda().requires_grad_()
        (1e-6 * load_prior(str(folder), "cuda", settings).encode(leaf)).sum().backward()
        assert leaf.grad is not None
        found.append(leaf.grad * 1e6)
    assert 0 < float((found[1] - found[0]).norm() / found[0].norm()) < 0.01


@on_a_gpu
@pytest.mark.parametrize("pipeline", TINY)
def test_recorded_on_a_gpu(pipeline, tmp_path):
    """Two forms, each replayed with other latents and texts, beside a student that comes after the recording."""
    model, found = TINY[pipeline].build(tmp_path / "model"), []
    for graph in (False, True):
        prior = load(leaf_of(FAMILIES[pipeline]), model, ModelSettings(graph=graph), "cuda")
        found.append([])
        for seed, branches in enumerate([("positive", "negative"), ("positive",)] * 2):
            text = ("a red torus", "a cat", "a cat", "a red torus")[seed]
            condition = prior.condition(prior.encode_text(text, "", PLAIN), to_device(orbit(4, 8), "cuda"))
            given = [to_device(query, "cuda") for query in queries(prior, 4, seed, branches)]
            found[-1] += prior.predict_noise(given, condition)
            if seed == 2 and prior.LORA:
                prior.student(2)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=0.01, atol=0.01)
