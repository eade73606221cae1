"""The server of the page: where it listens, and how it keeps everything on this machine.

viser serves one page that loads nothing from elsewhere, and talks to it over a websocket on the same port. It sends
nothing anywhere, unless a page asks it for a public address through a third party; this is switched off. Pages of other
sites, open in a browser that reaches the port, are refused (guard.py).
"""

from __future__ import annotations

import errno
import socket
import threading
import warnings
from typing import TYPE_CHECKING

from rich.text import Text

from gsdistill.core.errors import ConfigError
from gsdistill.core.extras import require
from gsdistill.viewer.guard import is_loopback, start_guarded

if TYPE_CHECKING:
    from rich.console import Console
    from viser import ViserServer

__all__ = ["LOOPBACK", "serve", "stop"]

LOOPBACK = "127.0.0.1"

TRIES = 100  # ports that are tried, from the first one on
GOODBYE = 1.0  # seconds in which pages can confirm that the server ends


def serve(host: str, port: int, console: Console) -> tuple[ViserServer, str]:
    """Start a server with an empty page; returns it and the page's address.

    Without a free ``port`` the next free one is taken; 0 takes any.

    Raises:
        NotInstalled: viser is missing, or is one that cannot be guarded.
        ConfigError: the address does not belong to this machine, or no port is free.
    """
    require("viewer", "looking at splats")
    free = _free_port(host, port)
    import rich
    import viser

    warnings.filterwarnings("ignore", r"Queued a \w+ on a closed connection")  # the page left while it was drawn
    rich.get_console().quiet = True  # viser prints to rich's own console, which we do not use
    server = start_guarded(host, lambda: viser.ViserServer(host=host, port=free, label="gsdistill", verbose=False))
    server.request_share_url = lambda verbose=True: None
    server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="small")
    server.gui.main_panel.dock_right()
    if not is_loopback(host):
        console.print(Text(f"everyone who reaches {host} over the network can look and play with the sliders"))
    return server, f"http://{_address(host)}:{server.get_port()}"


def stop(server: ViserServer) -> None:
    """Stop the server and free its port; pages that are too busy to answer in time are not waited for."""
    ending = threading.Thread(target=server.stop, daemon=True, name="goodbye")
    ending.start()
    ending.join(timeout=GOODBYE)


def _free_port(host: str, first: int) -> int:
    """The first free port from ``first`` on; for 0, any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(first, min(first + TRIES, 1 << 16) if first else 1):
        try:
            with socket.create_server((host, port), family=family) as probe:
                return probe.getsockname()[1]
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                reason = error.strerror or str(error)
                raise ConfigError(
                    f"host = '{host}' cannot be listened at: {reason}; 127.0.0.1 is this machine"
                ) from error
    raise ConfigError(f"port = {first}: neither it nor one of the next {TRIES - 1} is free; 0 takes any that is")


def _address(host: str) -> str:
    """The host as a browser on this machine takes it."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
