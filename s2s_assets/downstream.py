"""`s2t_benchmark`, `s2s_benchmark`: does a model that is trained on what was mined get better?

Nothing here happens by itself: it costs many trainings. What belongs here is the layers; which examples are compared is
`speech_mining.downstream.studies`, training and scoring are in the modules beside it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl
from pydantic import Field

from partitions.language_pairs import pair_partitions, split
from resources.compute import GPU, OWNERS, pod_retries, step_tags
from resources.devices import held_device
from resources.metadata import column_schema, plot, rows
from resources.progress_log import telling
from resources.settings import Settings
from resources.storage import Storage, published
from resources.truth import known_truths
from speech_mining.downstream.configuration import LearningConfig
from speech_mining.downstream.tables import COMPARED, MINED, OUTPUTS, RANDOM, RUNS, TRUE, VERSION
from speech_mining.errors import SettingsError
from speech_mining.filters.limits import FilterLimits
from speech_mining.filters.pair_scores import LAYER, read_scores
from speech_mining.mining.kinds import SPEECH_TO_SPEECH, SPEECH_TO_TEXT, Kind
from speech_mining.progress import Progress

if TYPE_CHECKING:
    from speech_mining.downstream.experiment import Place, Results, Study
    from speech_mining.downstream.mined import Choice
    from speech_mining.downstream.studies import Material, Plan
    from speech_mining.downstream.tables import Task

GROUP = "downstream"
KINDS = (SPEECH_TO_TEXT, SPEECH_TO_SPEECH)
TASKS: Mapping[str, "Task"] = {"s2t": "translation", "s2s": "retrieval"}
MAIN_METRIC = {"s2t": "BLEU", "s2s": "R@1"}
PARTS_TOLD = 10

_DESCRIPTIONS = {
    "s2t": "A small speech-to-text translation model, trained on a base set, and on base and mined pairs at each "
    "threshold: BLEU and chrF.\n\nEvery run has the same updates and seeds. Beside them: base and the true pairs, "
    "where they are known, which is the most that mining could bring; and base and as many random pairs, which must "
    "not help.",
    "s2s": "Two encoders that learn from pairs of speech to find translations, trained on a base set, and on base and "
    "mined pairs: R@1, R@5, R@10 of held-out speech; and BLASER of the pairs, where a card is named.\n\nProxies that "
    "need no speech recogniser: they tell whether pairs say the same, not how well speech would be generated of them.",
}
_LIMITS = {
    "s2t": "The model is trained here, small and on few updates: figures are to be compared with each other, not with "
    "published ones of larger models.",
    "s2s": "No speech is generated, and none is recognised: ASR-BLEU is not measured. Recall is of a search among the "
    "test set's own speech, and falls as that grows.",
}


class BenchmarkConfig(dg.Config):
    """What one run may do otherwise than the settings say."""

    updates: int | None = Field(default=None, description="Of every training; empty: as in the settings.")
    seeds: list[int] = Field(default=[], description="Empty: as in the settings.")
    thresholds: list[float] = Field(default=[], description="Empty: as in the settings.")


def downstream(settings: Settings) -> list[dg.AssetsDefinition]:
    """The benchmarks of what is mined."""
    return [_benchmark(kind, settings) for kind in KINDS if settings.pairs_of(kind.name)]


def _benchmark(kind: Kind, settings: Settings) -> dg.AssetsDefinition:
    scores = settings.filters.columns

    @dg.asset(
        key=kind.layer("benchmark"),
        deps=[kind.layer("pairs"), *([kind.layer(LAYER)] if scores else [])],
        partitions_def=pair_partitions(settings.pairs_of(kind.name)),
        group_name=GROUP,
        kinds={"pytorch", "parquet"},
        owners=OWNERS,
        op_tags=step_tags(GPU, kind.layer("benchmark"), settings),
        retry_policy=pod_retries(settings),
        pool=GPU,
        code_version=VERSION,
        metadata={"dagster/column_schema": column_schema(COMPARED)},
        description=_DESCRIPTIONS[kind.name],
    )
    def _trained_and_scored(
        context: dg.AssetExecutionContext, config: BenchmarkConfig, storage: Storage
    ) -> dg.MaterializeResult[None]:
        from speech_mining.downstream.experiment import run_study

        wanted = _Wanted(kind, context.partition_key, settings, config)
        with held_device(context, settings) as held:
            plan = wanted.plan(storage, context)
            results = run_study(wanted.study(plan), wanted.place(storage, context, held.device))
        metadata = _publish(storage, wanted, plan, results)
        return published(
            storage.lake, {**metadata, "device": held.told}, kind.layer("benchmark"), context.partition_key
        )

    return _trained_and_scored


class _Wanted:
    """What one run compares, from the settings and its own config."""

    def __init__(self, kind: Kind, pair: str, settings: Settings, config: BenchmarkConfig) -> None:
        self.kind, self.pair, self._settings, self._asked = kind, pair, settings, settings.downstream
        self.threshold = settings.threshold_of(kind.name)
        named = config.thresholds or self._asked.thresholds
        self.thresholds = tuple(sorted({*named, self.threshold}))
        self.seeds = tuple(config.seeds or self._asked.seeds)
        training = {**self._asked.training, **(self._asked.retrieval if kind.target == "speech" else {})}
        self.learning = LearningConfig.of_dict(
            {**training, **({"updates": config.updates} if config.updates is not None else {})}
        )

    @property
    def choice(self) -> "Choice":
        """How pairs are chosen: as the corpus is."""
        from speech_mining.downstream.mined import Choice

        filters = self._settings.filters
        limits = FilterLimits(**{name: getattr(filters, name) for name in FilterLimits.__dataclass_fields__})
        return Choice(self.thresholds, self._settings.mining.selection, limits, filters.columns)

    def plan(self, storage: Storage, context: dg.AssetExecutionContext) -> "Plan":
        """The data of the study; what is cut out of recordings stays on this machine's disk."""
        from speech_mining.downstream.mined import chosen_pairs, mined_examples
        from speech_mining.downstream.studies import Bounds, plan_study

        store = self._folder(storage) / "clips"
        cutting = telling(context, "recordings cut", parts=PARTS_TOLD)
        chosen = chosen_pairs(storage.lake, self.kind, self.pair, self.choice)
        mined = mined_examples(storage.lake, self.kind, self.pair, chosen, store, cutting)
        bounds = Bounds(self._asked.most_base_hours, self._asked.most_test)
        return plan_study(self._material(storage, cutting), mined, self.threshold, bounds)

    def study(self, plan: "Plan") -> "Study":
        """Its runs."""
        from speech_mining.downstream.experiment import Study
        from speech_mining.downstream.studies import WITHOUT_SPACES

        return Study(
            TASKS[self.kind.name],
            plan.base,
            plan.test,
            plan.conditions,
            self.learning,
            self.seeds,
            split(self.pair),
            character=split(self.pair)[1] in WITHOUT_SPACES,
        )

    def place(self, storage: Storage, context: dg.AssetExecutionContext, device: str) -> "Place":
        """Where it goes on from, should it be killed."""
        from speech_mining.downstream.experiment import Place

        hours = self._asked.time_limit_hours
        return Place(
            self._folder(storage),
            device,
            None if hours is None else 3600 * hours,
            telling(context, "updates", parts=PARTS_TOLD),
            context.log.info,
        )

    def _folder(self, storage: Storage) -> Any:
        return storage.scratch_of("downstream", self.kind.name, self.pair)

    def _material(self, storage: Storage, cutting: Progress) -> "Material":
        """Base and test: of the sets that the settings name, else of the truth that is known."""
        from speech_mining.downstream.studies import dealt_material

        pool = self._truth(storage, cutting)
        if self.pair in self._asked.sets:
            return self._of_sets(pool)
        if pool is None:
            raise SettingsError(
                f"Nothing says what {self.pair} is to be trained and examined on.",
                expected="sets of transcribed speech with translations, or a known truth",
                fix=f'name them in s2s.toml: [downstream.sets.{self.pair}] data = ["/data/covost"]',
            )
        return dealt_material(pool)

    def _of_sets(self, pool: pl.DataFrame | None) -> "Material":
        from speech_mining.downstream.sets import read_sets, spoken_examples, written_examples
        from speech_mining.downstream.studies import Material

        named, (source, target) = self._asked.sets[self.pair], split(self.pair)
        read = read_sets(named.data, (source, target), named.format)
        if self.kind.target == "text":
            base, test = (written_examples(read.clips, part, target) for part in ("train", "test"))
            return Material(base, test, pool, rejected=read.rejected)
        if not named.target_data:
            raise SettingsError(
                f"No set speaks the translations of {self.pair}.",
                expected="clips in both languages",
                fix=f"name target_data in downstream.sets.{self.pair}: transcribed speech of {target}",
            )
        others = read_sets(named.target_data, (target, source), named.format)
        base, test = (spoken_examples(read.clips, others.clips, part) for part in ("train", "test"))
        return Material(base, test, pool, rejected=read.rejected)

    def _truth(self, storage: Storage, cutting: Progress) -> pl.DataFrame | None:
        """True pairs of the audiobooks that are in the lake; None where none is known."""
        from speech_mining.downstream.mined import cut_examples
        from speech_mining.downstream.studies import truth_spans

        known = {one.kind.name: one.truth for one in known_truths(self._settings)}[self.kind.name]
        if known is None:
            return None
        spans = truth_spans(known, self.kind, self.pair)
        for side, language in zip(("source", "target"), split(self.pair), strict=True):
            if side in self.kind.spoken:
                there = storage.lake.keys("raw_audio", language)
                spans = spans.filter(pl.col(f"{side}_audiobook").is_in(there))
        store = self._folder(storage) / "clips"
        return cut_examples(storage.lake, self.kind, self.pair, spans, store, cutting) if spans.height else None


