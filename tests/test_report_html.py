"""The report: one file without a network, the same bytes again, safe whatever a title says, and honest about holes."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from speech_mining.lake import Lake
from speech_mining.listening.judgements import Judged, Judgement
from speech_mining.mining.kinds import SPEECH_TO_SPEECH
from speech_mining.quality.summary import Mined, summarise
from speech_mining.report import ReportPlan, report_html
from speech_mining.report.samples import TRANSCRIPTS
from tests.listening_lake import PAIR, RATE_HZ, make_lake, pitch_hz

SCORES = [1.005 + 0.01 * number for number in range(12)]
HOSTILE = "</dd><script>alert(1)</script>\u202e\u2067evil \"'<img src=x onerror=alert(1)>" + "x" * 10_000


class Tags(HTMLParser):
    """Counts what a browser would make of the file."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def report(lake: Lake, plan: ReportPlan | None = None, **told: object) -> str:
    summary = summarise(lake, ("deu", "eng"), [Mined(SPEECH_TO_SPEECH, (PAIR,))])
    return report_html(lake, summary, plan, **told)  # type: ignore[arg-type]


def test_the_file_asks_for_nothing_and_is_the_same_again(tmp_path: Path) -> None:
    page = report(make_lake(tmp_path / "one", SCORES))
    assert page == report(make_lake(tmp_path / "two", SCORES))
    tags = Tags(page)
    sources = [found.get(name) for _, found in tags.found for name in ("src", "href", "data", "srcset", "poster")]
    asked = [source for source in sources if source and not source.startswith(("data:", "#"))]
    assert set(asked) == {"https://archive.org/one.mp3"}  # links to follow, in `a` alone
    assert all(found.get("src") is None for found in tags.of("script"))
    assert not tags.of("link")[1:] and "@import" not in page and "url(" not in page


def test_each_sample_plays_its_own_segment(tmp_path: Path) -> None:
    tags = Tags(report(make_lake(tmp_path, SCORES), ReportPlan(samples=3)))
    sounds = [str(found["src"]) for found in tags.of("audio")]
    heard = []
    for sound in sounds:
        kind, _, packed = sound.partition(",")
        assert kind == "data:audio/mpeg;base64"
        samples, _ = soundfile.read(io.BytesIO(base64.b64decode(packed)))
        spectrum = np.abs(np.fft.rfft(samples))
        heard.append(round(float(spectrum.argmax()) * RATE_HZ / len(samples)))
    wanted = [pitch_hz(language, number) for number in (11, 6, 0) for language in ("deu", "eng")]
    assert heard == pytest.approx(wanted, abs=2)


def test_hostile_titles_stay_text(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, SCORES, {"title": HOSTILE, "readers": HOSTILE, "url": "javascript:alert(1)"})
    page = report(lake, ReportPlan(samples=1))
    tags = Tags(page)
    assert (len(tags.of("script")), len(tags.of("img"))) == (1, 0)
    assert not [found for found in tags.of("a") if str(found["href"]).startswith("javascript")]
    assert not [name for _, found in tags.found for name in found if name.startswith("on")]
    assert "&lt;script&gt;alert(1)" in page
    for shown in re.findall(r"<dd[^>]*>[^<]*\u202e", page):
        assert 'dir="auto"' in shown  # of its own direction: the marks turn nothing else around
    policy = tags.of("meta")[1]["content"] or ""
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_what_is_said_is_shown_where_it_is_known(tmp_path: Path) -> None:
    lines = [("11", 1, 11_000, 11_900, "Guten <Tag>."), ("11", 1, 11_800, 13_000, "Zu spät."), ("33", 1, 0, 1, "Nie.")]
    known = pl.DataFrame(lines, schema=dict(TRANSCRIPTS), orient="row")
    page = report(make_lake(tmp_path, SCORES), ReportPlan(samples=1), transcripts=known)
    assert re.findall(r'class="said"[^>]*>([^<]*)<', page) == ["Guten &lt;Tag&gt;."]


