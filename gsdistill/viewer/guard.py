"""Who may speak to the page: a browser that was given our own address, and no page of another site.

A browser lets any page open a websocket to this machine, and tells in ``Origin`` whose page it is. A page whose name
was made to lead here after it was loaded (DNS rebinding) still asks for its own name, in ``Host``. So both are read:
``Host`` must name the machine as we serve it, and ``Origin``, where there is one, must be the page that we serve there.
A program that is no browser says in both what it likes; what it cannot reach is all that keeps it out.
"""

from __future__ import annotations

import http
import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from gsdistill.core.errors import NotInstalled

if TYPE_CHECKING:
    from viser import ViserServer
    from websockets import Headers
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request, Response

__all__ = ["guarded", "is_loopback", "may_speak"]

Answer: TypeAlias = "Callable[[ServerConnection, Request], Response | None]"

SAFE = {  # what the page tells its browser of itself: in nobody's frame, and its address for nobody
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def guarded(host: str, start: Callable[[], ViserServer]) -> ViserServer:
    """Have ``start`` start viser's server at the address ``host`` so that it answers our own page alone.

    viser has no setting for this, so the function of websockets that it serves with is another one meanwhile.

    Raises:
        NotInstalled: the installed viser serves in another way; the server, which nothing guards, has been stopped.
    """
    from websockets.asyncio import server

    plain, used = server.serve, []

    def serve(*given: Any, process_request: Answer, **options: Any) -> Any:
        used.append(True)
        return plain(*given, process_request=_guard(host, process_request), **options)

    server.serve = serve
    try:
        started = start()
    finally:
        server.serve = plain
    if not used:
        started.stop()
        raise NotInstalled("this viser does not let its page be kept from other sites; pip install 'viser==1.1.*'")
    return started


def may_speak(headers: Headers, host: str) -> bool:
    """Whether a request comes from the page that we serve at the address ``host``, or from no page at all."""
    named, origins = headers.get_all("Host"), headers.get_all("Origin")
    if len(named) != 1 or not _is_ours(named[0], host):
        return False
    return not origins or origins in ([f"http://{named[0]}"], [f"https://{named[0]}"])


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _guard(host: str, answer: Answer) -> Answer:
    """``answer`` to who may speak, and a refusal to all others."""

    def guard(connection: ServerConnection, request: Request) -> Response | None:
        if not may_speak(request.headers, host):
            return connection.respond(http.HTTPStatus.FORBIDDEN, "not from here\n")
        response = answer(connection, request)
        if response is not None:
            response.headers.update(SAFE)
        return response

    return guard


def _is_ours(value: str, host: str) -> bool:
    """Whether a Host, a name with or without a port, is one that we serve at.

    On the network every address serves, for nobody else can make one lead here, and the names that this machine has.
    """
    try:
        name = urlsplit(f"//{value}").hostname or ""
    except ValueError:
        return False
    if is_loopback(name) or name == host.lower():
        return True
    if is_loopback(host):
        return False
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        own = socket.gethostname().lower()
        return name in (own, f"{own}.local", socket.getfqdn().lower())
