"""What a configuration of stopes' mining is in our settings, and what in it has no counterpart, and why.

What belongs here is meaning, key by key. A value is carried over only if ours does the same with it; whatever is left
is told with its reason, and nothing is filled in that the configuration does not say.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from speech_mining.sources.languages import iso_639_3
from speech_mining.stopes.configs import MISSING, StopesConfig

MARGINS = ("ratio", "distance", "absolute")
STRATEGIES = ("forward", "backward", "union")
USUAL_FLOOR = 1.0
"""Of our settings: pairs from this score upward are kept, to compare thresholds."""
SETTINGS, COMMAND, LEFT = "s2s.toml", "s2s mine", ""

# Keys, or the beginnings of keys, and why they are nothing here. The longest that fits is told.
REASONS: Mapping[str, str] = {
    "launcher": "Dagster runs the steps: see pools in s2s.toml, and deploy/ for Kubernetes",
    "launcher.cache": "each step's result is a partition of the lake, with a data version of its own",
    "hydra": "there is no Hydra here",
    "output_dir": "results go to the lake: set home or storage_url",
    "local_tmp_dir": "what is written on the way lies beside its result",
    "model_dir": "a folder of LASER's checkpoints; ours is a folder of cards: `s2s models add`",
    "vocab_dir": "vocabularies belong to the card of an encoder: `s2s models add`",
    "default_spm": "vocabularies belong to the card of an encoder: `s2s models add`",
    "default_vocab": "vocabularies belong to the card of an encoder: `s2s models add`",
    "embedding_dimensions": "read from the shards; for shards without a header give it to `s2s mine --dimension`",
    "max_shard_size": "languages are not split: the search streams, and margins are those of the whole language",
    "sharded_langs": "languages are not split: the search streams, and margins are those of the whole language",
    "split_in_shards": "languages are not split: the search streams, and margins are those of the whole language",
    "merge_shards": "languages are not split, so nothing is merged",
    "segment_audio": "segments come from pauses: see segmentation in s2s.toml",
    "count_lines": "rows are counted in the embeddings",
    "existing_index_path": "mining is exact by default and reads embeddings, not an index; ours is built from them",
    "existing_aux_embedding_glob": "scores are not blended with a second embedding",
    "aux_embed": "scores are not blended with a second embedding",
    "embedding_sample": "an index is trained on a sample of its own, see docs/scale.md",
    "train_index": "an index is trained with settings of its own, see docs/scale.md",
    "populate_index": "an index is filled with settings of its own, see docs/scale.md",
    "merge_indexes": "a language has one index, which is updated and not merged",
    "index_type": "the index is chosen by size",
    "calculate_distances": "the search needs no such setting",
    "calculate_distances.config.num_probe": "the search is exact by default; the index measures the probes it needs",
    "calculate_distances.config.gpu_type": "the engine is chosen by the machine: `s2s mine --engine`",
    "calculate_distances.config.gpu_memory_gb": "the engine is chosen by the machine: mining.memory_gb",
    "calculate_distances.config.save_dists_as_fp16": "cosines stay float32; halves move scores by up to 0.0005",
    "calculate_distances.config.normalize_query_embeddings": "rows are always normalised",
    "mine_indexes": "mining needs no such setting",
    "mine_indexes.config.knn_dist": "not read by stopes either: calculate_distances.config.knn counts",
    "mine_indexes.config.src_k": "read by stopes only with margin_norm last: calculate_distances.config.knn counts",
    "mine_indexes.config.tgt_k": "read by stopes only with margin_norm last: calculate_distances.config.knn counts",
    "mine_indexes.config.k_extract": "one neighbour a row and direction becomes a pair",
    "mine_indexes.config.margin_norm": "margins are against the mean of the neighbours; there is no `last`",
    "mine_indexes.config.alpha": "scores are not blended with a second embedding",
    "mine_indexes.config.comparator_path": "scores are not blended with a second embedding",
    "mine_indexes.config.symmetrize_comparator": "scores are not blended with a second embedding",
    "mine_indexes.config.num_probe": "names a file only",
    "mine_indexes.config.gpu_type": "names a file only",
    "mine_sentences": "pairs of rows are joined with their texts by `s2s mine --source-text` or in the corpus",
    "mine_sentences.config.score_max": "no score is too good; recurring speech is found by where it recurs",
    "mine_sentences.config.dedup_bitexts": "a pair of rows comes once, and one of texts in FILE.bitext.tsv.gz",
    "mine_sentences.config.compress_output": "FILE.bitext.tsv.gz is always packed",
    "data": "names files only",
    "data.nl_file_template": "rows are counted in the embeddings",
    "data.meta_glob": "it belongs to shards of text: none are named, or the language is spoken",
    "embed_text": "how an encoder is fed is its own affair: see docs/encoders.md",
    "embed_text.preprocess": "Moses' normalisation is that of LASER's encoder: see text.cleaning",
    "embed_text.encoder.spm_model": "vocabularies belong to the card of an encoder: `s2s models add`",
    "embed_text.encoder.spm_vocab": "vocabularies belong to the card of an encoder: `s2s models add`",
    "embed_speech": "how an encoder is fed is its own affair: see docs/encoders.md",
    "embed_speech.preprocess": "audio is decoded and cut by the lake's own steps",
    "src_lang": "left open",
    "tgt_lang": "left open",
}


@dataclass(frozen=True)
class Told:
    """A key of the configuration, and what became of it."""

    key: str
    written: str
    became: str
    """A setting, an option of `s2s mine`, or "" for nothing."""
    why: str = ""


@dataclass(frozen=True)
class Imported:
    """A configuration in our words."""

    settings: dict[str, Any]
    """As in s2s.toml."""
    told: tuple[Told, ...]
    """Every key, carried over or not."""
    words: tuple[str, ...] = ()
    """`s2s mine` on existing embeddings; empty where the configuration names none for both sides."""

    @property
    def left(self) -> list[Told]:
        """What has no counterpart."""
        return [one for one in self.told if not one.became]

    @property
    def command(self) -> str:
        """The words as a shell takes them."""
        return shlex.join(self.words)


@dataclass(frozen=True)
class _Side:
    """A language of the configuration."""

    name: str
    code: str | None
    config: StopesConfig

    @property
    def speaks(self) -> bool:
        """As stopes decides: speech wins where both are there."""
        return bool(self.config.value("embed_speech") or _has(self.config, "embed_speech"))


def _has(config: StopesConfig, key: str) -> bool:
    return any(name.startswith(f"{key}.") for name, _ in config.leaves())


@dataclass
class _Import:
    config: StopesConfig
    codes: Mapping[str, str]
    settings: dict[str, Any] = field(default_factory=dict)
    carried: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Key → (what it became, why or how)."""
    refused: dict[str, str] = field(default_factory=dict)
    """Key → why its value has no counterpart, where that depends on the value."""
    words: list[str] = field(default_factory=list)

    def put(self, key: str, setting: str, value: Any, how: str = "") -> None:
        """Carry a key over to a setting, `a.b` for nested ones."""
        place = self.settings
        *outer, last = setting.split(".")
        for name in outer:
            place = place.setdefault(name, {})
        place[last] = value
        self.carried[key] = (setting, how)


