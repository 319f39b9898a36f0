"""Pieces as an encoder hears them: on the embedded library's recordings, whose words are known."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import polars as pl
import pytest

from resources.encoders import Encoders
from resources.settings import LIBRARY, Settings, load_settings
from resources.storage import Storage
from s2s_assets.alignment import alignment
from speech_mining.audio.decode import Waveform, read_waveform
from speech_mining.encoders.student import Student
from speech_mining.errors import EncoderError
from speech_mining.lake import Lake
from speech_mining.records import RECORDINGS
from speech_mining.segmentation.audiobook import RUNS
from speech_mining.words.audiobooks import CutConfig, Listener, Section, hear
from speech_mining.words.boundaries import BoundaryConfig, Span, word_spans
from speech_mining.words.cepstra import cepstra
from speech_mining.words.heard_boundaries import LEAST_HEARD, LONGEST, Heard, heard_in, heard_spans
from tests.word_world import sentences, write_speech

BOOK, SECTION = "91003", 1
NEAR = 2
"""Frames of 10 ms: 20 ms, as cuts are usually judged."""


def _recordings(of: str) -> list[Path]:
    listed = json.loads((LIBRARY / "catalogue.json").read_text("utf-8"))["books"]
    (book,) = (one for one in listed if one["id"] == of)
    return sorted((LIBRARY / "download" / Path(book["url_zip_file"]).parent.name).glob("*.mp3"))


def _recording() -> Path:
    return _recordings(BOOK)[SECTION - 1]


def _write_library(lake: Lake, language: str) -> None:
    """The library's audiobooks of a language, segmented where its words are known to be."""
    known = pl.read_parquet(LIBRARY / "words" / f"{language}.parquet")
    for (book,), of_book in known.group_by("audiobook", maintain_order=True):
        with lake.replace("raw_audio", language, str(book)) as new:
            recordings = []
            for section, file in enumerate(_recordings(str(book)), 1):
                new.path(file.name).write_bytes(file.read_bytes())
                row = dict.fromkeys(RECORDINGS, None) | {"audiobook": book, "section": section, "language": language}
                recordings.append(row | {"file": file.name})
            new.write_table("recordings.parquet", pl.DataFrame(recordings, schema=dict(RECORDINGS)), RECORDINGS)
        runs = [
            (book, section, number, 160 * edges[0], 160 * edges[-1], 160 * edges[0], 160 * edges[-1])
            for (section,), of_section in of_book.group_by("section", maintain_order=True)
            for number, edges in enumerate(_sentences(of_section))
        ]
        with lake.replace("segments", language, str(book)) as new:
            new.write_table("runs.parquet", pl.DataFrame(runs, schema=dict(RUNS), orient="row"), RUNS)


@cache
def _read() -> tuple[Waveform, pl.DataFrame]:
    known = pl.read_parquet(LIBRARY / "words" / "eng.parquet")
    of_book = pl.col("audiobook") == BOOK
    return read_waveform(_recording()), known.filter(of_book, pl.col("section") == SECTION)


def _sentences(known: pl.DataFrame) -> list[list[int]]:
    """Where words begin and the last one ends, of each stretch without a pause, in frames of 10 ms."""
    told: list[list[int]] = []
    last = -1
    for start, end in known.select("start_ms", "end_ms").iter_rows():
        if start == last:
            told[-1][-1:] = [round(start / 10), round(end / 10)]
        else:
            told.append([round(start / 10), round(end / 10)])
        last = end
    return told


def _agreement(cut: list[tuple[list[int], list[Span]]]) -> float:
    """F1 of cuts inside sentences, within 20 ms."""
    hits = sum(min(abs(at - first) for first, _ in spans) <= NEAR for edges, spans in cut for at in edges[1:-1])
    found, asked = sum(len(spans) - 1 for _, spans in cut), sum(len(edges) - 2 for edges, _ in cut)
    return 2 * hits / (found + asked)


def test_the_shipped_encoder_hears_where_words_begin_better_than_the_sound_tells() -> None:
    waveform, known = _read()
    heard, frames = heard_in(waveform, "eng", Student.load()), cepstra(waveform)
    told = _sentences(known)
    by_encoder = [(edges, heard_spans(heard, (edges[0], edges[-1]))) for edges in told]
    config = BoundaryConfig()
    by_sound = [
        (edges, [(edges[0] + a, edges[0] + b) for a, b in word_spans(frames[edges[0] : edges[-1]], config)])
        for edges in told
    ]
    assert sum(map(len, told)) > 100
    assert _agreement(by_encoder) > 0.55
    assert _agreement(by_encoder) > 1.5 * _agreement(by_sound)


def test_what_is_heard_does_not_depend_on_where_a_recording_begins() -> None:
    waveform, _ = _read()
    encoder = Student.load()
    whole = heard_in(waveform[: 25 * 16_000], "eng", encoder)
    later = heard_in(waveform[640 * 100 : 25 * 16_000], "eng", encoder)
    assert len(whole.meanings) == 25 * 16_000 // 640 + 1
    assert len(later.meanings) == len(whole.meanings) - 100
    assert (whole.meanings[150:] == later.meanings[50:]).mean() > 0.98


