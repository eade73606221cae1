"""The panel at the side of the page: sliders, colours and buttons, shared by all who look."""

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
WAIT = 30.0  # seconds in which a page must deliver its picture


class Panel:
    """What is set by hand."""

    def __init__(
        self,
        server: ViserServer,
        change: Callable[[], None],
        steps: tuple[int, int, int] = (0, 0, 1),
        names: Sequence[str] = (),
    ) -> None:
        """Fill the panel of ``server``.

        Args:
            server: whose panel it is.
            change: called when the splats must be drawn anew, in any thread.
            steps: first and last step of the optimisation and the stride between; equal ones make no slider.
            names: of the objects, each of which can be hidden.
        """
        gui, (first, last, stride) = server.gui, steps
        self._step = gui.add_slider("step", first, last, stride, last, hint="of the optimisation", visible=last > first)
        self._threshold = gui.add_slider(
            "opacity from", 0.0, 1.0, 0.01, 0.0, hint="Gaussians that are less opaque are left out"
        )
        self._size = gui.add_slider("splat size", 0.1, 2.0, 0.05, 1.0, hint="factor of all standard deviations")
        self._names = [gui.add_checkbox(name, True) for name in names]
        background = gui.add_rgb("background", WHITE)
        front, shot = gui.add_button("front view"), gui.add_button("screenshot")
        for control in (self._step, self._threshold, self._size, *self._names):
            control.on_update(lambda event: change())
        background.on_update(lambda event: _paint(server, background.value))
        front.on_click(lambda event: _to_the_front(event, server))
        shot.on_click(_download)
        _paint(server, background.value)

    @property
    def threshold(self) -> float:
        """Opacity from which Gaussians are shown."""
        return float(self._threshold.value)

    @property
    def size(self) -> float:
        """Factor of all standard deviations."""
        return float(self._size.value)

    @property
    def step(self) -> int:
        """Step of the optimisation."""
        return int(self._step.value)

    def shows(self, place: int) -> bool:
        """Whether the object there is to be seen."""
        return not self._names or self._names[place].value


def _paint(server: ViserServer, colour: tuple[int, int, int]) -> None:
    """Put one colour behind everything."""
    server.scene.set_background_image(np.array(colour, dtype=np.uint8)[None, None], format="png")


def _to_the_front(event: GuiEvent, server: ViserServer) -> None:
    """Bring the camera of who asks to where every page begins."""
    if event.client is None:
        return
    start = server.initial_camera
    with event.client.atomic():
        event.client.camera.position = start.position
        event.client.camera.look_at = start.look_at


def _download(event: GuiEvent) -> None:
    """Send who asks a PNG of what the page shows; nothing to a page that leaves meanwhile, or hangs."""
    if event.client is not None:
        with contextlib.suppress(RuntimeError, TimeoutError):
            event.client.send_file_download("gsdistill.png", _png(event.client), save_immediately=True)


def _png(client: ClientHandle) -> bytes:
    """The page's picture in its own size, without the panel.

    Raises:
        RuntimeError: the page has left. TimeoutError: it does not answer.
    """
    from PIL import Image

    camera, data = client.camera, io.BytesIO()
    shot = client.get_render(camera.image_height, camera.image_width, transport_format="png", timeout=WAIT)
    Image.fromarray(shot[..., :3]).save(data, format="PNG", optimize=True)
    return data.getvalue()
