"""Transcribed speech in the formats people have: each whole, and each broken, on real files."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from speech_mining.audio.decode import Held, measure_s, read_waveform
from speech_mining.errors import AudioError, SettingsError
from speech_mining.records import TRANSCRIBED, conform
from speech_mining.transcribed import (
    REJECTED_CLIPS,
    ClipReader,
    TranscribedSet,
    TranscribedSpeechError,
    read_transcribed,
)
from speech_mining.transcribed.listing import RejectedClip, Row, split_named
from speech_mining.transcribed.tables import rows_of
from tests.bad_audio import noise, vbr_without_header, write_audio, write_wav

RATE_HZ = 16_000
REAL = Path(os.environ.get("S2S_REAL_SPEECH", Path(__file__).parents[2] / "shared" / "real_speech"))
HEADER = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment\n"


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Encoded once: an MP3 of 1.5 s, one of 2 s, a FLAC of 1 s, a WAV of 1.25 s."""
    folder = tmp_path_factory.mktemp("sounds")
    write_audio(folder / "a.mp3", noise(1.5, RATE_HZ), RATE_HZ)
    write_audio(folder / "b.mp3", noise(2.0, RATE_HZ, seed=1), RATE_HZ)
    sf.write(folder / "c.flac", noise(1.0, RATE_HZ, seed=2), RATE_HZ)
    write_wav(folder / "d.wav", noise(1.25, RATE_HZ, seed=3), RATE_HZ)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def put(folder: Path, content: bytes, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def voice(clip: str, sentence: str, *, speaker: str = "s1", locale: str = "fr") -> str:
    return f"{speaker}\t{clip}\t{sentence}\t2\t0\t\t\t\t{locale}\t\n"


def only(speech: TranscribedSet, clip: str) -> dict[str, object]:
    return speech.clips.row(by_predicate=pl.col("clip") == clip, named=True)


def reasons(speech: TranscribedSet) -> dict[str, str]:
    return dict(speech.rejections.select("clip", "reason").iter_rows())


def parquet(path: Path, rows: list[dict[str, object]], *, row_group_size: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [(name, audio if name == "audio" else pa.string()) for name in rows[0]]
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(fields)), path, row_group_size=row_group_size)


# Common Voice


@pytest.fixture
def common_voice(tmp_path: Path, sounds: dict[str, bytes]) -> Path:
    put(tmp_path / "clips", sounds["a.mp3"], "cv_2.mp3", "cv_10.mp3", "cv_9.mp3")
    put(tmp_path / "clips", sounds["b.mp3"], "cv_20.mp3")
    lines = voice("cv_10.mp3", "Dix.") + voice("cv_9.mp3", "Neuf.", speaker="s2") + voice("cv_2.mp3", "Deux.")
    (tmp_path / "train.tsv").write_text(HEADER + lines)
    (tmp_path / "test.tsv").write_text(HEADER + voice("cv_20.mp3", "Vingt.", speaker="s9"))
    return tmp_path


def test_common_voice_is_read_whole_in_natural_order(common_voice: Path) -> None:
    speech = read_transcribed(common_voice)
    assert speech.format == "common_voice"
    assert speech.clips.select("clip", "split", "language", "transcription", "speaker").rows() == [
        ("cv_20.mp3", "test", "fra", "Vingt.", "s9"),
        ("cv_2.mp3", "train", "fra", "Deux.", "s1"),
        ("cv_9.mp3", "train", "fra", "Neuf.", "s2"),
        ("cv_10.mp3", "train", "fra", "Dix.", "s1"),
    ]
    assert speech.clips["duration_s"].to_list() == pytest.approx([2.0, 1.5, 1.5, 1.5], abs=0.01)
    assert speech.clips["file"][0] == str(common_voice / "clips" / "cv_20.mp3")
    assert speech.clips["translation"].null_count() == 4
    assert speech.rejections.is_empty()
    conform(speech.clips, TRANSCRIBED, "clips")
    conform(speech.rejections, REJECTED_CLIPS, "rejections")


def test_validated_alone_is_train_and_beside_splits_it_is_passed_over_told(common_voice: Path) -> None:
    (common_voice / "validated.tsv").write_text(HEADER + voice("cv_2.mp3", "Deux."))
    assert "validated.tsv" in read_transcribed(common_voice).notes[0]
    (common_voice / "train.tsv").unlink()
    (common_voice / "test.tsv").unlink()
    alone = read_transcribed(common_voice)
    assert alone.clips.select("clip", "split").rows() == [("cv_2.mp3", "train")]
    assert alone.notes == ()


