from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speech_mining.encoders.protocol import SpeechSpan
from speech_mining.encoders.student import SHIPPED, Student, save_student
from speech_mining.errors import EncoderError
from tests.tone_world import DIMENSION, sentence, trained

LIBRARY = Path(__file__).parent.parent / "demo" / "library"
WORDS = [0, 1, 2, 2, 1, 0, 0, 3, 1, 1, 2, 0] * 5


@pytest.fixture(scope="module")
def student() -> Student:
    return Student(trained()[0], version="test")


@pytest.fixture(scope="module")
def recording() -> npt.NDArray[np.float32]:
    waveform = sentence(WORDS, seed=5).waveform
    assert len(waveform) > 16_000 * 25  # three chunks
    return waveform


def span(waveform: npt.NDArray[np.float32], start_s: float, end_s: float, language: str = "ton") -> SpeechSpan:
    return SpeechSpan(waveform, round(start_s * 16_000), round(end_s * 16_000), language)


def many(waveform: npt.NDArray[np.float32]) -> list[SpeechSpan]:
    chance = np.random.default_rng(8)
    starts = chance.uniform(0, len(waveform) / 16_000 - 14, 40)
    return [
        span(waveform, start, start + length) for start, length in zip(starts, chance.uniform(1, 13, 40), strict=True)
    ]


def test_vectors_are_unit_rows_of_half_precision(student: Student, recording: npt.NDArray[np.float32]) -> None:
    embedded = student.embed(many(recording))
    assert embedded.vectors.shape == (40, DIMENSION) and embedded.vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(embedded.vectors.astype(np.float64), axis=1), 1, atol=1e-3)
    assert embedded.kept.tolist() == list(range(40)) and embedded.rejected == ()


def test_a_span_says_what_was_said_in_it(student: Student) -> None:
    waveform = sentence([0, 0, 2, 1, 1, 1], seed=6).waveform
    first, second = student.embed([span(waveform, 0.3, 1.5), span(waveform, 1.9, 2.9)]).vectors
    # Two low chords and a high one: s = (2, 0, 1), lengthened by the root of its length; beside it the bias of 0.5.
    lengthened = 5 ** (1.5 / 2)
    np.testing.assert_allclose(first[:3], 5**0.25 * np.array([2, 0, 1]) / np.hypot(lengthened, 0.5), atol=0.1)
    np.testing.assert_allclose(second[:3], np.array([0, 3**1.5, 0]) / np.hypot(3**1.5, 0.5), atol=0.1)


def test_order_and_company_change_no_byte(student: Student, recording: npt.NDArray[np.float32]) -> None:
    spans = many(recording)
    together = student.embed(spans).vectors
    alone = np.concatenate([student.embed([one]).vectors for one in spans])
    backwards = student.embed(spans[::-1]).vectors[::-1]
    other = sentence([1, 2], seed=1).waveform
    mixed = student.embed([item for one in spans for item in (one, span(other, 0.4, 1.2))]).vectors[::2]
    assert together.tobytes() == alone.tobytes() == backwards.tobytes() == mixed.tobytes()


def test_the_number_of_threads_changes_no_byte(recording: npt.NDArray[np.float32]) -> None:
    one, two = (Student(trained()[0], version="test", threads=threads) for threads in (1, 2))
    assert one.embed(many(recording)).vectors.tobytes() == two.embed(many(recording)).vectors.tobytes()


def test_chunks_hear_what_the_whole_recording_says(student: Student, recording: npt.NDArray[np.float32]) -> None:
    whole = student.frames(recording, "ton", 0, frames=640)
    chunks = np.concatenate([student.frames(recording, "ton", chunk) for chunk in range(3)])
    np.testing.assert_allclose(chunks[:640], whole, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 300), st.integers(40, 300))
