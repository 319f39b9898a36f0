"""MuST-C, and mTEDx in its layout: spans of talks with their texts, each file whole and each broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile as sf
import yaml
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.audio.decode import read_waveform
from speech_mining.errors import AudioError
from speech_mining.records import TRANSCRIBED, conform
from speech_mining.transcribed import ClipReader, TranscribedSet, TranscribedSpeechError, read_transcribed
from speech_mining.transcribed.languages import Wanted
from speech_mining.transcribed.measuring import measured
from speech_mining.transcribed.must_c import _PLAIN, _cells, _cells_of_yaml
from speech_mining.transcribed.must_c import read as read_must_c
from speech_mining.transcribed.seeking import length_s, samples_between
from tests.bad_audio import noise

RATE_HZ = 16_000
FIRST = "- {{duration: {duration}, offset: {offset}, speaker_id: spk.{talk}, wav: ted_{talk}.wav}}\n"
LATER = "- {{duration: {duration}, offset: {offset}, rW: 9, uW: 0, speaker_id: spk.{talk}, wav: ted_{talk}.wav}}\n"


def span(duration: float | str, offset: float | str, talk: int, form: str = FIRST) -> str:
    return form.format(duration=duration, offset=offset, talk=talk)


def talk(folder: Path, number: int, seconds: float = 3.0, suffix: str = ".wav") -> Path:
    path = folder / "wav" / f"ted_{number}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, noise(seconds, RATE_HZ, seed=number), RATE_HZ, subtype="PCM_16")
    return path


def part(data: Path, split: str, spans: str, **texts: str) -> Path:
    """A folder of a split: its list of spans, and a file of text a language."""
    folder = data / split
    (folder / "txt").mkdir(parents=True)
    (folder / "wav").mkdir()
    (folder / "txt" / f"{split}.yaml").write_text(spans)
    for language, text in texts.items():
        (folder / "txt" / f"{split}.{language}").write_bytes(text.encode())
    return folder


@pytest.fixture
def must_c(tmp_path: Path) -> Path:
    """The root that archives are unpacked into: one direction, two talks to train on, one talk of each other split."""
    data = tmp_path / "en-de" / "data"
    spans = span("1.500000", "0.500000", 2) + span(0.75, 2, 2) + span(1, 0.25, 1)
    train = part(data, "train", spans, en="Two, one.\nTwo, two.\nOne.\n", de="Zwei, eins.\nZwei, zwei.\nEins.\n")
    talk(train, 1)
    talk(train, 2)
    for number, split in ((3, "dev"), (4, "tst-COMMON"), (5, "tst-HE")):
        talk(part(data, split, span(1.25, 1, number, LATER), en=f"{split}.\n", de=f"Auf Deutsch {split}.\n"), number)
    return tmp_path


def reasons(speech: TranscribedSet) -> list[tuple[str, int, str, str]]:
    return list(speech.rejections.select("source", "line", "clip", "reason").iter_rows())


def test_every_split_is_read_with_both_texts_and_spans_of_talks(must_c: Path) -> None:
    speech = read_transcribed(must_c)
    assert speech.format == "must_c"
    told = speech.clips.select("clip", "split", "start_s", "end_s", "transcription", "translation", "speaker")
    assert told.rows() == [
        ("ted_3.wav@1-2.25", "dev", 1.0, 2.25, "dev.", "Auf Deutsch dev.", "spk.3"),
        ("ted_4.wav@1-2.25", "test", 1.0, 2.25, "tst-COMMON.", "Auf Deutsch tst-COMMON.", "spk.4"),
        ("ted_1.wav@0.25-1.25", "train", 0.25, 1.25, "One.", "Eins.", "spk.1"),
        ("ted_2.wav@0.5-2", "train", 0.5, 2.0, "Two, one.", "Zwei, eins.", "spk.2"),
        ("ted_2.wav@2-2.75", "train", 2.0, 2.75, "Two, two.", "Zwei, zwei.", "spk.2"),
    ]
    assert set(speech.clips["language"]) == {"eng"}
    assert set(speech.clips["translation_language"]) == {"deu"}
    assert speech.clips["duration_s"].to_list() == [1.25, 1.25, 1.0, 1.5, 0.75]
    assert speech.clips["file"][3] == str(must_c / "en-de" / "data" / "train" / "wav" / "ted_2.wav")
    assert speech.rejections.is_empty()
    conform(speech.clips, TRANSCRIBED, "clips")


def test_a_span_sounds_as_it_does_in_its_talk(must_c: Path) -> None:
    speech = read_transcribed(must_c)
    whole = read_waveform(must_c / "en-de" / "data" / "train" / "wav" / "ted_2.wav")
    row = speech.clips.row(by_predicate=pl.col("clip") == "ted_2.wav@0.5-2", named=True)
    with ClipReader() as reader:
        np.testing.assert_array_equal(reader.read(row), whole[8_000:32_000])


def test_the_second_test_set_is_read_where_its_own_folder_is_given(must_c: Path) -> None:
    data = must_c / "en-de" / "data"
    assert read_transcribed(must_c).notes == ("not read: tst-HE",)
    alone = read_transcribed(data / "tst-HE")
    assert alone.clips.select("split", "transcription", "translation").rows() == [
        ("test", "tst-HE.", "Auf Deutsch tst-HE.")
    ]
    assert alone.notes == ()
    (data / "tst-HE").rename(data / "IWSLT.tst2020")
    assert read_transcribed(data).notes == ("not read: IWSLT.tst2020",)


@pytest.mark.parametrize("inside", ["", "en-de", "en-de/data"])
def test_the_folder_may_be_the_root_the_direction_or_its_data(must_c: Path, inside: str) -> None:
    assert read_transcribed(must_c / inside).clips.equals(read_transcribed(must_c).clips)


def test_of_several_directions_the_languages_wanted_choose(must_c: Path) -> None:
    talk(part(must_c / "en-fr" / "data", "train", span(1, 0, 9), en="Nine.\n", fr="Neuf.\n"), 9)
    with pytest.raises(TranscribedSpeechError, match=r"en-de, en-fr.*say language and translation_language"):
        read_transcribed(must_c)
    chosen = read_transcribed(must_c, translation_language="fr")
    assert chosen.clips["translation"].to_list() == ["Neuf."]
    with pytest.raises(TranscribedSpeechError, match="look at the languages"):
        read_transcribed(must_c, language="de")


def test_a_direction_of_a_language_unknown_is_told(tmp_path: Path) -> None:
    talk(part(tmp_path / "en-qq" / "data", "train", span(1, 0, 1), en="a\n", qq="b\n"), 1)
    with pytest.raises(TranscribedSpeechError, match=r"en-qq.*language 'qq'.*en-de"):
        read_transcribed(tmp_path)


def test_mtedx_has_flac_under_names_of_wav_and_folders_without_translation(tmp_path: Path) -> None:
    for name in ("es-en", "es-es"):
        texts = {"es": "Uno.\n"} | ({"en": "One.\n"} if name == "es-en" else {})
        talk(part(tmp_path / name / "data", "valid", span(1.5, 1, 7), **texts), 7, suffix=".flac")
    both = read_transcribed(tmp_path / "es-en")
    assert both.clips.select("split", "language", "translation", "translation_language").rows() == [
        ("dev", "spa", "One.", "eng")
    ]
    row = both.clips.row(0, named=True)
    assert row["file"].endswith("ted_7.flac")
    whole = read_waveform(Path(row["file"]))
    np.testing.assert_array_equal(ClipReader().read(row), whole[RATE_HZ : 2 * RATE_HZ + 8_000])
    alone = read_transcribed(tmp_path / "es-es")
    assert alone.clips.select("transcription", "translation", "translation_language").rows() == [("Uno.", None, None)]
    assert set(read_transcribed(tmp_path, translation_language="en").clips["translation"]) == {"One."}


def test_spans_that_cannot_be_used_are_told_with_their_lines(must_c: Path) -> None:
    data = must_c / "fr-en" / "data"
    spans = [
        span(1, 0, 1),
        span(1, 2.2, 1),  # 0.2 s beyond the talk: tables round
        span(1, 2.5, 1),
        span(1, 7, 1),
        span(0, 1, 1),
        span("null", 1, 1),
        span(1, "", 1),
        span(-1, 1, 1),
        span(1, 1, 8),
        "- {duration: 1, offset: 1.5, wav: ../../../../en-de/data/train/wav/ted_1.wav}\n",
        "- {duration: 1, offset: 1.5, wav: }\n",
        "- [1, 2]\n",
        '- {duration: "1\n',
        span(1, 1.75, 1),
        span(0.5, 1.75, 1),
        span(1, 0, 1),
    ]
    texts = [f"T{number}" for number in range(1, 15)]
    french = [*texts, "", "T1"]
    english = [*texts, "", "T1"]
    french[13] = ""
    talk(part(data, "train", "".join(spans), fr="\n".join(french) + "\n", en="\n".join(english)), 1)
    speech = read_transcribed(must_c / "fr-en")
    assert speech.clips.select("clip", "transcription", "translation").rows() == [
        ("ted_1.wav@0-1", "T1", "T1"),
        ("ted_1.wav@1.75-2.75", None, "T14"),
        ("ted_1.wav@2.2-3.2", "T2", "T2"),
    ]
    table = "data/train/txt/train.yaml"
    assert reasons(speech) == [
        (table, 3, "ted_1.wav@2.5-3.5", "out_of_range"),
        (table, 4, "ted_1.wav@7-8", "out_of_range"),
        (table, 5, "ted_1.wav@1-1", "out_of_range"),
        (table, 6, "ted_1.wav", "malformed"),
        (table, 7, "ted_1.wav", "malformed"),
        (table, 8, "ted_1.wav", "malformed"),
        (table, 9, "ted_8.wav@1-2", "missing_clip"),
        (table, 10, "../../../../en-de/data/train/wav/ted_1.wav", "outside"),
        (table, 11, "", "malformed"),
        (table, 12, "", "malformed"),
        (table, 13, "", "malformed"),
        (table, 15, "ted_1.wav@1.75-2.25", "no_text"),
        (table, 16, "ted_1.wav@0-1", "duplicate_clip"),
    ]


def test_lists_of_different_lengths_are_refused_by_their_counts(must_c: Path) -> None:
    text = must_c / "en-de" / "data" / "train" / "txt" / "train.de"
    text.write_text("Zwei, eins.\nEins.\n")
    with pytest.raises(
        TranscribedSpeechError, match=r"train\.yaml lists 3 spans; lines: train\.en 3, train\.de 2\..*cut"
    ):
        read_transcribed(must_c)


def test_lines_end_in_line_feeds_and_in_nothing_else(must_c: Path) -> None:
    folder = must_c / "en-de" / "data" / "train" / "txt"
    odd = ["One\u2028two\x0bthree\x85four\rfive.", "\ufeffTwo, two.\r", ""]
    (folder / "train.en").write_bytes("\n".join([*odd[:2], "One."]).encode())
    (folder / "train.de").write_bytes(b"Zwei.\n\xff\xfe\nEins.")
    speech = read_transcribed(must_c)
    of_train = speech.clips.filter(pl.col("split") == "train")
    assert of_train.select("clip", "transcription").rows() == [
        ("ted_1.wav@0.25-1.25", "One."),
        ("ted_2.wav@0.5-2", odd[0]),
    ]
    assert reasons(speech) == [("en-de/data/train/txt/train.yaml", 2, "ted_2.wav", "malformed")]


def test_what_is_missing_is_told_and_features_are_no_talks(must_c: Path) -> None:
    folder = must_c / "en-de" / "data" / "train"
    (folder / "txt" / "train.de").rename(folder / "txt" / "train.german")
    with pytest.raises(TranscribedSpeechError, match=r"no .*train\.de.*unpack the archive of en-de"):
        read_transcribed(must_c)
    (folder / "txt" / "train.german").rename(folder / "txt" / "train.de")
    (folder / "wav").rename(folder / "h5")
    with pytest.raises(TranscribedSpeechError, match=r"no .*train/wav.*features \(h5\)"):
        read_transcribed(must_c)


@pytest.mark.parametrize(
    "written",
    [
        "- {duration: 1.5, offset: 0.5, speaker_id: spk.2,\n  wav: ted_2.wav}\n",
        "- duration: 1.5\n  offset: 0.5\n  speaker_id: spk.2\n  wav: ted_2.wav\n",
        "- {'duration': 1.5, offset: \"0.5\", speaker_id: 'spk.2', wav: 'ted_2.wav'}\n",
        "- {duration: 1.5, offset: 0.5, speaker_id: spk.2, wav: ted_2.wav}\r\n",
        "-   {duration: 1.5 ,offset: 0.5,speaker_id: spk.2 , wav: ted_2.wav }  \n",
        "---\n# spans\n- {duration: 1.5, offset: 0.5, speaker_id: spk.2, wav: ted_2.wav}\n",
    ],
)
def test_every_way_to_write_the_list_gives_the_same_span(tmp_path: Path, written: str) -> None:
    talk(part(tmp_path / "en-de" / "data", "train", written * 1, en="a\n", de="b\n"), 2)
    row = read_transcribed(tmp_path).clips.row(0, named=True)
    assert (row["clip"], row["start_s"], row["end_s"], row["speaker"]) == ("ted_2.wav@0.5-2", 0.5, 2.0, "spk.2")


_KEYS = ("duration", "offset", "rW", "speaker_id", "wav")
_VALUES = st.text("abcXYZ019._-/ ", min_size=1, max_size=12).map(str.strip).filter(bool)


@given(st.dictionaries(st.sampled_from(_KEYS), _VALUES, min_size=1))
def test_entries_are_read_as_yaml_reads_them(cells: dict[str, str]) -> None:
    entry = f"- {{{', '.join(f'{key}: {value}' for key, value in cells.items())}}}"
    try:
        expected = yaml.load(entry, Loader=yaml.BaseLoader)[0]
    except yaml.YAMLError:
        return
    assert _PLAIN.fullmatch(entry)
    assert _cells(entry) == _cells_of_yaml(entry) == expected


def test_a_folder_of_fairseq_made_of_must_c_names_both(must_c: Path) -> None:
    (must_c / "en-de" / "train_st.tsv").write_text(
        "id\taudio\tn_frames\ttgt_text\nted_1_0\tfbank80.zip:1:2\t9\tEins.\n"
    )
    with pytest.raises(TranscribedSpeechError, match=r"must_c.*fairseq_s2t.*say the format"):
        read_transcribed(must_c / "en-de")
    assert read_transcribed(must_c / "en-de", format="must_c").clips.height == 5


def test_a_talk_is_opened_once_for_all_its_spans_and_never_decoded(
    must_c: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    def opening(path: Path) -> float | None:
        opened.append(path)
        return length_s(path)

    monkeypatch.setattr("speech_mining.transcribed.measuring.length_s", opening)
    monkeypatch.setattr("speech_mining.transcribed.measuring.measure_s", lambda _: pytest.fail("its packets are read"))
    found = list(measured(read_must_c(must_c, Wanted()).clips))
    assert len(found) == 5
    assert [path.name for path in opened] == ["ted_2.wav", "ted_1.wav", "ted_3.wav", "ted_4.wav"]


# Seeking


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_span_that_is_sought_has_the_samples_of_the_decoder(tmp_path: Path, suffix: str) -> None:
    path = talk(tmp_path, 1, 2.5, suffix)
    whole = read_waveform(path)
    for start, end in (
        (0, 100),
        (7, 30_001),
        (39_999, 40_000),
        (39_000, 50_000),
        (123, None),
        (40_000, None),
        (90_000, 90_010),
    ):
        sought = samples_between(path, start, end)
        assert sought is not None
        assert sought.dtype == np.float32
        np.testing.assert_array_equal(sought, whole[start:end])


def test_what_cannot_be_sought_is_left_to_the_decoder(tmp_path: Path) -> None:
    sound = noise(1, RATE_HZ)
    sf.write(tmp_path / "slow.wav", sound, 8_000, subtype="PCM_16")
    sf.write(tmp_path / "stereo.wav", np.stack([sound, sound], axis=1), RATE_HZ, subtype="PCM_16")
    sf.write(tmp_path / "float.wav", sound, RATE_HZ, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("no sound")
    talk(tmp_path, 1).rename(tmp_path / "talk.mp3")
    for name in ("slow.wav", "stereo.wav", "float.wav", "text.wav", "talk.mp3", "gone.wav"):
        assert samples_between(tmp_path / name, 0, 10) is None, name


def test_the_header_of_a_wav_is_believed_where_its_samples_are_there(tmp_path: Path) -> None:
    path = talk(tmp_path, 1, 2.5)
    assert length_s(path) == 2.5
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    assert length_s(path) is None
    path.write_bytes(content[:44])
    assert length_s(path) is None
    path.write_bytes(b"")
    assert length_s(path) is None
    assert length_s(talk(tmp_path, 2, suffix=".flac")) is None


def test_of_a_talk_that_was_cut_the_spans_that_are_left_are_kept(must_c: Path) -> None:
    path = must_c / "en-de" / "data" / "train" / "wav" / "ted_2.wav"
    path.write_bytes(path.read_bytes()[: 44 + round(2.1 * RATE_HZ) * 2])
    speech = read_transcribed(must_c)
    assert speech.clips.filter(pl.col("split") == "train")["clip"].to_list() == [
        "ted_1.wav@0.25-1.25",
        "ted_2.wav@0.5-2",
    ]
    assert reasons(speech) == [("en-de/data/train/txt/train.yaml", 2, "ted_2.wav@2-2.75", "out_of_range")]


def test_a_span_beyond_what_is_left_of_a_talk_is_told(must_c: Path) -> None:
    row = read_transcribed(must_c).clips.row(by_predicate=pl.col("clip") == "ted_2.wav@2-2.75", named=True)
    sf.write(row["file"], noise(1, RATE_HZ), RATE_HZ, subtype="PCM_16")
    with pytest.raises(AudioError, match=r"Clip ted_2\.wav@2-2\.75 .* ends before 2 s") as raised:
        ClipReader().read(row)
    assert raised.value.reason == "out_of_range"
