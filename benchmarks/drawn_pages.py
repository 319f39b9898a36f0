"""The pages of Dagster's UI in a real browser: how long until they are drawn, and what they asked meanwhile."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.served import Webserver

WITHIN_MS = 120_000


def chromium() -> str | None:
    """The browser of this machine."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def absent() -> str:
    """Why no page can be drawn here; empty where one can."""
    if find_spec("playwright") is None:
        return "no playwright: install speech-mining[dev]"
    return "" if chromium() else "no Chromium on this machine"


def drawn(served: Webserver, language: str, pictures: Path) -> list[tuple[str, float, str]]:
    """Open the lineage and the partitions page, each in a fresh browser context.

    Args:
        served: a webserver that answers.
        language: whose partitions are looked at.
        pictures: a folder for a picture of each page.

    Returns:
        Name of the page, seconds until what it is for is to be seen, and what it asked until then.
    """
    from playwright.sync_api import sync_playwright

    pages = {
        "lineage": ("/asset-groups", f'text="{language}" >> visible=true >> nth=1'),  # once in the list, once drawn
        "partitions": (f"/assets/{language}/segments?view=partitions", r"text=/Materialized \([1-9]/ >> visible=true"),
    }
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        for name, (path, sign) in pages.items():
            context = browser.new_context(viewport={"width": 1600, "height": 1000})
            found.append((name, *_drawn(context.new_page(), served.address + path, sign, pictures / f"{name}.png")))
            context.close()
        browser.close()
    return found


def _drawn(page: Any, address: str, sign: str, picture: Path) -> tuple[float, str]:
    asked: Counter[str] = Counter()
    page.on("request", lambda request: asked.update(_operation(request)))
    began = time.perf_counter()
    page.goto(address, timeout=WITHIN_MS)
    page.wait_for_selector(sign, timeout=WITHIN_MS)
    seconds = time.perf_counter() - began
    until_then = sum(asked.values())
    page.wait_for_timeout(5000)  # the state of each asset comes after its place
    page.screenshot(path=str(picture))
    return seconds, f"{until_then} questions; picture {picture.name}"


def _operation(request: Any) -> list[str]:
    if "/graphql" not in request.url or request.method != "POST":
        return []
    told = request.post_data_json
    return [str(told.get("operationName"))] if isinstance(told, dict) else []
