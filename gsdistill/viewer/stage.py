"""Splats on every open page, drawn by one thread; requests that come while it draws are merged into one.

Every page has its own splats, because colours that depend on the view differ from camera to camera. They are drawn anew
once the camera rests.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from gsdistill.core.errors import UserError
from gsdistill.viewer.splat import UNIT, Splat

if TYPE_CHECKING:
    from viser import CameraHandle, ClientHandle, GaussianSplatHandle, ViserServer

__all__ = ["SPACING", "Picture", "Stage", "places", "set_camera"]

Point: TypeAlias = tuple[float, float, float]

SPACING = 2.2  # between the centres of neighbouring unit balls
COLUMNS = 4  # at most
DISTANCE, ELEVATION, FOV = 3.2, 20.0, 40.0  # of the first view, from azimuth 0, as of all our pictures
ASPECT = 1.2  # least ratio of width to height of the page beside its panel
REST = 0.15  # seconds without a move after which a camera rests
PAUSE = 0.03  # seconds between two drawings, in which sliders can move


@dataclass(frozen=True)
class Picture:
    """What all pages should show."""

    splats: Sequence[Splat | None]  # by place; None leaves the place empty
    threshold: float = 0.0  # least opacity of Gaussians that are shown
    size: float = 1.0  # factor of standard deviations

    def alike(self, other: Picture, place: int) -> bool:
        """Whether both pictures show the same at a place."""
        same = self.splats[place] is other.splats[place]
        return same and (self.threshold, self.size) == (other.threshold, other.size)


@dataclass
class Page:
    """One browser: what it shows, and where its camera is."""

    client: ClientHandle
    handles: dict[int, GaussianSplatHandle] = field(default_factory=dict)  # the splats on the page, by place
    eye: Point = (0.0, 0.0, 0.0)
    moved: float = 0.0  # time.monotonic of the camera's last move; 0 once the splats are drawn for it
    picture: Picture | None = None  # what it shows

    @property
    def rests(self) -> bool:
        """Whether its camera has moved since the last drawing and stands still now."""
        return 0.0 < self.moved <= time.monotonic() - REST

    def draw(self, picture: Picture, spots: Sequence[Point]) -> None:
        """Send the splats that have changed, and those whose colours depend on the view; ``spots`` are their places."""
        self.moved, old, self.picture = 0.0, self.picture, picture
        for place, splat in enumerate(picture.splats):
            if splat is None or (not splat.depends_on_view and old is not None and old.alike(picture, place)):
                continue
            x, y, z = (self.eye[i] - spots[place][i] for i in range(3))
            arrays = splat.arrays((x, y, z), picture.threshold, picture.size)
            if place in self.handles:
                self.handles[place].set_gaussians(*arrays)
            else:
                add = self.client.scene.add_gaussian_splats
                self.handles[place] = add(f"/splats/{place}", *arrays, scale=UNIT, position=spots[place])
        for place, handle in self.handles.items():
            handle.visible = picture.splats[place] is not None


class Stage:
    """Keeps every page up to date; ``say`` gets the message of an error.

    viser awaits coroutines one after the other in its own thread. It runs other callbacks in a pool of threads, in any
    order, and not at all once the server stops. So the callbacks here are coroutines, and none of them waits.
    """

    def __init__(self, server: ViserServer, spots: Sequence[Point], say: Callable[[str], None]) -> None:
        self._spots, self._say = spots, say
        self._picture: Callable[[], Picture] | None = None
        self._pages: dict[int, Page] = {}
        self._wake, self._closed, self._stale = threading.Event(), False, False
        self.cost = 0.0  # seconds that the last drawing took
        server.on_client_connect(self._enter)
        server.on_client_disconnect(self._leave)
        self._thread = threading.Thread(target=self._work, daemon=True, name="viewer")
        self._thread.start()

    def show(self, picture: Callable[[], Picture]) -> None:
        """Draw what ``picture`` returns, now and after each change; only the drawing thread calls it."""
        self._picture = picture
        self.change()

    def change(self) -> None:
        """Have the picture drawn anew."""
        self._stale = True
        self._wake.set()

    def close(self) -> None:
        """Stop drawing, and wait up to five seconds for the drawing thread to end."""
        self._closed = True
        self._wake.set()
        self._thread.join(timeout=5.0)

    @property
    def watched(self) -> bool:
        """Whether a page is open."""
        return bool(self._pages)

    async def _enter(self, client: ClientHandle) -> None:
        page = self._pages[client.client_id] = Page(client, eye=_eye(client.camera))

        async def move(camera: CameraHandle) -> None:
            page.eye, page.moved = _eye(camera), time.monotonic()
            self._wake.set()

        client.camera.on_update(move)
        self.change()

    async def _leave(self, client: ClientHandle) -> None:
        self._pages.pop(client.client_id, None)

    def _work(self) -> None:
        picture: Picture | None = None
        while not self._closed:
            moving = any(page.moved for page in list(self._pages.values()))
            self._wake.wait(REST if moving else None)
            self._wake.clear()
            began = time.perf_counter()
            if stale := self._stale:
                self._stale = False  # before the drawing, so that a change during it is drawn next time
            if stale and self._picture is not None:
                try:
                    picture = self._picture()
                except UserError as error:
                    self._say(str(error))
            for page in list(self._pages.values()):
                if picture is not None and (page.picture is not picture or page.rests):
                    page.draw(picture, self._spots)
            if stale:
                self.cost = time.perf_counter() - began
            time.sleep(PAUSE)


def places(count: int) -> list[Point]:
    """The centres of ``count`` unit balls: row by row, from left to right and downwards as seen from the front."""
    columns, rows = _grid(count)
    middle, upper = (columns - 1) / 2, (rows - 1) / 2
    return [(0.0, (i % columns - middle) * SPACING, (upper - i // columns) * SPACING) for i in range(count)]


def set_camera(server: ViserServer, count: int) -> None:
    """Let every page begin at the front with all ``count`` places in sight; a single one as in all our pictures."""
    columns, rows = _grid(count)
    distance = max(DISTANCE * rows, DISTANCE * columns / ASPECT)
    elevation = np.deg2rad(ELEVATION)
    camera = server.initial_camera
    camera.position = (distance * np.cos(elevation), 0.0, distance * np.sin(elevation))
    camera.look_at = (0.0, 0.0, 0.0)
    camera.up = (0.0, 0.0, 1.0)
    camera.fov = float(np.deg2rad(FOV))


def _grid(count: int) -> tuple[int, int]:
    rows = -(-count // COLUMNS)
    return -(-count // rows), rows


def _eye(camera: CameraHandle) -> Point:
    x, y, z = (float(value) for value in camera.position)
    return x, y, z
