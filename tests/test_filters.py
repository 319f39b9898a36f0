"""BLASER 2.0-QE and MuTox with tiny random weights through SONAR's own loaders, and the limits on their scores."""

from __future__ import annotations

import copy
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from speech_mining.cli.models import models as models_command
from speech_mining.encoders.models import add_model, verify_models
from speech_mining.encoders.sonar import locate_weights, speech_languages
from speech_mining.errors import EmbeddingError, EncoderError, LakeError
from speech_mining.filters import BlaserQe, FilterLimits, Mutox, with_scores, within_limits
from speech_mining.filters.card_model import BATCH_ROWS

DIMENSION = 32
HIDDEN = [24, 12]
BLASER = """
name: {name}
model_family: blaser
model_arch: {arch}
model_config: {{embedding_dim: 32, hidden_dims: [24, 12]}}
checkpoint: {name}.pt
"""
MUTOX = """
name: {name}
model_family: mutox_classifier
model_arch: mutox
model_config: {{input_size: 32}}
checkpoint: {name}.pt
"""

Array = npt.NDArray[np.float32]


def build_blaser(directory: Path, name: str = "tiny_blaser", *, seed: int = 0, arch: str = "basic_qe") -> str:
    """Write a tiny BLASER's checkpoint and card; returns the card's name."""
    speech_languages()  # sets fairseq2 up with its libraries in the right order
    from sonar.models.blaser import get_blaser_model_hub

    config: Any = copy.deepcopy(get_blaser_model_hub().get_arch_config(arch))
    config.embedding_dim, config.hidden_dims = DIMENSION, HIDDEN
    _save(get_blaser_model_hub(), config, directory / f"{name}.pt", seed)
    (directory / f"{name}.yaml").write_text(BLASER.format(name=name, arch=arch))
    return name


def build_mutox(directory: Path, name: str = "tiny_mutox", *, seed: int = 1) -> str:
    """Write a tiny MuTox's checkpoint and card; returns the card's name."""
    speech_languages()
    from sonar.models.mutox import get_mutox_model_hub

    config: Any = copy.deepcopy(get_mutox_model_hub().get_arch_config("mutox"))
    config.input_size = DIMENSION
    _save(get_mutox_model_hub(), config, directory / f"{name}.pt", seed)
    (directory / f"{name}.yaml").write_text(MUTOX.format(name=name))
    return name


