"""The report of a run: whole in itself, true to the run's files, and safe whatever a prompt holds."""

from __future__ import annotations

import base64
import json
import re
from io import BytesIO
from itertools import pairwise

import pytest
from pages.folder import DEFAULTS, PHASES, Page, losses, make_run
from PIL import Image

from gsdistill.core.errors import BadFile
from gsdistill.disk.write import write_json
from gsdistill.evaluation import plain
from gsdistill.export.ply import Ply
from gsdistill.pages.report import write_report
from gsdistill.run.measure import evaluate_run, keep_figures
from gsdistill.run.read import read_run
from gsdistill.scene.parts import parts
from gsdistill.scene.read import read_splat

HOSTILE = (
    "</script></title></style><script>alert(1)</script>\"' onerror='alert(2)' <img src=x> & \u202e\x00 ]]> <!-- 日本 🪑"
)
MEASURED = {"name": "a blue chair", "name_right": True, "iou": 0.8765, "colour_right": True, "floaters": 0.0}


def report(folder, evaluate=False) -> Page:
    return Page(write_report(folder, DEFAULTS, evaluate))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "whole", video=True, seed=7, method="sds")
    write_json(folder / "evaluation.json", MEASURED)
    return folder


@pytest.fixture(scope="module")
def page(whole):
    return report(whole)


@pytest.mark.slow
def test_nothing_is_fetched(page):
    sources = [attributes["src"] for name, attributes, _ in page.elements if "src" in attributes]
    assert len(sources) >= 1 + 1 + 3 + 2  # video, sheet, snapshots, splat and truth
    assert all(source.startswith("data:") for source in sources)
    own = re.sub(r"data:[\w/]+;base64,[\w+/=]+", "", page.source)
    assert "http" not in own.replace("http-equiv", "") and "url(" not in own
    assert [link["href"] for link, _ in page.all("link")] == ["data:,"]


def test_links_lead_to_files_beside_it(whole, page):
    links = [link["href"] for link, _ in page.all("a")]
    assert {"gaussians.ply", "turntable.mp4", "config.yaml"} <= set(links)
    assert all((whole / link).is_file() for link in links)


