"""The report and the gallery in a real browser: no complaint, no request, and everything on them works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pages.folder import DEFAULTS, losses, make_run
from rich.console import Console

from gsdistill.disk.write import write_json
from gsdistill.pages.gallery import write_gallery
from gsdistill.pages.report import write_report

HOSTILE = "</script><script>document.title = 'taken'</script>\"' onclick='x' <img src=x onerror=document.title='taken'>"
REPORT = "a-chair/report.html"

# Requests of the page beyond itself.
REQUESTS = "return performance.getEntriesByType('resource').map(e => e.name).filter(name => !name.startsWith('data:'))"

# The least contrast of any text with what it stands on, by WCAG's formula, and that text.
CONTRAST = """
const parse = (text) => text.match(/[\\d.]+/g).map(Number);
const part = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
const ground = (element) => {
  for (; element; element = element.parentElement) {
    const colour = parse(getComputedStyle(element).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
};
const found = [];
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  if (!own || element.closest("script") || !element.getClientRects().length) continue;
  const style = getComputedStyle(element);
  const [a, b] = [light(parse(element.closest("svg") ? style.fill : style.color)), light(ground(element))];
  found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), element.textContent.trim().slice(0, 40)]);
}
return found.sort((x, y) => x[0] - y[0])[0];
"""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    for name, prompt, method, iou in (
        ("a-chair", "a blue chair", "sds", 0.95), ("hostile", HOSTILE, "cds", 0.9), ("plain", "a red mug", "cds", None)
    ):  # fmt: skip
        run = make_run(folder / name, prompt=prompt, video=name != "plain", method=method)
        if iou is not None:
            write_json(run / "evaluation.json", {"name": "a blue chair", "iou": iou})
        write_report(run, DEFAULTS, evaluate=False)
    write_gallery(folder, Console(quiet=True))
    return folder


@pytest.fixture(autouse=True)
def usual(browser, console_errors) -> Iterator[None]:
    """Each test begins without complaints and ends with the usual window and colours."""
    console_errors(browser)
    yield
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    scheme(browser, "")


def scheme(browser: Any, value: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": value}]}
    )


def narrow(browser: Any, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def until(ask: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Ask until the answer is true, and return it."""
    end = time.monotonic() + seconds
    while not (answer := ask()) and time.monotonic() < end:
        time.sleep(0.05)
    assert answer
    return answer


def hover(browser: Any, element: Any, x: float = 0, y: float = 0) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).move_to_element_with_offset(element, round(x), round(y)).perform()


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


@pytest.mark.parametrize("page", [REPORT, "hostile/report.html", "gallery.html"])
@pytest.mark.parametrize("where", ["file", "loopback"])
def test_a_page_loads_without_complaint(browser, serve, console_errors, outputs, page, where):
    browser.get(f"{outputs.as_uri() if where == 'file' else serve(outputs)}/{page}")
    assert until(lambda: browser.execute_script("return [...document.images].some(i => i.complete && i.naturalWidth)"))
    assert console_errors(browser) == []
    assert browser.title != "taken"
    asked = browser.execute_script(REQUESTS)
    assert asked == [] if page != "gallery.html" else all(name.endswith("/views.png") for name in asked)


@pytest.mark.parametrize("page", [REPORT, "gallery.html"])
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_text_can_be_read(browser, outputs, page, colours):
    scheme(browser, colours)
    browser.get(f"{outputs.as_uri()}/{page}")
    browser.execute_script("document.querySelectorAll('details').forEach(part => part.open = true)")
    contrast, text = browser.execute_script(CONTRAST)
    assert contrast >= 4.5, text
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert all(value < 40 for value in ground) if colours == "dark" else all(value > 240 for value in ground)


@pytest.mark.parametrize("page", [REPORT, "hostile/report.html", "gallery.html"])
@pytest.mark.parametrize("width", [320, 700])
def test_a_narrow_screen_holds_the_page(browser, outputs, page, width):
    narrow(browser, width)
    browser.get(f"{outputs.as_uri()}/{page}")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_long_prompt_is_cut_on_its_card_and_whole_in_its_title(browser, tmp_path):
    prompt = "a very long blue chair " * 80
    make_run(tmp_path / "long", prompt=prompt)
    write_gallery(tmp_path, Console(quiet=True))
    browser.get(f"{tmp_path.as_uri()}/gallery.html")
    name = find(browser, ".card h2")
    assert name.get_attribute("title") == prompt
    line = float(browser.execute_script("return parseFloat(getComputedStyle(arguments[0]).lineHeight)", name))
    assert 3 * line < name.size["height"] < 6 * line


def test_the_video_plays(browser, outputs):
    browser.get(f"{outputs.as_uri()}/{REPORT}")
    state = "const v = document.querySelector('video'); return [v.videoWidth, v.currentTime]"
    assert until(lambda: browser.execute_script(state)[1] > 0.1)
    width, before = browser.execute_script(state)
    assert width == 64
    assert until(lambda: browser.execute_script(state)[1] != before)


