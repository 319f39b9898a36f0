from __future__ import annotations

import hashlib
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from speech_mining.encoders.protocol import Sentence, SpeechEncoder, SpeechSpan, TextEncoder
from speech_mining.encoders.sonar import (
    SonarSpeech,
    SonarText,
    _AssetCards,
    default_model_dir,
    locate_weights,
    speech_languages,
    text_languages,
)
from speech_mining.errors import EncoderError
from tests.tiny_sonar import DIMENSION, TINY_SPEECH_CARD, build_speech, build_text

SECOND = 16_000
LENGTHS = (16_000, 48_001, 33_333, 20_160, 560, 100_000, 48_001)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models")
    build_speech(directory, "tiny_deu", seed=0)
    build_speech(directory, "tiny_eng", seed=1)
    build_text(directory)
    return directory


@pytest.fixture(scope="module")
def german(models: Path) -> SonarSpeech:
    return SonarSpeech({"deu": "tiny_deu"}, device="cpu", max_batch_seconds=10, model_dir=models)


@pytest.fixture(scope="module")
def text(models: Path) -> SonarText:
    return SonarText("tiny_text", device="cpu", max_batch_tokens=64, model_dir=models)


@pytest.fixture(scope="module")
def waveform() -> npt.NDArray[np.float32]:
    return (np.random.default_rng(0).standard_normal(sum(LENGTHS)) * 0.1).astype(np.float32)


def spans(waveform: npt.NDArray[np.float32], language: str = "deu") -> list[SpeechSpan]:
    ends = np.cumsum(LENGTHS).tolist()
    return [SpeechSpan(waveform, end - size, end, language) for end, size in zip(ends, LENGTHS, strict=True)]


def unit(rows: Any) -> npt.NDArray[np.float32]:
    raw = np.asarray(rows, dtype=np.float32)
    normed: npt.NDArray[np.float32] = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return normed


