"""`spoken_words`, `written_words`, `alignment`, `alignment_evaluation`: words of speech and of text, brought together.

For a language without parallel data: each side learns vectors of its own words, a map between the two is found without
any pair, and, where a dictionary is known, held against a map that learned from it. Nothing here happens by itself.
What belongs here is the layers; words are `speech_mining.words`, maps are `speech_mining.align`.
"""

from collections.abc import Mapping
from dataclasses import asdict
from inspect import getdoc
from typing import TYPE_CHECKING, Any

import dagster as dg
import numpy as np
import polars as pl

from partitions.language_pairs import pair_partitions, split
from partitions.languages import layer
from resources.compute import CPU, OWNERS, pod_retries, step_tags
from resources.encoders import Encoders
from resources.metadata import column_schema, rows
from resources.operation_settings import WordSettings
from resources.pair_checks import PairCheck, pair_check
from resources.progress_log import telling
from resources.settings import STUDENT, Settings
from resources.storage import Lake, Partition, Storage, published
from resources.words import dictionary_of, timings_of
from speech_mining.align.tables import EVALUATION
from speech_mining.encoders.promoted import CURRENT
from speech_mining.errors import EncoderError
from speech_mining.records import Schema
from speech_mining.words.spaces import WORDS, WordSpace

if TYPE_CHECKING:
    from speech_mining.align.alignment import Alignment
    from speech_mining.align.evaluation import Verdict
    from speech_mining.words.audiobooks import Listener

GROUP = "alignment"
SPOKEN, WRITTEN, ALIGNED, EVALUATED = "spoken_words", "written_words", "alignment", "alignment_evaluation"
SPOKEN_WORDS: Schema = {
    **WORDS,
    "said": pl.String(),  # the word that most of its tokens are, where words are known and it is half of them or more
    "share": pl.Float64(),  # of its tokens with a known word, those that are that word
}
MATCHES: Schema = {
    "word": pl.String(),
    "count": pl.Int64(),
    "said": pl.String(),
    "nearest": pl.String(),  # written words nearest under CSLS, the nearest first
}
ATTEMPTS: Schema = {
    "method": pl.String(),
    "seed": pl.Int64(),
    "criterion": pl.Float64(),  # mean cosine of each spoken word with its nearest written one under CSLS
    "told": pl.String(),  # why it ended early
}
SHOWN_MATCHES = 3
_SMALL = 20_000
"""Tokens below which vectors of words are mostly noise: see docs/words.md."""


def alignment(settings: Settings) -> list[dg.AssetsDefinition]:
    """Words of every language, and alignments of every spoken with every written one."""
    return [_spoken(settings), _written(settings), _aligned(settings), _evaluated(settings)]


def pairs_of_words(settings: Settings) -> list[str]:
    """Every language of speech with every language of text; `deu-deu` means words of one language."""
    return [f"{spoken}-{written}" for spoken in sorted(settings.languages) for written in settings.text_languages]


