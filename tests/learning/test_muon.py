"""Muon: steps that are orthogonal matrices of AdamW's size, the same in one process and in two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learning.common import draw, equal, everything, loss, model, settings
from torch import nn

from gsdistill.learning.muon import Muon, orthogonalised
from gsdistill.learning.stream import Key
from gsdistill.learning.trainer import Trainer


@pytest.mark.parametrize("shape", [(8, 8), (6, 40), (40, 6)])
def test_a_step_has_the_singular_vectors_of_its_matrix_and_even_singular_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    step = orthogonalised(matrix).float()
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ step @ v.T
    assert ((inner.diagonal() > 0.6) & (inner.diagonal() < 1.25)).all()
    assert (inner - inner.diagonal().diag()).abs().max() < 0.05  # bfloat16


def test_the_first_step_is_the_rate_times_an_orthogonal_matrix_of_adams_size():
    parameter = nn.Parameter(torch.zeros(30, 2, 2, 2))
    gradient = torch.randn(30, 2, 2, 2, generator=torch.Generator().manual_seed(1))
    parameter.grad = gradient.clone()
    Muon([parameter], lr=0.1, weight_decay=0.0).step()
    expected = -0.1 * 0.2 * 30**0.5 * orthogonalised(gradient.flatten(1)).float()
    moved = parameter.detach().flatten(1)
    assert float(torch.cosine_similarity(moved.flatten(), expected.flatten(), dim=0)) > 0.999  # bfloat16
    assert float(moved.norm() / expected.norm()) == pytest.approx(1.0, abs=0.01)
    assert float(moved.square().mean().sqrt()) == pytest.approx(0.1 * 0.2, rel=0.15)  # AdamW's size


def test_a_rate_that_is_set_after_a_state_was_loaded_counts():
    parameter = nn.Parameter(torch.eye(3))
    muon = Muon([parameter], lr=0.1)
    for rate in (0.1, 0.0):
        muon.load_state_dict(muon.state_dict())
        muon.param_groups[0]["lr"], before = rate, parameter.detach().clone()
        parameter.grad = torch.ones(3, 3)
        muon.step()
        assert torch.equal(parameter.detach(), before) is (rate == 0.0)


def test_weights_decay_with_the_rate():
    parameter = nn.Parameter(torch.eye(4))
    parameter.grad = torch.zeros(4, 4)
    Muon([parameter], lr=0.5, weight_decay=0.1).step()
    torch.testing.assert_close(parameter.detach(), 0.95 * torch.eye(4))


def of_two(network: nn.Module) -> list[torch.optim.Optimizer]:
    """Muon for matrices, AdamW for the rest."""
    matrices = [p for p in network.parameters() if p.ndim == 2]
    return [Muon(matrices, 0.03), torch.optim.AdamW([p for p in network.parameters() if p.ndim == 1], 0.03)]


def trained(checkpoint: Path, **changes) -> Trainer:
    network = model()
    run = Trainer(network, loss, draw, settings(shards=2, **changes), of_two(network))
    run.run(checkpoint)
    return run


def test_a_stopped_training_ends_with_the_same_bits(tmp_path):
    whole = trained(tmp_path / "whole.pt")
    trained(tmp_path / "cut.pt", stop_after=5)
    assert equal(everything(whole), everything(trained(tmp_path / "cut.pt")))
    with torch.no_grad():
        assert loss(whole.model, draw(Key(9, 0, 0)), 1.0) < loss(model(), draw(Key(9, 0, 0)), 1.0)


PROGRAM = """
import sys
from pathlib import Path
import torch
from learning.common import everything
from learning.test_muon import trained
from gsdistill.learning import processes

with processes.join("cpu"):
    run = trained(Path(sys.argv[1]) / "checkpoint.pt")
    torch.save(everything(run), Path(sys.argv[1]) / f"rank{processes.rank()}.pt")
"""


@pytest.mark.slow
def test_two_processes_share_the_matrices_and_hold_the_same_bits(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    tests = Path(__file__).parents[1]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    done = subprocess.run(
        [*command, str(tmp_path / "program.py"), str(tmp_path)], env=paths, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert equal(first, second)
    for mine, theirs in zip(everything(trained(tmp_path / "alone.pt")), first, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-3)  # bfloat16 rounds sums of other orders otherwise
