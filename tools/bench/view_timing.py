"""Time `gsdistill view` from the start of its process to the first picture in a browser that is open already.

    python tools/bench/view_timing.py --n 10000 --runs 3 [--json times.json]

The spans: "server" until the page's address is printed, "page" until the browser has loaded the page, "picture" until
the canvas shows anything but the background, "all" of them; and "imports", what a process needs that imports the same
as the server's and ends. The splat is --n Gaussians at random in a ball.
The browser is a headless Chromium whose WebGL runs in software. Medians of --runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gsdistill.bench.figures import environment
from gsdistill.core.structs import Gaussians
from gsdistill.disk.write import write_json
from gsdistill.export.ply import Ply

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

IMPORTS = "import gsdistill.cli.main, gsdistill.viewer.sources, gsdistill.viewer.panel, viser"
SWITCHES = (
    "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader", "--no-first-run", "--disable-background-networking", "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1024,768",
)  # fmt: skip
WATCH = """
const context = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, options) {
  return context.call(this, kind, { ...options, preserveDrawingBuffer: true });
};
const small = new OffscreenCanvas(48, 32).getContext("2d", { willReadFrequently: true });
function look() {
  const canvas = [...document.querySelectorAll("canvas")].find((element) => element.width > 0);
  if (canvas) {
    small.clearRect(0, 0, 48, 32);
    small.drawImage(canvas, 0, 0, 48, 32);
    const pixels = small.getImageData(0, 0, 48, 32).data;
    if (pixels.some((value, i) => i % 4 < 3 && pixels[i - (i % 4) + 3] === 255 && value < 200)) {
      window.firstPicture = performance.timeOrigin + performance.now();
      return;
    }
  }
  requestAnimationFrame(look);
}
requestAnimationFrame(look);
"""
LOADED = "return performance.timeOrigin + performance.getEntriesByType('navigation')[0].loadEventEnd"


def main() -> None:
    """Print the table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="Gaussians")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, browser(folder) as chrome:
        chrome.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
        Ply().write(ball(given.n), Path(folder) / "ball.ply")
        rows = [measure(Path(folder) / "ball.ply", chrome) for _ in range(given.runs)]
    times = {name: round(statistics.median(row[name] for row in rows), 2) for name in rows[0]}
    for name, seconds in times.items():
        print(f"{name:<10}{seconds:6.2f} s")
    print(f"load of the machine {os.getloadavg()[0]:.1f}")
    if given.json:
        write_json(
            given.json,
            {"n": given.n, "seconds": times, "runs": rows, "environment": environment(torch.device("cpu"), "float32")},
        )


def ball(count: int) -> Gaussians:
    """Gaussians in the colours and opacities of chance, about as large as their spacing."""
    random = torch.Generator().manual_seed(0)
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=random), dim=-1)
    return Gaussians(
        means=direction * 0.8 * torch.rand(count, 1, generator=random) ** (1 / 3),
        quats=torch.randn(count, 4, generator=random),
        scales=torch.full((count, 3), 0.8 * count ** (-1 / 3)).log(),
        opacities=torch.randn(count, generator=random),
        sh=torch.randn(count, 1, 3, generator=random),
    )


@contextmanager
def browser(folder: str) -> Iterator[Chrome]:
    """A Chromium with nothing of the user's in it."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

    options, driver = ChromeOptions(), shutil.which("chromedriver")
    options.binary_location = shutil.which("chromium") or ""
    if not options.binary_location or driver is None:
        raise SystemExit("needs Chromium and its driver: apt-get install chromium chromium-driver")
    for switch in (*SWITCHES, f"--user-data-dir={folder}/chromium"):
        options.add_argument(switch)
    chrome = Chrome(options, Service(executable_path=driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def measure(path: Path, chrome: Chrome) -> dict[str, float]:
    """Seconds of each span of one run."""
    chrome.get("about:blank")
    began = time.time()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    imports = time.time() - began
    began = time.time()
    words = [sys.executable, "-u", "-m", "gsdistill", "view", str(path), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[0]
        up = time.time() - began
        chrome.get(url)
        loaded = chrome.execute_script(LOADED) / 1e3 - began
        picture = first_picture(chrome) - began
        process.send_signal(signal.SIGINT)
    return {"server": up, "page": loaded - up, "picture": picture - loaded, "all": picture, "imports": imports}


def first_picture(chrome: Chrome) -> float:
    """When the canvas first showed something, in seconds since 1970."""
    for _ in range(600):
        found = chrome.execute_script("return window.firstPicture || 0")
        if found:
            return found / 1e3
        time.sleep(0.1)
    raise SystemExit("no picture within a minute")


if __name__ == "__main__":
    main()
