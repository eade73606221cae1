"""One who looks without a browser: speaks to the page's server and keeps what it is sent."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from gsdistill.core.structs import Gaussians

SOON = 20.0  # seconds within which what is asked for must arrive


@pytest.fixture
def splat() -> Callable[..., Gaussians]:
    """``splat(count, degree=0, seed=0)``: Gaussians in the unit ball with quaternions of any length."""

    def make(count: int, degree: int = 0, seed: int = 0) -> Gaussians:
        random = torch.Generator().manual_seed(seed)
        direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=-1)
        return Gaussians(
            means=direction * torch.rand(count, 1, generator=random) ** (1 / 3),
            quats=torch.randn(count, 4, generator=random),
            scales=-3 + 0.5 * torch.randn(count, 3, generator=random),
            opacities=2 * torch.randn(count, generator=random),
            sh=torch.randn(count, (degree + 1) ** 2, 3, generator=random),
        )

    return make


class Looker:
    """A page as its server sees it."""

    def __init__(self, url: str, eye: tuple[float, float, float] = (3.0, 0.0, 1.0)) -> None:
        import viser
        from websockets.sync.client import connect
        from websockets.typing import Subprotocol

        protocol = Subprotocol(f"viser-v{viser.__version__}")
        self.socket = connect(url.replace("http", "ws"), subprotocols=[protocol], max_size=None, compression=None)
        self.buffers: dict[str, np.ndarray] = {}  # what splats are shown, as they are sent, by name
        self.nodes: dict[str, dict[str, Any]] = {}  # other properties of them
        self.controls: dict[str, tuple[str, Any]] = {}  # uuid and value by label
        self.texts: list[str] = []
        self.kinds: set[str] = set()  # of all messages
        self.look_from(eye)

    def look_from(self, eye: tuple[float, float, float]) -> None:
        self.send(
            type="ViewerCameraMessage", wxyz=[1, 0, 0, 0], position=eye, look_at=[0, 0, 0], up_direction=[0, 0, 1],
            fov=0.7, near=0.01, far=1000.0, image_height=400, image_width=600,
        )  # fmt: skip

    def turn(self, label: str, value: Any) -> None:
        """Move a control of the panel."""
        self.send(type="GuiUpdateMessage", uuid=self.controls[label][0], updates={"value": value})

    def send(self, **message: Any) -> None:
        import msgspec

        self.socket.send(msgspec.msgpack.encode(message))

    def until(self, condition: Callable[[], bool]) -> None:
        """Receive until it holds."""
        end = time.monotonic() + SOON
        while not condition():
            assert time.monotonic() < end, "what was waited for did not arrive"
            self.receive(0.1)

    def receive(self, seconds: float) -> None:
        """Take what arrives within so many seconds."""
        import msgspec
        import zstandard

        try:
            data = self.socket.recv(timeout=seconds)
        except TimeoutError:
            return
        assert isinstance(data, bytes)
        packed = int.from_bytes(data[8:16], "little")
        content = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[16 : 16 + packed]))
        place, arrays = 16 + packed, []
        for length in content["binaryBufferLengths"]:
            place += -place % 8
            arrays.append(data[place : place + length])
            place += length
        for message in content["messages"]:
            self.take(message, arrays)

    def take(self, message: dict[str, Any], arrays: list[bytes]) -> None:
        kind, name = message["type"], message.get("name", "")
        self.kinds.add(kind)
        found = message.get("props") if kind == "GaussianSplatsMessage" else message.get("updates")
        if name.startswith("/splats/") and isinstance(found, dict) and "buffer" in found:
            data = arrays[found["buffer"]["__binary_index"]]
            self.buffers[name] = np.frombuffer(data, np.uint32).reshape(-1, 8)
        if name.startswith("/splats/"):
            node = self.nodes.setdefault(name, {})
            node.update({key: message[key] for key in ("position", "visible") if key in message})
            node.update({"scale": found["scale"]} if isinstance(found, dict) and "scale" in found else {})
        if kind.startswith("Gui") and isinstance(message.get("props"), dict) and "label" in message["props"]:
            self.controls[message["props"]["label"]] = (message["uuid"], message.get("value"))
        if kind == "LabelMessage":
            self.texts.append(message["props"]["text"])

    def centers(self, place: int = 0) -> np.ndarray:
        return self.buffers[f"/splats/{place}"][:, :3].view(np.float32)

    def covariances(self, place: int = 0) -> np.ndarray:
        """Their upper triangles, by row."""
        return self.buffers[f"/splats/{place}"][:, 4:7].copy().view(np.float16).astype(np.float64)

    def colours(self, place: int = 0) -> np.ndarray:
        """Red, green, blue and opacity, 0..255."""
        return self.buffers[f"/splats/{place}"][:, 7:8].copy().view(np.uint8)


@pytest.fixture
def look() -> Iterator[Callable[..., Looker]]:
    """``look(url, eye)``: connect to a page's server."""
    pytest.importorskip("viser")
    with ExitStack() as stack:

        def connect(url: str, eye: tuple[float, float, float] = (3.0, 0.0, 1.0)) -> Looker:
            looker = Looker(url, eye)
            stack.callback(looker.socket.close)
            return looker

        yield connect


@pytest.fixture
def console() -> Console:
    """One whose words are kept: ``console.file.getvalue()``."""
    return Console(file=io.StringIO(), width=200)
