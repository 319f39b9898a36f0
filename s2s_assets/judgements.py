"""`human_judgement`: what people who listened said of a pair of languages, and which threshold follows from it.

What belongs here is the layer. Judgements are made in the listening room (`s2s listen`) and lie in the home, not in the
lake: a lake can be made again, what people said cannot. Statistics are `speech_mining.listening.accuracy`.
"""

from dataclasses import asdict
from typing import Any

import dagster as dg
import polars as pl

from partitions.language_pairs import pair_partitions
from resources.compute import CPU, OWNERS, pod_retries, step_tags
from resources.judgements import judgements_path
from resources.metadata import plot, rows
from resources.settings import Settings
from resources.storage import Storage, published
from speech_mining.listening.accuracy import AtThreshold
from speech_mining.listening.candidates import Candidates
from speech_mining.listening.judgements import Judged
from speech_mining.mining.kinds import KINDS, Kind


class JudgementConfig(dg.Config):
    """What the suggestion is to reach."""

    precision: float = 0.9
    """Share of right pairs that the lower bound must reach, 0 to 1."""
    partly_counts: bool = False
    """Whether a pair that is partly right counts as right."""


def human_judgements(settings: Settings) -> list[dg.AssetsDefinition]:
    """The judgements of every kind that is mined."""
    return [human_judgement(kind, settings) for kind in KINDS if settings.pairs_of(kind.name)]


def human_judgement(kind: Kind, settings: Settings) -> dg.AssetsDefinition:
    """The judgements of a kind; of speech with speech they are `human_judgement`."""
    layer = layer_of(kind)

    @dg.asset(
        key=layer,
        deps=[kind.layer("pairs"), kind.layer("corpus")],
        partitions_def=pair_partitions(settings.pairs_of(kind.name)),
        group_name="quality",
        kinds={"parquet"},
        owners=OWNERS,
        op_tags=step_tags(CPU, layer, settings),
        retry_policy=pod_retries(settings),
        pool=CPU,
        code_version="1",
        description="What people said of pairs they heard, accuracy at every threshold with its 95 % interval, and the "
        "threshold that a wanted precision asks for.\n\nMaterialize it after `s2s listen`. A pair that several people "
        "judged counts by the strictest of their last words. Lines of the file that are no judgements are listed, "
        "never dropped.",
    )
    def _human_judgement(
        context: dg.AssetExecutionContext, config: JudgementConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        from speech_mining.listening.candidates import candidates
        from speech_mining.listening.judgements import Journal

        pair = context.partition_key
        found = candidates(storage.lake, kind, pair)
        judged = Journal(judgements_path(settings, kind.name, pair)).read()
        metadata = _publish(storage, layer, found, judged, config)
        return published(storage.lake, metadata, layer, pair)

    return _human_judgement


def layer_of(kind: Kind) -> str:
    """Name of the layer of a kind."""
    return "human_judgement" if kind.name == "s2s" else kind.layer("human_judgement")


def _publish(
    storage: Storage, layer: str, found: Candidates, judged: Judged, config: JudgementConfig
) -> dict[str, Any]:
    from speech_mining.listening.accuracy import suggested_threshold
    from speech_mining.listening.room import Wish, curve_of, told_suggestion, verdict_counts

    wish = Wish(config.precision, config.partly_counts)
    curve = curve_of(found, judged, wish.partly_counts)
    suggested = suggested_threshold(curve, wish.precision)
    counts = verdict_counts(found, judged)
    with storage.lake.replace(layer, found.language_pair) as new:
        new.write_frame("judgements.parquet", _table(found, judged))
        new.write_frame("accuracy.parquet", _curve_table(curve))
        new.write_frame("bad_lines.parquet", _bad_lines(judged))
        new.write_json("suggestion.json", {**asdict(wish), "threshold": suggested.threshold if suggested else None})
    return {
        "dagster/row_count": len(judged.lines),
        "judged_pairs": sum(counts.values()),
        **counts,
        "judges": len({line.judge for line in judged.lines}),
        "bad_lines": len(judged.bad),
        **({"bad_lines_found": rows(_bad_lines(judged))} if judged.bad else {}),
        "suggestion": told_suggestion(curve, wish),
        **({"suggested_threshold": suggested.threshold} if suggested else {}),
        "accuracy": rows(_curve_table(curve), limit=60),
        "accuracy_by_threshold": plot(_picture(curve, found, wish.precision)),
        "sample": rows(_table(found, judged), limit=15),
    }


def _table(found: Candidates, judged: Judged) -> pl.DataFrame:
    """Every line, and whether its pair is still among those that can be heard and the line is its judge's last word."""
    last = {id(said) for by_judge in judged.last.values() for said in by_judge.values()}
    lines = [
        {**asdict(said), "current": (said.source, said.target) in found.row_of, "last": id(said) in last}
        for said in judged.lines
    ]
    texts = ("kind", "language_pair", "source", "target", "verdict", "judge", "at", "corpus", "pairs")
    schema = {**dict.fromkeys(texts, pl.String()), "score": pl.Float64(), "format": pl.Int64()}
    return pl.DataFrame(lines, schema={**schema, "current": pl.Boolean(), "last": pl.Boolean()})


def _curve_table(curve: list[AtThreshold]) -> pl.DataFrame:
    lines = [{**asdict(at), **_interval(at)} for at in curve]
    counts = dict.fromkeys(("judged", "right", "partly", "wrong", "pairs", "covered"), pl.Int64())
    shares = dict.fromkeys(("accuracy", "low", "high"), pl.Float64())
    return pl.DataFrame(lines, schema={"threshold": pl.Float64(), **counts, **shares})


def _interval(at: AtThreshold) -> dict[str, float | None]:
    found = at.accuracy
    return {
        "accuracy": found.share if found else None,
        "low": found.low if found else None,
        "high": found.high if found else None,
    }


def _bad_lines(judged: Judged) -> pl.DataFrame:
    lines = [{"line": bad.line, "why": bad.why} for bad in judged.bad]
    return pl.DataFrame(lines, schema={"line": pl.Int64(), "why": pl.String()})


def _picture(curve: list[AtThreshold], found: Candidates, precision: float) -> str:
    import base64

    from speech_mining.listening.charts import accuracy_picture

    svg = accuracy_picture(curve, threshold=found.threshold, precision=precision)
    return f"![accuracy](data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')})"