def test_a_curve_tells_its_values(browser, outputs):
    browser.get(f"{outputs.as_uri()}/{REPORT}")
    chart = find(browser, ".chart")
    svg, output = chart.find_element("css selector", "svg"), chart.find_element("css selector", "output")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", svg)
    at_rest = output.text
    records = losses()
    for record in (records[0], records[5], records[-1]):
        share = (record["step"] - records[0]["step"]) / (records[-1]["step"] - records[0]["step"])
        hover(browser, svg, ((40 + 264 * share) / 320 - 0.5) * svg.size["width"])
        value, _, step = output.text.partition(" at step ")
        assert step == f"{record['step']}, {record['seconds']:.1f} s"
        assert float(value.replace(",", "")) == pytest.approx(record["loss"], rel=1e-3)
    hover(browser, find(browser, "h1"))
    assert output.text == at_rest


def test_a_curve_follows_the_keys(browser, outputs):
    from selenium.webdriver.common.keys import Keys

    browser.get(f"{outputs.as_uri()}/{REPORT}")
    svg, output = find(browser, ".chart svg"), find(browser, ".chart output")
    svg.send_keys(Keys.HOME)
    svg.send_keys(Keys.HOME)
    assert output.text.endswith("at step 10, 0.3 s")
    svg.send_keys(Keys.ARROW_RIGHT)
    svg.send_keys(Keys.ARROW_RIGHT)
    assert "at step 40" in output.text, "the step that was not finite is passed over"


def shown(browser: Any) -> list[str]:
    """The prompts on the page's cards, in their order."""
    cards = browser.find_elements("css selector", ".card:not([hidden]) h2")
    return [card.text for card in cards]


def test_the_gallery_is_sorted(browser, outputs):
    from selenium.webdriver.support.select import Select

    browser.get(f"{outputs.as_uri()}/gallery.html")
    assert shown(browser) == [HOSTILE, "a blue chair", "a red mug"]
    Select(find(browser, "#sort")).select_by_value("iou")
    assert shown(browser) == ["a blue chair", HOSTILE, "a red mug"], "the best first, what is missing last"
    find(browser, "#order").click()
    assert shown(browser) == [HOSTILE, "a blue chair", "a red mug"]
    Select(find(browser, "#sort")).select_by_value("method")
    assert shown(browser)[-1] == "a blue chair"


def test_the_gallery_is_filtered(browser, outputs):
    from selenium.webdriver.support.select import Select

    browser.get(f"{outputs.as_uri()}/gallery.html")
    search = find(browser, "#search")
    search.send_keys("CHAIR sds")
    assert shown(browser) == ["a blue chair"] and find(browser, "#count").text == "1 of 3 runs"
    search.clear()
    Select(find(browser, "#method")).select_by_value("cds")
    assert shown(browser) == [HOSTILE, "a red mug"]
    search.send_keys("nothing")
    assert shown(browser) == [] and find(browser, "#none").is_displayed()


@pytest.mark.parametrize("where", ["file", "loopback"])
def test_a_thumbnail_turns_as_video_under_the_pointer(browser, serve, console_errors, outputs, where):
    browser.get(f"{outputs.as_uri() if where == 'file' else serve(outputs)}/gallery.html")
    button = find(browser, "[data-prompt='a blue chair'] .turn")
    hover(browser, button)
    time_of = "const v = arguments[0].querySelector('video'); return v ? v.currentTime : 0"
    assert until(lambda: browser.execute_script(time_of, button) > 0.05)
    hover(browser, find(browser, "h1"))
    assert not button.find_elements("css selector", "video")
    assert console_errors(browser) == []


def test_a_thumbnail_turns_without_video(browser, outputs):
    browser.get(f"{outputs.as_uri()}/gallery.html")
    button = find(browser, "[data-prompt='a red mug'] .turn")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    offset = "const [a, b] = [arguments[0].firstChild, arguments[0]].map((e) => e.getBoundingClientRect()); "
    offset += "return (b.left - a.left) / b.width"
    assert browser.execute_script(offset, button) == 0
    hover(browser, button)
    side = until(lambda: browser.execute_script(offset, button))
    assert side == pytest.approx(round(side)), "one whole side at a time"
    hover(browser, find(browser, "h1"))
    assert browser.execute_script(offset, button) == 0


def test_a_thumbnail_turns_for_keys_and_touch(browser, outputs):
    browser.get(f"{outputs.as_uri()}/gallery.html")
    button = find(browser, "[data-prompt='a red mug'] .turn")
    name = "return getComputedStyle(arguments[0].firstChild).animationName"
    browser.execute_script("arguments[0].focus({focusVisible: true})", button)
    assert browser.execute_script(name, button) == "turn"
    browser.execute_script("arguments[0].blur()", button)
    assert browser.execute_script(name, button) == "none"
    browser.execute_script("arguments[0].click()", button)
    assert browser.execute_script(name, button) == "turn"
    browser.execute_script("arguments[0].click()", button)
    assert browser.execute_script(name, button) == "none"
