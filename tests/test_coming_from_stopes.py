"""docs/coming-from-stopes.md: no option of stopes or LASER is left out, and what it names of ours is there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel

from resources.settings import Settings, load_settings
from s2s_assets.definitions import build
from speech_mining.cli.mine import mine
from speech_mining.text.rules import Cleaning

TEXT = (Path(__file__).parent.parent / "docs" / "coming-from-stopes.md").read_text("utf-8")
TABLES = TEXT.partition("## Every stage and every option")[2]

# Read off the dataclasses and conf/*.yaml of stopes at a4e75e8 and the arguments of LASER's mine_bitexts.py at 74bc6ae;
# without what the pipeline itself passes from one stage to the next.
OPTIONS = {
    "global_mining": """output_dir launcher data model_dir count_lines split_in_shards embed_text embedding_sample
        train_index populate_index merge_indexes mine_indexes mine_sentences calculate_distances src_lang tgt_lang
        lang_configs max_shard_size embed_speech sharded_langs local_tmp_dir index_type existing_index_path
        existing_embedding_glob existing_aux_embedding_glob aux_embed vocab_dir embedding_dimensions mine_threshold
        segment_audio merge_shards hydra""",
    "data": "data_version iteration data_shard_dir shard_type bname shard_list shard_glob meta_glob nl_file_template",
    "calculate_distances": """num_probe knn gpu_type gpu_memory_gb save_dists_as_fp16 batch_size distance_type
        normalize_query_embeddings""",
    "mine_indexes": """src_aux_embeddings tgt_aux_embeddings alpha comparator_path symmetrize_comparator knn_dist src_k
        tgt_k k_extract margin_type mine_type sort_neighbors margin_norm requirements""",
    "mine_sentences": """src_text_files src_meta_files tgt_text_files tgt_meta_files alignment_file score_max
        dedup_bitexts compress_output""",
    "merge_shards": "pairs remove_tmp_files",
    "index": """sample_shards sample_sz max_num_workers use_gpu num_cpu chunk_size enable_checkpointing
        expected_line_count""",
    "encoders": """encoder_model _name spm_model spm_vocab max_sentences max_tokens mini_batch_size stable_sort
        normalize fp16 fp16_model cpu gpu num_processes input_column_offset lang shards encode encoder preprocess
        lang_shard_name outfile_prefix buffer_size lowercase normalize_punctuation remove_non_printing_chars
        deescape_special_chars""",
    "monolingual": """langs corpus_filter data_dir skip_dedup split_algo dist_tmp_dir language_script_filename
        split_language_equivalences_filename preprocess_buffer_size preproces_requirements input_file_glob_template
        wandb min_chars max_chars max_punct_ratio max_number_ratio min_space_ratio max_space_ratio max_emoji_ratio
        script_threshold max_repeated_char tab_index model_date model_file thresholds_file latest_models_path
        probability_threshold lang_thresholds label_unk""",
    "speech": """max_duration_in_seconds hard_limit_min_length threshold min_speech_duration_ms min_silence_duration_ms
        speech_pad_ms window_size_samples min_audio_length mining_threshold max_overlap overlap_method
        sampling_factor""",
    "filtering": """max_len min_len max_len_ratio min_src_unique_ratio model_path excluded_corpora excluded_languages
        default_threshold thresholds twl_path_template eng_porn_twl_path max_toxicity max_toxicity_difference
        dedup_pairs max_source_dedup max_target_dedup normalize_unicode""",
    "mine_bitexts.py": """src trg --encoding --src-lang --trg-lang --output --threshold --mode --neighborhood -k
        --margin --retrieval --unify --gpu --verbose --src-embeddings --trg-embeddings --dim --fp16""",
}


def ours() -> set[str]:
    """What the right column names, in quotes."""
    rows = [line.strip("|").split(" | ") for line in TABLES.splitlines() if line.startswith("| ")]
    assert all(len(row) == 2 for row in rows)
    return {quoted for row in rows for quoted in re.findall(r"`([^`]+)`", row[1])}


@pytest.mark.parametrize("stage", OPTIONS)
def test_every_option_of_stopes_and_laser_is_told(stage: str) -> None:
    rows = [line.strip("|").split(" | ")[0] for line in TABLES.splitlines() if line.startswith("| ")]
    told = {
        part for row in rows for quoted in re.findall(r"`([^`]+)`", row) for part in re.split(r"[. ]", quoted) if part
    }
    assert [option for option in OPTIONS[stage].split() if option not in told] == []


def test_every_row_names_something_of_ours_or_says_why_there_is_nothing() -> None:
    for line in TABLES.splitlines():
        if line.startswith("| ") and not line.startswith(("| stopes |", "| LASER |")):
            here = line.strip("|").split(" | ")[1].strip()
            bare = here.startswith("none") and not here.startswith(("none, because ", "none but "))
            assert here and not bare, line


def test_every_setting_that_is_named_is_there() -> None:
    named = {name for name in ours() if re.fullmatch(r"[a-z_]+\.[a-z_.]+", name) and not name.endswith((".npy", ".gz"))}
    assert "text.cleaning.least_words" in named and len(named) > 30
    assert {name for name in named if not _is_setting(name)} <= {"s2s.toml"}


def _is_setting(name: str) -> bool:
    model: type[BaseModel] = Settings
    *outer, last = name.split(".")
    for part in outer:
        if part == "cleaning":
            return last in {field.name for field in fields(Cleaning)}
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.annotation, type) or not issubclass(field.annotation, BaseModel):
            return False
        model = field.annotation
    return last in model.model_fields


def test_every_option_of_the_command_that_is_named_is_there() -> None:
    command = typer.Typer()
    command.command()(mine)
    known = {option for parameter in typer.main.get_command(command).params for option in parameter.opts}
    named = {word for name in ours() if name.startswith(("s2s mine", "--")) for word in re.findall(r"--[a-z-]+", name)}
    assert len(named) > 10 and named - known == set()


def test_every_asset_that_is_named_is_there(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path, languages="deu,eng", catalogue_url="miniature")
    graph = build(settings).resolve_asset_graph()
    there = {key.path[-1] for key in graph.materializable_asset_keys} | {key.name for key in graph.asset_check_keys}
    layers = r"(?:(?:s2s|s2t)_\w+|(?:text|speech)_(?:index|embeddings|duplicates|sentences)|segments|recordings_\w+)"
    named = {name for name in ours() if re.fullmatch(layers, name)}
    assert {"s2s_neighbours", "text_duplicates", "recordings_speak_their_language"} <= named and named <= there