def counterparts(config: StopesConfig, codes: Mapping[str, str] | None = None) -> Imported:
    """Say a configuration in our words.

    Args:
        config: composed.
        codes: language as stopes names it → ISO 639-3, for names that are no language.
    """
    work = _Import(config, codes or {})
    sides = _sides(work)
    for side in sides:
        _encoder(work, side)
        _data(work, side)
    pair = _pair(work, sides)
    _mining(work, pair)
    _index(work, sides)
    _command(work, sides, pair)
    return Imported(work.settings, tuple(_all_told(work)), tuple(work.words))


# --- languages and their data -----------------------------------------------------------------------------------------


def _sides(work: _Import) -> list[_Side]:
    """Both languages of the pair; where they are left open, all that have an entry."""
    pair = [str(name) for name in (work.config.value("src_lang"), work.config.value("tgt_lang")) if name]
    names = pair if len(pair) == 2 else list(work.config.tree.get("lang_configs") or {})
    sides = [_Side(name, _code(work, name), work.config.of_language(name)) for name in dict.fromkeys(names)]
    spoken = sorted({side.code for side in sides if side.code and side.speaks})
    if spoken or any(side.code for side in sides):
        work.settings["languages"] = spoken
    return sides


def _code(work: _Import, name: str) -> str | None:
    if name in work.codes:
        return work.codes[name]
    plain = re.fullmatch(r"([a-z]{2,3})(_[A-Z][a-z]{3})?(_?[0-9]+)?", name)
    return iso_639_3(plain[1]) if plain else None