def test_importing_the_module_loads_no_heavy_library() -> None:
    imported = (
        "import sys, speech_mining.encoders.sonar; "
        "print(sorted({'torch', 'fairseq2', 'sonar', 'soundfile'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_making_an_encoder_and_asking_its_languages_loads_no_heavy_library() -> None:
    made = (
        "import sys; from speech_mining.encoders.sonar import SonarSpeech; SonarSpeech('deu').languages; "
        "print('fairseq2' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", made], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_speech_vectors_equal_the_pipeline_of_sonar_itself(
    german: SonarSpeech, models: Path, waveform: npt.NDArray[np.float32]
) -> None:
    import torch
    from fairseq2.models import load_model
    from sonar.inference_pipelines.speech import SpeechToEmbeddingModelPipeline

    items = spans(waveform)
    model = german.load("deu")
    card = _AssetCards(models).card("tiny_deu")
    untouched: Any = load_model(card, device=torch.device("cpu"), dtype=torch.float32)
    plain = SpeechToEmbeddingModelPipeline(untouched)
    expected = plain.predict([torch.tensor(item.samples)[None] for item in items], batch_size=3)
    ours = model.vectors([item.samples for item in items])
    np.testing.assert_allclose(unit(ours), unit(expected), atol=1e-5)
    embedded = german.embed(items)
    assert embedded.vectors.dtype == np.float16 and embedded.vectors.shape == (len(items), DIMENSION)
    np.testing.assert_allclose(embedded.vectors.astype(np.float32), unit(expected), atol=1e-5 + 2**-11)
    np.testing.assert_array_equal(embedded.kept, np.arange(len(items)))
    assert embedded.rejected == ()


def test_vectors_differ_between_spans_so_that_their_order_is_seen(
    german: SonarSpeech, waveform: npt.NDArray[np.float32]
) -> None:
    items = spans(waveform)
    forward, backward = german.embed(items).vectors, german.embed(items[::-1]).vectors
    np.testing.assert_allclose(forward.astype(np.float32), backward[::-1].astype(np.float32), atol=2e-3)
    apart = np.abs(forward[:, None].astype(np.float32) - forward[None].astype(np.float32)).max(axis=2)
    assert apart[~np.eye(len(items), dtype=bool)].min() > 4e-3


def test_the_batch_budget_does_not_change_the_vectors(models: Path, waveform: npt.NDArray[np.float32]) -> None:
    one_by_one = SonarSpeech({"deu": "tiny_deu"}, device="cpu", max_batch_seconds=0.1, model_dir=models)
    together = SonarSpeech({"deu": "tiny_deu"}, device="cpu", max_batch_seconds=1_000, model_dir=models)
    a, b = (encoder.embed(spans(waveform)).vectors.astype(np.float32) for encoder in (one_by_one, together))
    np.testing.assert_allclose(a, b, atol=1e-5 + 2**-11)


def test_what_cannot_be_embedded_is_rejected_with_its_reason(german: SonarSpeech) -> None:
    rng = np.random.default_rng(1)
    noise = (rng.standard_normal(83 * SECOND) * 0.1).astype(np.float32)
    broken = noise[:SECOND].copy()
    broken[77] = np.nan
    faint = (rng.standard_normal(SECOND) * 1e-7).astype(np.float32)
    offset = np.full(SECOND, 0.3, dtype=np.float32)
    zeros = np.zeros(SECOND, dtype=np.float32)
    items = [
        *(SpeechSpan(given, 0, SECOND, "deu") for given in (zeros, broken, noise, offset, faint)),
        SpeechSpan(noise, 0, 559, "deu"),
        SpeechSpan(noise, 0, 560, "deu"),
        SpeechSpan(noise, 0, 1_311_120, "deu"),
        SpeechSpan(noise, 5, 5, "deu"),
    ]
    embedded = german.embed(items)
    assert embedded.kept.tolist() == [2, 6]
    assert {given.item: given.reason for given in embedded.rejected} == {
        0: "silent",
        1: "not_a_number",
        3: "silent",
        4: "silent",
        5: "too_short",
        7: "too_long",
        8: "too_short",
    }
    assert "81.9 s" in next(given.detail for given in embedded.rejected if given.reason == "too_long")
    norms = np.linalg.norm(embedded.vectors.astype(np.float32), axis=1)
    np.testing.assert_allclose(norms, 1, atol=2e-3)


def test_the_longest_span_that_is_not_rejected_is_one_the_model_takes(german: SonarSpeech) -> None:
    noise = (np.random.default_rng(2).standard_normal(82 * SECOND) * 0.1).astype(np.float32)
    assert german.limits("deu").longest_s == pytest.approx(81.94, abs=0.01)
    assert german.embed([SpeechSpan(noise, 0, 1_311_119, "deu")]).kept.tolist() == [0]


def test_sound_whose_frames_are_all_alike_gives_a_rejection_and_no_nan(german: SonarSpeech) -> None:
    period = np.sign(np.sin(2 * np.pi * np.arange(160) / 160 + 0.01)).astype(np.float32) * np.float32(0.5)
    square = np.tile(period, 100)
    embedded = german.embed([SpeechSpan(square, 0, square.size, "deu")])
    assert embedded.vectors.shape == (0, DIMENSION)
    assert [given.reason for given in embedded.rejected] == ["not_a_number"]


def test_no_spans_give_no_rows_of_the_right_width(german: SonarSpeech, text: SonarText) -> None:
    for embedded in (german.embed([]), text.embed([])):
        assert embedded.vectors.shape == (0, DIMENSION)
        assert embedded.kept.shape == (0,)


def test_each_language_is_embedded_by_its_own_card(models: Path, waveform: npt.NDArray[np.float32]) -> None:
    encoder = SonarSpeech({"deu": "tiny_deu", "eng": "tiny_eng"}, device="cpu", model_dir=models)
    german, english = spans(waveform, "deu"), spans(waveform, "eng")
    mixed = [item for pair in zip(german, english, strict=True) for item in pair]
    vectors = encoder.embed(mixed).vectors.astype(np.float32)
    expected = [
        SonarSpeech({language: f"tiny_{language}"}, device="cpu", model_dir=models).embed(items).vectors
        for language, items in (("deu", german), ("eng", english))
    ]
    np.testing.assert_allclose(vectors[0::2], expected[0].astype(np.float32), atol=2e-3)
    np.testing.assert_allclose(vectors[1::2], expected[1].astype(np.float32), atol=2e-3)
    assert np.abs(vectors[0::2] - vectors[1::2]).max() > 0.05


def test_progress_ends_at_the_number_of_items_and_never_falls(
    german: SonarSpeech, waveform: npt.NDArray[np.float32]
) -> None:
    told: list[tuple[int, int]] = []
    german.embed([*spans(waveform), SpeechSpan(waveform, 0, 3, "deu")], progress=lambda *now: told.append(now))
    assert told[-1] == (8, 8)
    assert told == sorted(told) and len(told) > 2


def test_a_language_without_a_card_is_an_error_that_names_the_known_ones(german: SonarSpeech) -> None:
    with pytest.raises(EncoderError, match=r"'fra'.*Expected: one of \['deu'\]"):
        german.embed([SpeechSpan(np.zeros(SECOND, dtype=np.float32), 0, SECOND, "fra")])


def test_half_precision_on_the_cpu_is_refused(models: Path) -> None:
    encoder = SonarSpeech({"deu": "tiny_deu"}, device="cpu", dtype="float16", model_dir=models)
    with pytest.raises(EncoderError, match=r"float16 on the CPU.*Fix: set dtype to \"auto\""):
        encoder.load("deu")


def test_every_published_speech_card_is_found_and_its_language_has_a_text_code() -> None:
    cards = speech_languages()
    assert len(cards) == 57
    assert cards["deu"] == "sonar_speech_encoder_deu"
    assert set(cards) <= SonarText().languages
    assert SonarSpeech("eng").dimension == SonarText().dimension == 1024


def test_all_202_text_codes_are_reached_and_common_names_lead_to_them() -> None:
    codes = SonarText().codes
    named = {"eng": "eng_Latn", "deu": "deu_Latn", "fra": "fra_Latn", "spa": "spa_Latn", "zho": "zho_Hans"}
    also = {"cmn": "zho_Hans", "ara": "arb_Arab", "fas": "pes_Arab", "nor": "nob_Latn", "est": "est_Latn"}
    assert {language: codes[language] for language in {**named, **also}} == {**named, **also}
    assert len(set(codes.values())) == 202 - 6  # six languages are listed in a second script


def test_the_usual_script_is_taken_whatever_the_order() -> None:
    assert text_languages(["kas_Deva", "kas_Arab"]) == text_languages(["kas_Arab", "kas_Deva"]) == {"kas": "kas_Arab"}
    assert text_languages([]) == {}


def test_text_vectors_equal_the_pipeline_of_sonar_itself(text: SonarText) -> None:
    sentences = ["hello world", "number 7", "der schnelle braune fuchs", "le petit chat 21", "hello", "fuchs 3 le 4"]
    ours = text.embed([Sentence(given, "deu") for given in sentences])
    expected = text.load().pipeline.predict(sentences, source_lang="deu_Latn")
    np.testing.assert_allclose(ours.vectors.astype(np.float32), unit(expected), atol=1e-5 + 2**-11)
    raw = text.load().vectors([text.load().tokens(given, "deu_Latn") for given in sentences])
    np.testing.assert_allclose(unit(raw), unit(expected), atol=1e-5)


def test_sentences_of_several_languages_share_batches_and_keep_their_language(text: SonarText) -> None:
    mixed = text.embed([Sentence("hello 7", language) for language in ("eng", "deu", "fra", "eng")]).vectors
    np.testing.assert_allclose(mixed[0].astype(np.float32), mixed[3].astype(np.float32), atol=1e-3)
    alone = text.embed([Sentence("hello 7", "deu")]).vectors
    np.testing.assert_allclose(mixed[1].astype(np.float32), alone[0].astype(np.float32), atol=1e-3)
    assert np.abs(mixed[0].astype(np.float32) - mixed[1].astype(np.float32)).max() > 4e-3


def test_sentences_without_content_or_too_long_are_rejected(text: SonarText) -> None:
    given = ["", "  \t ", "漢字漢字", "hello world", "hello world " * 60]
    embedded = text.embed([Sentence(sentence, "eng") for sentence in given])
    assert embedded.kept.tolist() == [3]
    assert [(told.item, told.reason) for told in embedded.rejected] == [
        (0, "no_content"),
        (1, "no_content"),
        (2, "no_content"),
        (4, "too_long"),
    ]


def test_a_language_the_tokenizer_does_not_know_is_an_error(text: SonarText) -> None:
    with pytest.raises(EncoderError, match=r"'xyz'.*ISO 639-3"):
        text.embed([Sentence("hello", "xyz")])


def test_the_encoders_keep_the_protocols_promises(german: SonarSpeech, text: SonarText) -> None:
    speech: SpeechEncoder = german
    words: TextEncoder = text
    assert speech.dimension == words.dimension == DIMENSION
    assert speech.languages == {"deu"}
    assert {"eng", "deu", "fra"} <= words.languages
    assert (speech.name, words.name) == ("sonar-speech", "sonar-text")


def test_the_version_names_code_card_and_the_checkpoints_own_digest(german: SonarSpeech, models: Path) -> None:
    digest = hashlib.sha256((models / "tiny_deu.pt").read_bytes()).hexdigest()
    assert german.version == f"sonar-speech-2+tiny_deu:sha256-{digest}"
    text_version = SonarText("tiny_text", model_dir=models).version
    assert re.fullmatch(r"sonar-text-2\+tiny_text:sha256-[0-9a-f]{64}:sha256-[0-9a-f]{64}", text_version)


def test_the_version_changes_with_the_checkpoint(tmp_path: Path) -> None:
    build_speech(tmp_path, seed=0)
    before = SonarSpeech({"deu": "tiny_speech"}, model_dir=tmp_path).version
    build_speech(tmp_path, seed=1)
    assert SonarSpeech({"deu": "tiny_speech"}, model_dir=tmp_path).version != before


def test_a_published_card_has_a_version_without_its_weights() -> None:
    assert SonarSpeech("deu").version.endswith("SONAR/spenc.v3ap.deu.pt")


def test_a_card_of_ones_own_replaces_a_published_one(tmp_path: Path, models: Path) -> None:
    card = f"name: sonar_speech_encoder_deu@user\ncheckpoint: {models / 'tiny_deu.pt'}\n"
    (tmp_path / "deu.yaml").write_text(card)
    assert locate_weights("sonar_speech_encoder_deu", model_dir=tmp_path).path == models / "tiny_deu.pt"
    assert locate_weights("sonar_speech_encoder_fra", model_dir=tmp_path).uri.startswith("https://")
    assert SonarSpeech("deu", model_dir=tmp_path).dimension == 1024  # the architecture stays the published card's


def test_the_model_directory_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, models: Path) -> None:
    monkeypatch.delenv("S2S_MODEL_DIR", raising=False)
    assert default_model_dir() is None
    monkeypatch.setenv("S2S_MODEL_DIR", str(models))
    assert SonarSpeech({"deu": "tiny_deu"}).dimension == DIMENSION


