"""SONAR behind the assets: a real book embedded through the real factories, with tiny random weights."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from resources.encoders import Encoders
from resources.settings import load_settings
from s2s_assets.definitions import build
from speech_mining.encoders.sonar import speech_languages
from speech_mining.errors import EncoderError
from speech_mining.lake import Lake
from speech_mining.records import SEGMENTS
from tests.tiny_sonar import DIMENSION, build_speech

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("models")
    card = made / f"{build_speech(made)}.yaml"
    published = speech_languages()["deu"]
    card.write_text(card.read_text("utf-8").replace("name: tiny_speech", f"name: {published}@user"), "utf-8")
    return made


def test_a_book_is_embedded_by_sonar_when_the_settings_say_so(models: Path, tmp_path: Path) -> None:
    settings = load_settings(
        home=tmp_path,
        languages="deu",
        encoder="sonar",
        model_dir=models,
        device="cpu",
        segmentation={"min_s": 3.0, "max_s": 4.0},
    )
    job = build(settings).resolve_implicit_global_asset_job_def()
    layers = [dg.AssetKey(["deu", name]) for name in ("raw_audio", "segments", "speech_embeddings", "speech_index")]
    with dg.DagsterInstance.ephemeral() as instance:
        for selection, partition in (([dg.AssetKey("catalogue")], None), (layers[:3], "91009"), (layers[3:], "deu")):
            done = job.execute_in_process(instance=instance, asset_selection=selection, partition_key=partition)
            assert done.success
    partition = Lake(settings.lake_url).partition("speech_embeddings", "deu", "91009")
    vectors = partition.read_array("vectors.npy")
    assert vectors.shape == (partition.read_table("segments.parquet", SEGMENTS).height, DIMENSION)
    assert len(vectors) > 3
    assert np.abs(np.linalg.norm(vectors.astype(np.float64), axis=1) - 1).max() < 2e-3
    told = partition.read_json("encoder.json")
    assert told["name"] == "sonar-speech"
    assert "sonar_speech_encoder_deu" in told["version"]


def test_a_language_that_the_encoder_does_not_know_is_a_clear_error() -> None:
    with pytest.raises(EncoderError, match=r"miniature does not know the language ita.*S2S_ENCODERS"):
        Encoders(default="miniature").speech("ita")