def _pair(work: _Import, sides: list[_Side]) -> tuple[_Side, _Side] | None:
    given = work.config.value("src_lang"), work.config.value("tgt_lang")
    for key, name in zip(("src_lang", "tgt_lang"), given, strict=True):
        side = next((side for side in sides if side.name == str(name)), None)
        if name and side and side.code is None:
            work.refused[key] = f"{name} names no language: give its code, --language {name}=xxx"
    found = [next((side for side in sides if side.name == str(name) and side.code), None) for name in given]
    source, target = found
    if source is None or target is None:
        return None
    kind = {(True, True): "speech_pairs", (True, False): "speech_text_pairs", (False, True): "text_speech_pairs"}
    setting = kind.get((source.speaks, target.speaks), "text_pairs")
    codes = [str(source.code), str(target.code)]
    if setting in ("speech_pairs", "text_pairs"):
        codes.sort()
        if codes[0] == codes[1]:
            work.refused["tgt_lang"] = f"both sides are {codes[0]} in one modality; a pair is of two languages"
            return None
    texts = work.settings.get("text", {}).get("shards", {})
    without = [side.name for side in found if side is not None and not side.speaks and side.code not in texts]
    if without:
        for key in ("src_lang", "tgt_lang"):
            work.refused[key] = f"the text of {', '.join(without)} is not told: name its shards in text.shards"
        return source, target
    work.put("src_lang", setting, ["-".join(codes)], "a pair of one modality is in alphabetical order")
    work.carried["tgt_lang"] = (setting, "")
    for unused in ("speech_text_pairs",) if setting != "speech_text_pairs" else ():
        work.settings[unused] = []  # else every language with every language of text
    return source, target


def _own_key(work: _Import, side: _Side, key: str) -> str:
    """Where a language's value is written: in its own entry, or in general."""
    own = f"lang_configs.{side.name}.{key}"
    return own if any(name == own or name.startswith(f"{own}.") for name, _ in work.config.leaves()) else key


def _encoder(work: _Import, side: _Side) -> None:
    if side.code is None:
        return
    group = "embed_speech" if side.speaks else "embed_text"
    target = str(side.config.value(f"{group}.encoder._target_") or "").rpartition(".")[2]
    model, name = (side.config.value(f"{group}.encoder.{key}") for key in ("encoder_model", "_name"))
    told = {
        "Sonar2MiningSpeechEncoder": ("encoders", "sonar", model, "encoder_model"),
        "SonarTextEncoder": ("text_encoders", "sonar", name, "_name"),
        "HFTextEncoder": ("text_encoders", "hf", name, "_name"),
    }.get(target)
    key = _own_key(work, side, f"{group}.encoder")
    if told is None or not told[2]:
        if target:
            work.refused[f"{key}._target_"] = _no_encoder(target, told is not None)
        return
    setting, kind, card, last = told
    work.put(f"{key}.{last}", f"{setting}.{side.code}", f"{kind}:{card}")
    work.carried[f"{key}._target_"] = (f"{setting}.{side.code}", "")


def _no_encoder(target: str, known: bool) -> str:
    if known:
        return f"{target} names no model"
    if target in ("LaserSentenceEncoder", "MiningSpeechEncoder"):
        return "a checkpoint of LASER has to have a card first: `s2s models add`, then text_encoders or encoders"
    return f"there is no {target} here; any encoder can be chosen in encoders and text_encoders"