def _save(hub: Any, config: Any, path: Path, seed: int) -> None:
    """Weights five times the usual, so that scores lie apart; under `model`, as the published checkpoints are."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = hub.create_new_model(config, device=torch.device("cpu"))
        torch.save({"model": {name: 5 * weight for name, weight in model.state_dict().items()}}, path)


@pytest.fixture(scope="module")
def blaser(models: Path) -> BlaserQe:
    return BlaserQe("tiny_blaser", device="cpu", model_dir=models)


@pytest.fixture(scope="module")
def mutox(models: Path) -> Mutox:
    return Mutox("tiny_mutox", device="cpu", model_dir=models)


def vectors(rows: int, seed: int = 0) -> Array:
    """As SONAR makes them: about 0.2 long."""
    drawn = np.random.default_rng(seed).standard_normal((rows, DIMENSION)).astype(np.float32)
    return drawn * np.float32(0.2 / np.sqrt(DIMENSION))


def unit(rows: Array) -> Array:
    normed: Array = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return normed


def weights(path: Path) -> list[npt.NDArray[np.float64]]:
    """Matrices and biases, layer by layer."""
    import torch

    return [tensor.double().numpy() for tensor in torch.load(path, weights_only=True)["model"].values()]


def blaser_by_hand(path: Path, source: Array, target: Array) -> npt.NDArray[np.float64]:
    s, t = unit(source.astype(np.float64)), unit(target.astype(np.float64))
    a, a0, b, b0, c, c0 = weights(path)
    features = np.concatenate([s, t, s * t, np.abs(t - s)], axis=1)
    hidden = np.tanh(np.tanh(features @ a.T + a0) @ b.T + b0)
    return (hidden @ c.T + c0)[:, 0]


def mutox_by_hand(path: Path, raw: Array) -> npt.NDArray[np.float64]:
    a, a0, b, b0, c, c0 = weights(path)
    first = np.maximum(raw.astype(np.float64) @ a.T + a0, 0)
    logit = np.maximum(first @ b.T + b0, 0) @ c.T + c0
    return 1 / (1 + np.exp(-logit[:, 0]))


def test_importing_the_package_loads_no_heavy_library() -> None:
    imported = (
        "import sys, speech_mining.filters, speech_mining.filters.pair_scores; "
        "print(sorted({'torch', 'fairseq2', 'sonar', 'soundfile', 'faiss'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_blaser_is_its_formula(blaser: BlaserQe, models: Path) -> None:
    source, target = vectors(700), vectors(700, seed=1)
    scores = blaser.score(source, target)
    assert scores.dtype == np.float32 and scores.std() > 0.1
    np.testing.assert_allclose(scores, blaser_by_hand(models / "tiny_blaser.pt", source, target), atol=1e-5)


def test_blaser_takes_unit_rows_for_raw_ones_and_is_not_symmetric(blaser: BlaserQe) -> None:
    source, target = vectors(50), vectors(50, seed=1)
    scores = blaser.score(source, target)
    np.testing.assert_allclose(blaser.score(unit(source), 3 * target), scores, atol=2e-5)
    assert np.abs(blaser.score(target, source) - scores).max() > 0.05


def test_rows_kept_as_fp16_move_blaser_by_a_thousandth_of_its_spread(blaser: BlaserQe) -> None:
    source, target = unit(vectors(500)), unit(vectors(500, seed=1))
    exact, kept = blaser.score(source, target), blaser.score(source.astype(np.float16), target.astype(np.float16))
    assert 0 < np.abs(kept - exact).max() < 5e-3 * exact.std()


def test_mutox_is_its_formula(mutox: Mutox, models: Path) -> None:
    raw = vectors(600)
    scores = mutox.score(raw)
    assert scores.dtype == np.float32 and scores.std() > 0.02
    np.testing.assert_allclose(scores, mutox_by_hand(models / "tiny_mutox.pt", raw), atol=1e-5)


def test_mutox_needs_the_lengths_of_unit_rows_and_gives_with_them_what_raw_rows_give(mutox: Mutox) -> None:
    raw = vectors(40)
    lengths = np.linalg.norm(raw, axis=1)
    expected = mutox.score(raw)
    np.testing.assert_allclose(mutox.score(unit(raw), lengths), expected, atol=1e-6)
    assert np.abs(mutox.score(unit(raw), 1.0) - expected).max() > 0.05  # a unit row is another input
    with pytest.raises(EmbeddingError, match=r"All 40 vectors given to MuTox have length 1.*`lengths`"):
        mutox.score(unit(raw).astype(np.float16))
    for wrong in (lengths[:7], -lengths, 0.0, np.nan):
        with pytest.raises(EmbeddingError, match="Lengths of shape"):
            mutox.score(unit(raw), wrong)


def test_a_certain_logit_gives_a_probability_and_no_warning() -> None:
    from speech_mining.filters.mutox import _sigmoid

    told = _sigmoid(np.array([-2000, -48, 0, 48, 2000], np.float32))
    assert told[[0, 2, 4]].tolist() == [0, 0.5, 1] and 0 < told[1] < 1e-20 and told[3] <= 1


def test_a_row_has_the_same_score_to_the_last_bit_whatever_is_beside_it(blaser: BlaserQe, mutox: Mutox) -> None:
    rows = 2 * BATCH_ROWS + 3
    source, target = vectors(rows), vectors(rows, seed=1)
    together, toxic = blaser.score(source, target), mutox.score(source)
    order = np.random.default_rng(2).permutation(rows)
    np.testing.assert_array_equal(blaser.score(source[order], target[order]), together[order])
    np.testing.assert_array_equal(mutox.score(source[order]), toxic[order])
    for part in (slice(0, 1), slice(5, 12), slice(BATCH_ROWS - 1, None)):
        np.testing.assert_array_equal(blaser.score(source[part], target[part]), together[part])
        np.testing.assert_array_equal(mutox.score(source[part]), toxic[part])


def test_no_rows_give_no_scores_and_load_nothing(models: Path, tmp_path: Path) -> None:
    for card in ("tiny_blaser", "tiny_mutox"):
        (tmp_path / f"{card}.yaml").write_text((models / f"{card}.yaml").read_text())
    none = vectors(0)
    assert BlaserQe("tiny_blaser", model_dir=tmp_path).score(none, none).shape == (0,)
    assert Mutox("tiny_mutox", model_dir=tmp_path).score(none).shape == (0,)


def test_rows_that_are_zero_or_not_a_number_are_named(blaser: BlaserQe, mutox: Mutox) -> None:
    good, zero, hole, endless = (vectors(9) for _ in range(4))
    zero[4], hole[7, 3], endless[[1, 2], 0] = 0, np.nan, np.inf
    with pytest.raises(EmbeddingError, match=r"1 of 9 rows of the target are zero: 4\."):
        blaser.score(good, zero)
    with pytest.raises(EmbeddingError, match=r"1 of 9 rows of the source hold NaN or infinity: 7\."):
        blaser.score(hole, good)
    with pytest.raises(EmbeddingError, match=r"2 of 9 rows of the vectors hold NaN or infinity: 1, 2\."):
        mutox.score(endless)


def test_other_shapes_are_refused(blaser: BlaserQe, mutox: Mutox) -> None:
    with pytest.raises(EmbeddingError, match=r"the source is float32 \(3, 31\).*\(n, 32\)"):
        blaser.score(vectors(3)[:, 1:], vectors(3))
    with pytest.raises(EmbeddingError, match=r"3 rows of source and 2 of target"):
        blaser.score(vectors(3), vectors(2))
    with pytest.raises(EmbeddingError, match=r"the vectors is int64"):
        mutox.score(np.ones((2, DIMENSION), np.int64))


def test_the_card_of_blaser_with_references_is_refused(tmp_path: Path) -> None:
    build_blaser(tmp_path, arch="basic_ref")
    with pytest.raises(EncoderError, match=r"input_form COMET.*no reference.*blaser_2_0_qe"):
        BlaserQe("tiny_blaser", model_dir=tmp_path).score(vectors(1), vectors(1))


def test_a_card_of_another_family_is_refused(models: Path) -> None:
    with pytest.raises(EncoderError, match=r"tiny_mutox is of the family mutox_classifier.*the family blaser"):
        _ = BlaserQe("tiny_mutox", model_dir=models).dimension
    with pytest.raises(EncoderError, match=r"sonar_speech_encoder_deu is of the family sonar_speech"):
        _ = Mutox("sonar_speech_encoder_deu", model_dir=models).dimension


def test_missing_weights_are_an_error_that_names_card_and_file(models: Path, tmp_path: Path) -> None:
    (tmp_path / "far.yaml").write_text((models / "tiny_blaser.yaml").read_text())
    far = BlaserQe("tiny_blaser", device="cpu", model_dir=tmp_path)
    assert far.dimension == DIMENSION  # the card tells it
    with pytest.raises(
        EncoderError, match=r"checkpoint of the card tiny_blaser is not on this machine: tiny_blaser\.pt"
    ):
        far.score(vectors(1), vectors(1))
    with pytest.raises(EncoderError, match=r"no asset card called nowhere"):
        _ = Mutox("nowhere", model_dir=models).dimension


def test_a_checkpoint_that_gives_no_number_is_an_error(tmp_path: Path) -> None:
    import torch

    build_mutox(tmp_path)
    broken = torch.load(tmp_path / "tiny_mutox.pt", weights_only=True)
    next(iter(broken["model"].values()))[0, 0] = float("nan")
    torch.save(broken, tmp_path / "tiny_mutox.pt")
    with pytest.raises(EncoderError, match=r"card tiny_mutox gives 3 of 3 rows a score that is not a number"):
        Mutox("tiny_mutox", device="cpu", model_dir=tmp_path).score(vectors(3))


def test_the_version_names_card_and_checkpoint(blaser: BlaserQe, mutox: Mutox, models: Path) -> None:
    for model, card in ((blaser, "tiny_blaser"), (mutox, "tiny_mutox")):
        digest = hashlib.sha256((models / f"{card}.pt").read_bytes()).hexdigest()
        assert model.version == f"{model.name}-1+{card}:sha256-{digest}"


def test_published_cards_are_known_without_their_weights() -> None:
    assert (BlaserQe().dimension, Mutox().dimension) == (1024, 1024)
    assert BlaserQe().version.endswith("blaser-2.0-qe/resolve/main/model.pt")
    assert Mutox().version.endswith("seamless/models/mutox.pt")


def test_the_model_directory_takes_both_families(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    for card, name in (("blaser_2_0_qe", "tiny_blaser"), ("sonar_mutox", "tiny_mutox")):
        add_model(models / f"{name}.pt", card, folder)
        assert locate_weights(card, model_dir=folder).path is not None
    assert [row.state for row in verify_models(folder)] == ["ok", "ok"]
    assert "sha256-" in BlaserQe(model_dir=folder).version
    listed = CliRunner().invoke(models_command, ["list", "--model-dir", str(folder), "--json"])
    rows = {row["card"]: (row["family"], row["state"]) for row in json.loads(listed.stdout)}
    assert rows["blaser_2_0_qe"] == ("blaser", "here")
    assert rows["sonar_mutox"] == ("mutox_classifier", "here")


# --- limits ---


def judged(*rows: tuple[float, float, float]) -> pl.DataFrame:
    """Pairs of a second, with BLASER's score and the toxicity of source and target."""
    seconds = [
        (n, 100 + n, 16_000 * n, 16_000 * (n + 1), 32_000 * n, 32_000 * (n + 1), *row) for n, row in enumerate(rows)
    ]
    spans = [f"{side}_{end}_sample" for side in ("source", "target") for end in ("start", "end")]
    names = ["source_segment", "target_segment", *spans, "blaser_qe", "source_toxicity", "target_toxicity"]
    types = [pl.Int64()] * 6 + [pl.Float32()] * 3
    return pl.DataFrame(seconds, schema=dict(zip(names, types, strict=True)), orient="row")


