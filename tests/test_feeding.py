"""Feeding encoders: what is made ahead, what happens when memory does not suffice, and the quick attention."""

from __future__ import annotations

import threading
import wave
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_mining.encoders import relative_attention
from speech_mining.encoders.audiobook import EmbeddedAudiobook, embed_audiobook
from speech_mining.encoders.batches import Positions
from speech_mining.encoders.feeding import Room, feed, is_out_of_memory
from speech_mining.encoders.protocol import Embedded, Sentence, SpeechSpan
from speech_mining.encoders.sonar import SonarSpeech, SonarText
from speech_mining.errors import AudioError
from speech_mining.records import SEGMENTS
from tests.tiny_sonar import build_speech, build_text

SECOND = 16_000
LENGTHS = (16_000, 48_001, 33_333, 20_160, 560, 100_000, 48_001, 4_000)
WAIT_S = 20
Vectors = npt.NDArray[np.float32]


class Made:
    """Something that can be watched."""

    def __init__(self, number: int) -> None:
        self.number = number


def ask_for_a_pebibyte() -> None:
    import torch

    torch.empty(1 << 50, dtype=torch.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    build_speech(directory, "tiny_deu")
    build_text(directory)
    return directory


@pytest.fixture(scope="module")
def spans() -> list[SpeechSpan]:
    waveform = (np.random.default_rng(0).standard_normal(sum(LENGTHS)) * 0.1).astype(np.float32)
    ends = np.cumsum(LENGTHS).tolist()
    return [SpeechSpan(waveform, end - size, end, "deu") for end, size in zip(ends, LENGTHS, strict=True)]


@given(st.lists(st.integers(), max_size=20), st.integers(0, 5))
def test_what_is_used_comes_in_the_order_given(numbers: list[int], ahead: int) -> None:
    assert list(feed(numbers, lambda number: number * 2, lambda made: made + 1, ahead=ahead)) == [
        number * 2 + 1 for number in numbers
    ]


def test_the_next_is_made_while_one_is_used() -> None:
    begun = [threading.Event() for _ in range(3)]

    def make(number: int) -> int:
        begun[number].set()
        return number

    def use(number: int) -> bool:
        return number == 2 or begun[number + 1].wait(WAIT_S)

    assert list(feed(range(3), make, use, ahead=1)) == [True, True, True]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_no_more_than_asked_for_exists_at_once(ahead: int) -> None:
    alive: weakref.WeakSet[Made] = weakref.WeakSet()
    most = []

    def make(number: int) -> Made:
        made = Made(number)
        alive.add(made)
        most.append(len(alive))
        return made

    assert list(feed(range(30), make, lambda made: made.number, ahead=ahead)) == list(range(30))
    assert max(most) <= ahead + 1


def test_an_error_comes_at_its_turn_and_nothing_after_it_is_used() -> None:
    used = []

    def make(number: int) -> float:
        return 1 / (number - 2)

    with pytest.raises(ZeroDivisionError):
        for done in feed(range(9), make, lambda made: made, ahead=3):
            used.append(done)
    assert used == [-0.5, -1.0]


def test_leaving_early_makes_no_more() -> None:
    made: list[int] = []
    fed = feed(range(1_000), made.append, lambda _: None, ahead=2)
    next(fed)
    assert isinstance(fed, Iterator)
    fed.close()  # type: ignore[attr-defined]
    assert len(made) <= 4


def test_errors_that_say_memory_is_full_are_known_from_others() -> None:
    for fill in (ask_for_a_pebibyte, lambda: np.empty(1 << 50), lambda: bytearray(1 << 62)):
        with pytest.raises((MemoryError, RuntimeError)) as told:
            fill()
        assert is_out_of_memory(told.value)
    import torch

    assert is_out_of_memory(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(ValueError("out of memory"))


def run_within(limit: int, tried: list[int]) -> Any:
    def run(part: Positions) -> Vectors:
        tried.append(part.size)
        if part.size > limit:
            ask_for_a_pebibyte()
        return part[:, None].astype(np.float32)

    return run


@given(st.integers(1, 40), st.integers(1, 50))
def test_halving_loses_no_item_and_no_order(count: int, limit: int) -> None:
    batch = np.random.default_rng(count).permutation(count)
    parts = list(Room(lambda part: part.size).run(batch, run_within(limit, [])))
    assert np.concatenate([items for items, _ in parts]).tolist() == batch.tolist()
    for items, vectors in parts:
        assert vectors is not None and vectors[:, 0].tolist() == items.tolist()


def test_what_did_not_fit_once_is_not_tried_again() -> None:
    tried: list[int] = []
    room = Room(lambda part: part.size)
    for _ in range(3):
        list(room.run(np.arange(8), run_within(2, tried)))
    assert tried == [8, 4, 2, 2, 2, 2] + [2, 2, 2, 2] * 2


def test_a_single_item_that_does_not_fit_has_no_vectors_and_the_rest_has() -> None:
    def run(part: Positions) -> Vectors:
        if 3 in part:
            ask_for_a_pebibyte()
        return np.ones((part.size, 1), np.float32)

    parts = {tuple(items.tolist()): vectors for items, vectors in Room(lambda part: part.size).run(np.arange(6), run)}
    assert {items for items, vectors in parts.items() if vectors is None} == {(3,)}
    assert sorted(item for items in parts for item in items) == list(range(6))


def test_any_other_error_of_the_model_is_a_crash() -> None:
    def run(part: Positions) -> Vectors:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        list(Room(lambda part: part.size).run(np.arange(6), run))


def test_what_a_failed_pass_held_is_free_before_the_next_try() -> None:
    alive: weakref.WeakSet[Made] = weakref.WeakSet()
    held = []

    def run(part: Positions) -> Vectors:
        held.append(len(alive))
        activations = Made(part.size)
        alive.add(activations)
        if part.size > 1:
            ask_for_a_pebibyte()
        return np.ones((part.size, 1), np.float32)

    list(Room(lambda part: part.size).run(np.arange(4), run))
    assert held == [0] * 6


def speech(models: Path, *, limit_positions: int | None = None, **settings: Any) -> SonarSpeech:
    """An encoder whose model, if a limit is given, really asks for too much memory beyond so many padded frames."""
    encoder = SonarSpeech({"deu": "tiny_deu"}, device="cpu", model_dir=models, **settings)
    if limit_positions is not None:
        model = encoder.load("deu").pipeline.model

        def check(_: Any, inputs: tuple[Any, ...]) -> None:
            if inputs[0].shape[0] * inputs[0].shape[1] > limit_positions:
                ask_for_a_pebibyte()

        model.register_forward_pre_hook(check)
    return encoder


def test_speech_that_does_not_fit_is_halved_and_comes_back_in_its_order(models: Path, spans: list[SpeechSpan]) -> None:
    expected = speech(models).embed(spans)
    told: list[tuple[int, int]] = []
    halved = speech(models, limit_positions=700).embed(spans, progress=lambda done, total: told.append((done, total)))
    assert halved.kept.tolist() == list(range(len(LENGTHS))) and halved.rejected == ()
    np.testing.assert_allclose(halved.vectors.astype(np.float32), expected.vectors.astype(np.float32), atol=1e-3)
    assert len(told) > 3 and told[-1] == (len(LENGTHS), len(LENGTHS))


def test_a_span_that_does_not_fit_alone_is_a_counted_rejection(models: Path, spans: list[SpeechSpan]) -> None:
    embedded: Embedded = speech(models, limit_positions=400).embed(spans)
    assert [(rejected.item, rejected.reason) for rejected in embedded.rejected] == [(5, "out_of_memory")]
    assert embedded.kept.tolist() == [0, 1, 2, 3, 4, 6, 7]
    alone = speech(models).embed(spans).vectors[embedded.kept]
    np.testing.assert_allclose(embedded.vectors.astype(np.float32), alone.astype(np.float32), atol=1e-3)


def test_sentences_that_do_not_fit_are_halved_too(models: Path) -> None:
    sentences = [Sentence(f"hello world number {number}", "eng") for number in range(7)]
    whole, halved = (SonarText("tiny_text", device="cpu", model_dir=models) for _ in range(2))

    def check(_: Any, inputs: tuple[Any, ...]) -> None:
        if inputs[0].shape[0] > 2:
            ask_for_a_pebibyte()

    halved.load().pipeline.model.register_forward_pre_hook(check)
    a, b = (encoder.embed(sentences).vectors.astype(np.float32) for encoder in (whole, halved))
    np.testing.assert_allclose(a, b, atol=1e-3)
    assert len(np.unique(a, axis=0)) == 7


def test_vectors_are_the_same_bytes_however_many_threads_compute_features(
    models: Path, spans: list[SpeechSpan]
) -> None:
    vectors = [
        speech(models, feature_threads=threads, max_batch_seconds=3).embed(spans * 4).vectors.tobytes()
        for threads in (0, 1, 4)
    ]
    assert vectors[0] == vectors[1] == vectors[2]


def book(folder: Path, recordings: int = 4) -> tuple[pl.DataFrame, dict[int, Path]]:
    """Recordings of noise, five segments each, as `records.SEGMENTS`."""
    frames, paths = [], {}
    for section in range(1, recordings + 1):
        sound = np.random.default_rng(section).normal(0, 3_000, 6 * SECOND).astype(np.int16)
        paths[section] = folder / f"{section}.wav"
        with wave.open(str(paths[section]), "wb") as file:
            file.setparams((1, 2, SECOND, 0, "NONE", ""))
            file.writeframes(sound.tobytes())
        starts = np.arange(5) * SECOND
        known = {"audiobook": "noise", "section": section, "start_sample": starts, "end_sample": starts + SECOND}
        absent = [pl.lit(0).cast(dtype).alias(name) for name, dtype in SEGMENTS.items() if name not in known]
        whole = pl.DataFrame(known).with_columns(absent)
        frames.append(whole.select([pl.col(name).cast(dtype) for name, dtype in SEGMENTS.items()]))
    return pl.concat(frames), paths


class Watching:
    """A real encoder that notes which waveforms are alive when it is called."""

    def __init__(self, encoder: SonarSpeech) -> None:
        self._encoder = encoder
        self.name, self.version, self.dimension = encoder.name, encoder.version, encoder.dimension
        self.languages = encoder.languages
        self.seen: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self.alive: list[int] = []

    def embed(self, items: Any, *, progress: Any = None) -> Embedded:
        self.seen[len(self.alive)] = items[0].waveform
        self.alive.append(len(self.seen))
        return self._encoder.embed(items)


def test_a_book_is_the_same_bytes_however_many_recordings_are_decoded_ahead(models: Path, tmp_path: Path) -> None:
    segments, paths = book(tmp_path)
    encoder = speech(models)
    books: list[EmbeddedAudiobook] = [
        embed_audiobook(segments, paths, encoder, "deu", ahead=ahead) for ahead in (0, 1, 3)
    ]
    assert len(books[0].vectors) == 20 and len(np.unique(books[0].vectors, axis=0)) == 20
    for other in books[1:]:
        assert other.vectors.tobytes() == books[0].vectors.tobytes()
        assert other.segments.equals(books[0].segments) and other.segments.equals(segments)


def test_a_recordings_waveform_is_gone_when_the_next_is_embedded(models: Path, tmp_path: Path) -> None:
    segments, paths = book(tmp_path)
    watching = Watching(speech(models))
    embed_audiobook(segments, paths, watching, "deu")
    assert watching.alive == [1, 1, 1, 1]


def test_a_recording_that_cannot_be_decoded_is_its_own_error(models: Path, tmp_path: Path) -> None:
    segments, paths = book(tmp_path)
    paths[3].write_bytes(b"<html>")
    done: list[int] = []
    with pytest.raises(AudioError, match="web page"):
        embed_audiobook(segments, paths, speech(models), "deu", progress=lambda count, _: done.append(count))
    assert done == [5, 10]


@pytest.mark.parametrize("sizes", [(560,), (560, 900), (41_600, 41_599), (200_000, 83_000, 20_000)])
def test_quick_attention_gives_what_sonars_gives(models: Path, sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    waveforms = [(rng.standard_normal(size) * 0.1).astype(np.float32) for size in sizes]
    quick, plain = speech(models).load("deu"), speech(models).load("deu")
    relative_attention.restore(plain.pipeline.model)
    np.testing.assert_allclose(quick.vectors(waveforms), plain.vectors(waveforms), atol=2e-6)


def test_quick_attention_is_really_in_place_and_leaves_the_parameters(models: Path) -> None:
    model = speech(models).load("deu").pipeline.model
    assert relative_attention.quicken(model) == 0  # loading did it, and twice is once
    names = set(model.state_dict())
    relative_attention.restore(model)
    assert set(model.state_dict()) == names
    assert relative_attention.quicken(model) == 2