def test_every_unusable_clip_of_common_voice_is_told_with_its_line(
    common_voice: Path, sounds: dict[str, bytes]
) -> None:
    put(common_voice, sounds["a.mp3"], "above.mp3", "clips/silent.mp3", "clips/old.mp3")
    put(common_voice / "clips", b"", "empty.mp3")
    put(common_voice / "clips", b"no sound at all " * 50, "text.mp3")
    put(common_voice / "clips", sounds["a.mp3"][: len(sounds["a.mp3"]) // 2], "cut.mp3")
    outside = common_voice.parent / f"{common_voice.name}-outside.mp3"
    outside.write_bytes(sounds["a.mp3"])
    (common_voice / "clips" / "link.mp3").symlink_to(outside)
    (common_voice / "clips" / "folder.mp3").mkdir()
    lines = [
        voice("gone.mp3", "Perdu."),
        voice("empty.mp3", "Vide."),
        voice("text.mp3", "Texte."),
        voice("cut.mp3", "Coupé."),
        voice("../../etc/passwd.mp3", "Dehors."),
        voice(str(outside), "Absolu."),
        voice("link.mp3", "Lien."),
        voice("folder.mp3", "Dossier."),
        voice("silent.mp3", "  "),
        voice("cv_2.mp3", "Babel.", locale="xx-XX"),
        voice("a\0b.mp3", "Zéro."),
        voice("x" * 300 + ".mp3", "Long."),
        "three\tcells\tonly\n",
        voice("cv_9.mp3", "Trop\tde cellules."),
        voice("old", "Sans suffixe."),
        voice("old.mp3", "Deux fois."),
    ]
    (common_voice / "dev.tsv").write_bytes((HEADER + "".join(lines)).encode() + b"s\tcv.mp3\t\xff\t\t\t\t\t\tfr\t\n")
    speech = read_transcribed(common_voice)
    assert speech.clips.filter(pl.col("split") == "dev")["clip"].to_list() == ["old", "old.mp3"]
    told = {line: (clip, reason) for _, line, clip, reason, _ in speech.rejections.iter_rows()}
    assert set(speech.rejections["source"]) == {"dev.tsv"}
    assert told == {
        2: ("gone.mp3", "missing_clip"),
        3: ("empty.mp3", "empty_file"),
        4: ("text.mp3", "not_audio"),
        5: ("cut.mp3", "damaged"),
        6: ("../../etc/passwd.mp3", "outside"),
        7: (str(outside), "outside"),
        8: ("link.mp3", "outside"),
        9: ("folder.mp3", "not_audio"),
        10: ("silent.mp3", "no_text"),
        11: ("cv_2.mp3", "unknown_language"),
        12: ("", "malformed"),
        13: ("x" * 300 + ".mp3", "missing_clip"),
        14: ("", "malformed"),
        15: ("", "malformed"),
        18: ("", "malformed"),
    }
    assert speech.rejected["malformed"] == 4
    assert list(speech.rejected.values()) == sorted(speech.rejected.values(), reverse=True)


def test_a_clip_that_two_splits_list_is_kept_in_both_under_two_names(common_voice: Path) -> None:
    (common_voice / "dev.tsv").write_text(HEADER + voice("cv_2.mp3", "Deux.") + voice("cv_2.mp3", "Deux !"))
    speech = read_transcribed(common_voice)
    assert speech.clips.filter(pl.col("file").str.ends_with("cv_2.mp3")).select("clip", "split").rows() == [
        ("dev/cv_2.mp3", "dev"),
        ("cv_2.mp3", "train"),
    ]
    assert speech.clips["clip"].is_unique().all()
    assert reasons(speech) == {"cv_2.mp3": "duplicate_clip"}


@pytest.mark.parametrize(
    ("locale", "language"), [("sv-SE", "swe"), ("zh-CN", "zho"), ("nan-tw", "nan"), ("de", "deu"), ("EN", "eng")]
)
def test_locales_with_a_region_are_languages(common_voice: Path, locale: str, language: str) -> None:
    (common_voice / "train.tsv").write_text(HEADER + voice("cv_2.mp3", "Två.", locale=locale))
    (common_voice / "test.tsv").unlink()
    assert read_transcribed(common_voice).clips["language"].to_list() == [language]


def test_the_language_that_is_said_holds_and_one_must_be_known(common_voice: Path) -> None:
    assert set(read_transcribed(common_voice, language="Breton").clips["language"]) == {"bre"}
    for name in ("train.tsv", "test.tsv"):
        (common_voice / name).write_text("client_id\tpath\tsentence\ns1\tcv_2.mp3\tDeux.\n")
    with pytest.raises(TranscribedSpeechError, match=r'Expected: a column locale.*language="deu"'):
        read_transcribed(common_voice)
    assert read_transcribed(common_voice, language="fr").clips.height == 2
    with pytest.raises(SettingsError, match="language is 'no such tongue'"):
        read_transcribed(common_voice, language="no such tongue")
    with pytest.raises(SettingsError, match="two languages"):
        read_transcribed(common_voice, language="fr", translation_language="fra")


def test_quotes_of_a_tab_separated_table_mean_nothing(common_voice: Path) -> None:
    said = {
        "cv_2.mp3": ('"Il dit "oui', '"Il dit "oui'),
        "cv_9.mp3": ('Elle dit \\"non\\" et C:\\\\', 'Elle dit "non" et C:\\'),
        "cv_10.mp3": ('"""Ja"", sagte er."', '"Ja", sagte er.'),
        "cv_20.mp3": ('"Tout cité"', '"Tout cité"'),
    }
    lines = "".join(voice(clip, written) for clip, (written, _) in said.items())
    (common_voice / "train.tsv").write_bytes(b"\xef\xbb\xbf" + (HEADER + lines).replace("\n", "\r\n").encode())
    (common_voice / "test.tsv").unlink()
    speech = read_transcribed(common_voice)
    assert dict(speech.clips.select("clip", "transcription").iter_rows()) == {
        clip: read for clip, (_, read) in said.items()
    }


LINE = st.text(st.sampled_from(["a", "é", '"', "'", "\\", "\t", " ", ",", "\x0b", "\u2028", "\x00"]), max_size=12)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines=st.lists(LINE, max_size=6), end=st.sampled_from(["\n", "\r\n"]), mark=st.booleans())
def test_every_line_of_any_table_is_a_row_or_told(tmp_path: Path, lines: list[str], end: str, mark: bool) -> None:
    table = tmp_path / "table.tsv"
    text = end.join(["path\tsentence", *lines])
    table.write_bytes((b"\xef\xbb\xbf" if mark else b"") + text.encode())
    rows = list(rows_of(table, "table.tsv"))
    told = [number for number, line in enumerate(lines, start=2) if line.strip("\t\x0b \x00") or line.strip()]
    assert [row.line for row in rows] == [number for number in told if lines[number - 2].encode().strip()]
    for row in rows:
        line = lines[(row.line or 0) - 2]
        if isinstance(row, Row) and "\\" not in line and '""' not in line:
            assert line.split("\t") == [row.cells["path"], row.cells["sentence"]]
        if isinstance(row, RejectedClip):
            assert row.reason == "malformed"
            assert line.count("\t") != 1 or "\x00" in line


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cells=st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=5))
def test_what_pandas_writes_without_quotes_is_read_back(tmp_path: Path, cells: list[tuple[str, str]]) -> None:
    kept = [pair for pair in cells if all(re.fullmatch(r"[^\r\n\0\ud800-\udfff]*", cell) for cell in pair)]
    kept = [pair for pair in kept if "".join(pair).strip() and not any('""' in cell for cell in pair)]
    table = tmp_path / "table.tsv"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", quoting=csv.QUOTE_NONE, escapechar="\\", lineterminator="\n")
        writer.writerows([("path", "sentence"), *kept])
    rows = list(rows_of(table, "table.tsv"))
    assert [tuple(row.cells.values()) for row in rows if isinstance(row, Row)] == kept


