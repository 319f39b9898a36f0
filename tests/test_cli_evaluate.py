from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import typer
from typer.testing import CliRunner, Result

from demo.make_library import LIBRARY
from speech_mining.cli.evaluate import evaluate
from speech_mining.encoders.protocol import Embedded, Rejected, Sentence, SpeechSpan
from speech_mining.encoders.student import Student
from speech_mining.errors import EncoderError, LakeError, SettingsError, SpeechMiningError
from speech_mining.evaluation.test_set import Clip, TestSet, embed_clips, embed_test_set, read_manifest, read_sentences
from tests import bad_audio
from tests.test_huggingface import build
from tests.test_laser import build_laser
from tests.tiny_sonar import DIMENSION, build_speech, build_text

TEACHER = ("--text-encoder", "demo.world.concepts:ConceptTeacher")
ROWS = 12

Invoke = Callable[..., Result]


@pytest.fixture
def invoke() -> Invoke:
    app = typer.Typer()
    app.command()(evaluate)

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)

    return run


def assert_told(result: Result, kind: type[SpeechMiningError], match: str) -> None:
    assert isinstance(result.exception, kind), result.output
    assert re.search(match, str(result.exception)), str(result.exception)


def recordings() -> dict[tuple[str, int], Path]:
    """Where each section of the miniature library is."""
    books = json.loads((LIBRARY / "catalogue.json").read_text(encoding="utf-8"))["books"]
    return {
        (book["id"], int(section["section_number"])): LIBRARY.joinpath(
            "download", *section["listen_url"].split("/")[-2:]
        )
        for book in books
        for section in book["sections"]
    }


def side(pairs: pl.DataFrame, name: str, language: str) -> pl.DataFrame:
    places = recordings()
    return pl.DataFrame(
        {
            "path": [str(places[key]) for key in pairs.select(f"{name}_audiobook", f"{name}_section").iter_rows()],
            "start": pairs[f"{name}_start_ms"] / 1000,
            "end": pairs[f"{name}_end_ms"] / 1000,
            "language": [language] * len(pairs),
            "text": pairs[f"{name}_text"],
        }
    )


@pytest.fixture
def miniature(tmp_path: Path) -> Path:
    """Twelve German sentences of the miniature library and their English translations, spoken and written."""
    truth = pl.read_parquet(LIBRARY / "truth.parquet").filter(language_pair="deu-eng")
    pairs = truth.sort("source_audiobook", "source_section", "source_start_ms")[:ROWS]
    german, english = side(pairs, "source", "deu"), side(pairs, "target", "eng")
    german.write_csv(tmp_path / "deu.tsv", separator="\t", quote_style="never")
    english.write_csv(tmp_path / "eng.tsv", separator="\t", quote_style="never")
    (tmp_path / "eng.txt").write_text("\n".join(english["text"]) + "\n", encoding="utf-8")
    others = truth[ROWS:]["target_text"].to_list()
    (tmp_path / "others.txt").write_text("\n".join([*others, others[0]]), encoding="utf-8")
    return tmp_path


# Files


def test_a_manifest_says_what_its_columns_say(tmp_path: Path) -> None:
    manifest = tmp_path / "a.tsv"
    manifest.write_text('text\tpath\tstart\tend\tlanguage\n"Hier" ist.\ta/1.mp3\t0.5\t2\tdeu\n\tb.mp3\t\t\t\n')
    assert read_manifest(manifest, "fra") == (
        Clip(tmp_path / "a" / "1.mp3", "deu", 0.5, 2.0, '"Hier" ist.'),
        Clip(tmp_path / "b.mp3", "fra"),
    )
    manifest.write_text("path\n007\n")
    assert read_manifest(manifest, "fra") == (Clip(tmp_path / "007", "fra"),)


