"""The gallery: every run once, links that hold, keys to sort by, and broken runs told apart."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from pages.folder import Page, make_run
from rich.console import Console

from gsdistill.core.errors import BadFile
from gsdistill.disk.write import write_json
from gsdistill.pages.gallery import find_runs, write_gallery


def make(folder, **settings) -> Page:
    write_gallery(folder, Console(quiet=True), **settings)
    return Page(settings.get("output") or folder / "gallery.html")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    make_run(folder / "a-blue-chair" / "sds-seed0", method="sds", video=True)
    one = make_run(folder / "sweep" / "runs" / "ein stuhl #1: 100%?" / "ssd", prompt="<b>&\"'", method="ssd", seed=5)
    write_json(one / "evaluation.json", {"iou": 0.5})
    make_run(folder / "stopped", finished=False)
    write_json(make_run(folder / "failed", finished=False) / "failure.json", {"error": "diverged <b>"})
    broken = make_run(folder / "broken<i>")
    (broken / "summary.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def page(outputs):
    return make(outputs)


def test_every_run_is_there_once(outputs, page):
    assert [isinstance(run, BadFile) for _, run in find_runs(outputs)].count(True) == 1
    assert len(page.all("li", class_="card")) == 4
    texts = [text for _, text in page.all("li")]
    assert any("broken<i>/summary.json: not valid JSON" in text for text in texts)
    states = [text for _, text in page.all("p", class_="state bad")]
    assert sorted(states) == ["failed: diverged <b>", "unfinished"]


def test_links_hold_and_are_relative(outputs, page):
    targets = [
        a[key] for name, a, _ in page.elements for key in ("src", "href", "data-video") if name != "link" and a.get(key)
    ]
    assert len(targets) >= 9
    assert all(target.startswith("./") and (outputs / unquote(target)).is_file() for target in targets)


def test_a_page_elsewhere_links_back(outputs, tmp_path_factory):
    other = tmp_path_factory.mktemp("elsewhere") / "page.html"
    links = [a["href"] for a, _ in make(outputs, output=other, title="mine").all("a")]
    assert links and all((other.parent / unquote(link)).is_file() for link in links)


def test_only_what_is_asked_for_is_loaded(page):
    assert not page.all("video") and all(image["loading"] == "lazy" for image, _ in page.all("img"))
    assert len(page.all("script")) == 1 and "http" not in page.source.replace("http-equiv", "")


def test_sort_keys(page):
    cards = {a["data-method"]: a for a, _ in page.all("li", class_="card")}
    ssd = cards["ssd"]
    assert (ssd["data-prompt"], ssd["data-seed"], ssd["data-iou"]) == ("<b>&\"'", "5", "0.5")
    assert (ssd["data-gaussians"], ssd["data-evaluations"], ssd["data-seconds"]) == ("554", "2400", "10.0")
    options = [a["value"] for a, _ in page.all("option")]
    assert {"prompt", "date", "iou", "seconds", "evaluations", "gaussians"} <= set(options)
    assert "surface_chamfer" not in options, "no run has it"


def test_the_prompt_is_text(page):
    assert "<b>&\"'" in [text for _, text in page.all("h2")]
    assert not page.all("b") and not page.all("i")


@pytest.mark.parametrize("foreign", ["- 1\n", "learning_rate: 1\n", "{", "\x00"])
def test_a_foreign_config_hides_no_run_below_it(tmp_path, foreign):
    run = make_run(tmp_path / "project" / "outputs" / "run")
    (tmp_path / "project" / "config.yaml").write_text(foreign)
    found = dict(find_runs(tmp_path))
    assert list(found) == [tmp_path / "project", run]
    assert isinstance(found[tmp_path / "project"], BadFile) and not isinstance(found[run], BadFile)


def test_what_a_run_does_not_tell_is_no_word_of_python(tmp_path):
    run = make_run(tmp_path / "run", finished=False)
    (run / "config.yaml").write_text("prompt: a red torus\nseed: null\n")
    (run / "failure.json").write_text('{"error": null}')
    page = make(tmp_path)
    assert page.all("p", class_="quiet")[0][1] == "?, ?, seed ?"
    assert page.all("p", class_="state bad")[0][1] == "failed: no reason is told"
    assert "None" not in page.source


def test_nowhere_and_nothing(tmp_path):
    with pytest.raises(BadFile, match="is not a folder"):
        make(tmp_path / "nowhere")
    with pytest.raises(BadFile, match="holds no run"):
        make(tmp_path)
    assert not list(tmp_path.iterdir())