def _spoken(settings: Settings) -> dg.AssetsDefinition:
    layers = [layer(language, name) for language in settings.languages for name in ("raw_audio", "segments")]

    @dg.asset(
        key=SPOKEN,
        deps=[*(dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping()) for key in layers), *_students(settings)],
        partitions_def=dg.StaticPartitionsDefinition(sorted(settings.languages)),
        kinds={"pytorch", "parquet"},
        code_version=f"3/{settings.words.vectors}/{settings.words.boundaries}",
        metadata={"dagster/column_schema": column_schema(SPOKEN_WORDS)},
        group_name=GROUP,
        owners=OWNERS,
        op_tags=step_tags(CPU, SPOKEN, settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
    )
    def _spoken_words(
        context: dg.AssetExecutionContext, storage: Storage, encoders: Encoders
    ) -> dg.MaterializeResult[None]:
        """Word-sized pieces of all recordings of a language, those that sound alike as one word, a vector for each.

        Pieces come from a table of known words (setting `words.timings`) where there is one, else from where the
        language's encoder hears another word, else from changes of the sound (setting `words.boundaries`). Known words
        decide where pieces begin and end, and how the types are called; which pieces are one type and what their
        vectors are is learned from sound alone.
        """
        from speech_mining.words.audiobooks import PIECES, CutConfig, hear, sections_of
        from speech_mining.words.spoken import spoken_space

        language, asked = context.partition_key, settings.words
        sections = sections_of(storage.lake, language, timings_of(settings, language))
        listener = _listener(language, asked, encoders, storage.lake)
        config = CutConfig(pause_ms=asked.pause_ms, listener=listener)
        heard = hear(sections, config, telling(context, "recordings", parts=20), len(sections))
        found = spoken_space(heard.tokens, _config_of(asked))
        table = _named(found.space, found.types, heard.pieces["said"])
        pieces = heard.pieces.with_columns(pl.Series("type", found.types))
        with storage.lake.replace(SPOKEN, language) as new:
            new.write_table("words.parquet", table, SPOKEN_WORDS)
            new.write_table("pieces.parquet", pieces, {**PIECES, "type": pl.Int64()})
            new.write_array("vectors.npy", found.space.vectors)
        known = heard.pieces["said"].count()
        figures = {
            "dagster/row_count": table.height,
            "recordings": len(sections),
            "tokens": len(heard.tokens),
            "tokens_of_known_words": known,
            "boundaries": _boundaries(listener, known, len(heard.tokens)),
            "vectors": asked.vectors,
            "dimension": found.space.vectors.shape[1],
            "what_to_expect": _expectation(len(heard.tokens)),
            "sample": rows(table, limit=30),
            **({"speech2vec_losses": [round(loss, 4) for loss in found.losses]} if found.losses else {}),
        }
        return published(storage.lake, figures, SPOKEN, language)

    return _spoken_words


def _students(settings: Settings) -> list[dg.AssetDep]:
    """What is promoted, of the students that say where a word begins: another version cuts other pieces."""
    if settings.words.boundaries == "sound":
        return []
    listening: dict[str, list[str]] = {}
    for language in sorted(settings.languages):
        chosen = settings.encoder_of(language)
        if chosen.startswith(STUDENT):
            listening.setdefault(chosen.removeprefix(STUDENT), []).append(language)
    return [dg.AssetDep(CURRENT, partition_mapping=dg.StaticPartitionMapping(listening))] if listening else []