def test_sentences_come_one_a_line_or_with_their_language(tmp_path: Path) -> None:
    plain, table = tmp_path / "a.txt", tmp_path / "a.tsv"
    plain.write_text('\ufeff"Quoted\n\nhas\ttab\n', encoding="utf-8")
    table.write_text('text\tlanguage\n"Quoted\tdeu\nno\t\n', encoding="utf-8")
    assert [one.text for one in read_sentences(plain, "eng")] == ['"Quoted', "", "has\ttab"]
    assert read_sentences(table, "eng") == (Sentence('"Quoted', "deu"), Sentence("no", "eng"))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("file\nx\n", "a column 'path'"),
        ("path\tstart\tend\nx\t3\t2\n", r"Line 2 of .* from 3 to 2"),
        ("path\tstart\nx\t-1\n", "the time '-1'"),
        ("path\tstart\nx\tsoon\n", "the time 'soon'"),
        ("path\tend\nx\tnan\n", "the time 'nan'"),
        ("path\ttext\n\tabc\n", "the path None"),
        ("", "cannot be read as a table"),
    ],
)
def test_a_malformed_manifest_is_told_with_its_line(tmp_path: Path, content: str, match: str) -> None:
    (tmp_path / "a.tsv").write_text(content)
    with pytest.raises(LakeError, match=match):
        read_manifest(tmp_path / "a.tsv", "deu")


def test_files_that_are_absent_or_name_no_language_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("path\nx\n")
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LakeError, match=r"Line 2 of .* names no language"):
        read_manifest(tmp_path / "a.tsv")
    with pytest.raises(LakeError, match=r"absent\.tsv cannot be read"):
        read_manifest(tmp_path / "absent.tsv", "deu")
    for name in ("absent.txt", "b.txt"):
        with pytest.raises(LakeError, match="cannot be read"):
            read_sentences(tmp_path / name, "deu")


# Embedding


class Levels:
    """Hears how long and how loud a span is, and keeps what it was given; long ones it refuses."""

    name, version, dimension, languages = "levels", "1", 2, frozenset({"ton"})

    def __init__(self) -> None:
        self.batches: list[list[SpeechSpan]] = []

    def embed(self, items: list[SpeechSpan], *, progress: object = None) -> Embedded:
        self.batches.append(list(items))
        heard = [[len(one.samples) / 16_000, float(np.abs(one.samples).max())] for one in items]
        kept = [item for item, (length_s, _) in enumerate(heard) if length_s <= 3]
        rejected = tuple(Rejected(item, "too_long") for item in range(len(items)) if item not in kept)
        vectors = np.array([heard[item] for item in kept], np.float16).reshape(-1, 2)
        return Embedded(vectors, np.array(kept, np.int64), rejected)


def test_clips_come_back_in_order_decoded_once_and_what_is_bad_is_counted(tmp_path: Path) -> None:
    tone = bad_audio.write_wav(tmp_path / "tone.wav", bad_audio.tone(4, 16_000), 16_000)
    short = bad_audio.write_wav(tmp_path / "short.wav", bad_audio.tone(1, 16_000), 16_000)
    page = bad_audio.web_page(tmp_path / "page.mp3")
    clips = [
        Clip(tone, "ton", 1.0, 3.5),
        Clip(page, "ton"),
        Clip(short, "ton"),
        Clip(tone, "ton", 2.0),
        Clip(tone, "ton"),
        Clip(tone, "ton", 3.0, 4.5),
        Clip(tone, "ton", 3.0, 4.005),
        Clip(tone, "ton", 4.0),
        Clip(tmp_path / "absent.wav", "ton"),
    ]
    encoder, seen = Levels(), []
    embedded = embed_clips(clips, lambda language: encoder, lambda done, total: seen.append((done, total)))
    assert embedded.kept.tolist() == [0, 2, 3, 6]
    np.testing.assert_allclose(embedded.vectors[:, 0], [2.5, 1, 2, 1], atol=1e-2)
    assert [(one.item, one.reason) for one in embedded.rejected] == [
        (1, "not_audio"), (4, "too_long"), (5, "out_of_range"), (7, "out_of_range"), (8, "not_found"),
    ]  # fmt: skip
    assert len({id(span.waveform) for batch in encoder.batches for span in batch}) == 2
    assert seen[-1] == (len(clips), len(clips))


def test_a_language_that_the_encoder_does_not_know_is_an_error(tmp_path: Path) -> None:
    tone = bad_audio.write_wav(tmp_path / "tone.wav", bad_audio.tone(1, 16_000), 16_000)
    with pytest.raises(EncoderError, match="levels does not know the language 'deu'"):
        embed_clips([Clip(tone, "deu")], lambda language: Levels())