def test_the_policy_allows_what_is_inside_and_nothing_else(page):
    (policy,) = [a["content"] for a, _ in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert rules["img-src"] == rules["media-src"] == "data:"
    assert rules["script-src"].startswith("'sha256-") and rules["style-src"].startswith("'sha256-")
    assert not [
        name for _, attributes, _ in page.elements for name in attributes if name == "style" or name[:2] == "on"
    ]


def test_pictures_and_video_are_those_of_the_run(whole, page):
    (video,) = page.all("video")
    assert base64.b64decode(video[0]["src"].partition(",")[2]) == (whole / "turntable.mp4").read_bytes()
    assert {"controls", "loop", "muted", "autoplay", "playsinline"} <= set(video[0])
    images = page.all("img")
    assert all(image["alt"] for image, _ in images)
    around = next(image for image, _ in images if "from eight sides" in image["alt"])
    sheet = Image.open(BytesIO(base64.b64decode(around["src"].partition(",")[2])))
    assert sheet.size == Image.open(whole / "views.png").size


def test_curves_hold_the_records(page):
    charts = {
        json.loads(a["data-points"])[0][1]: json.loads(a["data-points"]) for a, _ in page.all("figure", class_="chart")
    }
    loss = charts[losses()[0]["loss"]]
    assert [point[:3] for point in loss] == [[r["step"], r["loss"], r["seconds"]] for r in losses()]
    assert {601, 500.5} < charts.keys()


def test_a_curve_falls_where_its_values_fall(page):
    points = next(p for a, _ in page.all("figure", class_="chart") if (p := json.loads(a["data-points"]))[0][1] > 500.6)
    places = [point[3:] for point in points if point[1] is not None]
    assert all(x < further and y < lower for (x, y), (further, lower) in pairwise(places))
    (path,) = [a["d"] for a, _ in page.all("path", class_="curve")[:1]]
    assert path.count("M") == 2, "the loss that was not finite is a gap"


def test_the_bar_has_the_phases_and_the_rest(page):
    widths = [float(a["width"]) for a, _ in page.all("rect")]
    seconds = [value for value in PHASES.values() if value] + [10.0 - sum(PHASES.values())]
    assert widths == pytest.approx([100 * value / 10.0 for value in seconds], abs=1e-3)


def test_figures_are_shown(page):
    text = " ".join("".join(words) for _, _, words in page.elements)
    for figure in ("554", "of 612; faint ones were removed", "120", "10 s", "2,400", "481 MB", "0.876", "1 skipped"):
        assert figure in text


def test_settings_that_differ_are_marked(page):
    marked = {text.strip() for _, text in page.all("mark")}
    assert {"name: sds", "seed: 7", "iterations: 120", "prior: shapes"} == marked
    assert "output:" not in page.source, "a page that is passed on does not tell where it was made"


def test_headings_form_a_tree(page):
    levels = [name for name, _, _ in page.elements if name in ("h1", "h2", "h3", "h4")]
    assert levels[0] == "h1" and set(levels[1:]) == {"h2"} and page.elements[0][1]["lang"] == "en"


def test_a_hostile_prompt_is_text(tmp_path):
    folder = make_run(tmp_path / "run", prompt=HOSTILE, negative_prompt=HOSTILE)
    write_json(folder / "failure.json", {"error": HOSTILE})
    page, plain = report(folder), report(make_run(tmp_path / "plain"))
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\u202e", "\ufffd")
    assert page.all("h1")[0][1] == shown
    assert page.all("title")[0][1].startswith(shown)
    assert len(page.all("script")) == 1 and page.all("script") == plain.all("script")
    assert sorted({name for name, _, _ in page.elements}) == sorted({name for name, _, _ in plain.elements})
    assert len(page.all("img")) == len(plain.all("img"))


@pytest.mark.parametrize("alarms", [[], ["the scene has blown up; lower optim.means", "</p><script>alert(1)</script>"]])
def test_what_a_run_has_found_of_its_health(tmp_path, alarms):
    folder = make_run(tmp_path)
    found = {"skipped": 0.05, "grown": 812, "pruned": 95, "pruned_share": 0.07, "broken": 0, "extent": 0.764}
    found |= {"drift": 1.29, "coverage": 1.77, "garish": 0.02, "saturation": 0.91}
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert not any(text == "Health" for _, text in report(folder).all("h2"))
    write_json(folder / "summary.json", {**summary, "health": found, "alarms": alarms})
    page = report(folder)
    shown = [text for _, text in page.all("p", class_="bad")]
    assert shown == alarms
    text = " ".join("".join(words) for _, _, words in page.elements)
    assert ("No alarm." in text) is not bool(alarms)
    for figure in ("5 %", "812", "95", "7 % of all", "0.764", "1.29 times", "1.77", "0.910", "2 % far outside"):
        assert figure in text


@pytest.mark.parametrize("found", [None, [], {}, {"extent": "endless", "drift": None, "skipped": True}])
def test_health_that_is_none_of_ours_is_left_out(tmp_path, found):
    folder = make_run(tmp_path)
    write_json(folder / "summary.json", {"health": found, "alarms": {"a": 1}})
    assert "endless" not in report(folder).source


def test_a_stopped_run_says_so(tmp_path):
    page = report(make_run(tmp_path, finished=False, iterations=300))
    text = " ".join("".join(words) for _, _, words in page.elements)
    assert "unfinished" in text and "120 of 300" in text and "No turntable" in text
    assert not page.all("video") and not page.all("rect")


def test_a_run_that_has_only_begun(tmp_path):
    folder = make_run(tmp_path, finished=False)
    for path in [
        *folder.glob("snapshots/*"),
        *(folder / name for name in ("metrics.jsonl", "views.png", "gaussians.ply")),
    ]:
        path.unlink()
    text = " ".join("".join(words) for _, _, words in report(folder, evaluate=True).elements)
    assert "No pictures" in text and "No curves" in text and not (folder / "evaluation.json").exists()


@pytest.mark.slow
def test_figures_are_measured_once_and_kept(tmp_path):
    folder = make_run(tmp_path)
    page = report(folder, evaluate=True)
    kept = json.loads((folder / "evaluation.json").read_text())
    assert evaluate_run(folder).items() <= kept.items() and plain.MEANINGS.keys() <= kept.keys()
    assert any(text == kept["name"] for _, text in page.all("dd"))
    write_json(folder / "evaluation.json", {**kept, "iou": 0.123})
    assert any(text == "0.123" for _, text in report(folder, evaluate=True).all("dd"))


def test_figures_that_cannot_be_kept_are_known_before_the_work(tmp_path, monkeypatch):
    folder = make_run(tmp_path)
    (folder / "evaluation.json").write_text("{")
    monkeypatch.setattr("gsdistill.evaluation.truth.evaluate", lambda *given: pytest.fail("measured"))
    with pytest.raises(BadFile, match="not valid JSON"):
        report(folder, evaluate=True)


def test_figures_are_kept_beside_what_is_there(tmp_path):
    write_json(tmp_path / "evaluation.json", {"seconds": 1, "iou": 0.1})
    keep_figures(tmp_path, {"iou": 0.9})
    assert json.loads((tmp_path / "evaluation.json").read_text()) == {"seconds": 1, "iou": 0.9}


def test_figures_of_an_earlier_version_are_read_by_the_names_of_today(tmp_path):
    folder = make_run(tmp_path / "old", seed=3)
    write_json(folder / "evaluation.json", {**MEASURED, "chamfer": 0.25})
    assert read_run(folder).evaluation == {**MEASURED, "centre_chamfer": 0.25}
    text = report(folder).source
    assert "centre Chamfer" in text and "0.25" in text and "surface Chamfer" not in text


def test_numbers_that_cannot_be_computed_with_are_gaps(tmp_path):
    folder = make_run(tmp_path, finished=False)
    lines = [(1, "1e308"), (2, "0.5"), (3, "-1e308"), (4, "0.25"), (5, "NaN"), (6, str(10**400))]
    (folder / "metrics.jsonl").write_text("".join(f'{{"step": {k}, "loss": {value}}}\n' for k, value in lines))
    (points,) = [json.loads(a["data-points"]) for a, _ in report(folder).all("figure", class_="chart")]
    assert [point[1] for point in points] == [None, 0.5, None, 0.25, None, None]


def test_a_picture_that_no_page_holds_is_named(tmp_path):
    folder = make_run(tmp_path)
    Image.new("RGB", (17_000, 1)).save(folder / "views.png")
    with pytest.raises(BadFile, match=r"views\.png: not a picture that can be embedded"):
        report(folder)


def test_a_long_course_is_thinned_and_keeps_its_ends(tmp_path):
    folder = make_run(tmp_path, finished=False)
    (folder / "metrics.jsonl").write_text("".join(f'{{"step": {k}, "loss": {k}}}\n' for k in range(1, 5001)))
    (points,) = [json.loads(a["data-points"]) for a, _ in report(folder).all("figure", class_="chart")]
    steps = [point[0] for point in points]
    assert len(steps) == 1000 and (steps[0], steps[-1]) == (1, 5000) and max(b - a for a, b in pairwise(steps)) == 6


def test_figures_outlive_the_splat(tmp_path):
    folder = make_run(tmp_path)
    write_json(folder / "evaluation.json", MEASURED)
    (folder / "gaussians.ply").unlink()
    page = report(folder, evaluate=True)
    assert any(text == "0.876" for _, text in page.all("dd")) and "the splat is gone" in page.source


def test_a_prompt_of_another_world_has_the_figures_that_need_no_truth(tmp_path):
    page = report(make_run(tmp_path, prompt="a corgi in a hat"), evaluate=True)
    assert "Beside the truth" not in page.source and "By itself" in page.source
    assert json.loads((tmp_path / "evaluation.json").read_text()).keys() == plain.MEANINGS.keys()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("summary.json", "{", "not valid JSON"),
        ("summary.json", "[]", "expected a JSON object"),
        ("metrics.jsonl", '{"step": 1}\n{"step"', "line 2"),
        ("metrics.jsonl", '{"loss": 1}', "names no step"),
        ("metrics.jsonl", f'{{"step": {10**400}}}', "names no step"),
        ("views.png", "text", "not a picture"),
        ("turntable.mp4", "text", "not an MP4"),
        ("gaussians.ply", "text", "not a splat that is read"),
        ("config.yaml", "seed: 1", "names no prompt"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path, name, content, words):
    folder = make_run(tmp_path)
    (folder / name).write_text(content)
    with pytest.raises(BadFile, match=words) as caught:
        write_report(folder, DEFAULTS)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder / "report.html").exists()


def test_what_floats_loose_is_shown_first(tmp_path):
    folder = make_run(tmp_path / "run")
    write_report(folder, DEFAULTS, evaluate=False)
    first, _ = Page(folder / "report.html").all("img")[0]
    assert "floats loose" in first["alt"]
    splat = read_splat(folder / "gaussians.ply")
    main = parts(splat) == 0
    Ply().write(splat.each(lambda value: value[main]), folder / "gaussians.ply")
    write_report(folder, DEFAULTS, evaluate=False)
    assert "floats loose" not in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_no_run_and_a_method_that_is_not_here(tmp_path):
    """What another machine's packages brought need not be installed to look at a run."""
    with pytest.raises(BadFile, match="there is no such folder"):
        write_report(tmp_path / "nowhere", DEFAULTS)
    folder = make_run(tmp_path / "run")
    (folder / "config.yaml").write_text("prompt: a red torus\nmethod: nobodys\n")
    write_report(folder, DEFAULTS)
    assert "nobodys" in (folder / "report.html").read_text()
