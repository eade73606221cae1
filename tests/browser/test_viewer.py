"""`gsdistill view` as a process, its page in a browser, and the pixels there against our own renders."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from gsdistill.core.structs import Gaussians
from gsdistill.export.ply import Ply
from gsdistill.renderer.base import render
from gsdistill.scene.viewpoints import look_at_origin

pytest.importorskip("viser")

ENOUGH = 30.0  # dB
SOON = 30.0  # seconds
OF_VISER = "computeBoundingSphere"  # three.js wants a third coordinate of the quads that viser draws splats with
HIDE = """
const style = document.createElement("style");
style.textContent = ".mantine-Notifications-root { display: none }";  // that WebGL runs in software
document.head.append(style);
"""
CANVAS = """
const box = document.querySelector("canvas").getBoundingClientRect();
return [box.x, box.y, box.width, box.height];
"""
INPUT = """
const isLabel = element => element.textContent.trim() === arguments[0] && !element.children.length;
let row = [...document.querySelectorAll("*")].find(isLabel);
while (row && !row.querySelector("input[type=text]")) row = row.parentElement;
return row && row.querySelector("input[type=text]");
"""
SOCKET = """
const [url, protocol, tell] = arguments, socket = new WebSocket(url, protocol);
socket.onopen = () => { socket.close(); tell("open"); };
socket.onerror = () => tell("refused");
"""
PRESS = "[...document.querySelectorAll('button')].find(e => e.textContent.trim() === arguments[0]).click()"


class Page(NamedTuple):
    url: str
    gaussians: Gaussians


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of a process that ends when it is asked to."""
    path = tmp_path_factory.mktemp("view") / "known.ply"
    Ply().write(known(), path)
    words = [sys.executable, "-u", "-m", "gsdistill", "view", str(path), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()
        assert url, process.stderr.read() if process.stderr else ""
        try:
            yield Page(url[0], known())
        finally:
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "closing\n", "")


def known() -> Gaussians:
    """Three hundred Gaussians without any symmetry, whose colours depend on the view."""
    random = torch.Generator().manual_seed(1)
    direction = torch.nn.functional.normalize(torch.randn(300, 3, generator=random), dim=-1)
    return Gaussians(
        means=direction * 0.7 * torch.rand(300, 1, generator=random) ** (1 / 3) + torch.tensor([0.0, 0.15, 0.0]),
        quats=torch.randn(300, 4, generator=random),
        scales=-2.8 + 0.4 * torch.randn(300, 3, generator=random),
        opacities=1 + 2 * torch.randn(300, generator=random),
        sh=(torch.randn(300, 16, 3, generator=random) * torch.tensor([0.8] + [0.15] * 15)[:, None]).clamp(-1, 1),
    )


def square(browser) -> np.ndarray:
    """The square in the middle of the page's canvas as it is now, 0..1."""
    x, y, width, height = (round(value) for value in browser.execute_script(CANVAS))
    left = x + (width - height) // 2
    shot = np.asarray(Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB"))
    return shot[y : y + height, left : left + height] / 255.0


def soon(browser, gaussians: Gaussians, azimuth: float = 0.0, elevation: float = 20.0) -> np.ndarray:
    """What the page shows once it is like our own render, or when it had time enough to become so."""
    end = time.monotonic() + SOON
    while True:
        shown = square(browser)
        if psnr(shown, expected(gaussians, len(shown), azimuth, elevation)) >= ENOUGH or time.monotonic() > end:
            return shown
        time.sleep(0.3)


def expected(gaussians: Gaussians, size: int, azimuth: float = 0.0, elevation: float = 20.0) -> np.ndarray:
    """Our own render of it on white."""
    camera = look_at_origin(*(torch.tensor([value]) for value in (azimuth, elevation, 3.2, 40.0)), size=size)
    return render(gaussians, camera, torch.ones(1, 3)).images[0].clamp(0, 1).double().numpy()


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((one - other) ** 2)))


def opened(browser, url: str) -> None:
    browser.get(url)
    browser.execute_script(HIDE)
    until(lambda: browser.execute_script("return document.querySelector('canvas') !== null"))


def test_the_page_shows_what_we_render_and_not_its_mirror_image(browser, page, console_errors):
    console_errors(browser)
    opened(browser, page.url)
    shown = soon(browser, page.gaussians)
    ours = expected(page.gaussians, len(shown))
    assert psnr(shown, ours) >= ENOUGH
    assert psnr(shown[:, ::-1], ours) < ENOUGH - 5
    assert psnr(shown[::-1], ours) < ENOUGH - 5
    assert [error for error in console_errors(browser) if OF_VISER not in error] == []


def test_from_another_side_the_colours_are_those_of_that_side(browser, page):
    a, e = np.deg2rad(130.0), np.deg2rad(-15.0)
    spot = 3.2 * np.array([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)])
    opened(browser, f"{page.url}/?initialCameraPosition={','.join(map(str, spot))}")
    shown = soon(browser, page.gaussians, 130.0, -15.0)
    assert psnr(shown, expected(page.gaussians, len(shown), 130.0, -15.0)) >= ENOUGH
    constant = replace(page.gaussians, sh=page.gaussians.sh[:, :1])
    assert psnr(shown, expected(constant, len(shown), 130.0, -15.0)) < ENOUGH - 2


def test_sliders_leave_out_the_faint_and_shrink_the_others(browser, page):
    opened(browser, page.url)
    kept = page.gaussians.opacities.sigmoid() >= 0.6
    parts = {name: value[kept] for name, value in page.gaussians.tensors().items()}
    changed = Gaussians(**{**parts, "scales": parts["scales"] + np.log(0.5)})
    try:
        turn(browser, "opacity from", "0.6")
        turn(browser, "splat size", "0.5")
        shown = soon(browser, changed)
    finally:
        turn(browser, "opacity from", "0")
        turn(browser, "splat size", "1")
    assert psnr(shown, expected(changed, len(shown))) >= ENOUGH


def test_a_screenshot_is_the_page_without_its_panel(browser, page, tmp_path):
    browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    opened(browser, page.url)
    soon(browser, page.gaussians)
    browser.execute_script(PRESS, "screenshot")
    file = tmp_path / "gsdistill.png"
    until(file.exists)
    taken = np.asarray(Image.open(file).convert("RGB")) / 255.0
    edge = (taken.shape[1] - taken.shape[0]) // 2
    assert psnr(taken[:, edge : edge + len(taken)], expected(page.gaussians, len(taken))) >= ENOUGH


def test_a_page_of_another_site_is_shut_out(browser, page, serve, console_errors, tmp_path):
    import viser

    words = page.url.replace("http", "ws"), f"viser-v{viser.__version__}"
    (tmp_path / "index.html").write_text("<!doctype html><title>another site</title>")
    browser.get(serve(tmp_path))
    assert browser.execute_async_script(SOCKET, *words) == "refused"
    assert console_errors(browser)
    opened(browser, page.url)
    assert browser.execute_async_script(SOCKET, *words) == "open"


def turn(browser, label: str, value: str) -> None:
    """Type a number beside a slider."""
    from selenium.webdriver.common.keys import Keys

    until(lambda: browser.execute_script(INPUT, label) is not None)
    box = browser.execute_script(INPUT, label)
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(value, Keys.ENTER)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