class Letters:
    """Counts letters, and keeps the texts it was given."""

    name, version, dimension, languages = "letters", "1", 26, frozenset({"deu", "eng", "ton"})

    def __init__(self) -> None:
        self.seen: list[str] = []

    def embed(self, items: list[Sentence], *, progress: object = None) -> Embedded:
        self.seen += [one.text for one in items]
        counts = [[one.text.count(letter) + 0.1 for letter in "abcdefghijklmnopqrstuvwxyz"] for one in items]
        return Embedded(np.array(counts, np.float16).reshape(-1, 26), np.arange(len(items)), ())


def test_texts_are_embedded_normalised_and_negatives_keep_their_rows_across_languages(tmp_path: Path) -> None:
    tone = bad_audio.write_wav(tmp_path / "tone.wav", bad_audio.tone(1, 16_000), 16_000)
    told = [
        Sentence("Eins 1", "eng"),
        Sentence("Zwei 2", "deu"),
        Sentence("“Drei 3”", "eng"),
        Sentence("Vier 4", "deu"),
    ]
    texts = Letters()
    test_set = TestSet((Clip(tone, "ton"),) * 4, tuple(told))
    embedded = embed_test_set(test_set, lambda language: Levels(), texts, negatives_each=1)
    assert texts.seen[:4] == ["eins 1", "zwei 2", "drei 3", "vier 4"]
    assert embedded.columns["translations"].negative_rows.tolist() == [1, 1, 3, 3, 0, 0, 2, 2]


# The command


