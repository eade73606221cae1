"""The server of the page: where it listens, and that nothing leaves this machine.

viser serves one page with all that it needs, and talks to it over a websocket on the same port. It sends nothing
anywhere, unless a page asks it for a public address through a third party; that is switched off. Other sites' pages,
open in a browser that reaches the port, are refused (guard.py).
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
from gsdistill.viewer.guard import guarded, is_loopback

if TYPE_CHECKING:
    from rich.console import Console
    from viser import ViserServer

__all__ = ["LOOPBACK", "serve", "stop"]

LOOPBACK = "127.0.0.1"

TRIES = 100  # ports after the first one
GOODBYE = 1.0  # seconds in which pages can answer that they have heard of the end


def serve(host: str, port: int, console: Console) -> tuple[ViserServer, str]:
    """Start a server with an empty page; returns it and the page's address.

    Raises:
        NotInstalled: viser is missing, or is one that cannot be guarded.
        ConfigError: the address is none of this machine, or no port is free.
    """
    require("viewer", "looking at splats")
    free = _free_port(host, port)
    import rich
    import viser

    warnings.filterwarnings("ignore", r"Queued a \w+ on a closed connection")  # a page that left while it was drawn to
    rich.get_console().quiet = True  # viser talks on rich's own console, which we do not use
    server = guarded(host, lambda: viser.ViserServer(host=host, port=free, label="gsdistill", verbose=False))
    server.request_share_url = lambda verbose=True: None
    server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="small")
    server.gui.main_panel.dock_right()
    if not is_loopback(host):
        console.print(Text(f"everyone who reaches {host} over the network can look and play with the sliders"))
    return server, f"http://{_address(host)}:{server.get_port()}"


def stop(server: ViserServer) -> None:
    """End the server: its port is free, and pages that draw too busily to answer are not waited for."""
    ending = threading.Thread(target=server.stop, daemon=True, name="goodbye")
    ending.start()
    ending.join(timeout=GOODBYE)


def _free_port(host: str, first: int) -> int:
    """The first port from ``first`` on that can be listened at; of 0, any."""
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
    """What to type for it on this machine."""
    if host in ("0.0.0.0", "::"):
        return "127.0.0.1" if host == "0.0.0.0" else "[::1]"
    return f"[{host}]" if ":" in host else host