def test_a_span_is_the_sum_of_its_frames(first: int, count: int) -> None:
    student, waveform = Student(trained()[0], version="test"), sentence(WORDS, seed=5).waveform
    # From the edge between two frames to the edge between two others, so that no frame counts in part.
    edges = [640 * first - 320, 640 * (first + count) - 320]
    frames = np.concatenate([student.frames(waveform, "ton", chunk) for chunk in range(3)])
    summed = frames[first : first + count].sum(axis=0)
    expected = np.append(np.sqrt(np.linalg.norm(summed)) * summed, 0.5)
    (vector,) = student.embed([SpeechSpan(waveform, *edges, "ton")]).vectors
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-3)


def test_speech_far_from_a_span_changes_no_byte(student: Student, recording: npt.NDArray[np.float32]) -> None:
    changed = recording.copy()
    changed[: 16_000 * 4] = changed[16_000 * 10 : 16_000 * 14]
    changed[16_000 * 9 :] *= 0.1
    before, after = (student.embed([span(waveform, 4.8, 8.2)]).vectors for waveform in (recording, changed))
    assert before.tobytes() == after.tobytes()


def test_what_cannot_be_embedded_is_rejected_with_a_reason(student: Student) -> None:
    waveform = np.concatenate([sentence([0, 1, 2], seed=2).waveform, np.zeros(16_000 * 70, np.float32)])
    noisy = waveform + np.random.default_rng(0).normal(0, 6e-4, len(waveform)).astype(np.float32)
    broken = waveform.copy()
    broken[[20_000, 22_000]] = np.nan, np.inf
    embedded = student.embed(
        [
            span(waveform, 0.4, 1.5),
            span(waveform, 0.5, 0.6),
            span(waveform, 0.5, 60.6),
            span(waveform, 5, 8),
            span(noisy, 5, 8),
            span(broken, 1.2, 1.4),
            span(broken, 0.4, 1.2),
            span(waveform, 80, 90),  # beyond the end
        ]
    )
    told = [(rejected.item, rejected.reason) for rejected in embedded.rejected]
    assert told == [
        (1, "too_short"), (2, "too_long"), (3, "silent"), (4, "no_content"), (5, "not_a_number"), (7, "too_short"),
    ]  # fmt: skip
    assert embedded.kept.tolist() == [0, 6] and np.isfinite(embedded.vectors).all()


def test_nothing_to_embed_gives_an_empty_matrix(student: Student) -> None:
    embedded = student.embed([])
    assert embedded.vectors.shape == (0, DIMENSION) and embedded.kept.shape == (0,) and embedded.rejected == ()


def test_a_short_recording_is_heard_to_its_end(student: Student) -> None:
    recording = sentence([2], seed=3, pause_s=0.0).waveform  # 0.3 s, shorter than what the network looks at
    (vector,) = student.embed([SpeechSpan(recording, 0, len(recording), "ton")]).vectors
    assert vector[2] > 0.8