def test_weights_that_are_missing_are_one_error_with_both_ways_to_get_them(tmp_path: Path) -> None:
    (tmp_path / "absent.yaml").write_text(TINY_SPEECH_CARD.format(name="absent", checkpoint="not_here.pt"))
    encoder = SonarSpeech({"deu": "absent"}, device="cpu", model_dir=tmp_path)
    assert locate_weights("absent", model_dir=tmp_path).path is None
    told = r"card absent.*not_here\.pt.*put it back at .*s2s models add not_here\.pt --card absent.*S2S_MODEL_DIR"
    with pytest.raises(EncoderError, match=told):
        encoder.load("deu")
    with pytest.raises(EncoderError, match=r"not_here\.pt"):
        _ = encoder.version


def test_weights_that_cannot_be_downloaded_are_the_same_error(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: a connection is refused
        address = f"http://127.0.0.1:{reserved.getsockname()[1]}/spenc.deu.pt"
        (tmp_path / "far.yaml").write_text(TINY_SPEECH_CARD.format(name="far", checkpoint=address))
        both_ways = (
            rf"connected machine.*FAIRSEQ2_CACHE_DIR.*curl -fLO {address}.*s2s models add spenc\.deu\.pt --card far"
        )
        with pytest.raises(EncoderError, match=rf"card far.*spenc\.deu\.pt.*no network.*{both_ways}.*S2S_MODEL_DIR"):
            SonarSpeech({"deu": "far"}, device="cpu", model_dir=tmp_path).load("deu")


def test_a_lost_file_of_a_published_card_is_told_with_the_address_of_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "deu.yaml").write_text("name: sonar_speech_encoder_deu@user\ncheckpoint: lost.pt\n")
    ways = r"curl -fLO https://\S+/(spenc\.v3ap\.deu\.pt)`.*models add \1 --card sonar_speech_encoder_deu"
    with pytest.raises(EncoderError, match=rf"lost\.pt.*{ways}"):
        SonarSpeech("deu", device="cpu", model_dir=tmp_path).load("deu")