def test_the_miniature_encoder_finds_its_translations(invoke: Invoke, miniature: Path) -> None:
    words = ("--audio", miniature / "deu.tsv", "--text", miniature / "eng.txt", "--text-language", "eng", *TEACHER)
    more = ("--target-audio", miniature / "eng.tsv", "--distractors", miniature / "others.txt")
    result = invoke(*words, *more, "--json", "--out", miniature / "new" / "a.json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    assert told == json.loads((miniature / "new" / "a.json").read_text(encoding="utf-8"))
    assert told["encoders"] == {"deu": {"name": "miniature", "version": Student.load().version}}
    assert told["text_encoder"]["name"] == "concepts" and told["margin"] == "ratio" and told["k"] == 4
    assert (told["rows"], told["rows_searched"], told["rejected"]) == (ROWS, ROWS, {})
    results = {one["task"]: one for one in told["results"]}
    assert list(results) == [
        "audio against transcriptions",
        "audio against translations",
        "transcriptions against translations",
        "audio against translated audio",
    ]
    for one in results.values():
        assert (one["source"], one["queries"], one["error"]["value"], one["recall_5"]["value"]) == ("deu", ROWS, 0, 1)
    written = results["audio against translations"]
    assert (written["target"], written["distractors"]) == ("eng", 38 - ROWS) and written["hard_negatives"] >= ROWS
    assert written["word_error_rate"]["value"] == 0 and written["hard_error"]["value"] <= 0.1
    assert results["audio against translated audio"]["word_error_rate"] is None


def test_wrong_translations_are_errors_by_the_cosine_too(invoke: Invoke, miniature: Path) -> None:
    texts = (miniature / "eng.txt").read_text(encoding="utf-8").splitlines()
    (miniature / "wrong.txt").write_text("\n".join([*texts[1:4], texts[0], *texts[4:]]), encoding="utf-8")
    words = ("--audio", miniature / "deu.tsv", "--text", miniature / "wrong.txt", "--text-language", "eng", *TEACHER)
    result = invoke(*words, "--margin", "cosine", "--hard-negatives", 0, "--out", miniature / "a.tsv")
    assert result.exit_code == 0, result.output
    table = pl.read_csv(miniature / "a.tsv", separator="\t")
    assert table["error"].to_list() == [0, pytest.approx(4 / ROWS), pytest.approx(4 / ROWS)]
    assert table["recall_1"][1] == pytest.approx(1 - 4 / ROWS)
    assert table["error_low"][1] < 4 / ROWS < table["error_high"][1]  # type: ignore[operator]
    assert 0.15 < table["word_error_rate"][1] < 0.4 and table["hard_error"].is_null().all()  # type: ignore[operator]
    assert "33.33" in result.stdout and "66.67" in result.stdout and "figures written to" in result.stdout


def test_a_row_without_a_vector_is_left_out_of_every_search_and_told(invoke: Invoke, miniature: Path) -> None:
    german = pl.read_csv(miniature / "deu.tsv", separator="\t", quote_char=None)
    bad_audio.web_page(miniature / "page.mp3")
    paths = ["page.mp3", *german["path"][1:]]
    german.with_columns(path=pl.Series(paths)).write_csv(miniature / "bad.tsv", separator="\t", quote_style="never")
    texts = (miniature / "eng.txt").read_text(encoding="utf-8").splitlines()
    (miniature / "gap.txt").write_text("\n".join([texts[0], "…", *texts[2:]]), encoding="utf-8")
    words = ("--audio", miniature / "bad.tsv", "--text", miniature / "gap.txt", "--text-language", "eng", *TEACHER)
    told = json.loads(invoke(*words, "--json").stdout.splitlines()[-1])
    assert (told["rows"], told["rows_searched"]) == (ROWS, ROWS - 2)
    assert told["rejected"] == {"audio: not_audio": 1, "translations: no_content": 1}
    assert {one["queries"] for one in told["results"]} == {ROWS - 2}
    assert "left out: 1 audio: not_audio" in invoke(*words).stdout


def test_the_same_command_writes_the_same_bytes(invoke: Invoke, miniature: Path) -> None:
    words = ("--audio", miniature / "deu.tsv", "--text", miniature / "eng.txt", "--text-language", "eng", *TEACHER)
    for name in ("a.json", "b.json"):
        assert invoke(*words, "--out", miniature / name).exit_code == 0
    assert (miniature / "a.json").read_bytes() == (miniature / "b.json").read_bytes()


def test_what_cannot_be_done_is_told(invoke: Invoke, miniature: Path) -> None:
    words = ("--audio", miniature / "deu.tsv", "--text", miniature / "eng.txt")
    assert_told(invoke(*words, *TEACHER), LakeError, r"Line 1 of .*eng\.txt names no language")
    words = (*words, "--text-language", "eng")
    assert_told(invoke(*words, "--out", "a.csv"), SettingsError, r"\.json or \.tsv")
    assert_told(invoke(*words, "--text-encoder", "sonnar"), EncoderError, "no text encoder 'sonnar'")
    assert_told(invoke(*words, "--text-encoder", "demo.nowhere:Class"), EncoderError, "No module named 'demo.nowhere'")
    assert_told(invoke(*words, "--encoder", "demo.world.concepts:Nothing"), EncoderError, "no attribute 'Nothing'")
    assert_told(invoke(*words, *TEACHER, "--encoder", miniature / "no.safetensors"), EncoderError, r"no\.safetensors")
    (miniature / "few.txt").write_text("One.\nTwo.\n")
    assert_told(
        invoke(*words[:3], miniature / "few.txt", "--text-language", "eng", *TEACHER), LakeError, "12 and 2 rows"
    )
    (miniature / "gone.tsv").write_text("path\tlanguage\nx.mp3\tdeu\ny.mp3\tdeu\n")
    gone = ("--audio", miniature / "gone.tsv", "--text", miniature / "few.txt", "--text-language", "eng", *TEACHER)
    assert_told(invoke(*gone), EncoderError, r"none has all its vectors \(audio: not_found 2\)\..* There is no file")


def test_help_shows_examples(invoke: Invoke) -> None:
    result = invoke("--help")
    assert result.exit_code == 0
    for word in ("Examples", "--text-encoder", "--margin", "deu-eng.json"):
        assert word in result.stdout


# Encoders of other makers, with tiny random weights: their figures mean nothing, the whole way is the real one


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cards of one's own, and cards that stand in for the published ones; every text encoder has 32 dimensions."""
    made = tmp_path_factory.mktemp("models")
    build_speech(made, "ours_deu", seed=1)
    build_text(made, "ours_text", seed=1)
    build_laser(made, "ours_laser", seed=1, hidden=DIMENSION // 2)
    build(made / "ours_hf", out=DIMENSION)
    for folder, published, made_by in (
        ("a", "sonar_speech_encoder_deu", build_speech),
        ("b", "text_sonar_basic_encoder", build_text),
        ("c", "laser2_text_encoder", partial(build_laser, hidden=DIMENSION // 2)),
    ):
        (made / folder).mkdir()
        name = made_by(made / folder)
        card = made / folder / f"{name}.yaml"
        card.write_text(card.read_text("utf-8").replace(f"name: {name}", f"name: {published}@user"), "utf-8")
    return made


@pytest.fixture
def plain(miniature: Path) -> tuple[object, ...]:
    """The miniature test set, its texts in the few words that the tiny tokenizers have."""
    words = "hello world the small fox runs under a tree number seven".split()
    lines = [" ".join(words[(row * step) % len(words)] for step in (1, 2, 5)) for row in range(ROWS)]
    (miniature / "eng.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    german = pl.read_csv(miniature / "deu.tsv", separator="\t", quote_char=None)
    german.drop("text").write_csv(miniature / "deu.tsv", separator="\t", quote_style="never")
    return ("--audio", miniature / "deu.tsv", "--text", miniature / "eng.txt", "--text-language", "eng", "--json")


@pytest.mark.parametrize(
    ("speech", "text", "speech_version", "text_version"),
    [
        ("sonar", "sonar", "+sonar_speech_encoder_deu:sha256-", "+text_sonar_basic_encoder:sha256-"),
        ("sonar:ours_deu", "sonar:ours_text", "+ours_deu:sha256-", "+ours_text:sha256-"),
        ("sonar", "laser", "+sonar_speech_encoder_deu:sha256-", "+laser2_text_encoder:sha256-"),
        ("sonar", "laser:ours_laser", "+sonar_speech_encoder_deu:sha256-", "+ours_laser:sha256-"),
        ("sonar:ours_deu", "hf:ours_hf", "+ours_deu:sha256-", "+hf-ours_hf:sha256-"),
    ],
)
def test_every_kind_of_encoder_is_evaluated_by_its_name(
    invoke: Invoke,
    plain: tuple[object, ...],
    models: Path,
    speech: str,
    text: str,
    speech_version: str,
    text_version: str,
) -> None:
    names = ("--encoder", speech, "--text-encoder", text, "--model-dir", models, "--device", "cpu")
    result = invoke(*plain, *names, "--hard-negatives", 0, "--resamples", 20)
    assert result.exit_code == 0, result.output + repr(result.exception)
    told = json.loads(result.stdout.splitlines()[-1])
    assert speech_version in told["encoders"]["deu"]["version"]
    assert text_version in told["text_encoder"]["version"]
    assert (told["rows"], told["rejected"]) == (ROWS, {})
    (figures,) = told["results"]
    assert (figures["task"], figures["queries"]) == ("audio against translations", ROWS)
    assert 0.5 < figures["error"]["value"] <= 1  # weights drawn at random


def test_a_folder_of_a_hugging_face_model_needs_no_model_directory(
    invoke: Invoke, plain: tuple[object, ...], models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("S2S_MODEL_DIR", str(models))
    monkeypatch.setenv("S2S_DEVICE", "cpu")
    outside = models.parent / "outside"
    build(outside, out=DIMENSION)
    result = invoke(*plain, "--encoder", "sonar:ours_deu", "--text-encoder", f"hf:{outside}", "--resamples", 20)
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert json.loads(result.stdout.splitlines()[-1])["text_encoder"]["name"] == "hf-outside"


def test_encoders_of_two_spaces_and_names_that_mean_none_are_told(
    invoke: Invoke, plain: tuple[object, ...], models: Path
) -> None:
    where = ("--model-dir", models, "--device", "cpu")
    two_spaces = r"sonar-speech gives vectors of 32 values, and concepts of \d+.*--text-encoder"
    assert_told(invoke(*plain, *where, "--encoder", "sonar", *TEACHER), EncoderError, two_spaces)
    names = ("--encoder", "sonar:nowhere", "--text-encoder", "sonar")
    assert_told(invoke(*plain, *where, *names), EncoderError, "no asset card called nowhere")
    assert_told(invoke(*plain, *where, "--encoder", "laser"), EncoderError, "it reads text")
