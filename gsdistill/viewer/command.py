"""``gsdistill view``: splats and runs on one page, until Ctrl-C."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from gsdistill.core.extras import require
from gsdistill.core.frames import Frame
from gsdistill.viewer.server import serve, stop

if TYPE_CHECKING:
    from rich.console import Console
    from viser import ViserServer

    from gsdistill.viewer.sources import Source
    from gsdistill.viewer.stage import Stage

__all__ = ["view"]

SHOWN = 8  # names of skipped paths, at most


def view(
    paths: Sequence[Path],
    frame: Frame | None,
    clean: bool,
    address: tuple[str, int],
    browser: bool,
    console: Console,
) -> None:
    """Serve the page of splats and runs until Ctrl-C.

    Args:
        paths: splats of any format and folders of runs.
        frame: the axes of files that do not name theirs.
        clean: whether invalid Gaussians are left out or mended.
        address: host and port.
        browser: whether to open the page in this machine's browser.
        console: where the page's address is printed.

    Raises:
        UserError: viser is missing, a path holds no splat, or nothing can be served at the address.
    """
    require("viewer", "looking at splats")
    from gsdistill.viewer.sources import gather, stride

    sources, skipped = gather(paths, frame, clean)
    if skipped:
        names = ", ".join(map(str, skipped[:SHOWN])) + ", ..." * (len(skipped) > SHOWN)
        console.print(Text(f"skipped {len(skipped)} without a splat: {names}"), soft_wrap=True)
    _, last, _ = stride(sources)
    for source in sources:
        source.at(last)  # a broken file is refused before there is a page
    server, url = serve(*address, console)
    stage = present(server, sources, console)
    console.print(Text(f"{url}   (Ctrl-C ends it)"), soft_wrap=True)
    if browser:
        import webbrowser

        webbrowser.open(url)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        console.print("closing")
    finally:
        stage.close()
        stop(server)


def present(server: ViserServer, sources: Sequence[Source], console: Console) -> Stage:
    """Put the sources on the page, side by side, with their names; returns the stage that draws them."""
    from gsdistill.viewer.panel import Panel
    from gsdistill.viewer.sources import labels, stride
    from gsdistill.viewer.stage import Picture, Stage, places, set_camera

    spots, names, steps = places(len(sources)), labels(sources), stride(sources)
    stage = Stage(server, spots, lambda line: console.print(Text(line)))
    panel = Panel(server, stage.change, steps, names if len(names) > 1 else ())
    set_camera(server, len(sources))
    if len(names) == 1:
        server.gui.set_panel_label(names[0])
    else:
        for place, (name, (x, y, z)) in enumerate(zip(names, spots, strict=True)):
            server.scene.add_label(f"/names/{place}", name, position=(x, y, z - 1.02), anchor="top-center")

    def picture() -> Picture:
        splats = [source.at(panel.step) if panel.shows(place) else None for place, source in enumerate(sources)]
        return Picture(splats, panel.threshold, panel.size)

    stage.show(picture)
    return stage