def test_a_damaged_checkpoint_is_an_error_of_ours(tmp_path: Path) -> None:
    build_speech(tmp_path)
    (tmp_path / "tiny_speech.pt").write_bytes((tmp_path / "tiny_speech.pt").read_bytes()[:5_000])
    with pytest.raises(EncoderError, match=r"card tiny_speech, .*cannot be loaded.*cut short"):
        SonarSpeech({"deu": "tiny_speech"}, device="cpu", model_dir=tmp_path).load("deu")


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    import torch

    build_speech(tmp_path)
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / "tiny_speech.pt")
    with pytest.raises(EncoderError, match=r"card tiny_speech, .*cannot be loaded.*pickle of more than tensors"):
        SonarSpeech({"deu": "tiny_speech"}, device="cpu", model_dir=tmp_path).load("deu")
    assert not (tmp_path / "sprung").exists()


def test_a_card_that_asks_for_unrestricted_unpickling_is_refused(tmp_path: Path) -> None:
    build_speech(tmp_path)
    card = tmp_path / "tiny_speech.yaml"
    card.write_text(card.read_text() + "restrict: false\n")
    with pytest.raises(EncoderError, match=r"without restriction.*weights_only=True"):
        SonarSpeech({"deu": "tiny_speech"}, device="cpu", model_dir=tmp_path).load("deu")


def test_an_unknown_card_is_an_error_that_tells_how_to_add_one() -> None:
    with pytest.raises(EncoderError, match=r"no asset card called sonar_speech_encoder_xyz.*S2S_MODEL_DIR"):
        _ = SonarSpeech("xyz").dimension


def test_a_model_directory_that_does_not_exist_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"does not exist.*create it"):
        _ = SonarSpeech("deu", model_dir=tmp_path / "nowhere").version


def test_two_cards_of_one_name_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: sonar_speech_encoder_deu\ncheckpoint: mine.pt\n")
    with pytest.raises(EncoderError, match=r"exists in both.*@user"):
        _ = SonarSpeech("deu", model_dir=tmp_path).version


def test_an_encoder_of_no_language_is_refused() -> None:
    with pytest.raises(EncoderError, match="no language"):
        SonarSpeech({})
