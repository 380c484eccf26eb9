"""The report: one file that holds everything, opened in a browser where there is one."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from crisp_rag.eval import DatasetSpec, Suite, run_suite
from crisp_rag.eval.html_report import render
from crisp_rag.eval.plots import Point, front, svg

DOCUMENTS = {f"d{i}": (f"Page {i}", f"The page number {i} is about {word}.") for i, word in enumerate(
    ["alder", "birch", "cedar", "dogwood", "elm", "fir", "ginkgo", "hazel", "<script>alert(1)</script>", "ivy"]
)}  # fmt: skip
QUERIES = {f"q{i}": f"which page is about {text.split()[-1].rstrip('.')}" for i, (_, text) in enumerate(DOCUMENTS.values())}
QRELS = {f"q{i}": {f"d{i}": 1} for i in range(10)}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory, write_folder, make_orderly, make_words):
    root = tmp_path_factory.mktemp("data")
    folder = write_folder(root, "trees & <b>", documents=DOCUMENTS, queries=QUERIES, qrels=QRELS)
    systems = (make_orderly("orderly"), make_words(), "bm25", make_orderly("backwards", backwards=True))
    suite = Suite((DatasetSpec(folder),), systems, baseline="orderly")
    return run_suite(suite, command=["crisp-rag", "eval", "trees & <b>"])


def test_it_needs_nothing_from_elsewhere(outcome):
    html = render(outcome)
    assert "<script" not in html
    assert not re.search(r"""(src|href)=["']?(https?:|//|/|\.)""", html)
    assert "@import" not in html and "url(" not in html
    assert "default-src 'none'" in html


def test_names_and_texts_of_the_data_are_shown_as_text(outcome):
    html = render(outcome)
    assert "trees &amp; &lt;b&gt;" in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_it_shows_every_figure_with_its_interval_and_marks_what_is_more_than_chance(outcome):
    html = " ".join(render(outcome).split())
    figures = outcome.results["trees & <b>"]["words"]
    low, high = figures["intervals"]["nDCG@10"]
    assert f"<b>{figures['nDCG@10']:.3f}</b><small>{low:.3f}–{high:.3f}</small>" in html
    assert 'aria-label="better than orderly">▲' in html
    assert "points above orderly, more than chance would give" in html
    assert f"{figures['bytes_per_document']:,.0f}" in html


def test_it_shows_wins_and_losses_with_texts_and_what_met(outcome):
    html = " ".join(render(outcome).split())
    assert "words: 9 won, 1 tied, 0 lost" in html
    assert ">Win</span> which page is about birch" in html or ">Win</span> which page is about ivy" in html
    assert "✓ relevant" in html and "as words encodes them" in html
    assert re.search(r'<th scope="col">Page \d: \d\.\d\d in all</th>', html)
    assert '<th scope="row">birch</th>' in html or '<th scope="row">ivy</th>' in html


def test_it_holds_what_it_takes_to_run_it_again(outcome):
    html = render(outcome)
    assert "crisp-rag eval &#39;trees &amp; &lt;b&gt;&#39;" in html
    for checksum in outcome.manifest["checksums"]["trees & <b>"].values():
        assert checksum in html
    assert f"scipy {outcome.manifest['packages']['scipy']}" in html


def test_a_single_system_or_a_failure_of_all_makes_a_report_too(make_folder, make_orderly):
    alone = run_suite(Suite((DatasetSpec(make_folder("alone")),), (make_orderly(),)))
    assert "The best nDCG@10 is" in render(alone)
    broken = make_orderly("broken")
    broken.search = lambda queries, k: 1 / 0
    failed = run_suite(Suite((DatasetSpec(make_folder("failed")),), (broken,)))
    assert "broken failed on failed" in render(failed) and "No system was measured." in render(failed)


def test_the_front_holds_what_nothing_beats_in_both_directions():
    cheap, better, beaten, twin = (
        Point("cheap", 1, 0.5, 0.4, 0.6), Point("better", 10, 0.7, 0.6, 0.8), Point("beaten", 10, 0.6, 0.5, 0.7),
        Point("twin", 10, 0.7, 0.6, 0.8),
    )  # fmt: skip
    assert [point.name for point in front([beaten, better, cheap, twin])] == ["cheap", "better", "twin"]


def test_labels_of_points_that_lie_close_do_not_cover_each_other():
    points = [Point(name, 24576, quality, quality - 0.03, quality + 0.03) for name, quality in
              (("posthoc", 0.690), ("crisp", 0.701), ("hybrid", 0.705), ("another-one", 0.695))]  # fmt: skip
    for width, height in ((540, 340), (340, 300)):
        drawn = svg(
            [*points, Point("bm25", 800, 0.67, 0.6, 0.7)], width=width, height=height, title="", x_title="", y_title=""
        )
        places = re.findall(r'class="name" x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)">([^<]+)<', drawn)
        boxes = [
            (
                float(x) - (7 * len(name) if anchor == "end" else 0),
                float(y),
                float(x) + (7 * len(name) if anchor == "start" else 0),
            )
            for x, y, anchor, name in places
        ]
        assert len(boxes) == 5
        assert all(left >= 0 and right <= width for left, _, right in boxes)
        for i, (left, y, right) in enumerate(boxes):
            for other_left, other_y, other_right in boxes[:i]:
                assert abs(y - other_y) >= 12 or right <= other_left or other_right <= left


def browser_path() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
    return os.environ.get("CRISP_RAG_BROWSER") or next(filter(None, map(shutil.which, names)), None)


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = browser_path()
    if path is None:
        pytest.skip("no Chromium or Chrome on this machine; CRISP_RAG_BROWSER names one")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_without_a_complaint_and_nothing_runs_off_the_page(outcome, browser, tmp_path, theme, width):
    report = tmp_path / "report.html"
    report.write_text(render(outcome), encoding="utf-8")
    complaints: list[str] = []
    asked: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=theme)
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    shown = page.locator("svg.plot:visible")
    assert shown.count() == 2 and all(shown.nth(i).bounding_box()["width"] > 250 for i in range(2))
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper)[:3])) > 380) == (theme == "light")
    if folder := os.environ.get("CRISP_RAG_SCREENSHOTS"):
        page.screenshot(path=str(Path(folder, f"report-{theme}-{width}.png")), full_page=True)
    page.close()
    assert complaints == []
    assert asked and all(url.startswith(("file:", "data:")) for url in asked)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(outcome, browser, tmp_path, theme):
    (tmp_path / "report.html").write_text(render(outcome), encoding="utf-8")
    page = browser.new_page(color_scheme=theme)
    page.goto((tmp_path / "report.html").as_uri())
    style = "getComputedStyle(document.documentElement).getPropertyValue"
    for ink in ("--ink", "--muted", "--accent", "--worse"):
        for ground in ("--paper", "--panel", "--soft"):
            colours = [page.evaluate(f"{style}('{name}')").strip() for name in (ink, ground)]
            assert contrast(*colours) >= 4.5, (ink, ground)  # WCAG 2.2, AA
    page.close()


def contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)