def _written(settings: Settings) -> dg.AssetsDefinition:
    layers = [layer(language, "text_sentences") for language in settings.text_languages]

    @dg.asset(
        key=WRITTEN,
        deps=[dg.AssetDep(key, partition_mapping=dg.AllPartitionMapping()) for key in layers],
        partitions_def=dg.StaticPartitionsDefinition(list(settings.text_languages)),
        kinds={"numpy", "parquet"},
        code_version="1",
        metadata={"dagster/column_schema": column_schema(WORDS)},
        group_name=GROUP,
        owners=OWNERS,
        op_tags=step_tags(CPU, WRITTEN, settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
    )
    def _written_words(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        """The most frequent words of a language's text, a vector for each, of the company it keeps in sentences.

        A sentence that stands in several shards counts once.
        """
        from speech_mining.text.sentences import SENTENCES
        from speech_mining.words.contexts import ContextConfig
        from speech_mining.words.written import written_space

        language, asked = context.partition_key, settings.words
        told = storage.lake.read_tables("text_sentences", language, name="sentences.parquet", schema=SENTENCES)
        sentences = told.unique("sentence_id", keep="first", maintain_order=True)["text"].to_list()
        config = ContextConfig(dimension=asked.dimension, window=asked.window)
        space = written_space(sentences, asked.most, asked.least, config)
        with storage.lake.replace(WRITTEN, language) as new:
            new.write_table("words.parquet", space.table(), WORDS)
            new.write_array("vectors.npy", space.vectors)
        figures = {
            "dagster/row_count": len(space.words),
            "sentences": len(sentences),
            "dimension": space.vectors.shape[1],
            "what_to_expect": _expectation(int(space.counts.sum())),
            "sample": rows(space.table(), limit=30),
        }
        return published(storage.lake, figures, WRITTEN, language)

    return _written_words


def _aligned(settings: Settings) -> dg.AssetsDefinition:
    pairs = pairs_of_words(settings)

    @dg.asset(
        key=ALIGNED,
        deps=_words_of(pairs, settings),
        partitions_def=pair_partitions(pairs),
        kinds={"numpy", "pytorch"},
        code_version=f"2/{settings.words.method}",
        metadata={"dagster/column_schema": column_schema(MATCHES)},
        group_name=GROUP,
        owners=OWNERS,
        op_tags=step_tags(CPU, ALIGNED, settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
    )
    def _alignment(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        """A map from spoken to written words, found without any pair of them; speech first in the partition's name.

        Of one language (deu-deu) it classifies spoken words, of two it translates them. Several first guesses are
        refined, and the one whose matches have the highest mean cosine is kept: no dictionary has a part in it.
        `map.npz` is what `s2s mine --map` takes.
        """
        from speech_mining.words.alignment import WordWish, align_words

        pair, asked = context.partition_key, settings.words
        words, spoken, written = _spaces(storage.lake, pair)
        wish = WordWish(
            method=asked.method,
            seed=asked.seed,
            restarts=asked.restarts,
            time_limit_s=60 * asked.time_limit_minutes,
        )
        found = align_words(spoken, written, wish, telling(context, "attempts"))
        attempts, matches = _attempts(found), _matches(words, found, spoken, written)
        with storage.lake.replace(ALIGNED, pair) as new:
            found.map.save(new.path("map.npz"))
            new.write_table("attempts.parquet", attempts, ATTEMPTS)
            new.write_table("matches.parquet", matches, MATCHES)
            new.write_json("best.json", {"method": found.best.method, "criterion": round(found.best.criterion, 6)})
        figures = {
            "dagster/row_count": matches.height,
            "method": found.best.method,
            "criterion": round(found.best.criterion, 4),
            "attempts": rows(attempts, limit=50),
            "sample": rows(matches, limit=30),
        }
        return published(storage.lake, figures, ALIGNED, pair)

    return _alignment


def _evaluated(settings: Settings) -> dg.AssetsDefinition:
    pairs = pairs_of_words(settings)

    @dg.asset(
        key=EVALUATED,
        deps=[ALIGNED, *_words_of(pairs, settings)],
        partitions_def=pair_partitions(pairs),
        kinds={"parquet"},
        code_version="1",
        metadata={"dagster/column_schema": column_schema(EVALUATION)},
        group_name=GROUP,
        owners=OWNERS,
        op_tags=step_tags(CPU, EVALUATED, settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
    )
    def _alignment_evaluation(context: dg.AssetExecutionContext, storage: Storage) -> dg.MaterializeResult[None]:
        """Spoken word classification (deu-deu) or translation (deu-eng): R@1, R@5, R@10 under nearest cosine and CSLS.

        Three maps in one table: found without a dictionary; learned from one, asked for words it did not contain; and
        learned from one, asked for its own words. Which word is right is known from `words.timings` and, for
        translation, from `words.dictionaries`; without them only the criterion is judged.
        """
        from speech_mining.align.evaluation import Spaces, answers_of, evaluated, verdict
        from speech_mining.align.spaces import SpaceMap

        lake, pair = storage.lake, context.partition_key
        aligned = lake.partition(ALIGNED, pair)
        found = SpaceMap.load(aligned.local_path("map.npz"))
        words, spoken, written = _spaces(lake, pair)
        said = words["said"].to_list()
        answers = answers_of([word or "" for word in said], written.words, dictionary_of(settings, pair, said))
        why = "" if answers else _unknown(said, pair)
        table = pl.DataFrame(schema=dict(EVALUATION))
        if answers:
            table = evaluated(Spaces(spoken.vectors, written.vectors, answers), found, seed=settings.words.seed)
        judged = verdict(table, float(aligned.read_json("best.json")["criterion"]), settings.words.least_criterion)
        with lake.replace(EVALUATED, pair) as new:
            new.write_table("evaluation.parquet", table, EVALUATION)
            new.write_json("verdict.json", asdict(judged))
            new.path("evaluation.md").write_text(_markdown(pair, table, judged, why), "utf-8")
        return published(lake, _figures(table, judged, why), EVALUATED, pair)

    return _alignment_evaluation


def alignment_checks(settings: Settings) -> list[dg.AssetChecksDefinition]:
    """Whether the maps hold."""
    check = PairCheck(EVALUATED, "alignment_did_not_collapse", getdoc(_did_not_collapse), _did_not_collapse)
    return [pair_check(check, pair_partitions(pairs_of_words(settings)), settings)]


def _did_not_collapse(lake: Lake, pair: str) -> dg.AssetCheckResult:
    """The matches of the map are near each other, and, where a dictionary is known, more than chance is right.

    A warning: a map that collapsed blocks nothing, but nothing should be mined with it.
    """
    judged = lake.partition(EVALUATED, pair).read_json("verdict.json")
    return dg.AssetCheckResult(
        passed=not judged["collapsed"],
        severity=dg.AssetCheckSeverity.WARN,
        description=judged["told"],
        metadata={"within_5_points_of_supervised": judged["within"]},
    )


def _words_of(pairs: list[str], settings: Settings) -> list[dg.AssetDep]:
    """Spoken words of each pair's one side, written words of its other."""
    return [
        dg.AssetDep(SPOKEN, partition_mapping=_to_pairs(settings.languages, pairs, 0)),
        dg.AssetDep(WRITTEN, partition_mapping=_to_pairs(settings.text_languages, pairs, 1)),
    ]


def _to_pairs(languages: tuple[str, ...], pairs: list[str], side: int) -> dg.PartitionMapping:
    """Built-in mapping from languages of one side to the pairs they stand on that side of."""
    return dg.StaticPartitionMapping(
        {language: [pair for pair in pairs if split(pair)[side] == language] for language in sorted(languages)}
    )


def _listener(language: str, asked: WordSettings, encoders: Encoders, lake: Lake) -> "Listener | None":
    """The language's encoder, if it is asked for and says what it hears in each frame.

    Raises:
        EncoderError: it is asked for by name, and cannot say so.
    """
    from speech_mining.encoders.student import Student
    from speech_mining.words.audiobooks import Listener

    if asked.boundaries == "sound":
        return None
    try:
        encoder = encoders.speech(language, lake)
    except EncoderError:
        if asked.boundaries == "encoder":
            raise
        return None
    if isinstance(encoder, Student):
        return Listener(encoder, language)
    if asked.boundaries == "auto":
        return None
    raise EncoderError(
        f"The encoder {encoder.name} of {language} does not say where it hears a word.",
        expected="a convolutional student, such as the one that is shipped",
        fix='set words.boundaries to "auto" or "sound"',
    )


def _boundaries(listener: "Listener | None", known: int, tokens: int) -> str:
    """Where pieces were cut, in words."""
    other = f"heard by {listener.encoder.name} {listener.encoder.version}" if listener else "of the sound"
    if not known:
        return other
    return "of known words" if known == tokens else f"of known words, else {other}"


def _config_of(asked: WordSettings) -> Any:
    from speech_mining.words.contexts import ContextConfig
    from speech_mining.words.speech2vec import SpeechConfig
    from speech_mining.words.spoken import SpokenConfig
    from speech_mining.words.types import TypeConfig

    return SpokenConfig(
        most=asked.most,
        least=asked.least,
        vectors=asked.vectors,
        types=TypeConfig(types=asked.types, seed=asked.seed),
        contexts=ContextConfig(dimension=asked.dimension, window=asked.window),
        speech=SpeechConfig(dimension=asked.dimension, window=asked.window, epochs=asked.epochs, seed=asked.seed),
    )


def _named(space: WordSpace, types: np.ndarray[Any, np.dtype[np.int64]], said: pl.Series) -> pl.DataFrame:
    """Columns `SPOKEN_WORDS`: the types, each with the word that at least half of its tokens with a known word are."""
    heard = pl.DataFrame({"type": types, "said": said}).drop_nulls("said")
    counted = heard.group_by("type", "said").len().sort(["len", "said"], descending=[True, False])
    first = counted.group_by("type", maintain_order=True).agg(pl.first("said"), pl.first("len"), of=pl.sum("len"))
    named = first.with_columns(share=pl.col("len") / pl.col("of")).filter(pl.col("share") >= 0.5)
    table = space.table().with_row_index("type").with_columns(pl.col("type").cast(pl.Int64))
    return table.join(named, on="type", how="left", maintain_order="left").select(SPOKEN_WORDS.keys())


def _spaces(lake: Lake, pair: str) -> tuple[pl.DataFrame, WordSpace, WordSpace]:
    """The table of the spoken words, their space, and that of the written words."""
    spoken, written = (lake.partition(name, side) for name, side in zip((SPOKEN, WRITTEN), split(pair), strict=True))
    words = spoken.read_table("words.parquet", SPOKEN_WORDS)
    return words, _space(spoken, words), _space(written, written.read_table("words.parquet", WORDS))


def _space(there: Partition, table: pl.DataFrame) -> WordSpace:
    return WordSpace(table["word"].to_list(), table["count"].to_numpy(), there.read_array("vectors.npy"))


def _attempts(found: "Alignment") -> pl.DataFrame:
    lines = [(one.method, one.seed, one.criterion, one.told) for one in found.attempts]
    return pl.DataFrame(lines, schema=dict(ATTEMPTS), orient="row")


def _matches(words: pl.DataFrame, found: "Alignment", spoken: WordSpace, written: WordSpace) -> pl.DataFrame:
    """Columns `MATCHES`: what each spoken word is taken for."""
    from speech_mining.align.csls import match

    ours, theirs = found.map.source.apply(spoken.vectors), found.map.target.apply(written.vectors)
    nearest = match(ours, theirs, wanted=min(SHOWN_MATCHES, len(theirs)), threads=1).neighbours.forward_rows
    named = [", ".join(written.words[row] for row in of_word) for of_word in nearest.tolist()]
    return words.select("word", "count", "said").with_columns(pl.Series("nearest", named, dtype=pl.String))


def _expectation(tokens: int) -> str:
    if tokens >= _SMALL:
        return f"{tokens} tokens: enough for words that are met some dozen times."
    return (
        f"{tokens} tokens are little: maps found without a dictionary hold from some tens of thousands of tokens on "
        "that tell of the same things (docs/words.md). Expect a collapse here, and a check that says so."
    )


def _unknown(said: list[str | None], pair: str) -> str:
    if not any(said):
        return f"No word of spoken {split(pair)[0]} is known: set words.timings.{split(pair)[0]} to evaluate."
    return f"No dictionary for {pair}: set words.dictionaries to evaluate."


def _markdown(pair: str, table: pl.DataFrame, judged: "Verdict", why: str) -> str:
    lines = [f"# {pair}", "", judged.told, "", why]
    if table.height:
        lines += ["| map | measure | words | R@1 | R@5 | R@10 |", "|---|---|---|---|---|---|"]
        for name, measure, words, *shares in table.iter_rows():
            lines.append(f"| {name} | {measure} | {words} | {' | '.join(f'{share:.3f}' for share in shares)} |")
    return "\n".join(lines) + "\n"


def _figures(table: pl.DataFrame, judged: "Verdict", why: str) -> Mapping[str, Any]:
    return {
        "dagster/row_count": table.height,
        "verdict": judged.told,
        "collapsed": judged.collapsed,
        "within_5_points_of_supervised": judged.within,
        **({"evaluation": rows(table)} if table.height else {"not_evaluated": why}),
    }
