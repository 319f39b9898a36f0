"""The listening room in a real browser: plays, judges by keyboard alone, survives a reload, fits a phone.

Skipped where playwright or a Chromium is not installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.test_listening_room import SCORES, serving

sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: install speech-mining[dev]")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u202egnp.exe" + "ß" * 10_000
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1100, "height": 900})
    opened = context.new_page()
    opened.troubles = []
    opened.on("pageerror", lambda problem: opened.troubles.append(str(problem)))
    opened.on("console", lambda told: opened.troubles.append(told.text) if told.type == "error" else None)
    yield opened
    assert opened.troubles == []
    context.close()


def at(page: Any, position: int, of: int = len(SCORES)) -> None:
    sync_api.expect(page.locator("#place")).to_have_text(f"pair {position + 1} of {of}")


def test_both_are_played_judged_by_keyboard_alone_and_a_reload_loses_nothing(page: Any, tmp_path: Path) -> None:
    with serving(tmp_path, told={"title": HOSTILE, "readers": HOSTILE}) as served:
        page.goto(served.door.address)
        at(page, 0)
        assert "token" not in page.url
        page.keyboard.press("Space")
        for side in ("source", "target"):  # one second each, the second after the first
            sync_api.expect(page.locator(f"#{side}")).to_have_class("side playing")
        sync_api.expect(page.locator("#target")).to_have_class("side")
        assert page.evaluate("[...document.querySelectorAll('audio')].map((sound) => sound.currentTime)") == [1, 1]
        for position, key in enumerate("1231s"):
            page.keyboard.press(key)
            at(page, position + 1)
        page.keyboard.press("ArrowLeft")
        at(page, 4)
        sync_api.expect(page.locator("#said")).to_have_text("· you said: skipped")
        page.keyboard.press("u")
        sync_api.expect(page.locator("#said")).to_have_text("")
        page.keyboard.press("n")
        at(page, 5)
        page.reload()
        at(page, 5)
        sync_api.expect(page.locator("#count")).to_have_text("4 of 20 judged")
        sync_api.expect(page.locator("#chart circle").first).to_be_visible()
        page.keyboard.press("?")
        sync_api.expect(page.locator("#help")).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("i")
        sync_api.expect(page.locator("#facts")).to_contain_text("<script>")
        assert page.title() == "German – English: listening room"
        assert [said.verdict for said in served.room.journal.read().lines] == [
            *("right", "partly", "wrong", "right", "skipped", "withdrawn")
        ]


def test_a_phone_shows_it_without_scrolling_sideways_and_a_finger_judges(page: Any, tmp_path: Path) -> None:
    with serving(tmp_path, SCORES[:3], told={"title": HOSTILE}) as served:
        page.set_viewport_size({"width": 360, "height": 740})
        page.goto(served.door.address)
        at(page, 0, 3)
        page.locator("#details summary").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        small = "[...document.querySelectorAll('main button:not([hidden])')].filter((b) => b.offsetHeight < 44).length"
        assert page.evaluate(small) == 0
        page.get_by_role("button", name="Right").click()
        at(page, 1, 3)
        assert [said.verdict for said in served.room.journal.read().lines] == ["right"]


def test_without_a_mouse_the_tabulator_reaches_every_button(page: Any, tmp_path: Path) -> None:
    with serving(tmp_path, SCORES[:3]) as served:
        page.goto(served.door.address)
        at(page, 0, 3)
        reached = []
        for _ in range(16):
            page.keyboard.press("Tab")
            reached.append(page.evaluate("document.activeElement.textContent.trim() || document.activeElement.id"))
        assert {"Right 1", "Partly 2", "Wrong 3", "Skip S", "Play both space", "arrive", "precision"} <= set(reached)


def test_a_recording_that_vanished_is_told_on_the_page(page: Any, tmp_path: Path) -> None:
    with serving(tmp_path, SCORES[:3]) as served:
        served.room.lake.remove("raw_audio", "eng", "22")
        page.goto(served.door.address)
        sync_api.expect(page.locator("#target .trouble")).to_contain_text("raw_audio of eng/22 is not there")
        page.keyboard.press("s")
        at(page, 1, 3)
        page.troubles.clear()  # the browser itself tells of the two answers 500