PAIRS = judged((4.5, 0.1, 0.1), (2.9, 0.9, 0.1), (3.0, 0.1, 0.7), (4.0, 0.6, 0.2), (3.5, 0.8, 0.8))
# broken by                              blaser           lost          added      lost              none but the most


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (FilterLimits(), [0, 1, 2, 3, 4]),
        (FilterLimits(least_blaser_qe=3.0), [0, 2, 3, 4]),
        (FilterLimits(most_toxicity=0.6), [0, 3]),  # 0.6 as a score is 0.60000002: at the limit, and stays
        (FilterLimits(most_added_toxicity=0.5), [0, 1, 3, 4]),
        (FilterLimits(most_lost_toxicity=0.5), [0, 2, 3, 4]),
        (FilterLimits(3.2, 0.7, 0.0, 0.3), [0]),
    ],
)
def test_each_limit_drops_what_breaks_it(limits: FilterLimits, kept: list[int]) -> None:
    assert within_limits(PAIRS, limits).kept["source_segment"].to_list() == kept


def test_what_a_limit_costs_is_told_in_pairs_and_hours_of_both_sides() -> None:
    dropped = within_limits(PAIRS, FilterLimits(3.2, 0.85, 0.9, 0.3)).dropped
    assert dropped.rows() == [
        ("below_least_blaser_qe", 2, 2 / 3600, 4 / 3600),  # the second of them is too toxic as well
        ("above_most_toxicity", 0, 0, 0),
        ("above_most_added_toxicity", 0, 0, 0),
        ("above_most_lost_toxicity", 1, 1 / 3600, 2 / 3600),
    ]
    assert within_limits(PAIRS, FilterLimits()).dropped.is_empty()