def test_progress_ends_with_everything_done(student: Student, recording: npt.NDArray[np.float32]) -> None:
    told: list[tuple[int, int]] = []
    student.embed([*many(recording), span(recording, 0, 0.1)], progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (41, 41) and told == sorted(told)


def test_an_unknown_language_and_a_stereo_waveform_are_errors(student: Student) -> None:
    mono = np.zeros(16_000, np.float32)
    with pytest.raises(EncoderError, match="does not know the language 'pol'"):
        student.embed([span(mono, 0, 1, "pol")])
    with pytest.raises(EncoderError, match=r"shape \(16000, 2\)"):
        student.embed([SpeechSpan(np.stack([mono, mono], axis=1), 0, 16_000, "ton")])


def test_a_student_survives_its_file(tmp_path: Path, student: Student, recording: npt.NDArray[np.float32]) -> None:
    first, second = tmp_path / "chords.safetensors", tmp_path / "again.safetensors"
    save_student(trained()[0], first)
    save_student(trained()[0], second)
    loaded = Student.load(first)
    assert first.read_bytes() == second.read_bytes()
    assert (loaded.name, loaded.languages, loaded.dimension) == ("chords", frozenset({"ton"}), DIMENSION)
    assert loaded.version == Student.load(second).version != student.version
    before, after = (one.embed(many(recording)).vectors.astype(np.float32) for one in (student, loaded))
    assert (before * after).sum(axis=1).min() > 0.995  # float16 weights


def test_files_that_hold_no_student_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    good = tmp_path / "good.safetensors"
    save_student(trained()[0], good)
    content, path = good.read_bytes(), tmp_path / "bad.safetensors"
    for damaged in (b"", b"<html>404</html>", content[:1000], content[:-100]):
        path.write_bytes(damaged)
        with pytest.raises(EncoderError, match="no safetensors file"):
            Student.load(path)
    save_file({"weight": np.zeros(3, np.float32)}, path)
    with pytest.raises(EncoderError, match="its format is None"):
        Student.load(path)
    path.write_bytes(content.replace(b"ton.head.bias", b"ton.head.bees"))
    with pytest.raises(EncoderError, match=r"lacks 'ton\.head\.bias'"):
        Student.load(path)
    with pytest.raises(EncoderError, match="cannot be read from"):
        Student.load(tmp_path / "absent.safetensors")


def test_the_shipped_weights_are_small_and_belong_to_the_teacher_of_today() -> None:
    from demo.world.concepts import ConceptTeacher, concept_names

    student = Student.load()
    # Another lexicon, another space: the weights must then be trained again (s2s train --recipe demo).
    assert student.trained["teacher"] == ConceptTeacher().version and student.meanings == concept_names()
    assert SHIPPED.stat().st_size < 8_000_000
    assert student.name == "miniature" and student.languages == {"deu", "eng", "fra", "spa"}
    assert student.dimension == 512


def test_the_shipped_weights_hear_no_speech_in_the_noise_of_a_room() -> None:
    noise = np.random.default_rng(4).normal(0, 10 ** (-60 / 20), 16_000 * 4).astype(np.float32)
    embedded = Student.load().embed([span(noise, 0.5, 3.5, language) for language in ("deu", "eng", "fra", "spa")])
    assert [rejected.reason for rejected in embedded.rejected] == ["no_content"] * 4


@pytest.mark.skipif(not LIBRARY.exists(), reason="the miniature library is not in this installation")
def test_the_shipped_weights_find_the_librarys_translations() -> None:
    import json

    from demo.world.concepts import ConceptTeacher
    from speech_mining.audio.decode import read_waveform
    from speech_mining.encoders import protocol
    from speech_mining.evaluation.retrieval import mean_of, recall_by_direction

    told = pl.read_parquet(LIBRARY / "sentences.parquet").filter(pl.col("sentence") != "")
    counts = told.group_by("sentence").agg(pl.col("language").n_unique())
    everywhere = counts.filter(pl.col("language") == 4)["sentence"].sort().to_list()
    assert len(everywhere) >= 10
    files = {
        (book["id"], int(section["section_number"])): LIBRARY
        / "download"
        / "/".join(section["listen_url"].split("/")[-2:])
        for book in json.loads((LIBRARY / "catalogue.json").read_text(encoding="utf-8"))["books"]
        for section in book["sections"]
    }
    student, heard, texts = Student.load(), {}, {}
    for (language,), part in told.group_by("language"):
        rows = {row["sentence"]: row for row in part.iter_rows(named=True)}
        ordered = [rows[key] for key in everywhere] + [rows[key] for key in sorted(set(rows) - set(everywhere))]
        places = sorted({(row["audiobook"], row["section"]) for row in ordered})
        waveforms = {place: read_waveform(files[place]) for place in places}
        spans = [
            SpeechSpan(
                waveforms[row["audiobook"], row["section"]], 16 * row["start_ms"], 16 * row["end_ms"], str(language)
            )
            for row in ordered
        ]
        heard[str(language)] = student.embed(spans).vectors
        texts[str(language)] = (
            ConceptTeacher().embed([protocol.Sentence(row["text"], str(language)) for row in ordered]).vectors
        )
    asked = {language: vectors[: len(everywhere)] for language, vectors in heard.items()}
    assert mean_of(recall_by_direction(asked, heard)) >= 0.92
    # A role swap has the very words of its original: among the texts it ties with it, which counts as lost.
    assert mean_of(recall_by_direction(asked, texts, k=2)) >= 0.97