def _publish(storage: Storage, wanted: _Wanted, plan: "Plan", results: "Results") -> dict[str, Any]:
    from dataclasses import asdict

    from speech_mining.downstream.comparison import compare

    compared = compare(results.runs)
    with storage.lake.replace(wanted.kind.layer("benchmark"), wanted.pair) as new:
        new.write_table("compared.parquet", compared, COMPARED)
        new.write_table("runs.parquet", results.runs, RUNS)
        new.write_table("outputs.parquet", results.outputs, OUTPUTS)
        new.write_json(
            "study.json",
            {
                "config": asdict(wanted.learning),
                "seeds": wanted.seeds,
                "thresholds": wanted.thresholds,
                "threshold": wanted.threshold,
                "base": plan.base.height,
                "test": plan.test.height,
                "dropped": plan.dropped,
            },
        )
    return {
        **_answer(compared, wanted),
        **_figures(compared, wanted, results),
        **_data(plan, results),
        **_blaser(storage, wanted),
        "limits": _LIMITS[wanted.kind.name],
    }


def _answer(compared: pl.DataFrame, wanted: _Wanted) -> dict[str, Any]:
    """What the corpus' own threshold gains, and the share that it is of what could be gained."""
    told: dict[str, Any] = {}
    for metric in compared["metric"].unique(maintain_order=True):
        of_metric = compared.filter(metric=metric)
        mined = of_metric.filter(condition=MINED, threshold=wanted.threshold).row(0, named=True)
        told[f"gain_{metric}"] = round(mined["gain"], 2)
        told[f"seeds_better_{metric}"] = f"{mined['better_seeds']} of {mined['runs']}"
        for name in (RANDOM, TRUE):
            found = of_metric.filter(condition=name)
            told |= {f"gain_{metric}_{name}": round(gain, 2) for gain in found["gain"]}
        if mined["share_of_gap"] is not None:
            told[f"share_of_gap_closed_{metric}"] = round(mined["share_of_gap"], 4)
    return told


