"""docs/literature.md: every table and figure of the sources has a row, and what it names of ours is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from resources.settings import Settings, load_settings
from s2s_assets.definitions import build
from speech_mining.cli.app import _bind
from speech_mining.training.configuration import StudentConfig

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "literature.md"
TEXT = PAGE.read_text("utf-8")
ROMAN = "I II III IV V VI VII VIII IX X XI XII XIII XIV XV XVI XVII".split()
NUMBERED = {
    "2": [
        *(f"Table {number}" for number in range(1, 9)),
        *(f"Fig. {number}" for number in range(1, 5)),
        "Eq. 1",
        "Eq. 2",
    ],
    "3": [*(f"Table {number}" for number in ROMAN), *(f"Fig. {number}" for number in range(1, 6)), "Eq. 3", "Eq. 4"],
}
HEADER = ["it says", "here", "measured here", "bring"]


def section(number: str) -> str:
    return re.split(r"^## ", TEXT, flags=re.MULTILINE)[int(number)]


def rows() -> Iterator[list[str]]:
    """Of the tables of claims."""
    told = False
    for line in TEXT.splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] if line.startswith("|") else []
        if cells == HEADER:
            told = True
        elif not cells:
            told = False
        elif told and set(cells[0]) - set("-"):
            yield cells


def quoted() -> set[str]:
    """What the tables name in code."""
    return {name for cells in rows() for cell in cells[1:] for name in re.findall(r"`([^`]+)`", cell)}


@pytest.mark.parametrize(
    ("number", "told"), [(number, told) for number, all_told in NUMBERED.items() for told in all_told]
)
def test_every_table_and_figure_of_a_source_has_a_row(number: str, told: str) -> None:
    first = [line.split("|")[1] for line in section(number).splitlines() if line.startswith("| ")]
    expected = re.compile(rf"\b{re.escape(told)}(?![0-9IVX])", re.IGNORECASE)
    assert any(expected.search(cell) for cell in first) or _in_a_range(told, first)


def _in_a_range(told: str, first: list[str]) -> bool:
    """Whether a row says "Fig. 1, eq. 1 and 2"."""
    kind, number = told.split(" ")
    return any(re.search(rf"\b{re.escape(kind)}\s[0-9]+(?:,| and) {number}\b", cell, re.IGNORECASE) for cell in first)


def test_every_row_has_four_cells_and_says_what_is_here_or_why_nothing_is() -> None:
    found = list(rows())
    assert len(found) > 50
    for cells in found:
        assert len(cells) == 4 and cells[0] and cells[1], cells
        assert (
            "`" in cells[1]
            or "not reproduced: " in cells[1]
            or re.search(r"\b(?:table|section|sections|same|manifest)\b", cells[1])
        ), cells


def test_every_figure_with_a_link_stands_in_the_page_linked() -> None:
    checked = 0
    for cells in rows():
        for cell in cells:
            for figures, address in re.findall(r"\[([^\]]+)\]\(([^)#]+)\)", cell):
                page = re.sub(r"\s+", " ", (PAGE.parent / address).read_text("utf-8")).replace("**", "")
                assert figures in page, f"{figures} is not in {address}"
                checked += 1
    assert checked > 30


def test_every_anchor_is_a_heading() -> None:
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", TEXT, flags=re.MULTILINE)
    }
    anchors = set(re.findall(r"\]\(#([^)]+)\)", TEXT))
    assert anchors and anchors <= headings


def test_every_path_is_there() -> None:
    named = {name for name in quoted() if "/" in name and " " not in name and "://" not in name}
    assert len(named) > 25
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_module_that_is_run_can_be() -> None:
    named = {name.split()[2] for name in quoted() if name.startswith("python -m ")}
    assert len(named) > 3
    assert {name for name in named if find_spec(name) is None} == set()


def test_every_command_and_its_options_are_there() -> None:
    commands = typer.main.get_group(_bind()).commands
    named = [shlex.split(name) for name in quoted() if name.startswith("s2s ")]
    assert len(named) > 10
    for _, command, *arguments in named:
        known = {option for parameter in commands[command].params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= known, (command, arguments)


def test_every_other_name_is_an_asset_a_setting_or_a_choice_of_training(tmp_path: Path) -> None:
    known = (
        _assets(tmp_path) | {name for name, _ in _settings(Settings)} | {field.name for field in fields(StudentConfig)}
    )
    named = {name.partition(" = ")[0] for cells in rows() for name in re.findall(r"`([^`]+)`", cells[1])}
    named = {name for name in named if re.fullmatch(r"[a-z0-9_.]+", name)}
    assert {"s2s_corpus", "mining.margin", "pooling"} <= named
    assert named - known == set()


def _assets(home: Path) -> set[str]:
    texts = {"shards": {"deu": ["/t/deu"], "eng": ["/t/eng"]}}
    pairs = {"text_pairs": "deu-eng", "text_speech_pairs": "deu-eng", "speech_text_pairs": "deu-eng"}
    student = {"data": ["/data"], "teacher": "hf:LaBSE"}
    settings = load_settings(home=home, languages="deu,eng", text=texts, students={"own": student}, **pairs)
    return {key.path[-1] for key in build(settings).resolve_asset_graph().get_all_asset_keys()}


def _settings(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, object]]:
    for name, field in model.model_fields.items():
        yield f"{above}{name}", field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation, f"{above}{name}.")