def _data(work: _Import, side: _Side) -> None:
    listed, pattern = (side.config.value(f"data.{name}") for name in ("shard_list", "shard_glob"))
    if side.code is None or not (listed or pattern):
        return
    key = _own_key(work, side, "data.shard_list" if listed else "data.shard_glob")
    where = str(listed or pattern).replace("{lang}", side.name)
    if not side.speaks:
        work.put(key, f"text.shards.{side.code}", [where])
        meta = side.config.value("data.meta_glob")
        if meta:
            place = str(meta).replace("{lang}", side.name)
            work.put(_own_key(work, side, "data.meta_glob"), f"text.meta.{side.code}", [place])
        return
    path = PurePath(where)
    if re.search(r"\.tsv(\.gz|\.zst)?$", path.name) and _code(work, path.parent.name) == side.code:
        root = str(path.parent.parent)
        if work.settings.get("catalogue_url", root) == root:
            work.put(key, "catalogue_url", root, "segments are those of the shards")
            return
    work.refused[key] = "lists of segments are read from <folder>/<language>/<shard>.tsv, one folder for all languages"


# --- mining -----------------------------------------------------------------------------------------------------------


def _mining(work: _Import, pair: tuple[_Side, _Side] | None) -> None:
    k = work.config.value("calculate_distances.config.knn")
    if isinstance(k, int):
        work.put("calculate_distances.config.knn", "mining.k", k)
    margin = work.config.value("mine_indexes.config.margin_type")
    if margin in MARGINS:
        work.put("mine_indexes.config.margin_type", "mining.margin", margin)
    _strategy(work)
    _threshold(work, str(margin or ""), pair)
    if work.config.value("mine_indexes.config.margin_norm") == "mean":
        work.carried["mine_indexes.config.margin_norm"] = ("mining.margin", "the mean, as always here")


def _strategy(work: _Import) -> None:
    strategy = work.config.value("mine_indexes.config.mine_type")
    if strategy in STRATEGIES:
        work.put("mine_indexes.config.mine_type", "mining.strategy", strategy)
    by_margin = work.config.value("mine_indexes.config.sort_neighbors")
    key = "mine_indexes.config.sort_neighbors"
    if by_margin is True:
        work.carried[key] = ("mining.strategy", "the neighbour of the highest margin, as always here")
    elif by_margin is False:
        work.refused[key] = (
            "the best neighbour is that of the highest margin; `s2s mine --best nearest` takes the nearest"
        )


def _threshold(work: _Import, margin: str, pair: tuple[_Side, _Side] | None) -> None:
    """A pair must reach both, and 2 - d² is twice the cosine, so that other margins than the ratio are doubled."""
    names = ("mine_indexes.config.mine_threshold", "mine_sentences.config.mine_threshold")
    keys = [key for key in names if isinstance(work.config.value(key), (int, float))]
    if not keys and isinstance(work.config.value("mine_threshold"), (int, float)):
        keys = ["mine_threshold"]
    if not keys:
        return
    written = float(max(work.config.value(key) for key in keys))
    least = written / 2 if margin in ("distance", "absolute") else written
    how = "half of it: stopes doubles cosines" if least != written else ""
    for key in keys:
        higher = how if work.config.value(key) == written else "the higher of the two counts"
        work.put(key, _threshold_setting(pair), least, higher)
    if least < USUAL_FLOOR:
        work.settings.setdefault("mining", {})["floor"] = least  # a floor must not exceed its threshold


def _threshold_setting(pair: tuple[_Side, _Side] | None) -> str:
    if pair is None or (pair[0].speaks and pair[1].speaks):
        return "mining.threshold"
    return "text.threshold" if pair[0].speaks or pair[1].speaks else "text.text_threshold"


def _index(work: _Import, sides: list[_Side]) -> None:
    keys = {_own_key(work, side, "index_type"): side.config.value("index_type") for side in sides}
    types = {value for value in keys.values() if value}
    for key, value in keys.items():
        if value and len(types) == 1:
            work.put(key, "index_factory", value, "of the index; mining itself is exact unless told otherwise")
        elif value:
            work.refused[key] = f"all languages have one type here, and {', '.join(sorted(types))} are named"