def _figures(compared: pl.DataFrame, wanted: _Wanted, results: "Results") -> dict[str, Any]:
    from speech_mining.downstream.plots import plot_study
    from speech_mining.quality.plots import as_markdown_image

    metric = MAIN_METRIC[wanted.kind.name]
    image = as_markdown_image(plot_study(compared, metric, f"{wanted.pair}, {len(wanted.seeds)} seeds"))
    outputs = {"translations": rows(results.outputs.filter(condition=MINED), limit=12)}
    return {
        "dagster/row_count": compared.height,
        "by_threshold_and_hours": plot(image, "Bars: the standard deviation over seeds."),
        "compared": rows(compared, limit=200),
        "signatures": dg.MetadataValue.json(
            dict(results.runs.select("metric", "signature").unique().sort("metric").rows())
        ),
        **(outputs if results.outputs.height else {}),
    }


def _data(plan: "Plan", results: "Results") -> dict[str, Any]:
    from speech_mining.downstream.examples import hours

    return {
        "base_examples": plan.base.height,
        "base_hours": round(hours(plan.base), 4),
        "test_examples": plan.test.height,
        "test_hours": round(hours(plan.test), 4),
        "dropped": dg.MetadataValue.json({name: dict(why) for name, why in plan.dropped.items() if why}),
        "too_long": dg.MetadataValue.json({name: count for name, count in results.left_out.items() if count}),
        "runs": results.runs["run"].n_unique(),
        "runs_trained_now": results.trained,
    }


def _blaser(storage: Storage, wanted: _Wanted) -> dict[str, Any]:
    """BLASER 2.0-QE of the mined pairs by threshold, of speech with speech; it needs published weights."""
    if wanted.kind.target == "text":
        return {}
    if "blaser_qe" not in wanted.choice.scores:
        return {"blaser": "not measured: filters.blaser names no card, and the weights are not part of this project"}
    from speech_mining.downstream.mined import chosen_pairs

    scores = read_scores(storage.lake, wanted.pair, ("blaser_qe",), wanted.kind)
    chosen = chosen_pairs(storage.lake, wanted.kind, wanted.pair, wanted.choice)
    keys = [name for name in scores.columns if name != "blaser_qe"]
    told = [
        {"threshold": threshold, "pairs": pairs.height, "blaser_qe": pairs.join(scores, on=keys)["blaser_qe"].mean()}
        for threshold, pairs in chosen.items()
    ]
    return {"blaser": rows(pl.DataFrame(told))}
