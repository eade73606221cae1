"""A headless Chromium with WebGL 2, folders served on loopback, and what the pages complain about.

Tests of this folder are skipped where Selenium, Chromium or its driver is missing.
Pages reach nothing but 127.0.0.1: all other names resolve to nothing.
"""

from __future__ import annotations

import functools
import importlib.util
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

Serve: TypeAlias = Callable[[Path], str]
ConsoleErrors: TypeAlias = Callable[["Chrome"], list[str]]
WaitFor: TypeAlias = Callable[[Callable[[], object]], None]

NAMES = ("chromium", "chromium-browser", "google-chrome")
WINDOW = (1024, 768)
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--use-angle=swiftshader",  # WebGL 2 without a GPU
    "--enable-unsafe-swiftshader",
    "--force-device-scale-factor=1",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--disable-extensions",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    f"--window-size={WINDOW[0]},{WINDOW[1]}",
)


@pytest.fixture
def browser(chromium: Chrome) -> Iterator[Chrome]:
    """The Chromium of all tests; a page that is left would go on drawing."""
    yield chromium
    chromium.get("about:blank")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """One Chromium for all tests, with nothing of the user's in it."""
    program, driver = next(filter(None, map(shutil.which, NAMES)), None), shutil.which("chromedriver")
    if importlib.util.find_spec("selenium") is None:
        pytest.skip("needs the package selenium: pip install -e '.[dev]'")
    if not program or not driver:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options = ChromeOptions()
    options.binary_location = program
    for switch in (*SWITCHES, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = Chrome(options, Service(executable_path=driver))
    try:
        found.set_page_load_timeout(60)
        found.set_script_timeout(60)
        yield found
    finally:
        found.quit()


@pytest.fixture(scope="session")
def console_errors() -> ConsoleErrors:
    """``console_errors(browser)``: errors on the console since the last call; a missing favicon is none."""

    def errors(browser: Chrome) -> list[str]:
        log = browser.get_log("browser")
        return [entry["message"] for entry in log if entry["level"] == "SEVERE" and "favicon" not in entry["message"]]

    return errors


@pytest.fixture(scope="session")
def wait_for() -> WaitFor:
    """``wait_for(seen)``: until ``seen()`` is true, for a minute at most."""

    def wait(seen: Callable[[], object]) -> None:
        end = time.monotonic() + 60
        while not seen():
            assert time.monotonic() < end, "waited for a minute"
            time.sleep(0.02)

    return wait


class Handler(SimpleHTTPRequestHandler):
    """Files as they are now, typed as browsers demand of modules, without a word."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
        ".glb": "model/gltf-binary",
        ".mp4": "video/mp4",
    }

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A browser that hangs up is no error."""

    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture(scope="session")
def serve() -> Iterator[Serve]:
    """``serve(folder)``: the address that shows the folder on loopback until the tests end."""
    servers: dict[Path, Server] = {}

    def url(folder: Path) -> str:
        if folder not in servers:
            server = servers[folder] = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[folder].server_port}"

    yield url
    for server in servers.values():
        server.shutdown()
        server.server_close()
