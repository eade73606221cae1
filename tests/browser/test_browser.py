"""The browser itself: it draws with WebGL 2, runs modules, reports errors, and reaches nothing beyond loopback."""

from __future__ import annotations

PAGE = """<!doctype html><title>waiting</title><script type="module">
import {name} from "./name.mjs";
document.title = name;
</script>"""

CLEAR = """
const gl = document.createElement("canvas").getContext("webgl2");
gl.clearColor(1, 0.4, 0, 1);
gl.clear(gl.COLOR_BUFFER_BIT);
const pixel = new Uint8Array(4);
gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
return [...pixel, devicePixelRatio];
"""

FETCH = "const done = arguments[1]; fetch(arguments[0]).then(() => done('reached'), () => done('refused'));"


def test_a_module_is_loaded_without_complaint(browser, serve, console_errors, tmp_path):
    (tmp_path / "index.html").write_text(PAGE)
    (tmp_path / "name.mjs").write_text('export const name = "loaded";')
    console_errors(browser)
    browser.get(serve(tmp_path))
    assert browser.title == "loaded"
    assert console_errors(browser) == []


def test_an_error_is_reported_once(browser, serve, console_errors, tmp_path):
    (tmp_path / "index.html").write_text('<script>throw new Error("on purpose")</script>')
    console_errors(browser)
    browser.get(serve(tmp_path))
    assert ["on purpose" in message for message in console_errors(browser)] == [True]
    assert console_errors(browser) == []


def test_webgl_draws(browser):
    browser.get("about:blank")
    assert browser.execute_script(CLEAR) == [255, 102, 0, 255, 1]


def test_nothing_beyond_loopback_is_reached(browser, serve, console_errors, tmp_path):
    (tmp_path / "index.html").write_text("<title>here</title>")
    here = serve(tmp_path)
    browser.get(here)
    assert browser.execute_async_script(FETCH, here) == "reached"
    assert browser.execute_async_script(FETCH, "http://example.com") == "refused"
    assert any("ERR_NAME_NOT_RESOLVED" in message for message in console_errors(browser))
