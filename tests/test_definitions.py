"""The code location: what loads, what is promised of each asset, and which partitions lead to which."""

import datetime as dt
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import combinations

import dagster as dg
import pytest

from partitions.audiobooks import add_audiobooks, audiobooks
from partitions.batches import each_partition
from partitions.language_pairs import pairs_of, speech_pairs, split
from partitions.text_shards import set_text_shards
from resources.settings import Settings, load_settings
from s2s_assets.definitions import build
from tests.asset_checks import passing

LANGUAGES = ("deu", "eng", "fra", "spa")
TEXT_LAYERS = ("text_sentences", "text_duplicates", "text_embeddings", "text_index")
PAIR_LAYERS = ("neighbours", "pairs", "corpus", "history")
OF_CORPORA = ("no_overlap", "one_to_one", "scores_reach_the_threshold", "corpus_is_steady", "no_preambles")
BLOCKING = {
    **{f"{kind}_pairs": ("durations_within_bounds", "scores_reach_the_floor") for kind in ("s2s", "s2t")},
    **{f"{kind}_corpus": OF_CORPORA for kind in ("s2s", "s2t")},
}
HEAVY = ("torch", "fairseq2", "faiss", "av", "onnxruntime", "sonar", "numba", "matplotlib", "httpx", "duckdb")


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings(home="unused")


@pytest.fixture(scope="module")
def definitions(settings: Settings) -> dg.Definitions:
    return build(settings)


def test_loading_the_code_location_loads_nothing_heavy() -> None:
    script = f"import sys, s2s_assets.definitions; print([m for m in {HEAVY} if m in sys.modules])"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_code_location_is_loadable(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_the_asset_graph_is_the_one_of_the_design(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    names = {key.to_user_string() for key in graph.materializable_asset_keys}
    layers = ("raw_audio", "segments", "speech_embeddings", "speech_index")
    of_languages = {f"{language}/{layer}" for language in LANGUAGES for layer in layers}
    of_texts = {f"{language}/{layer}" for language in LANGUAGES for layer in TEXT_LAYERS}
    of_pairs = {f"{kind}_{layer}" for kind in ("s2s", "s2t") for layer in PAIR_LAYERS}
    others = {
        "catalogue",
        "text_shards",
        "human_judgement",
        "s2t_human_judgement",
        "quality_report",
        "truth_comparison",
        "spoken_words",
        "written_words",
        "alignment",
        "alignment_evaluation",
        "s2s_benchmark",
        "s2t_benchmark",
    }
    assert names == {*others, *of_languages, *of_texts, *of_pairs}


def test_what_the_settings_do_not_ask_for_is_not_there() -> None:
    plain = load_settings(home="unused", catalogue_url="https://librivox.org", speech_pairs="deu-eng", encoder="sonar")
    names = {key.to_user_string() for key in build(plain).resolve_asset_graph().materializable_asset_keys}
    assert not {name for name in names if "text" in name or name.startswith(("s2t", "t2", "student"))}
    text = {"shards": {"eng": ["/texts/eng"], "ita": ["/texts/ita"]}}
    pairs = {"text_pairs": "eng-ita", "text_speech_pairs": "ita-deu", "speech_text_pairs": "deu-ita,eng-eng"}
    all_kinds = load_settings(home="unused", text=text, **pairs)
    graph = build(all_kinds).resolve_asset_graph()
    names = {key.to_user_string() for key in graph.materializable_asset_keys}
    assert {f"{kind}_{layer}" for kind in ("s2s", "s2t", "t2s", "t2t") for layer in PAIR_LAYERS} <= names
    assert "ita/text_index" in names and "ita/segments" not in names
    parents = graph.get(dg.AssetKey("t2s_neighbours")).parent_keys
    assert {key.to_user_string() for key in parents} == {"ita/text_index", "deu/speech_index"}


def test_every_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    for asset in definitions.resolve_asset_graph().assets_defs:
        for spec in asset.specs:
            name = spec.key.to_user_string()
            assert spec.description and len(spec.description) > 30, name
            assert spec.kinds and spec.owners and spec.group_name and spec.code_version, name


def test_what_a_check_says_is_shown_as_prose(definitions: dg.Definitions) -> None:
    for definition in definitions.asset_checks or []:
        assert isinstance(definition, dg.AssetChecksDefinition)
        for spec in definition.check_specs:
            # Markdown takes indented lines for code
            assert spec.description and "\n " not in spec.description, spec.name


def test_what_may_die_of_the_network_or_of_memory_is_retried_and_every_step_has_a_pool(
    definitions: dg.Definitions,
) -> None:
    pools = {}
    for asset in definitions.resolve_asset_graph().assets_defs:
        if asset.is_executable and not asset.check_keys:
            pools[asset.key.to_user_string()] = (asset.op.pool, asset.op.retry_policy is not None)
    assert pools["catalogue"] == pools["deu/raw_audio"] == ("download", True)
    assert pools["deu/segments"] == pools["s2s_pairs"] == pools["s2s_corpus"] == ("cpu", False)
    assert pools["deu/speech_embeddings"] == pools["deu/speech_index"] == pools["s2s_neighbours"] == ("gpu", True)
    assert all(pool in {"cpu", "gpu", "download"} for pool, _ in pools.values())


@pytest.mark.filterwarnings("ignore:Property `ScheduleDefinition.environment_vars`:DeprecationWarning")
def test_every_edge_between_partitions_has_a_mapping_that_the_daemon_keeps(definitions: dg.Definitions) -> None:
    # custom mappings vanish in the snapshot that daemon and webserver read, and then nothing is ever launched
    from dagster._core.remote_representation.external_data import RepositorySnap

    snap = RepositorySnap.from_def(definitions.get_repository_def())
    mappings = {
        (node.asset_key.to_user_string(), edge.parent_asset_key.to_user_string()): edge.partition_mapping
        for node in snap.asset_nodes
        for edge in node.parent_edges
    }
    for language in LANGUAGES:
        assert isinstance(mappings[f"{language}/speech_index", f"{language}/speech_embeddings"], dg.AllPartitionMapping)
        mapping = mappings["s2s_neighbours", f"{language}/speech_index"]
        assert isinstance(mapping, dg.StaticPartitionMapping)
        own = [pair for pair in speech_pairs(LANGUAGES) if language in pair.split("-")]
        assert mapping.downstream_partition_keys_by_upstream_partition_key[language] == own
    assert isinstance(mappings["quality_report", "s2s_corpus"], dg.AllPartitionMapping)


def test_pairs_are_every_two_languages_in_alphabetical_order() -> None:
    assert speech_pairs(["spa", "deu", "eng"]) == ["deu-eng", "deu-spa", "eng-spa"]
    assert split("deu-eng") == ("deu", "eng")
    assert pairs_of("eng", speech_pairs(LANGUAGES)) == ["deu-eng", "eng-fra", "eng-spa"]
    assert len(speech_pairs(LANGUAGES)) == len(list(combinations(LANGUAGES, 2)))


def test_an_audiobook_becomes_a_partition_once_and_in_the_order_given() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert add_audiobooks(instance, "deu", ["3", "20", "100", "20"]) == ["3", "20", "100"]
        assert add_audiobooks(instance, "deu", ["20", "21"]) == ["21"]
        assert instance.get_dynamic_partitions("audiobooks_deu") == ["3", "20", "100", "21"]
        assert instance.get_dynamic_partitions("audiobooks_eng") == []


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def _record(instance: dg.DagsterInstance, key: dg.AssetKey, partition: str | None, *, checked: bool = False) -> None:
    instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))
    if not checked:
        return
    for check in BLOCKING.get(key.to_user_string(), ()):
        instance.report_runless_asset_event(passing(instance, key, partition, check))


