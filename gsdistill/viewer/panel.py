"""The panel at the side of the page: sliders, colours and buttons, shared by everyone who looks."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from viser import ClientHandle, GuiEvent, ViserServer

__all__ = ["Panel"]

WHITE = (255, 255, 255)
WAIT = 30.0  # seconds to wait for a page's picture


class Panel:
    """The controls and their values."""

    def __init__(
        self,
        server: ViserServer,
        change: Callable[[], None],
        steps: tuple[int, int, int] = (0, 0, 1),
        names: Sequence[str] = (),
    ) -> None:
        """Fill the panel of ``server``.

        Args:
            server: the server whose panel this is.
            change: called, in any thread, when the splats must be drawn anew.
            steps: first and last step of the optimisation and the stride of the slider; equal steps hide the slider.
            names: names of the objects, for boxes that hide them.
        """
        gui, (first, last, stride) = server.gui, steps
        self._step = gui.add_slider("step", first, last, stride, last, hint="of the optimisation", visible=last > first)
        self._threshold = gui.add_slider("opacity from", 0.0, 1.0, 0.01, 0.0, hint="less opaque Gaussians are left out")
        self._size = gui.add_slider("splat size", 0.1, 2.0, 0.05, 1.0, hint="factor of all standard deviations")
        self._names = [gui.add_checkbox(name, True) for name in names]
        background = gui.add_rgb("background", WHITE)
        front, shot = gui.add_button("front view"), gui.add_button("screenshot")
        for control in (self._step, self._threshold, self._size, *self._names):
            control.on_update(lambda event: change())
        background.on_update(lambda event: _paint(server, background.value))
        front.on_click(lambda event: _reset_camera(event, server))
        shot.on_click(_download)
        _paint(server, background.value)

    @property
    def threshold(self) -> float:
        """The least opacity, 0..1, of Gaussians that are shown."""
        return float(self._threshold.value)

    @property
    def size(self) -> float:
        """Factor of all standard deviations."""
        return float(self._size.value)

    @property
    def step(self) -> int:
        """The chosen step of the optimisation."""
        return int(self._step.value)

    def shows(self, place: int) -> bool:
        """Whether the object at ``place``, counted from 0, is shown."""
        return not self._names or self._names[place].value


def _paint(server: ViserServer, colour: tuple[int, int, int]) -> None:
    """Make the background ``colour``, RGB in 0..255."""
    server.scene.set_background_image(np.array(colour, dtype=np.uint8)[None, None], format="png")


def _reset_camera(event: GuiEvent, server: ViserServer) -> None:
    """Move the camera of the page that asked back to its start."""
    if event.client is None:
        return
    start = server.initial_camera
    with event.client.atomic():
        event.client.camera.position = start.position
        event.client.camera.look_at = start.look_at


def _download(event: GuiEvent) -> None:
    """Send the page that asked a PNG of what it shows; nothing if it has left meanwhile, or does not answer."""
    if event.client is not None:
        with contextlib.suppress(RuntimeError, TimeoutError):
            event.client.send_file_download("gsdistill.png", _take_png(event.client), save_immediately=True)


def _take_png(client: ClientHandle) -> bytes:
    """Return the page's picture in its own size, without the panel, as PNG.

    Raises:
        RuntimeError: the page has left. TimeoutError: it does not answer.
    """
    from PIL import Image

    camera, data = client.camera, io.BytesIO()
    shot = client.get_render(camera.image_height, camera.image_width, transport_format="png", timeout=WAIT)
    Image.fromarray(shot[..., :3]).save(data, format="PNG", optimize=True)
    return data.getvalue()