def test_sound_stays_within_its_budget_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, SCORES)
    page = report(lake, ReportPlan(samples=8, audio_bytes=20_000))
    packed = [str(found["src"]).partition(",")[2] for found in Tags(page).of("audio")]
    assert 0 < sum(len(base64.b64decode(sound)) for sound in packed) <= 20_000
    assert len(packed) + page.count("Left out: the report would grow") == 16


def test_audio_that_vanished_and_pairs_half_migrated_are_told_in_their_place(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, SCORES)
    flac = lake.partition("raw_audio", "deu", "11").local_path("one.flac")
    flac.unlink()
    page = report(lake, ReportPlan(samples=2))
    assert page.count("has no file one.flac") == 2 and len(Tags(page).of("audio")) == 2
    with lake.replace("s2s_pairs", PAIR) as new:
        new.write_frame("pairs.parquet", pl.DataFrame({"score": [1.1]}))
        new.write_json("scoring.json", {"threshold": 1.0})
    page = report(lake)
    assert "materialize the partition again" in page and "Hours at every threshold" in page


def test_judgements_draw_accuracy(tmp_path: Path) -> None:
    lake = make_lake(tmp_path, SCORES)
    pairs = lake.partition("s2s_pairs", PAIR).read_frame("pairs.parquet")
    said = tuple(
        Judgement("s2s", PAIR, str(a), str(b), 1.1, "right", "ada", "2026-01-31T12:00:00+00:00", "", "")
        for a, b in pairs.select("source_segment", "target_segment").rows()
    )
    page = report(lake, ReportPlan(samples=0), judged={("s2s", PAIR): Judged(said)})
    assert "Judged by people: 12 right, 0 partly, 0 wrong" in page
    assert 'aria-label="Accuracy by threshold"' in page


def test_a_lake_without_corpora_gives_a_page(tmp_path: Path) -> None:
    assert "Quality report" in report(Lake(tmp_path / "lake"))


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_in_a_browser_tables_sort_sound_plays_and_a_phone_needs_no_scrolling(tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: install speech-mining[dev]")
    path = tmp_path / "report.html"
    path.write_text(report(make_lake(tmp_path, SCORES, {"title": HOSTILE}), ReportPlan(samples=3)), "utf-8")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 360, "height": 740})
        troubles: list[str] = []
        page.on("console", lambda told: troubles.append(told.text) if told.type == "error" else None)
        page.on("dialog", lambda dialog: troubles.append("a dialog"))
        page.goto(path.as_uri())
        for summary in page.locator("summary").all():
            summary.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        head = page.locator("#all th").first
        head.locator("button").click()
        first = page.locator("#all tbody td").first
        sync_api.expect(first).to_have_text("1.20")
        head.locator("button").click()
        sync_api.expect(first).to_have_text("1.00")
        page.evaluate("document.querySelector('audio').play()")
        sync_api.expect(page.locator("audio").first).to_have_js_property("ended", True)
        assert troubles == []
        browser.close()


def test_a_distribution_counts_every_value_and_marks_the_threshold_only_where_it_lies() -> None:
    from speech_mining.listening.charts import distribution_chart

    drawn = distribution_chart(pl.Series([1.0, 1.0, 1.1, 1.2]), "Scores", "score <margin>", threshold=1.06)
    heights = [float(found) for found in re.findall(r'class="bar"[^>]* height="([0-9.]+)"', drawn)]
    assert len(heights) == 3 and max(heights) == pytest.approx(2 * min(heights), rel=0.01)
    assert "in force 1.06" in drawn and "score &lt;margin&gt;" in drawn
    assert "in force" not in distribution_chart(pl.Series([1.0, 1.2]), "Scores", "score", threshold=2.0)
    assert distribution_chart(pl.Series([3.0]), "Durations", "seconds").count('class="bar"') == 1