def _bring_text(instance: dg.DagsterInstance, language: str, shards: list[str]) -> None:
    """Shards that were taken in, all the way to their vectors."""
    set_text_shards(instance, language, shards)
    for layer in ("text_listing", "text_sentences"):
        for shard in shards:
            _record(instance, dg.AssetKey([language, layer]), shard)
    _record(instance, dg.AssetKey([language, "text_duplicates"]), language)
    for shard in shards:
        _record(instance, dg.AssetKey([language, "text_embeddings"]), shard)


def _ticker(
    definitions: dg.Definitions, instance: dg.DagsterInstance, now: dt.datetime
) -> Callable[[dt.timedelta], dict[str, set[str]]]:
    """Evaluates all conditions at a time, records whatever they ask for as made, and tells it."""
    cursor = None

    def tick(later: dt.timedelta) -> dict[str, set[str]]:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(definitions, instance, cursor=cursor, evaluation_time=now + later)
        cursor = result.cursor
        wanted: dict[str, set[str]] = {}
        for asset in definitions.resolve_asset_graph().materializable_asset_keys:
            if asset.to_user_string() in {"catalogue", "text_shards", "quality_report", "truth_comparison"}:
                continue
            if found := {str(key) for key in result.get_requested_partitions(asset) if key is not None}:
                wanted[asset.to_user_string()] = found
        for name, keys in wanted.items():
            for key in keys:
                _record(instance, dg.AssetKey.from_user_string(name), key, checked=True)
        return wanted

    return tick


