"""The main job from one command: the same assets, runs and instance as in the UI, in the order of the graph.

What belongs here is the order and the telling of progress. What is made is in `s2s_assets`.
"""

from __future__ import annotations

import os
import platform
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from partitions.audiobooks import audiobooks
from partitions.languages import layer
from partitions.text_shards import text_shards
from resources.settings import Settings
from speech_mining.errors import SpeechMiningError
from speech_mining.mining.kinds import KINDS
from speech_mining.writers import alive

BOOK_LAYERS = ("raw_audio", "segments", "speech_embeddings")
PAIR_LAYERS = ("neighbours", "pairs", "corpus")

_OWNER = "s2s/owner"
"""Run tag: which process of which machine a run lives in."""

Teller = Callable[[str], None]


@dataclass(frozen=True)
class Stage:
    """One run: some assets, for one partition, a range of them, or none."""

    title: str
    assets: tuple[dg.AssetKey, ...]
    partition: str | None = None
    books: tuple[str, ...] = ()

    @property
    def tags(self) -> dict[str, str]:
        """Run tags that name a range of partitions, as a batched backfill sets them."""
        if not self.books:
            return {}
        return {ASSET_PARTITION_RANGE_START_TAG: self.books[0], ASSET_PARTITION_RANGE_END_TAG: self.books[-1]}


def first_stages(settings: Settings) -> list[Stage]:
    """Reads the catalogue and lists text; only then is it known which audiobooks and shards there are."""
    written = [Stage("text", (dg.AssetKey("text_shards"),))] if settings.text_languages else []
    return [Stage("catalogue", (dg.AssetKey("catalogue"),)), *written]


def further_stages(settings: Settings, instance: dg.DagsterInstance) -> list[Stage]:
    """Everything after that: books and text by language, indexes, pairs, reports."""
    return [
        *_books(settings, instance),
        *_texts(settings, instance),
        *_indexes(settings),
        *_pairs(settings),
        *_reports(settings),
    ]


def _books(settings: Settings, instance: dg.DagsterInstance) -> Iterator[Stage]:
    for language in settings.languages:
        books = tuple(instance.get_dynamic_partitions(str(audiobooks(language).name)))
        if books:
            assets = tuple(layer(language, name) for name in BOOK_LAYERS)
            yield Stage(f"{language}: {len(books)} audiobooks", assets, books=books)


def _texts(settings: Settings, instance: dg.DagsterInstance) -> Iterator[Stage]:
    """Cleaned by shard; freed of repeats when all of a language are clean; then embedded by shard."""
    for language in settings.text_languages:
        shards = tuple(instance.get_dynamic_partitions(str(text_shards(language).name)))
        if shards:
            told = f"{language}: {len(shards)} shards of text"
            yield Stage(told, (layer(language, "text_sentences"),), books=shards)
            yield Stage(f"{language}: repeats", (layer(language, "text_duplicates"),), partition=language)
            yield Stage(told, (layer(language, "text_embeddings"),), books=shards)


def _indexes(settings: Settings) -> Iterator[Stage]:
    for language in settings.languages:
        yield Stage(f"{language}: index", (layer(language, "speech_index"),), partition=language)
    for language in settings.text_languages:
        yield Stage(f"{language}: index of text", (layer(language, "text_index"),), partition=language)


def _pairs(settings: Settings) -> Iterator[Stage]:
    for kind in KINDS:
        for pair in settings.pairs_of(kind.name):
            told = f"{pair}: {kind.group.replace('_', ' ')}"
            yield Stage(told, tuple(dg.AssetKey(kind.layer(name)) for name in PAIR_LAYERS), partition=pair)


def _reports(settings: Settings) -> Iterator[Stage]:
    yield Stage("quality report", (dg.AssetKey("quality_report"),))
    if settings.truth_path:
        yield Stage("comparison with the truth", (dg.AssetKey("truth_comparison"),))


def run_stage(definitions: dg.Definitions, instance: dg.DagsterInstance, stage: Stage, tell: Teller) -> None:
    """Run one stage to its end.

    Args:
        definitions: the code location.
        instance: where the run is recorded.
        stage: what to materialize.
        tell: called with a line whenever a step starts or reports.

    Raises:
        SpeechMiningError: a step or a blocking check failed; the message is its own.
    """
    run_id = str(uuid.uuid4())
    instance.add_event_listener(run_id, lambda event: tell(_line(event)))
    result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
        instance=instance,
        asset_selection=list(stage.assets),
        partition_key=stage.partition,
        tags={**stage.tags, _OWNER: _owner(os.getpid())},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
        run_id=run_id,
    )
    if not result.success:
        raise SpeechMiningError(f"{_first_failure(result, stage)} (`make dev` shows the whole run and its log.)")


def release_killed_runs(instance: dg.DagsterInstance) -> None:
    """End the runs of commands of this machine that were killed, and give back the places in pools that they hold.

    Nobody else would: no daemon watches over a run that lives in a command's own process.
    """
    unfinished = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING])
    for run in instance.get_runs(unfinished):
        host, _, pid = run.tags.get(_OWNER, "").rpartition("/")
        if host == platform.node() and not alive(int(pid)):
            instance.report_run_canceled(run, message="The command that ran it was killed.")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _owner(pid: int) -> str:
    return f"{platform.node()}/{pid}"


def _line(event: dg.EventLogEntry) -> str:
    """What an event tells a person; empty for the many that tell nothing."""
    happened = event.dagster_event
    if happened is None:
        return event.user_message
    return str(happened.step_key).replace("__", "/") if happened.is_step_start else ""


def _first_failure(result: dg.ExecuteInProcessResult, stage: Stage) -> str:
    failures: Sequence[dg.DagsterEvent] = [event for event in result.all_events if event.is_step_failure]
    if not failures:
        return f"The run of {stage.title} failed."
    error = failures[0].step_failure_data.error
    told = (error.cause or error).message.strip() if error else "no message"
    told = re.sub(r"^speech_mining\.errors\.\w+: ", "", told)  # an error of ours needs no name, it explains itself
    return f"{stage.title}: {failures[0].step_key} failed: {told}"
