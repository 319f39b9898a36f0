"""The code location: binds settings, resources, assets, checks and automation.

Loading it imports no torch, fairseq2, faiss, av or onnxruntime: definitions load in about the time `import dagster`
takes, and each run loads what it needs.
"""

from __future__ import annotations

import warnings

import dagster as dg

from resources.encoders import Encoders
from resources.execution import executor_of
from resources.librivox import LibriVox
from resources.settings import Settings, load_settings
from resources.storage import Storage
from s2s_assets.alerts import alert_sensors
from s2s_assets.alignment import alignment, alignment_checks
from s2s_assets.automation import automation
from s2s_assets.catalogue import catalogue, listings
from s2s_assets.checks import checks
from s2s_assets.corpora import corpus
from s2s_assets.discovery import discovery
from s2s_assets.downstream import downstream
from s2s_assets.encoders import encoder_checks, encoders
from s2s_assets.exports import exports
from s2s_assets.freshness import freshness, freshness_checks, freshness_sensor, with_policy
from s2s_assets.judgements import human_judgements
from s2s_assets.language_check import recordings_speak_their_language
from s2s_assets.mined_pairs import neighbours, pairs
from s2s_assets.pair_quality import pair_quality
from s2s_assets.published import published_manifests
from s2s_assets.quality_checks import quality_checks, recordings_are_distinct
from s2s_assets.quality_history import histories
from s2s_assets.raw_audio import raw_audio
from s2s_assets.reembedding import one_encoder, reembedding
from s2s_assets.report import quality_report, truth_comparison
from s2s_assets.segments import segments, sounds_like_speech
from s2s_assets.speech_embeddings import speech_embeddings
from s2s_assets.speech_index import speech_index
from s2s_assets.text import text
from speech_mining.mining.kinds import KINDS


def build(settings: Settings) -> dg.Definitions:
    """The code location for the settings in force."""
    with warnings.catch_warnings():
        # Backfill policies and partitioned checks are young features of Dagster, used on purpose: see docs/decisions.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        sensors, schedules = automation(settings)
        return dg.Definitions(
            assets=_assets(settings),
            asset_checks=[
                *checks(settings, [sounds_like_speech(), recordings_are_distinct()]),
                *encoder_checks(settings),
                *quality_checks(settings),
                *freshness_checks(settings),
                *one_encoder(settings),
                *alignment_checks(settings),
                recordings_speak_their_language(settings),
            ],
            resources=_resources(settings),
            executor=executor_of(settings),
            sensors=[
                discovery(settings),
                *reembedding(settings),
                *sensors,
                freshness_sensor(settings),
                *alert_sensors(settings),
            ],
            schedules=schedules,
        )


def _assets(settings: Settings) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    by_language = [
        asset
        for language in settings.languages
        for asset in (
            raw_audio(language, settings),
            segments(language, settings),
            speech_embeddings(language, settings),
            speech_index(language, settings),
        )
    ]
    by_pair = [
        asset
        for kind in KINDS
        if settings.pairs_of(kind.name)
        for asset in (neighbours(kind, settings), pairs(kind, settings), corpus(kind, settings))
    ]
    compared = [truth_comparison(settings)] if settings.truth_path else []
    return [
        with_policy(catalogue(settings), settings),
        *listings(settings),
        *encoders(settings),
        *by_language,
        *text(settings),
        *by_pair,
        *pair_quality(settings),
        *histories(settings),
        *human_judgements(settings),
        *exports(settings),
        *downstream(settings),
        *alignment(settings),
        *published_manifests(settings),
        quality_report(settings),
        freshness(settings),
        *compared,
    ]


def _resources(settings: Settings) -> dict[str, dg.ConfigurableResource]:  # type: ignore[type-arg]
    return {
        "storage": Storage.of(settings),
        "librivox": LibriVox.of(settings),
        "encoders": Encoders.of(settings),
    }


defs = build(load_settings())
