"""Who may speak to the page: a browser at our own address, and no page of another site.

A browser lets any page open a websocket to this machine, and names the page's site in ``Origin``. A page whose domain
was pointed to this machine after it was loaded (DNS rebinding) still sends its own domain in ``Host``. So we check
both: ``Host`` must be a name of the address that we serve, and ``Origin``, if there is one, must be our page there. A
program that is not a browser can write anything into both; only the network can keep it out.
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

__all__ = ["is_loopback", "may_speak", "start_guarded"]

Answer: TypeAlias = "Callable[[ServerConnection, Request], Response | None]"

SAFE = {  # headers of the page: no other page may show it in a frame, and links from it do not send its address
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def start_guarded(host: str, start: Callable[[], ViserServer]) -> ViserServer:
    """Let ``start`` start viser's server at the address ``host``, so that it answers only our own page.

    viser has no setting for this, so the function of websockets by which it serves is replaced while it starts.

    Raises:
        NotInstalled: the installed viser serves in another way; its server, which is not guarded, has been stopped.
    """
    from websockets.asyncio import server

    original, calls = server.serve, []

    def serve(*arguments: Any, process_request: Answer, **options: Any) -> Any:
        calls.append(arguments)
        return original(*arguments, process_request=_guard(host, process_request), **options)

    server.serve = serve
    try:
        started = start()
    finally:
        server.serve = original
    if not calls:
        started.stop()
        raise NotInstalled("other sites cannot be kept from the page of this viser; pip install 'viser==1.1.*'")
    return started


def may_speak(headers: Headers, host: str) -> bool:
    """Whether a request comes from the page that we serve at the address ``host``, or from no page at all."""
    hosts, origins = headers.get_all("Host"), headers.get_all("Origin")
    if len(hosts) != 1 or not _is_ours(hosts[0], host):
        return False
    return not origins or origins in ([f"http://{hosts[0]}"], [f"https://{hosts[0]}"])


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _guard(host: str, answer: Answer) -> Answer:
    """A function that answers as ``answer`` to those who may speak, and refuses all others."""

    def guard(connection: ServerConnection, request: Request) -> Response | None:
        if not may_speak(request.headers, host):
            return connection.respond(http.HTTPStatus.FORBIDDEN, "not from here\n")
        response = answer(connection, request)
        if response is not None:
            response.headers.update(SAFE)
        return response

    return guard


def _is_ours(value: str, host: str) -> bool:
    """Whether a ``Host`` header, a name with or without a port, is one of ours.

    Served to the network, these are all numeric addresses, for no site can point one to us, and this machine's names.
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
