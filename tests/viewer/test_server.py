"""Where the page is served, and that it stays there."""

from __future__ import annotations

import socket
import time
import urllib.request
import warnings
from pathlib import Path

import pytest

from gsdistill.cli.commands.view import View
from gsdistill.core.errors import ConfigError, NotInstalled
from gsdistill.viewer.server import GOODBYE, serve, stop

pytest.importorskip("viser")


@pytest.fixture
def served(console):
    """``served(host, port)``: a page's address; the server ends with the test."""
    servers = []

    def start(host="127.0.0.1", port=0):
        server, url = serve(host, port, console)
        servers.append(server)
        return server, url

    yield start
    for server in servers:
        server.stop()


def listening(server):
    """The addresses that the server is bound to, as Linux tells them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    local = [row[1].split(":") for row in rows if row[3] == "0A"]
    return {host for host, port in local if int(port, 16) == server.get_port()}


def test_it_is_bound_to_this_machine_alone(served, console):
    server, url = served()
    assert listening(server) == {"0100007F"}
    assert url == f"http://127.0.0.1:{server.get_port()}"
    assert console.file.getvalue() == ""


def test_the_whole_network_only_with_a_word(served, console):
    server, url = served("0.0.0.0")
    assert listening(server) == {"00000000"}
    assert url.startswith("http://127.0.0.1:")
    assert "everyone who reaches 0.0.0.0 over the network can look" in console.file.getvalue()


def test_a_taken_port_gives_way_to_the_next_free_one(served):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server, _ = served(port=port)
        assert port < server.get_port() < port + 100


def test_no_free_port_is_an_error(served):
    with (
        socket.create_server(("127.0.0.1", 65535)),
        pytest.raises(ConfigError, match=r"port = 65535: neither it nor .* is free"),
    ):
        served(port=65535)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.name.invalid"])
def test_an_address_of_another_machine_is_refused(served, host):
    with pytest.raises(ConfigError, match=f"host = '{host}' cannot be listened at"):
        served(host)


def test_no_address_is_not_every_address():
    with pytest.raises(ConfigError, match="host is empty"):
        View((Path("splat.ply"),), host="")


def test_a_page_that_does_not_answer_keeps_nobody_waiting(served, console, look):
    server, url = served()
    looker = look(url)
    looker.receive(1.0)
    hear, looker.socket.protocol.receive_data = looker.socket.protocol.receive_data, lambda data: None
    began = time.monotonic()
    stop(server)
    assert time.monotonic() - began < GOODBYE + 1.0
    looker.socket.protocol.receive_data = hear
    with socket.create_server(("127.0.0.1", server.get_port())):
        pass


def test_what_is_drawn_for_nobody_is_no_warning(served):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        server, _ = served()
        stop(server)
        server.scene.add_frame("/late")
    assert said == []


def test_the_page_holds_all_that_it_needs(served):
    _, url = served()
    with urllib.request.urlopen(url) as page:
        text = page.read().decode()
    assert "<script" in text
    assert 'src="http' not in text and 'href="http' not in text


def test_nobody_gets_a_public_address(served):
    server, _ = served()
    assert server.request_share_url() is None


def test_without_viser_there_is_one_line(monkeypatch, console):
    monkeypatch.setattr("gsdistill.core.extras.importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotInstalled, match=r"looking at splats needs viser .*pip install viser"):
        serve("127.0.0.1", 0, console)
