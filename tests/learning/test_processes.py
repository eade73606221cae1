"""Two processes of torchrun on the CPU: the weights of one process, and an end that both come to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from learning.common import equal, everything, settings, trainer

from gsdistill.core.errors import ConfigError
from gsdistill.learning import processes

PROGRAM = """
import sys
from pathlib import Path
import torch
from learning.common import draw, everything, loss, model, settings
from gsdistill.learning import processes
from gsdistill.learning.trainer import Trainer

folder = Path(sys.argv[1])
with processes.join("cpu"):
    rank, done = processes.rank(), []
    with processes.leader_first():
        with open(folder / "order", "a") as file:
            file.write(str(rank))
    for until in (5, 0):  # the other process asks for an end after step 5; then both go on
        network = model()
        if rank == 1:  # the leader's weights count
            torch.nn.init.zeros_(network[0].weight)
        run = Trainer(network, loss, draw, settings(shards=4, log_every=2))
        run.run(folder / "checkpoint.pt", should_stop=lambda: rank == 1 and run.done == until)
        done.append(run.done)
    torch.save([done, everything(run), run.history], folder / f"rank{rank}.pt")
"""


@pytest.mark.slow
def test_two_processes_stop_together_and_come_to_the_weights_of_one(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    tests = Path(__file__).parents[1]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), str(tests.parent)])}
    arguments = [*command, str(tmp_path / "program.py"), str(tmp_path)]
    done = subprocess.run(arguments, env=paths, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (first, a, heard), (second, b, its) = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    assert first == second == [5, 12] and equal(a, b) and heard == its
    assert (tmp_path / "order").read_text() == "01"
    alone = trainer(shards=4, log_every=2)
    alone.run(tmp_path / "alone.pt")
    assert [loss for _, loss in heard] == pytest.approx([loss for _, loss in alone.history])
    for mine, theirs in zip(everything(alone), a, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


def test_shards_that_cannot_be_shared_out_are_refused(monkeypatch):
    monkeypatch.setattr("gsdistill.learning.trainer.count", lambda: 3)
    with pytest.raises(ConfigError, match="shards = 4 is no multiple of the 3 processes"):
        trainer(shards=4)


def test_one_process_has_nothing_to_agree_on():
    tensor = torch.ones(2)
    processes.add_up([tensor])
    with processes.leader_first(), processes.join("cpu") as device:
        assert (processes.rank(), processes.count(), device.type) == (0, 1, "cpu")
    assert processes.largest(1.5, True) == [1.5, True] and tensor.tolist() == [1.0, 1.0]
    assert settings().shards == 1