def test_a_new_german_audiobook_leads_to_german_layers_and_then_to_german_pairs_only(
    definitions: dg.Definitions, settings: Settings, instance: dg.DagsterInstance
) -> None:
    now = dt.datetime(2026, 1, 5, 12, tzinfo=dt.timezone.utc)  # a Monday, after the weekly tick at three
    _record(instance, dg.AssetKey("catalogue"), None)
    for language in LANGUAGES:
        add_audiobooks(instance, language, ["1"])
        for layer in ("raw_audio", "segments", "speech_embeddings"):
            _record(instance, dg.AssetKey([language, layer]), "1")
        _record(instance, dg.AssetKey([language, "speech_index"]), language)
        _bring_text(instance, language, ["a"])
        _record(instance, dg.AssetKey([language, "text_index"]), language)
    for kind in ("s2s", "s2t"):
        for layer in PAIR_LAYERS:
            for pair in settings.pairs_of(kind):
                _record(instance, dg.AssetKey(f"{kind}_{layer}"), pair)

    tick = _ticker(definitions, instance, now)
    assert tick(dt.timedelta(minutes=0)) == {}
    add_audiobooks(instance, "deu", ["2"])
    assert tick(dt.timedelta(minutes=1)) == {}
    _record(instance, dg.AssetKey(["deu", "raw_audio"]), "2")
    layers = {f"deu/{layer}": {"2"} for layer in ("segments", "speech_embeddings")}
    assert tick(dt.timedelta(minutes=2)) == layers
    assert tick(dt.timedelta(days=3)) == {}
    nightly: dict[str, set[str]] = {}
    for minute in range(4):
        nightly |= tick(dt.timedelta(days=7, minutes=minute))
    pairs = {"deu-eng", "deu-fra", "deu-spa"}
    assert nightly == {
        "deu/speech_index": {"deu"},
        **{f"s2s_{layer}": pairs for layer in PAIR_LAYERS},
        **{f"s2t_{layer}": pairs | {"deu-deu"} for layer in PAIR_LAYERS},
    }
    assert tick(dt.timedelta(days=7, minutes=5)) == {}
    assert tick(dt.timedelta(days=14)) == {}


def test_a_new_shard_of_text_is_freed_of_repeats_before_it_is_embedded_and_leads_to_its_pairs_only(
    definitions: dg.Definitions, settings: Settings, instance: dg.DagsterInstance
) -> None:
    now = dt.datetime(2026, 1, 5, 12, tzinfo=dt.timezone.utc)
    for language in LANGUAGES:
        _record(instance, dg.AssetKey([language, "speech_index"]), language)
        _bring_text(instance, language, ["a", "b"])
        _record(instance, dg.AssetKey([language, "text_index"]), language)
    for layer in PAIR_LAYERS:
        for pair in settings.pairs_of("s2t"):
            _record(instance, dg.AssetKey(f"s2t_{layer}"), pair)
    tick = _ticker(definitions, instance, now)
    assert tick(dt.timedelta(minutes=0)) == {}
    set_text_shards(instance, "spa", ["a", "b", "c"])
    _record(instance, dg.AssetKey(["spa", "text_listing"]), "c")
    asked = [tick(dt.timedelta(minutes=minute)) for minute in range(1, 6)]
    order = [name for wanted in asked for name in sorted(wanted)]
    assert order == ["spa/text_sentences", "spa/text_duplicates", "spa/text_embeddings"]
    assert [wanted["spa/text_embeddings"] for wanted in asked if "spa/text_embeddings" in wanted] == [{"c"}]
    nightly: dict[str, set[str]] = {}
    for minute in range(4):
        nightly |= tick(dt.timedelta(days=7, minutes=minute))
    pairs = {f"{language}-spa" for language in LANGUAGES}
    assert nightly == {"spa/text_index": {"spa"}, **{f"s2t_{layer}": pairs for layer in PAIR_LAYERS}}
    assert tick(dt.timedelta(days=14)) == {}


def test_an_audiobook_that_fails_spoils_only_itself(instance: dg.DagsterInstance) -> None:
    add_audiobooks(instance, "deu", ["1", "2", "3"])

    def make(book: str) -> dict[str, int]:
        if book == "2":
            raise OSError("no such tape")
        return {"pages": int(book)}

    @dg.asset(key=["deu", "pages"], partitions_def=audiobooks("deu"), backfill_policy=dg.BackfillPolicy.multi_run(50))
    def pages(context: dg.AssetExecutionContext) -> None:
        each_partition(context, make, (OSError,))

    job = dg.Definitions(assets=[pages]).resolve_implicit_global_asset_job_def()
    tags = {"dagster/asset_partition_range_start": "1", "dagster/asset_partition_range_end": "3"}
    result = job.execute_in_process(instance=instance, tags=tags, raise_on_error=False)
    assert not result.success
    assert instance.get_materialized_partitions(dg.AssetKey(["deu", "pages"])) == {"1", "3"}
    failure = next(event for event in result.all_events if event.is_step_failure).step_failure_data
    assert failure.user_failure_data is not None
    assert "1 of 3 audiobooks failed: 2" in str(failure.user_failure_data.description)


def test_an_error_nobody_expected_ends_the_run_at_once(instance: dg.DagsterInstance) -> None:
    add_audiobooks(instance, "deu", ["1"])

    @dg.asset(key=["deu", "pages"], partitions_def=audiobooks("deu"))
    def pages(context: dg.AssetExecutionContext) -> None:
        each_partition(context, lambda book: {"n": 1 // 0}, (OSError,))

    job = dg.Definitions(assets=[pages]).resolve_implicit_global_asset_job_def()
    with pytest.raises(ZeroDivisionError):
        job.execute_in_process(instance=instance, partition_key="1")