# CoVoST 2


@pytest.fixture
def covost(common_voice: Path) -> Path:
    header = "path\tsentence\ttranslation\tclient_id\n"
    (common_voice / "covost_v2.fr_en.train.tsv").write_text(
        header + 'cv_2.mp3\tDeux.\tHe said \\"two\\".\ts1\ncv_9.mp3\tNeuf.\t\ts2\n'
    )
    (common_voice / "covost_v2.fr_en.test.tsv").write_text(header + "cv_20.mp3\tVingt.\tTwenty.\ts9\n")
    return common_voice


def test_covost_is_read_beside_common_voice(covost: Path) -> None:
    speech = read_transcribed(covost)
    assert speech.format == "covost"
    assert speech.clips.select("clip", "split", "transcription", "translation", "translation_language").rows() == [
        ("cv_20.mp3", "test", "Vingt.", "Twenty.", "eng"),
        ("cv_2.mp3", "train", "Deux.", 'He said "two".', "eng"),
        ("cv_9.mp3", "train", "Neuf.", None, None),
    ]
    assert set(speech.clips["language"]) == {"fra"}
    assert read_transcribed(covost, format="common_voice").clips.height == 4


def test_the_table_that_covost_offers_is_joined_with_common_voice(common_voice: Path) -> None:
    lines = "".join(voice(f"cv_{number}.mp3", f"N{number}", speaker=f"s{number}") for number in (2, 9, 10, 20))
    (common_voice / "validated.tsv").write_text(HEADER + lines)
    (common_voice / "covost_v2.fr_sv-SE.tsv").write_text(
        "path\ttranslation\tsplit\ncv_2.mp3\tTvå\ttrain\ncv_9.mp3\tNio\ttrain_covost\ncv_20.mp3\tTjugo\ttest\n"
        "cv_10.mp3\tTio\tdev_covost\ngone.mp3\tBorta\ttrain\nbroken\n"
    )
    speech = read_transcribed(common_voice)
    assert speech.clips.select("clip", "split", "transcription", "translation", "speaker").rows() == [
        ("cv_20.mp3", "test", "N20", "Tjugo", "s20"),
        ("cv_2.mp3", "train", "N2", "Två", "s2"),
        ("cv_9.mp3", "train", "N9", "Nio", "s9"),
    ]
    assert set(speech.clips["translation_language"]) == {"swe"}
    assert reasons(speech) == {"cv_10.mp3": "not_in_a_split", "gone.mp3": "not_listed", "": "malformed"}
    (common_voice / "validated.tsv").unlink()
    with pytest.raises(TranscribedSpeechError, match=r"no .*validated\.tsv.*unpack CoVoST"):
        read_transcribed(common_voice)


def test_covost_of_two_directions_must_be_told_which(covost: Path) -> None:
    shutil.copy(covost / "covost_v2.fr_en.train.tsv", covost / "covost_v2.fr_de.train.tsv")
    with pytest.raises(TranscribedSpeechError, match=r"fr_de, fr_en.*say language and translation_language"):
        read_transcribed(covost)
    assert set(read_transcribed(covost, translation_language="de").clips["translation_language"].drop_nulls()) == {
        "deu"
    }
    with pytest.raises(TranscribedSpeechError, match="one direction in the languages wanted"):
        read_transcribed(covost, language="it")


FROM_COVOST = "fr de es ca it ru zh-CN pt fa et mn nl tr ar sv-SE lv sl ta ja id cy"
TO_COVOST = "de tr fa sv-SE mn zh-CN cy ca sl et id ar ta lv ja"
COVOST_CODES = {
    **{"ar": "ara", "ca": "cat", "cy": "cym", "de": "deu", "es": "spa", "et": "est", "fa": "fas", "fr": "fra"},
    **{"id": "ind", "it": "ita", "ja": "jpn", "lv": "lav", "mn": "mon", "nl": "nld", "pt": "por", "ru": "rus"},
    **{"sl": "slv", "sv-SE": "swe", "ta": "tam", "tr": "tur", "zh-CN": "zho"},
}


@pytest.mark.parametrize("name", [*(f"{x}_en" for x in FROM_COVOST.split()), *(f"en_{x}" for x in TO_COVOST.split())])
def test_every_direction_of_covost_is_known_by_its_name(tmp_path: Path, sounds: dict[str, bytes], name: str) -> None:
    put(tmp_path / "clips", sounds["a.mp3"], "cv_1.mp3")
    table = tmp_path / f"covost_v2.{name}.dev.tsv"
    table.write_text("path\tsentence\ttranslation\tclient_id\ncv_1.mp3\tsaid\ttold\ts1\n")
    speech = read_transcribed(tmp_path)
    source, target = (COVOST_CODES.get(code, "eng") for code in name.split("_"))
    assert speech.clips.select("language", "translation_language").rows() == [(source, target)]


@pytest.mark.parametrize(("told", "translation"), [("[REMOVE]", None), ("REMOVE", None), ("Remove it.", "Remove it.")])
def test_what_translators_marked_as_no_sentence_is_no_translation(
    tmp_path: Path, sounds: dict[str, bytes], told: str, translation: str | None
) -> None:
    put(tmp_path / "clips", sounds["a.mp3"], "cv_1.mp3")
    table = tmp_path / "covost_v2.en_de.train.tsv"
    table.write_text(f"path\tsentence\ttranslation\tclient_id\ncv_1.mp3\tsaid\t{told}\ts1\n")
    row = read_transcribed(tmp_path).clips.row(0, named=True)
    assert (row["transcription"], row["translation"]) == ("said", translation)