def _command(work: _Import, sides: list[_Side], pair: tuple[_Side, _Side] | None) -> None:
    """`s2s mine` on embeddings that exist, with the very choices of the configuration."""
    given = {
        side.name: side.config.value("existing_embedding_glob")
        for side in sides
        if side.config.value("existing_embedding_glob")
    }
    for side in sides:
        if side.name in given:
            work.carried[_own_key(work, side, "existing_embedding_glob")] = (COMMAND, "used in place")
    names = [str(work.config.value(key)) for key in ("src_lang", "tgt_lang")]
    if not all(name in given for name in names) or names[0] == names[1]:
        return
    work.words = ["s2s", "mine", *(str(given[name]) for name in names)]
    mining = work.settings.get("mining", {})
    place = work.settings
    for name in _threshold_setting(pair).split("."):
        place = place.get(name, {})
    options = {"k": mining.get("k"), "margin": mining.get("margin"), "strategy": mining.get("strategy")}
    if work.config.value("mine_indexes.config.sort_neighbors") is False:
        options["best"] = "nearest"
        work.carried["mine_indexes.config.sort_neighbors"] = (COMMAND, "--best nearest; the assets take the margin")
    options["threshold"] = place or None
    for name, value in options.items():
        work.words += [] if value is None else [f"--{name}", str(value)]
    work.words += ["--out", f"{names[0]}-{names[1]}.align.npz"]
    _texts(work, sides, names)


def _texts(work: _Import, sides: list[_Side], names: list[str]) -> None:
    """Texts and metadata of both sides for stopes' tables, where they are text."""
    by_name = {side.name: side for side in sides}
    for kind, key in (("text", "data.shard_glob"), ("meta", "data.meta_glob")):
        found = [by_name[name].config.value(key) for name in names]
        if not all(found) or any(by_name[name].speaks for name in names):
            return
        for option, name, pattern in zip(("source", "target"), names, found, strict=True):
            work.words += [f"--{option}-{kind}", str(pattern).replace("{lang}", name)]
            if kind == "meta":
                work.carried[_own_key(work, by_name[name], key)] = (COMMAND, f"--{option}-meta")


# --- what became of every key -----------------------------------------------------------------------------------------


def _all_told(work: _Import) -> list[Told]:
    unresolved = dict(work.config.unresolved())
    referred = _referred(work.config)
    told: dict[tuple[str, str, str], list[tuple[str, Any]]] = {}
    rows: list[Told] = []
    for key, written in work.config.leaves():
        if key in work.carried:
            rows.append(Told(key, _shown(written), *work.carried[key]))
        elif key in work.refused:
            rows.append(Told(key, _shown(written), LEFT, work.refused[key]))
        elif written is not None and written != {} and written != []:
            prefix, why = _reason(key, written, unresolved.get(key, ""))
            if key.rpartition(".")[2] in referred and not unresolved.get(key) and prefix not in REASONS:
                prefix, why = key, "used only within the configuration"
            told.setdefault((prefix, why, ""), []).append((key, written))
    for (prefix, why, _), keys in told.items():
        alone = len(keys) == 1
        rows.append(
            Told(keys[0][0] if alone else prefix, _shown(keys[0][1]) if alone else f"{len(keys)} keys", LEFT, why)
        )
    rows += [Told(f"defaults: {entry}", "", LEFT, f"there is no {where}") for entry, where in work.config.absent]
    return sorted(rows, key=lambda row: (not row.became, row.key))


def _reason(key: str, written: Any, unresolved: str) -> tuple[str, str]:
    """The longest beginning of a key that is known, and its reason."""
    parts = key.split(".")
    inner = parts[2:] if parts[0] == "lang_configs" and len(parts) > 2 else parts
    for count in range(len(inner), 0, -1):
        known = ".".join(inner[:count])
        if known in REASONS:
            outer = key.removesuffix(".".join(inner)) + known
            return outer, unresolved if unresolved and written != MISSING and count == len(inner) else REASONS[known]
    if unresolved:
        return key, unresolved
    return key, "not a key of stopes' global mining that is known here"


def _referred(config: StopesConfig) -> frozenset[str]:
    """The last parts of keys that other values refer to."""
    names = re.findall(r"\$\{([^${}:]+)\}", " ".join(str(written) for _, written in config.leaves()))
    return frozenset(name.rpartition(".")[2] for name in names)


def _shown(written: Any) -> str:
    text = str(written)
    return text if len(text) <= 60 else f"{text[:57]}…"