probabilities = st.floats(0, 1, width=32)


@given(
    st.lists(st.tuples(st.floats(0, 6, width=32), probabilities, probabilities), max_size=20),
    st.builds(FilterLimits, *([st.none() | probabilities] * 4)),
)
def test_every_pair_is_kept_or_counted_once(rows: list[tuple[float, float, float]], limits: FilterLimits) -> None:
    pairs = judged(*rows)
    found = within_limits(pairs, limits)
    assert found.kept.height + found.dropped["pairs"].sum() == pairs.height
    assert within_limits(found.kept, limits).kept.equals(found.kept)


def test_a_pair_without_the_score_that_a_limit_needs_is_an_error() -> None:
    for pairs in (PAIRS.drop("blaser_qe"), PAIRS.with_columns(blaser_qe=pl.lit(None, pl.Float32))):
        with pytest.raises(LakeError, match=r"the scores blaser_qe.*materialize s2s_pair_quality"):
            within_limits(pairs, FilterLimits(least_blaser_qe=3))
        assert within_limits(pairs, FilterLimits(most_toxicity=1)).kept.height == PAIRS.height


def test_scores_are_joined_in_the_order_of_the_pairs_and_none_may_be_missing() -> None:
    names = ["source_segment", "target_segment", "blaser_qe"]
    scores = PAIRS.select(names).reverse()
    assert with_scores(PAIRS.select(names[:2]), scores).equals(PAIRS.select(names))
    with pytest.raises(LakeError, match="1 of 5 pairs have no score"):
        with_scores(PAIRS.select(names[:2]), scores[1:])