def test_covost_as_parquet_of_hugging_face_is_read_with_its_languages_said(
    tmp_path: Path, sounds: dict[str, bytes]
) -> None:
    row: dict[str, object] = {
        "client_id": "s1",
        "file": "/somewhere/clips/cv_1.mp3",
        "audio": {"bytes": sounds["a.mp3"], "path": "cv_1.mp3"},
        "sentence": "Deux.",
        "translation": "Two.",
        "id": "cv_1",
    }
    parquet(tmp_path / "fr_en" / "validation-00000-of-00001.parquet", [row])
    speech = read_transcribed(tmp_path / "fr_en", language="fr", translation_language="en")
    told = speech.clips.select("split", "language", "transcription", "translation", "translation_language", "speaker")
    assert told.rows() == [("dev", "fra", "Deux.", "Two.", "eng", "s1")]


# fairseq S2T


def test_fairseq_manifests_are_read_from_files_and_zips(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    put(tmp_path, sounds["a.mp3"], "wav/a.mp3")
    with zipfile.ZipFile(tmp_path / "audio.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("c.flac", sounds["c.flac"])
        archive.writestr("d.wav", sounds["d.wav"])
        places = {
            item.filename: (item.header_offset + 30 + len(item.filename), item.file_size) for item in archive.infolist()
        }
    header = "id\taudio\tn_frames\ttgt_text\tspeaker\tsrc_text\tsrc_lang\ttgt_lang\n"
    zipped = {name: f"audio.zip:{offset}:{length}" for name, (offset, length) in places.items()}
    (tmp_path / "train_st.tsv").write_text(
        header
        + f"u1\twav/a.mp3\t999999\tTwo.\ts1\tDeux.\tfr\ten\nu2\t{zipped['c.flac']}\t3\tTrois.\ts1\t\tfr\tfr\n"
        + f"u3\t{tmp_path / 'audio.zip'}:9999999:100\t3\tX\ts\tx\tfr\ten\nu4\tgone.wav\t3\tX\ts\tx\tfr\ten\n"
        + "u5\t\t3\tX\ts\tx\tfr\ten\nu6\t/etc/hosts\t3\tX\ts\tx\tfr\ten\n"
        + f"u7\t{tmp_path.name}/wav/a.mp3\t3\tX\ts\tx\tfr\ten\n"
        + f"u8\t{'x' * 300}.wav\t3\tX\ts\tx\tfr\ten\n"
    )
    (tmp_path / "tst-COMMON_st.tsv").write_text(header + f"u1\t{zipped['d.wav']}\t5\tFive.\ts2\tCinq.\tfr\ten\n")
    (tmp_path / "other.tsv").write_text(header)
    speech = read_transcribed(tmp_path)
    assert speech.format == "fairseq_s2t"
    assert speech.clips.select("clip", "split", "place", "transcription", "translation").rows() == [
        ("test/u1", "test", "{}:{}".format(*places["d.wav"]), "Cinq.", "Five."),
        ("u1", "train", "", "Deux.", "Two."),
        ("u2", "train", "{}:{}".format(*places["c.flac"]), "Trois.", None),
        ("u7", "train", "", "x", "X"),
    ]
    assert speech.clips["duration_s"].to_list() == pytest.approx([1.25, 1.5, 1.0, 1.5], abs=0.01)
    lost = {"u3": "out_of_range", "u4": "missing_clip", "u5": "missing_clip", "u6": "outside", "u8": "missing_clip"}
    assert reasons(speech) == lost
    assert speech.notes == ("not read: other.tsv",)
    with ClipReader() as reader:
        flac = reader.read(only(speech, "u2"))
    np.testing.assert_allclose(flac, noise(1.0, RATE_HZ, seed=2), atol=1e-4)


def test_the_text_of_a_manifest_is_what_its_name_or_the_user_says(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    put(tmp_path, sounds["a.mp3"], "a.mp3")
    row = "id\taudio\tn_frames\ttgt_text\nu1\ta.mp3\t10\tHello.\n"
    (tmp_path / "train_st_fr_en.tsv").write_text(row)
    translated = read_transcribed(tmp_path).clips.row(0, named=True)
    assert (translated["language"], translated["transcription"], translated["translation"]) == ("fra", None, "Hello.")
    assert translated["translation_language"] == "eng"
    (tmp_path / "train_asr_fr.tsv").write_text(row)
    with pytest.raises(TranscribedSpeechError, match=r"train_asr_fr\.tsv, train_st_fr_en\.tsv"):
        read_transcribed(tmp_path)
    assert read_transcribed(tmp_path, translation_language="en").clips["translation"].to_list() == ["Hello."]
    (tmp_path / "train_st_fr_en.tsv").unlink()
    assert read_transcribed(tmp_path).clips["transcription"].to_list() == ["Hello."]
    (tmp_path / "train_asr_fr.tsv").rename(tmp_path / "train.tsv")
    with pytest.raises(TranscribedSpeechError, match="src_lang"):
        read_transcribed(tmp_path)
    assert read_transcribed(tmp_path, language="en").clips["transcription"].to_list() == ["Hello."]
    both = read_transcribed(tmp_path, language="fr", translation_language="en").clips
    assert both.select("transcription", "translation").rows() == [(None, "Hello.")]


def test_rows_in_other_languages_than_wanted_are_told(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    put(tmp_path, sounds["a.mp3"], "a.mp3")
    header = "id\taudio\tn_frames\ttgt_text\tsrc_lang\ttgt_lang\n"
    (tmp_path / "train.tsv").write_text(
        header + "u1\ta.mp3\t1\tA\tfr\ten\nu2\ta.mp3\t1\tB\tde\ten\nu3\ta.mp3\t1\tC\tfr\tes\n"
    )
    speech = read_transcribed(tmp_path, language="fr", translation_language="en")
    assert speech.clips["clip"].to_list() == ["u1"]
    assert reasons(speech) == {"u2": "language_not_wanted", "u3": "language_not_wanted"}


def test_features_in_place_of_audio_are_refused_clearly(tmp_path: Path) -> None:
    np.save(tmp_path / "u1.npy", np.zeros((3, 80), np.float32))
    with zipfile.ZipFile(tmp_path / "fbank80.zip", "w", zipfile.ZIP_STORED) as archive:
        archive.write(tmp_path / "u1.npy", "u1.npy")
        item = archive.infolist()[0]
    place = f"fbank80.zip:{item.header_offset + 30 + len(item.filename)}:{item.file_size}"
    for audio in (place, "u1.npy"):
        (tmp_path / "train_asr_fr.tsv").write_text(f"id\taudio\tn_frames\ttgt_text\nu1\t{audio}\t3\tUn.\n")
        with pytest.raises(TranscribedSpeechError, match=r"holds features, not audio.*uncompressed zip"):
            read_transcribed(tmp_path)


def test_speech_of_the_other_language_is_passed_over_told(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    put(tmp_path, sounds["a.mp3"], "a.mp3")
    header = "id\tsrc_audio\tsrc_n_frames\ttgt_audio\ttgt_n_frames\ttgt_text\n"
    (tmp_path / "dev.tsv").write_text(header + "u1\ta.mp3\t10\tb.wav\t10\tHello.\nu2\ta.mp3\t10\tb.wav\t10\t\n")
    speech = read_transcribed(tmp_path, language="fr", translation_language="en")
    assert speech.clips.select("split", "translation").rows() == [("dev", "Hello.")]
    assert reasons(speech) == {"u2": "no_text"}
    assert any("tgt_audio" in note for note in speech.notes)


# Folders with transcripts


def test_texts_beside_recordings_are_read_with_the_splits_of_their_folders(
    tmp_path: Path, sounds: dict[str, bytes]
) -> None:
    put(tmp_path, sounds["a.mp3"], "train/a1.mp3", "validation/b.mp3", "test-clean/c.mp3", "loose.mp3", "._x.mp3")
    put(tmp_path, b"\xef\xbb\xbfUn\ndeux\r\n", "train/a1.txt", "validation/b.txt")
    put(tmp_path, b"Trois", "test-clean/c.txt", "train/alone.txt", "loose.txt")
    put(tmp_path, b"read me", "docs/README.txt")
    put(tmp_path, b"\xff\xfe", "train/d.txt")
    put(tmp_path, sounds["a.mp3"], "train/d.mp3", "train/mute.mp3")
    put(tmp_path, b"", "train/blank.txt")
    put(tmp_path, sounds["a.mp3"], "train/blank.mp3")
    (tmp_path / "linked").symlink_to(tmp_path / "train")
    speech = read_transcribed(tmp_path, language="fr")
    assert speech.format == "transcripts"
    assert speech.clips.select("clip", "split", "transcription").rows() == [
        ("validation/b.mp3", "dev", "Un deux"),
        ("test-clean/c.mp3", "test", "Trois"),
        ("loose.mp3", "train", "Trois"),
        ("train/a1.mp3", "train", "Un deux"),
    ]
    assert sorted(speech.rejections.select("clip", "reason").iter_rows()) == [
        ("", "outside"),
        ("alone", "missing_clip"),
        ("d", "malformed"),
        ("train/blank.mp3", "no_text"),
        ("train/d.mp3", "no_text"),
        ("train/mute.mp3", "no_text"),
    ]
    with pytest.raises(TranscribedSpeechError, match="does not say which language"):
        read_transcribed(tmp_path)


def test_librispeech_is_read_with_its_speakers(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    chapter = "dev-clean/84/121123"
    put(tmp_path, sounds["c.flac"], f"{chapter}/84-121123-0000.flac", f"{chapter}/84-121123-0001.flac")
    put(
        tmp_path,
        b"84-121123-0000 GO  YOU\n84-121123-0001\n84-121123-0002 GONE\n84-121123-0000 AGAIN\n",
        f"{chapter}/84-121123.trans.txt",
    )
    speech = read_transcribed(tmp_path, language="eng")
    assert speech.clips.select("clip", "split", "transcription", "speaker").rows() == [
        (f"{chapter}/84-121123-0000.flac", "dev", "GO  YOU", "84")
    ]
    assert speech.rejections.select("line", "clip", "reason").rows() == [
        (2, f"{chapter}/84-121123-0001.flac", "no_text"),
        (3, "84-121123-0002", "missing_clip"),
        (4, "84-121123-0000", "duplicate_clip"),
    ]


def test_a_table_of_spans_in_quotes_is_read(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    put(tmp_path, sounds["b.mp3"], "talk.mp3", "test/talk.mp3")
    (tmp_path / "metadata.csv").write_text(
        "path,text,translation,split,speaker,start,end\n"
        'talk.mp3,"Un, deux",One,train,s1,0,0.5\n'
        'talk.mp3,"Il dit ""oui""\net part",Two,,s1,0.5,1.25\n'
        "test/talk.mp3,Trois,Three,,s2,1.5,\n"
        "talk.mp3,Quatre,Four,validation,s2,1.9,2.2\n"
        "talk.mp3,Cinq,Five,train,s2,1.0,9.0\n"
        "talk.mp3,Six,Six,train,s2,1.0,0.5\n"
        "talk.mp3,Sept,Seven,train,s2,soon,2\n"
        "talk.mp3,Huit,Eight,other,s2,0,1\n"
        'talk.mp3,"Neuf,Nine,train,s2,0,1\n'
        "talk.mp3,Dix,Ten,train,s2,0,2\n"
        "../talk.mp3,Onze,Eleven,train,s2,0,2\n"
    )
    speech = read_transcribed(tmp_path, language="fr", translation_language="en")
    assert speech.clips.select("clip", "split", "transcription", "start_s", "end_s").rows() == [
        ("talk.mp3@1.9-2.2", "dev", "Quatre", 1.9, 2.2),
        ("test/talk.mp3@1.5-", "test", "Trois", 1.5, None),
        ("talk.mp3@0-0.5", "train", "Un, deux", 0.0, 0.5),
        ("talk.mp3@0-2", "train", "Dix", 0.0, 2.0),
        ("talk.mp3@0.5-1.25", "train", 'Il dit "oui"\net part', 0.5, 1.25),
    ]
    assert speech.clips["duration_s"].to_list() == pytest.approx([0.1, 0.5, 0.5, 2.0, 0.75], abs=0.01)
    assert speech.rejections.select("line", "reason").rows() == [
        (7, "out_of_range"),
        (8, "out_of_range"),
        (9, "malformed"),
        (10, "not_in_a_split"),
        (11, "malformed"),
        (13, "outside"),
    ]
    whole = read_waveform(tmp_path / "talk.mp3")
    with ClipReader() as reader:
        np.testing.assert_array_equal(reader.read(only(speech, "talk.mp3@0.5-1.25")), whole[8000:20000])
        np.testing.assert_array_equal(reader.read(only(speech, "test/talk.mp3@1.5-")), whole[24000:])


def test_audio_folders_of_hugging_face_have_a_table_in_each_split(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    put(tmp_path, sounds["c.flac"], "train/a.flac", "test/a.flac")
    put(tmp_path, b"file_name,transcription,language\na.flac,Hola,es\n", "train/metadata.csv")
    put(tmp_path, b"file_name,transcription,language\na.flac,Adios,es\nb.flac,Nada,es\n", "test/metadata.csv")
    speech = read_transcribed(tmp_path)
    assert speech.clips.select("clip", "split", "language", "transcription").rows() == [
        ("test/a.flac", "test", "spa", "Adios"),
        ("a.flac", "train", "spa", "Hola"),
    ]
    assert speech.rejections.select("source", "line", "clip", "reason").rows() == [
        ("test/metadata.csv", 3, "b.flac", "missing_clip")
    ]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("a.wav|hello\n", "without a line of column names"),
        ("path,text\na.wav,hello\n", 'say it: language="deu"'),
        ("path,translation,language\na.wav,hello,fr\n", "which language its translations are in"),
    ],
)
def test_a_table_that_says_too_little_is_refused(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "metadata.csv").write_text(content)
    with pytest.raises(TranscribedSpeechError, match=match):
        read_transcribed(tmp_path)


# Hugging Face


def test_parquet_of_hugging_face_is_read_by_split(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    def row(content: bytes | None, path: str | None, text: str | None, speaker: str = "7") -> dict[str, object]:
        return {"audio": {"bytes": content, "path": path}, "sentence": text, "locale": "sv-SE", "client_id": speaker}

    put(tmp_path, sounds["d.wav"], "sound/far.wav")
    first = [
        row(sounds["a.mp3"], "x.mp3", "Ett"),
        row(sounds["b.mp3"], "x.mp3", "Två"),
        row(sounds["c.flac"], None, "Tre"),
    ]
    parquet(tmp_path / "data" / "train-00000-of-00002.parquet", first)
    second = [
        row(None, "sound/far.wav", "Fyra"),
        row(None, "../../x.wav", "Ut"),
        row(None, None, "Inget"),
        row(b"", "empty.mp3", "Tom"),
        row(b"<html>", "page.mp3", "Sida"),
        row(sounds["a.mp3"], "mute.mp3", None),
    ]
    parquet(tmp_path / "data" / "train-00001-of-00002.parquet", [*second, {**second[0], "audio": None}])
    parquet(
        tmp_path / "data" / "validation-00000-of-00001-0123456789abcdef.parquet", [row(sounds["d.wav"], "x.mp3", "Fem")]
    )
    parquet(tmp_path / "data" / "invalidated-00000-of-00001.parquet", [row(sounds["d.wav"], "x.mp3", "Nej")])
    put(tmp_path, b"PAR1 not really", "data/train-00002-of-00002.parquet")
    speech = read_transcribed(tmp_path)
    assert speech.format == "hugging_face"
    assert speech.clips.select("clip", "split", "place", "transcription", "speaker", "language").rows() == [
        ("dev/x.mp3", "dev", "row:0", "Fem", "7", "swe"),
        ("sound/far.wav", "train", "", "Fyra", "7", "swe"),
        ("train-00000-of-00002:2", "train", "row:2", "Tre", "7", "swe"),
        ("train/x.mp3", "train", "row:1", "Två", "7", "swe"),
        ("x.mp3", "train", "row:0", "Ett", "7", "swe"),
    ]
    assert speech.clips["duration_s"].to_list() == pytest.approx([1.25, 1.25, 1.0, 2.0, 1.5], abs=0.01)
    assert sorted(speech.rejections.select("line", "clip", "reason").iter_rows(), key=str) == [
        (1, "../../x.wav", "outside"),
        (2, "train-00001-of-00002:2", "missing_clip"),
        (3, "empty.mp3", "empty_file"),
        (4, "page.mp3", "not_audio"),
        (5, "mute.mp3", "no_text"),
        (6, "train-00001-of-00002:6", "missing_clip"),
        (None, "", "malformed"),
    ]
    assert "invalidated-00000-of-00001.parquet" in speech.notes[0]
    with ClipReader() as reader:
        heard = {row["clip"]: reader.read(row) for row in speech.clips.iter_rows(named=True)}
    for clip, name in (
        ("x.mp3", "a.mp3"),
        ("train/x.mp3", "b.mp3"),
        ("train-00000-of-00002:2", "c.flac"),
        ("dev/x.mp3", "d.wav"),
    ):
        np.testing.assert_array_equal(heard[clip], read_waveform(Held(name, sounds[name])))


def test_configurations_of_several_languages_must_be_told_apart(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    row = {"audio": {"bytes": sounds["a.mp3"], "path": None}, "text": "Un", "translation": "One"}
    parquet(tmp_path / "fr" / "train" / "0000.parquet", [row])
    parquet(tmp_path / "de" / "test" / "0000.parquet", [row])
    with pytest.raises(TranscribedSpeechError, match="several configurations: de, fr"):
        read_transcribed(tmp_path, language="fr")
    with pytest.raises(TranscribedSpeechError, match="locale"):
        read_transcribed(tmp_path / "fr")
    with pytest.raises(TranscribedSpeechError, match="which language its translations are in"):
        read_transcribed(tmp_path / "fr", language="fr")
    speech = read_transcribed(tmp_path / "de", language="fr", translation_language="en")
    assert speech.clips.select("split", "translation", "translation_language").rows() == [("test", "One", "eng")]


def test_shards_that_are_links_out_of_the_folder_are_told(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    row = {"audio": {"bytes": sounds["a.mp3"], "path": "a.mp3"}, "text": "Un", "language": "fr"}
    parquet(tmp_path / "blobs" / "0abc", [row])
    parquet(tmp_path / "set" / "train-00000-of-00002.parquet", [row])
    (tmp_path / "set" / "train-00001-of-00002.parquet").symlink_to(tmp_path / "blobs" / "0abc")
    speech = read_transcribed(tmp_path / "set")
    assert speech.clips.height == 1
    assert speech.rejections.select("source", "reason").rows() == [("train-00001-of-00002.parquet", "outside")]


def test_memory_holds_rows_and_not_row_groups(tmp_path: Path) -> None:
    """240 clips of 20 s of PCM in a row group of 154 MB and pages of 5 MB: 113 MB; 259 with pyarrow's own settings."""
    write_wav(tmp_path / "w.wav", noise(20, RATE_HZ), RATE_HZ)
    head, drawn = (tmp_path / "w.wav").read_bytes()[:100], np.random.default_rng(0)
    sounds = [head + drawn.bytes(640_000) for _ in range(240)]
    rows = [{"audio": {"bytes": sound, "path": None}, "text": "Un", "language": "fr"} for sound in sounds]
    shard = tmp_path / "set" / "train-00000-of-00001.parquet"
    shard.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), shard, use_dictionary=False, write_batch_size=8, row_group_size=240)
    code = (
        "import sys; from pathlib import Path; import pyarrow.parquet\n"
        "from speech_mining.transcribed import read_transcribed, validate\n"
        "peak = lambda: int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
        "before = peak(); validate(read_transcribed(Path(sys.argv[1]))); print((peak() - before) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", code, shard.parent], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 180


# Which format


def test_a_folder_in_two_formats_is_refused_by_naming_both(common_voice: Path, sounds: dict[str, bytes]) -> None:
    put(common_voice, b"path,text,language\nclips/cv_2.mp3,Deux,fr\n", "metadata.csv")
    with pytest.raises(TranscribedSpeechError, match=r"train\.tsv \(common_voice\) and metadata\.csv \(transcripts\)"):
        read_transcribed(common_voice)
    assert read_transcribed(common_voice, format="transcripts").clips["transcription"].to_list() == ["Deux"]


def test_a_folder_in_no_format_is_refused_by_naming_what_lies_there(tmp_path: Path) -> None:
    for address in (tmp_path, tmp_path / "gone"):
        with pytest.raises(TranscribedSpeechError, match=r"holds nothing|is no folder"):
            read_transcribed(address)
    put(tmp_path, b"x", "notes.doc")
    with pytest.raises(TranscribedSpeechError, match=r"holds notes\.doc.*the folder above"):
        read_transcribed(tmp_path)
    with pytest.raises(SettingsError, match=r"no format 'kaldi'.*covost"):
        read_transcribed(tmp_path, format="kaldi")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"),
        ("train-clean-100", "train"),
        ("validation", "dev"),
        ("valid", "dev"),
        ("dev.other", "dev"),
        ("Test", "test"),
        ("tst-COMMON_st", "test"),
        ("eval_1", "test"),
        ("trainer", None),
        ("other", None),
        ("attest", None),
    ],
)
def test_splits_are_known_by_the_names_people_give_them(name: str, split: str | None) -> None:
    assert split_named(name) == split


def test_the_same_folder_gives_the_same_bytes(common_voice: Path, tmp_path: Path) -> None:
    def written() -> bytes:
        speech = read_transcribed(common_voice)
        return json.dumps([speech.clips.rows(), speech.rejections.rows()]).encode()

    (common_voice / "dev.tsv").write_text(HEADER + voice("gone1.mp3", "a") + voice("gone2.mp3", "b"))
    assert written() == written()


def test_progress_is_told_to_the_end(common_voice: Path) -> None:
    told: list[tuple[int, int]] = []
    read_transcribed(common_voice, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (4, 4)


# Clips


def test_a_reader_is_shared_by_threads(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    names = ["a.mp3", "b.mp3", "c.flac", "d.wav"] * 3
    rows = [
        {"audio": {"bytes": sounds[name], "path": f"{number}-{name}"}, "text": "x"} for number, name in enumerate(names)
    ]
    parquet(tmp_path / "train-00000-of-00001.parquet", rows, row_group_size=3)
    clips = read_transcribed(tmp_path, language="fr").clips.rows(named=True)
    reader = ClipReader()
    with ThreadPoolExecutor(4) as threads:
        heard = list(threads.map(reader.read, clips * 3))
    for row, sound in zip(clips * 3, heard, strict=True):
        name = str(row["clip"]).split("-")[1]
        np.testing.assert_array_equal(sound, read_waveform(Held(name, sounds[name])))


def test_two_tables_are_not_mistaken_for_each_other(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    for split, name in (("train", "a.mp3"), ("dev", "c.flac")):
        rows = [{"audio": {"bytes": sounds[name], "path": f"{split}.wav"}, "text": "x"}]
        parquet(tmp_path / f"{split}-00000-of-00001.parquet", rows)
    dev, train = read_transcribed(tmp_path, language="fr").clips.rows(named=True)
    reader = ClipReader()
    for row, name in ((train, "a.mp3"), (dev, "c.flac"), (train, "a.mp3")):
        np.testing.assert_array_equal(reader.read(row), read_waveform(Held(name, sounds[name])))


@pytest.mark.parametrize("kept_s", [0.0, 100.0])
def test_spans_are_the_same_whether_their_recording_is_kept_or_not(tmp_path: Path, kept_s: float) -> None:
    path = write_wav(tmp_path / "long.wav", noise(150, 8_000), 8_000)
    other = write_wav(tmp_path / "other.wav", noise(3, 8_000, seed=1), 8_000)
    whole = {path: read_waveform(path), other: read_waveform(other)}
    reader = ClipReader(kept_s)
    for file, start_s, end_s in (
        (path, 1.0, 2.5),
        (other, 1.0, 2.5),
        (path, 100.25, None),
        (path, 100.25, 101.0),
        (path, None, 0.5),
        (other, 2, 3),
    ):
        row = {"clip": "x", "file": str(file), "place": "", "start_s": start_s, "end_s": end_s}
        expected = whole[file][round((start_s or 0) * RATE_HZ) : None if end_s is None else round(end_s * RATE_HZ)]
        np.testing.assert_array_equal(reader.read(row), expected)


def test_a_clip_that_is_gone_is_told_by_its_name(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    put(tmp_path, sounds["a.mp3"], "a.mp3", "a.zip")
    parquet(tmp_path / "t.parquet", [{"audio": {"bytes": None, "path": None}, "text": "x"}])
    row = {"clip": "my clip", "file": str(tmp_path / "a.mp3"), "place": "", "start_s": None, "end_s": None}
    reader = ClipReader()
    faults: list[tuple[dict[str, object], str]] = [
        ({"file": str(tmp_path / "b.mp3")}, "not_found"),
        ({"file": str(tmp_path / "b.zip"), "place": "1:2"}, "not_found"),
        ({"file": str(tmp_path / "a.zip"), "place": "1:99999999"}, "out_of_range"),
        ({"file": str(tmp_path / "a.zip"), "place": "one"}, "malformed"),
        ({"file": str(tmp_path / "t.parquet"), "place": "row:0"}, "not_found"),
        ({"file": str(tmp_path / "t.parquet"), "place": "row:1"}, "out_of_range"),
        ({"file": str(tmp_path / "a.mp3"), "place": "row:1"}, "not_audio"),
        ({"file": str(tmp_path / "gone.parquet"), "place": "row:1"}, "not_found"),
        ({"start_s": 5.0, "end_s": 6.0}, "out_of_range"),
    ]
    for changed, reason in faults:
        with pytest.raises(AudioError, match="Clip my clip cannot be read") as raised:
            reader.read({**row, **changed})
        assert raised.value.reason == reason, changed
    assert len(reader.read(row)) == pytest.approx(1.5 * RATE_HZ, abs=2)


# Measuring


def test_lengths_by_packets_are_lengths_by_decoding(tmp_path: Path) -> None:
    paths: list[Path] = [
        write_audio(tmp_path / "table.mp3", noise(1.7, 22_050), 22_050),
        vbr_without_header(tmp_path / "guess.mp3", noise(1.7, RATE_HZ), RATE_HZ),
        write_wav(tmp_path / "pcm.wav", noise(1.7, 8_000), 8_000),
        write_audio(tmp_path / "o.opus", noise(1.7, 48_000), 48_000, codec="libopus", sample_format="flt"),
        write_audio(tmp_path / "m.m4a", noise(1.7, 44_100), 44_100, codec="aac"),
        write_audio(tmp_path / "raw.aac", noise(1.7, 44_100), 44_100, codec="aac"),
    ]
    for suffix in ("flac", "ogg"):
        paths.append(tmp_path / f"s.{suffix}")
        sf.write(paths[-1], noise(1.7, RATE_HZ), RATE_HZ)
    for path in paths:
        decoded_s = len(read_waveform(path)) / RATE_HZ
        assert measure_s(path) == pytest.approx(decoded_s, abs=0.03), path.name
        held = Held(path.name, path.read_bytes())
        assert measure_s(held) == measure_s(path)
        np.testing.assert_array_equal(read_waveform(held), read_waveform(path))


def test_bytes_that_are_held_are_as_carefully_opened_as_files(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    put(tmp_path, sounds["a.mp3"], "a.mp3")
    playlists = [
        f"ffconcat version 1.0\nfile {tmp_path}/a.mp3\n",
        f"#EXTM3U\n{tmp_path}/a.mp3\n",
        f"file '{tmp_path}/a.mp3'\n",
    ]
    for content in (*(text.encode() for text in playlists), b"PK\x03\x04zip", b"\0" * 500):
        for work in (measure_s, read_waveform):
            with pytest.raises(AudioError, match=r"^cell 7 ") as raised:
                work(Held("cell 7", content))
            assert raised.value.reason == "not_audio"
    write_audio(tmp_path / "a.avi", noise(0.5, RATE_HZ), RATE_HZ, codec="pcm_s16le", sample_format="s16")
    with pytest.raises(AudioError, match="cannot be opened as audio"):  # a container that is not let in
        measure_s(Held("cell 7", (tmp_path / "a.avi").read_bytes()))
    with pytest.raises(AudioError, match="cell 7 is empty"):
        measure_s(Held("cell 7", b""))


@pytest.mark.parametrize("name", ["a.mp3", "c.flac"])
def test_a_file_that_was_cut_is_damaged(sounds: dict[str, bytes], name: str) -> None:
    with pytest.raises(AudioError, match=r"holds .* s of sound") as raised:
        measure_s(Held(name, sounds[name][: len(sounds[name]) // 2]))
    assert raised.value.reason == "damaged"


@pytest.mark.skipif(not REAL.is_dir(), reason="no real recordings here")
def test_real_readings_with_their_texts_are_a_set(tmp_path: Path) -> None:
    shutil.copytree(REAL / "eng", tmp_path / "train")
    speech = read_transcribed(tmp_path, language="eng")
    assert speech.clips["clip"].to_list() == [f"train/sonnet00{number}.mp3" for number in (1, 2, 3)]
    decoded_s = [len(read_waveform(Path(file))) / RATE_HZ for file in speech.clips["file"]]
    assert speech.clips["duration_s"].to_list() == pytest.approx(decoded_s, abs=0.05)
    assert all(len(text.split()) > 80 for text in speech.clips["transcription"])
