"""What validation finds in transcribed speech, each kind of leak planted; and splits that are dealt by hash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.errors import SettingsError
from speech_mining.records import TRANSCRIBED
from speech_mining.transcribed import (
    TranscribedSet,
    read_transcribed,
    split_by_hash,
    validate,
    without_leaks,
)
from speech_mining.transcribed.listing import REJECTED_CLIPS
from tests.bad_audio import noise, write_wav

RATE_HZ = 16_000
COLUMNS = ("path", "text", "translation", "split", "speaker", "start", "end", "language", "translation_language")


def a_set(folder: Path, *rows: dict[str, object]) -> TranscribedSet:
    """A set by its table; every file is a second of noise of its own, or of the seed that its name ends in."""
    lines = ["\t".join(COLUMNS)]
    for row in rows:
        name = str(row["path"])
        path = folder / f"{name}.wav"
        if not name.startswith("gone") and not path.exists():
            seed = int(name.split("=")[1]) if "=" in name else sum(name.encode()) + 1000
            write_wav(path, noise(1.0, RATE_HZ, seed=seed), RATE_HZ)
        told = {"language": "fr", "text": name, **row, "path": path.name}
        lines.append("\t".join(str(told.get(column, "")) for column in COLUMNS))
    (folder / "transcripts.tsv").write_text("\n".join(lines) + "\n")
    return read_transcribed(folder)


def clip(path: str, split: str, **told: object) -> dict[str, object]:
    return {"path": path, "split": split, "speaker": f"of {path}", **told}


def shared(speech: TranscribedSet) -> list[tuple[object, ...]]:
    return validate(speech).shared.rows()


def test_a_sound_set_has_no_problems_and_its_hours_by_split_and_language(tmp_path: Path) -> None:
    speech = a_set(
        tmp_path,
        clip("a", "train"),
        clip("b", "train", language="de"),
        clip("c", "train"),
        clip("d", "dev"),
        clip("e", "test"),
    )
    found = validate(speech)
    assert found.problems() == ()
    assert found.clips == 5
    assert found.hours.rows() == [
        ("dev", "fra", 1, 1 / 3600),
        ("test", "fra", 1, 1 / 3600),
        ("train", "deu", 1, 1 / 3600),
        ("train", "fra", 2, 2 / 3600),
    ]
    assert found.shared.is_empty()
    assert found.leaks.is_empty()
    assert found.unreadable == 0


def test_the_same_audio_under_two_names_is_a_leak_and_a_duplicate(tmp_path: Path) -> None:
    speech = a_set(
        tmp_path,
        clip("a=1", "train"),
        clip("b=1", "train"),
        clip("c=1", "test"),
        clip("d=2", "dev"),
        clip("e=3", "dev"),
    )
    found = validate(speech)
    assert found.shared.rows() == [("audio", "train", "test", 1, 2), ("audio", "train", "train", 1, 1)]
    assert found.leaks.select("kind", "split", "clip", "other_split", "other_clip").rows() == [
        ("audio", "train", "a=1.wav", "test", "c=1.wav")
    ]
    told = " ".join(found.problems())
    assert "2 clips of train have the same audio as clips of test (as a=1.wav and c=1.wav)" in told
    assert "1 clip of train repeat the audio of another clip of it" in told


def test_spans_of_one_recording_are_the_same_audio_only_where_they_are_the_same(tmp_path: Path) -> None:
    speech = a_set(
        tmp_path,
        clip("a=1", "train", start=0, end=0.5, text="one"),
        clip("b=1", "dev", start=0, end=0.5, text="two"),
        clip("a=1", "test", start=0.5, end=1, text="three"),
    )
    assert [row[:3] for row in shared(speech) if row[0] == "audio"] == [("audio", "train", "dev")]


def test_the_same_words_in_other_clothes_are_a_leak_in_the_same_language_only(tmp_path: Path) -> None:
    speech = a_set(
        tmp_path,
        clip("a", "train", text='"Bonjour  LÀ"'),
        clip("b", "dev", text="bonjour la\u0300"),
        clip("c", "test", text="Bonjour là", language="de"),
        clip("d", "train", text="", translation="Hello.", translation_language="en"),
        clip("e", "test", text="", translation="hello.", translation_language="en"),
        clip("f", "dev", text="Autre", translation="hello.", translation_language="en"),
    )
    found = validate(speech)
    assert found.shared.rows() == [("text", "train", "dev", 1, 1), ("text", "train", "test", 1, 1)]
    assert found.leaks["shared"].to_list() == ["fra: bonjour là", "eng: hello."]


def test_a_speaker_in_two_splits_is_told_and_one_in_a_split_is_not(tmp_path: Path) -> None:
    rows = [clip("a", "train", speaker="Ann"), clip("b", "train", speaker="Ann"), clip("c", "dev", speaker="Ben")]
    speech = a_set(
        tmp_path, *rows, clip("d", "test", speaker="Ann"), clip("e", "test", speaker=""), clip("f", "dev", speaker="")
    )
    found = validate(speech)
    assert found.shared.rows() == [("speaker", "train", "test", 1, 2)]
    assert found.problems() == (
        "1 speakers are heard in train and in test (as in a.wav and d.wav): deal the set by speaker.",
    )


def test_dev_and_test_are_compared_too(tmp_path: Path) -> None:
    speech = a_set(tmp_path, clip("a", "train"), clip("b=7", "dev"), clip("c=7", "test"))
    assert shared(speech) == [("audio", "dev", "test", 1, 1)]
    assert "take them out of dev" in validate(speech).problems()[0]
    assert without_leaks(speech).clips.height == 3


def test_problems_say_what_is_missing_and_why(tmp_path: Path) -> None:
    speech = a_set(
        tmp_path, clip("a", "train"), clip("gone1", "train"), clip("gone2", "dev"), clip("b", "train", end=9)
    )
    assert validate(speech).problems() == (
        "3 clips of 4 cannot be used (2 missing_clip, 1 out_of_range): look at the rejections.",
        "There is no dev: training cannot tell when to stop: deal one from train (split_by_hash).",
        "There is no test: no student can be examined: deal one from train (split_by_hash).",
    )
    nothing = a_set(tmp_path, clip("gone1", "train"))
    assert validate(nothing).problems() == ("No clip is usable (1 missing_clip): look at the rejections.",)


def test_clips_that_went_away_since_are_counted(tmp_path: Path) -> None:
    speech = a_set(tmp_path, clip("a", "train"), clip("b", "dev"), clip("c", "test"))
    (tmp_path / "b.wav").unlink()
    found = validate(speech)
    assert found.unreadable == 1
    assert found.problems() == ("1 clip can be read no more: read the set again.",)


def test_an_empty_set_is_validated(tmp_path: Path) -> None:
    empty = TranscribedSet(pl.DataFrame(schema=dict(TRANSCRIBED)), pl.DataFrame(schema=dict(REJECTED_CLIPS)), "covost")
    assert validate(empty).problems() == ("No clip is usable: look at the rejections.",)
    assert without_leaks(empty).clips.is_empty()
    assert split_by_hash(empty.clips, dev_share=0.1, test_share=0.1).is_empty()


def test_the_same_audio_is_found_in_a_parquet(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", noise(1.0, RATE_HZ), RATE_HZ)
    sound = (tmp_path / "a.wav").read_bytes()
    for split, texts in (("train", ["one", "two"]), ("test", ["three"])):
        rows = [{"audio": {"bytes": sound, "path": f"{text}.wav"}, "text": text} for text in texts]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}-00000-of-00001.parquet")
    speech = read_transcribed(tmp_path, language="fr")
    assert shared(speech) == [("audio", "train", "test", 1, 2), ("audio", "train", "train", 1, 1)]
    assert without_leaks(speech).clips["clip"].to_list() == ["three.wav"]
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    assert validate(speech).unreadable == 1


def test_leaks_are_dropped_from_train_alone_and_told(tmp_path: Path) -> None:
    speech = a_set(
        tmp_path,
        clip("a=1", "train"),
        clip("b=1", "test"),
        clip("c", "train", text="Same."),
        clip("d", "dev", text="same."),
        clip("e", "train", speaker="Ann"),
        clip("f", "dev", speaker="Ann"),
        clip("g", "train"),
        clip("gone", "train"),
    )
    clean = without_leaks(speech)
    assert clean.clips["clip"].to_list() == ["d.wav", "f.wav", "b=1.wav", "e.wav", "g.wav"]
    assert clean.rejected == {"in_another_split": 2, "missing_clip": 1}
    assert dict(clean.rejections.select("clip", "detail").iter_rows())["c.wav"] == "the same text as d.wav of dev"
    assert clean.rejections.schema == speech.rejections.schema
    assert not [row for row in shared(clean) if row[0] != "speaker"]
    assert "e.wav" not in without_leaks(speech, by=("speaker",)).clips["clip"].to_list()
    assert without_leaks(speech, by=()).clips.equals(speech.clips)
    for wrong in ("audio", ("audio", "colour")):
        with pytest.raises(SettingsError, match="audio, text, speaker"):
            without_leaks(speech, by=wrong)


def test_only_so_many_leaks_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    base = a_set(tmp_path, clip("a", "train"), clip("b", "dev"))
    train, dev = (base.clips.filter(pl.col("split") == split) for split in ("train", "dev"))
    many = [
        frame.with_columns(clip=pl.lit(f"{split}{number}"), transcription=pl.lit(f"text {number}"))
        for split, frame in (("train", train), ("dev", dev))
        for number in range(50)
    ]
    found = validate(TranscribedSet(pl.concat(many), base.rejections, "transcripts"))
    assert ("text", "train", "dev", 50, 50) in found.shared.rows()
    assert found.leaks.filter(pl.col("kind") == "text").height == 20


# Splits


def clips(count: int, *, speakers: int = 0, texts: int = 0) -> pl.DataFrame:
    rows = [
        {
            **dict.fromkeys(TRANSCRIBED),
            "clip": f"clip{number}",
            "split": "train",
            "language": "fra",
            "file": "/x",
            "place": "",
            "duration_s": 1.0,
            "transcription": f"text {number % texts}" if texts else f"text {number}",
            "speaker": f"speaker {number % speakers}" if speakers else None,
        }
        for number in range(count)
    ]
    return pl.DataFrame(rows, schema=dict(TRANSCRIBED), orient="row")


def places(frame: pl.DataFrame) -> dict[str, str]:
    return dict(frame.select("clip", "split").iter_rows())


@given(count=st.integers(0, 60), grown=st.integers(0, 60), seed=st.integers(0, 9))
def test_growth_moves_nobody_and_no_speaker_is_in_two_splits(count: int, grown: int, seed: int) -> None:
    shares = {"dev_share": 0.3, "test_share": 0.3, "seed": seed}
    small = places(split_by_hash(clips(count, speakers=7), **shares))  # type: ignore[arg-type]
    dealt = split_by_hash(clips(count + grown, speakers=7)[::-1], **shares)  # type: ignore[arg-type]
    assert small.items() <= places(dealt).items()
    assert dealt.select("speaker", "split").unique().height == dealt["speaker"].n_unique()


def test_shares_are_met_and_the_seed_deals_otherwise() -> None:
    dealt = split_by_hash(clips(20_000), dev_share=0.05, test_share=0.1)
    counts = dict(dealt["split"].value_counts().iter_rows())
    # binomial: standard deviations are 31 and 42
    assert counts["dev"] == pytest.approx(1000, abs=150)
    assert counts["test"] == pytest.approx(2000, abs=200)
    other = split_by_hash(clips(20_000), dev_share=0.05, test_share=0.1, seed=1)
    agree = np.mean(dealt.sort("clip")["split"].to_numpy() == other.sort("clip")["split"].to_numpy())
    assert agree == pytest.approx(0.85**2 + 0.1**2 + 0.05**2, abs=0.03)


def test_where_a_clip_lands_is_fixed_for_ever() -> None:
    dealt = split_by_hash(clips(6), dev_share=0.3, test_share=0.3)
    assert places(dealt) == {
        "clip0": "dev",
        "clip1": "dev",
        "clip2": "dev",
        "clip3": "train",
        "clip4": "train",
        "clip5": "test",
    }
    assert dealt["split"].to_list() == sorted(dealt["split"].to_list())


def test_texts_are_grouped_as_they_are_compared() -> None:
    frame = clips(40, texts=20).with_columns(
        transcription=pl.when(pl.int_range(pl.len()) < 20)
        .then(pl.col("transcription").str.to_uppercase())
        .otherwise(pl.col("transcription"))
    )
    dealt = split_by_hash(frame, dev_share=0.3, test_share=0.3, by="transcription")
    grouped = dealt.with_columns(pl.col("transcription").str.to_lowercase()).select("transcription", "split").unique()
    assert grouped.height == 20
    assert dealt["split"].n_unique() == 3


@pytest.mark.parametrize(
    ("shares", "match"),
    [((0.5, 0.5), "together less than 1"), ((-0.1, 0.2), "none negative"), ((0.1, float("nan")), "Shares")],
)
def test_shares_that_leave_no_training_are_refused(shares: tuple[float, float], match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        split_by_hash(clips(3), dev_share=shares[0], test_share=shares[1])
    with pytest.raises(SettingsError, match="no group 'book'"):
        split_by_hash(clips(3), dev_share=0.1, test_share=0.1, by="book")