def test_pieces_are_cut_half_way_between_what_is_heard_and_what_is_hardly_heard_is_not_cut_out() -> None:
    meanings = np.array([3, 3, 3, 7, 5, 5, 5, 5])
    strength = np.array([0.2, 0.6, 0.2, LEAST_HEARD / 2, 0.0, 0.5, 0.4, 0.1])
    # Frames 0 to 2 are word 3; 4 to 7 are word 5; 3 is too weak. Half-way is 3.5, less half a frame: 3 times 4.
    assert heard_spans(Heard(meanings, strength), (0, 32)) == [(0, 12), (12, 32)]
    assert heard_spans(Heard(meanings, strength), (13, 30)) == [(13, 30)]


def test_where_nothing_new_is_heard_pieces_are_of_equal_length() -> None:
    heard = Heard(np.zeros(60, np.int64), np.full(60, 0.1))
    spans = heard_spans(heard, (10, 200))
    assert [spans[0][0], spans[-1][1]] == [10, 200]
    assert len(spans) == 3
    assert max(last - first for first, last in spans) <= LONGEST
    assert heard_spans(Heard(np.zeros(0, np.int64), np.zeros(0)), (0, 5)) == [(0, 5)]


def test_a_recording_is_cut_by_the_one_who_listens() -> None:
    _, known = _read()
    run = pl.DataFrame({"start_sample": [known["start_ms"][0] * 16], "end_sample": [known["end_ms"][-1] * 16]})
    section = Section(BOOK, SECTION, _recording(), run, known.clear())
    listened = hear([section], CutConfig(listener=Listener(Student.load(), "eng"))).pieces
    by_sound = hear([section], CutConfig()).pieces
    starts = known["start_ms"].to_numpy()
    near = [
        float(np.mean([np.abs(starts - start).min() <= 30 for start in pieces["start_ms"]]))
        for pieces in (listened, by_sound)
    ]
    assert listened["said"].null_count() == listened.height
    assert near[0] > 1.5 * near[1]


# The asset


def _settings(home: Path, boundaries: str, language: str = "deu", **more: Any) -> Settings:
    words = {"types": 45, "dimension": 10, "least": 3, "boundaries": boundaries}
    elsewhere = "https://librivox.org"  # the words of the embedded library are known
    return load_settings(home=home, languages=[language], words=words, catalogue_url=elsewhere, **more)


def _boundaries(settings: Settings) -> str:
    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(
            alignment(settings),
            selection=dg.AssetSelection.assets("spoken_words"),
            partition_key=settings.languages[0],
            resources={"storage": Storage.of(settings), "encoders": Encoders.of(settings)},
            instance=instance,
        )
    (event,) = result.asset_materializations_for_node("spoken_words")
    return str(event.metadata["boundaries"].value)


def test_the_languages_encoder_is_asked_where_words_begin(tmp_path: Path) -> None:
    _write_library(Storage.of(_settings(tmp_path, "auto")).lake, "deu")
    assert _boundaries(_settings(tmp_path, "auto")).startswith("heard by miniature ")


def test_where_all_words_are_known_nobody_is_asked(tmp_path: Path) -> None:
    known = write_speech(Storage.of(_settings(tmp_path, "auto")).lake, "deu", sentences(120, 1))
    known.write_parquet(tmp_path / "known.parquet")
    settings = _settings(tmp_path, "auto")
    words = settings.words.model_copy(update={"timings": {"deu": tmp_path / "known.parquet"}})
    assert _boundaries(settings.model_copy(update={"words": words})) == "of known words"
    known.filter(audiobook="70").write_parquet(tmp_path / "known.parquet")
    by_sound = words.model_copy(update={"boundaries": "sound"})
    assert _boundaries(settings.model_copy(update={"words": by_sound})) == "of known words, else of the sound"


def test_an_encoder_that_cannot_say_where_words_begin_is_not_asked_or_refused(tmp_path: Path) -> None:
    other = {"encoder": "tests.greedy_encoder:Greedy"}
    write_speech(Storage.of(_settings(tmp_path, "auto")).lake, "deu", sentences(120, 1))
    assert _boundaries(_settings(tmp_path, "sound")) == "of the sound"
    assert _boundaries(_settings(tmp_path, "auto", **other)) == "of the sound"
    with pytest.raises(EncoderError, match="does not say where it hears a word"):
        _boundaries(_settings(tmp_path, "encoder", **other))


def test_a_language_that_no_encoder_knows_is_cut_by_its_sound(tmp_path: Path) -> None:
    write_speech(Storage.of(_settings(tmp_path, "auto", "ita")).lake, "ita", sentences(120, 1))
    assert _boundaries(_settings(tmp_path, "auto", "ita")) == "of the sound"
    with pytest.raises(EncoderError, match="does not know the language ita"):
        _boundaries(_settings(tmp_path, "encoder", "ita"))
