"""A whole run speaks to nobody and starts no foreign program, though it may; and the hub hears no more than it must."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Carries out command lines and tells of each try to reach the network or to start a program.
WATCHED = """
import json, sys
NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostby", "socket.sendto", "urllib.", "http.client.")
seen = []
def watch(event, given):
    if event.startswith(NETWORK):
        seen.append([event, str(given[1:])])
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pty.spawn"):
        seen.append([event, str(given[0])])
sys.addaudithook(watch)
from gsdistill.cli.main import execute
for words in json.loads(sys.argv[1]):
    assert execute(words) == 0, words
from diffusers.utils.hub_utils import http_user_agent
from huggingface_hub.utils import build_hf_headers
print(json.dumps({"seen": seen, "agents": [http_user_agent(), build_hf_headers()["user-agent"]]}))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What a process tells that made a run and its pages, free to ask the hub and to report on its user."""
    folder = tmp_path_factory.mktemp("network")
    run = str(folder / "torus")
    commands = [
        [
            "generate",
            "--prompt",
            "a red torus",
            "--iterations",
            "2",
            "--views",
            "1",
            "--method",
            "sds",
            "--output",
            run,
        ],
        ["report", run],
        ["gallery", str(folder)],
        ["list"],
        ["doctor"],
    ]
    silent = ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DISABLE_TELEMETRY", "DO_NOT_TRACK", "TRANSFORMERS_OFFLINE")
    free = {name: value for name, value in os.environ.items() if name not in silent}
    words = [sys.executable, "-c", WATCHED, json.dumps(commands)]
    done = subprocess.run(words, env=free, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_run_and_its_pages_reach_for_nobody(told):
    assert [event for event in told["seen"] if not event[0].startswith(("subprocess", "os", "pty"))] == []


def test_no_program_is_started_but_the_encoder_of_videos_and_two_that_tell_of_the_system(told):
    started = [Path(what).name for event, what in told["seen"] if event.startswith(("subprocess", "os", "pty"))]
    assert {name.partition("-")[0] for name in started} - {"uname", "ldconfig"} == {"ffmpeg"}


def test_the_hub_is_told_of_no_other_library_and_no_user(told):
    ours, library = told["agents"]
    assert ours.endswith("telemetry/off")
    assert "python/" in library and not any(word in library for word in ("torch", "agent", "session", "origin"))


def test_the_watch_sees_what_it_must(tmp_path):
    program = WATCHED.split("from gsdistill")[0] + (
        "import socket, subprocess, contextlib\n"
        "with contextlib.suppress(OSError): socket.create_connection(('127.0.0.1', 9), 1)\n"
        "subprocess.run([sys.executable, '-c', ''])\n"
        "print(json.dumps([event for event, _ in seen]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"socket.connect", "socket.getaddrinfo", "subprocess.Popen"} <= set(json.loads(done.stdout))
