"""The study of a pair of languages: its base and test set, and what is added at each threshold, none of it the test's.

What belongs here is which examples are compared with which. Where people's translations come from is
`downstream.sets`, where pairs come from `downstream.mined`; running it is `downstream.experiment`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl

from speech_mining.downstream.examples import hours, no_examples
from speech_mining.downstream.experiment import Condition, shuffled
from speech_mining.downstream.leaks import without_test
from speech_mining.downstream.mined import deal_by_recording
from speech_mining.downstream.tables import BASE, MINED, RANDOM, TRUE
from speech_mining.errors import SettingsError
from speech_mining.mining.kinds import Kind
from speech_mining.records import SAMPLES_PER_MS
from speech_mining.training.masking import chance_of

WITHOUT_SPACES = frozenset({"cmn", "zho", "yue", "jpn", "tha", "lao", "khm", "mya"})
"""Languages whose BLEU counts characters, as CoVoST 2's does for Chinese and Japanese."""
_ORDER = 32  # what a number is drawn for
_MOST_LEAKED = 0.5
_DEALT = ("pool", "test", "base")
_SPAN = ("audiobook", "section", "start_ms", "end_ms")


@dataclass(frozen=True, eq=False)
class Material:
    """What people made.

    Args:
        base: what every run hears.
        test: what every run is examined on.
        pool: true pairs of the speech that is mined; None where they are not known.
        only_pool: whether pairs mined from other recordings than the pool's are left out: base and test are of the same
            audiobooks.
        rejected: clips of the sets that could not be used, by reason.
    """

    base: pl.DataFrame
    test: pl.DataFrame
    pool: pl.DataFrame | None = None
    only_pool: bool = False
    rejected: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Bounds:
    """How much of a set is used.

    Args:
        most_base_hours: of source speech; None: all.
        most_test: examples; None: all.
    """

    most_base_hours: float | None = None
    most_test: int | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """A study's data.

    Args:
        base: what every run hears.
        test: what every run is examined on.
        conditions: the base, then what is added.
        dropped: of the sets, of the base and of each condition, how many examples were dropped by reason.
    """

    base: pl.DataFrame
    test: pl.DataFrame
    conditions: tuple[Condition, ...]
    dropped: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def plan_study(
    material: Material, mined: Mapping[float, pl.DataFrame], threshold: float, bounds: Bounds | None = None
) -> Plan:
    """Put a study together: base, base and mined at each threshold, base and true pairs, base and random ones.

    The random pairs are those mined at `threshold`, each with the target of another.

    Args:
        material: what people made.
        mined: threshold → examples.
        threshold: one of them: that of the corpus.
        bounds: how much of the sets is used.

    Raises:
        SettingsError: most of the base is in the test set too.
    """
    bounds = bounds or Bounds()
    test = _first(material.test, bounds.most_test)
    kept = without_test(material.base, test)
    _require_most(material.base, kept.examples)
    base = _first_hours(kept.examples, bounds.most_base_hours)
    dropped: dict[str, Mapping[str, int]] = {"sets": material.rejected, BASE: kept.dropped}
    conditions = [Condition(BASE, no_examples())]
    for one, examples in sorted(mined.items()):
        offered = _of_pool(examples, material)
        clean = without_test(offered, test)
        conditions.append(Condition(MINED, clean.examples, one))
        others = {"not_of_the_pool": examples.height - offered.height} if material.only_pool else {}
        dropped[conditions[-1].told] = {**others, **clean.dropped}
    if material.pool is not None:
        clean = without_test(material.pool, test)
        conditions.append(Condition(TRUE, clean.examples))
        dropped[TRUE] = clean.dropped
    of_corpus = next(one.added for one in conditions if one.name == MINED and one.threshold == threshold)
    conditions.append(Condition(RANDOM, shuffled(of_corpus), threshold))
    return Plan(base, test, tuple(conditions), dropped)


def dealt_material(truth: pl.DataFrame) -> Material:
    """Base, test and pool out of one known truth, whole recordings at a time: for a library that brings its own words.

    Raises:
        SettingsError: fewer than three recordings.
    """
    if truth["source_recording"].n_unique() < len(_DEALT):
        raise SettingsError(
            f"The known truth speaks of {truth['source_recording'].n_unique()} recordings.",
            expected=f"at least {len(_DEALT)}: to mine, to train and to examine on",
            cause="few audiobooks are materialized yet",
            fix="materialize raw_audio of more audiobooks, or name sets in downstream.sets",
        )
    dealt = deal_by_recording(truth, _DEALT)
    return Material(dealt["base"], dealt["test"], dealt["pool"], only_pool=True)


def truth_spans(truth: pl.DataFrame, kind: Kind, pair: str) -> pl.DataFrame:
    """A known truth as `downstream.mined.cut_examples` takes it.

    Args:
        truth: `evaluation.text_truth.TEXT_TRUTH` for speech with text; for speech with speech the columns
            `language_pair` and of either side audiobook, section, start_ms, end_ms, text.
        kind: speech with text, or speech with speech.
        pair: whose rows are wanted.
    """
    rows = truth.filter(pl.col("language_pair") == pair)
    if kind.target == "text":
        rows = rows.rename({name: f"source_{name}" for name in _SPAN})
        words = {"source_words": pl.col("spoken"), "target_words": pl.col("text")}
    else:
        words = {"source_words": pl.col("source_text"), "target_words": pl.col("target_text")}
    samples = {
        f"{side}_{end}_sample": pl.col(f"{side}_{end}_ms") * SAMPLES_PER_MS
        for side in kind.spoken
        for end in ("start", "end")
    }
    place = ["source_audiobook", "source_section", "source_start_ms"]
    told = rows.with_columns(**words, **samples)
    numbered = told.with_columns(pl.int_range(pl.len()).over(place).alias("again"))
    return numbered.with_columns(pl.concat_str([pl.lit("truth"), *place, "again"], separator="-").alias("example"))


def _of_pool(examples: pl.DataFrame, material: Material) -> pl.DataFrame:
    if not material.only_pool or material.pool is None:
        return examples
    return examples.filter(pl.col("source_recording").is_in(material.pool["source_recording"].unique().implode()))


def _require_most(base: pl.DataFrame, kept: pl.DataFrame) -> None:
    if base.height and kept.height < _MOST_LEAKED * base.height:
        raise SettingsError(
            f"{base.height - kept.height} of {base.height} examples of the base set are in the test set too.",
            expected="splits that share few sentences and no recording",
            cause="base and test are the same set, or its splits were dealt without looking at what is said",
            fix="name a set with splits of its own in downstream.sets",
        )


def _first(examples: pl.DataFrame, most: int | None) -> pl.DataFrame:
    """So many examples, drawn by a fixed seed; all of them where there are no more."""
    if most is None or examples.height <= most:
        return examples
    return examples[np.sort(_order(examples.height)[:most])]


def _first_hours(examples: pl.DataFrame, most_h: float | None) -> pl.DataFrame:
    """Examples drawn by a fixed seed, up to so many hours: more hours hold all that fewer do."""
    if most_h is None or hours(examples) <= most_h:
        return examples
    order = _order(examples.height)
    heard_h = np.cumsum(examples["source_duration_s"].to_numpy()[order]) / 3600
    return examples[np.sort(order[heard_h <= most_h])]


def _order(count: int) -> npt.NDArray[np.int64]:
    return chance_of(0, _ORDER).permutation(count)
