"""Pages of other sites, open in a browser on this machine, can neither read the viewer's page nor speak to it."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gsdistill.core.errors import NotInstalled
from gsdistill.viewer.guard import SAFE, is_loopback, may_speak, start_guarded
from gsdistill.viewer.server import serve, stop

pytest.importorskip("viser")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a page at 127.0.0.1."""
    from rich.console import Console

    server, _ = serve("127.0.0.1", 0, Console(quiet=True))
    yield server.get_port()
    stop(server)


def page(port: int, *headers: tuple[str, str]) -> tuple[int, dict[str, str], bytes]:
    """What the server answers to a question for the page with these headers alone."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.putrequest("GET", "/", skip_host=True, skip_accept_encoding=True)
    for name, value in headers:
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, dict(answer.getheaders()), answer.read()


def speak(port: int, host: str, origin: str | None) -> None:
    """Open the websocket of the page and receive its first message; raises InvalidStatus where that is refused."""
    import socket

    import viser
    from websockets.sync.client import connect
    from websockets.typing import Origin, Subprotocol

    with connect(
        f"ws://{host}",
        sock=socket.create_connection(("127.0.0.1", port)),
        origin=None if origin is None else Origin(origin),
        subprotocols=[Subprotocol(f"viser-v{viser.__version__}")],
        max_size=None,
    ) as opened:
        assert opened.recv(timeout=20)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_our_own_page_is_served(port, host):
    status, headers, body = page(port, ("Host", f"{host}:{port}"))
    assert status == 200 and b"<script" in body
    assert SAFE.items() <= headers.items()
    speak(port, f"{host}:{port}", None)
    speak(port, f"{host}:{port}", f"http://{host}:{port}")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:{port}", "http://evil.example"),
        ("127.0.0.1:{port}", "https://evil.example:{port}"),
        ("127.0.0.1:{port}", "null"),  # a page from a file, or in a sandboxed frame
        ("127.0.0.1:{port}", "http://localhost:{port}"),  # another host to a browser
        ("127.0.0.1:{port}", "http://127.0.0.1:1"),  # another program's page on this machine
        ("127.0.0.1:{port}", "http://127.0.0.1:{port}.evil.example"),
        ("evil.example:{port}", "http://evil.example:{port}"),  # DNS rebinding
        ("evil.example:{port}", None),
        ("127.0.0.1.evil.example", None),
        ("192.0.2.1:{port}", None),
    ],
)
def test_another_site_is_refused(port, host, origin):
    from websockets.exceptions import InvalidStatus

    host, origin = host.format(port=port), origin and origin.format(port=port)
    with pytest.raises(InvalidStatus, match="403"):
        speak(port, host, origin)
    status, _, body = page(port, ("Host", host), *([("Origin", origin)] if origin else []))
    assert (status, body) == (403, b"not from here\n")


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "")],
        [("Host", "[::1")],
        [("Host", "127.0.0.1"), ("Host", "evil.example")],
        [("Host", "127.0.0.1"), ("Origin", "http://127.0.0.1"), ("Origin", "http://evil.example")],
    ],
)
def test_headers_that_leave_a_doubt_are_refused(port, headers):
    assert page(port, *headers)[0] == 403


@pytest.mark.parametrize(
    ("served", "named", "answered"),
    [
        ("0.0.0.0", "192.0.2.1:8080", True),
        ("::", "[2001:db8::1]:8080", True),
        ("0.0.0.0", "here:8080", True),
        ("0.0.0.0", "here.local", True),
        ("0.0.0.0", "evil.example", False),
        ("studio.example", "Studio.example:8080", True),
        ("studio.example", "other.example", False),
        ("127.0.0.1", "here", False),
        ("127.0.0.2", "127.0.0.1", True),
    ],
)
def test_on_the_network_addresses_serve_and_our_own_names(served, named, answered, monkeypatch):
    from websockets import Headers

    monkeypatch.setattr("socket.gethostname", lambda: "Here")
    monkeypatch.setattr("socket.getfqdn", lambda: "here.example")
    assert may_speak(Headers({"Host": named}), served) is answered
    assert may_speak(Headers({"Host": named, "Origin": f"https://{named}"}), served) is answered
    assert not may_speak(Headers({"Host": named, "Origin": "https://evil.example"}), served)


def test_a_viser_that_serves_in_another_way_is_stopped():
    stopped: list[bool] = []
    unguarded: Any = SimpleNamespace(stop=lambda: stopped.append(True))
    with pytest.raises(NotInstalled, match=r"kept from the page of this viser; pip install 'viser==1\.1\.\*'"):
        start_guarded("127.0.0.1", lambda: unguarded)
    assert stopped == [True]


def test_addresses_of_this_machine_alone():
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.0.2.1", "localhost.evil.example", "")))
