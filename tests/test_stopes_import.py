"""`s2s import-stopes`: configurations as stopes' users have them, in our settings, and what is told of the rest."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from resources.settings import Settings
from speech_mining.cli.app import main
from speech_mining.errors import SettingsError
from speech_mining.stopes.configs import StopesConfig, read_config
from speech_mining.stopes.counterparts import Imported, counterparts
from speech_mining.stopes.toml_text import toml_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SPEECH = """
# @package _global_
launcher: {cluster: local, cache: {caching_dir: cache}}
demo_dir: ???
output_dir: .
src_lang: deu
tgt_lang: frA
mine_threshold: 1.07
data:
  data_version: V1
  data_shard_dir: ${demo_dir}
lang_configs:
  deu:
    data:
      shard_glob: ${demo_dir}/speech/deu/*.tsv.gz
    embed_speech:
      encoder:
        _target_: stopes.modules.preprocess.mining_speech_encoder.Sonar2MiningSpeechEncoder
        encoder_model: sonar_speech_encoder_deu
        fp16: true
    existing_embedding_glob: ${demo_dir}/emb/encf.*.deu
  frA:
    data:
      shard_glob: ${demo_dir}/speech/frA/*.tsv.gz
    embed_speech:
      encoder:
        _target_: stopes.modules.preprocess.mining_speech_encoder.MiningSpeechEncoder
        encoder_model: /models/laser.pt
    existing_embedding_glob: ${demo_dir}/emb/encf.*.frA
calculate_distances:
  config: {knn: 12, gpu_type: fp16-shard}
mine_indexes:
  config:
    mine_threshold: ${mine_threshold}
    margin_type: ratio
    mine_type: forward
    sort_neighbors: True
"""


def config_of(text: str, folder: Path, *overrides: str) -> StopesConfig:
    (folder / "config.yaml").write_text(text)
    return read_config(folder / "config.yaml", overrides)


def imported(text: str, folder: Path, *overrides: str, **codes: str) -> Imported:
    return counterparts(config_of(text, folder, *overrides), codes)


def why(found: Imported) -> dict[str, str]:
    return {told.key: told.why for told in found.left}


# --- reading ----------------------------------------------------------------------------------------------------------


def test_interpolations_are_resolved_as_omegaconf_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_TEST_ROOT", "/archive")
    text = """
        number: 7
        whole: ${number}
        inside: a${number}b${number}
        a: {b: {x: 1, sibling: "${.x}", uncle: "${..y}", table: "${a.c}"}, y: 2, c: {z: "${number}"}}
        nested: ${a.b.${name}}
        name: x
        list: ["${number}", 8]
        env: ${oc.env:S2S_TEST_ROOT}/data
        fallback: ${oc.env:S2S_NOT_THERE,/else}
    """
    config = config_of(text, tmp_path)
    expected = {
        "whole": 7,
        "inside": "a7b7",
        "a.b.sibling": 1,
        "a.b.uncle": 2,
        "a.b.table": {"z": 7},
        "nested": 1,
        "list": [7, 8],
        "env": "/archive/data",
        "fallback": "/else",
    }
    assert {key: config.value(key) for key in expected} == expected
    assert config.unresolved() == []


def test_what_cannot_be_resolved_is_listed_with_its_reason(tmp_path: Path) -> None:
    text = (
        "{a: '${nowhere}/x', b: '???', c: '${b}', d: '${now:%Y}', e: '${f}', f: '${e}', g: '${oc.env:S2S_NOT_THERE}'}"
    )
    config = config_of(text, tmp_path)
    assert dict(config.unresolved()) == {
        "a": "no nowhere in the file",
        "b": "left open (???)",
        "c": "b is left open (???)",
        "d": "${now:%Y} is known to the run only",
        "e": "${e} leads in a circle",
        "f": "${f} leads in a circle",
        "g": "${oc.env:S2S_NOT_THERE} is known to the run only",
    }
    assert [config.value(key) for key in "abcdefgh"] == [None] * 8


def test_a_language_has_its_own_values_over_the_general_ones(tmp_path: Path) -> None:
    text = """
        data: {dir: /d, glob: "${.dir}/{lang}.gz", kind: text}
        lang_configs: {no: {data: {dir: /own}}}
    """
    config = config_of(text, tmp_path)
    assert config.value("data.glob") == "/d/{lang}.gz"
    assert config.of_language("no").value("data.glob") == "/own/{lang}.gz"  # Norwegian, which YAML takes for false
    assert config.of_language("eng").value("data") == {"dir": "/d", "glob": "/d/{lang}.gz", "kind": "text"}


def conf(folder: Path) -> Path:
    """A folder of groups, as stopes' own is laid out."""
    files = {
        "main.yaml": """
            defaults:
              - mine: base
              - embed: laser
              - optional missing: thing
              - nothing: null
              - override hydra/launcher: slurm
              - _self_
            mine: {config: {threshold: 1.04}}
            out: /out
        """,
        "last.yaml": "defaults: [_self_, {mine: base}]\nmine: {config: {threshold: 1.5}}\n",
        "mine/base.yaml": "config: {threshold: 1.06, type: union}\n",
        "embed/laser.yaml": "defaults: [encode@_here_, {encoder: two}, /moses/conf@preprocess]\nname: l\n",
        "embed/encode.yaml": "output: ${..out}/e\nname: overridden\n",
        "embed/encoder/two.yaml": "model: two\n",
        "embed/encoder/three.yaml": "model: three\n",
        "moses/conf.yaml": "lang: ???\n",
        "preset/demo.yaml": "# @package _global_\ndefaults: [/mine/base@mine]\nout: /preset\n",
    }
    for name, text in files.items():
        path = folder / "conf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder / "conf"


def test_defaults_are_composed_as_hydra_does(tmp_path: Path) -> None:
    config = read_config(conf(tmp_path) / "main.yaml", ["embed.encoder=three", "+new.key=[1, 2]", "~out"])
    assert config.tree == {
        "mine": {"config": {"threshold": 1.04, "type": "union"}},
        "embed": {
            "output": "${..out}/e",
            "name": "l",
            "encoder": {"model": "three"},
            "preprocess": {"lang": "???"},
        },
        "new": {"key": [1, 2]},
    }
    assert [entry for entry, _ in config.absent] == ["missing: thing"]
    assert read_config(conf(tmp_path) / "last.yaml").value("mine.config.threshold") == 1.06
    preset = read_config(conf(tmp_path) / "preset" / "demo.yaml")
    assert preset.value("mine.config.type") == "union" and preset.value("out") == "/preset"


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("[1, 2]", (), "holds no keys but list"),
        ("a: [", (), "cannot be read"),
        ("a: 1", ("novalue",), "'novalue' is no override"),
        ("defaults: {a: b}", (), "defaults that are no list"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path: Path, text: str, overrides: tuple[str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        config_of(text, tmp_path, *overrides)
    with pytest.raises(SettingsError, match=r"none\.yaml cannot be read"):
        read_config(tmp_path / "none.yaml")


def test_defaults_that_lead_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("defaults: [two]")
    (tmp_path / "two.yaml").write_text("defaults: [one]")
    with pytest.raises(SettingsError, match="circle"):
        read_config(tmp_path / "one.yaml")


# --- meaning ----------------------------------------------------------------------------------------------------------


def test_speech_mining_is_carried_over(tmp_path: Path) -> None:
    found = imported(SPEECH, tmp_path, "demo_dir=/data", "tgt_lang=frA", frA="fra")
    assert found.settings == {
        "languages": ["deu", "fra"],
        "encoders": {"deu": "sonar:sonar_speech_encoder_deu"},
        "catalogue_url": "/data/speech",
        "speech_pairs": ["deu-fra"],
        "speech_text_pairs": [],
        "mining": {"k": 12, "margin": "ratio", "strategy": "forward", "threshold": 1.07},
    }
    assert found.command == (
        "s2s mine '/data/emb/encf.*.deu' '/data/emb/encf.*.frA' --k 12 --margin ratio --strategy forward "
        "--threshold 1.07 --out deu-frA.align.npz"
    )
    assert "has to have a card first" in why(found)["lang_configs.frA.embed_speech.encoder._target_"]
    assert Settings.model_validate(found.settings).mined_pairs == ("deu-fra",)


def test_nothing_is_made_up_where_the_file_says_nothing(tmp_path: Path) -> None:
    found = imported("{output_dir: /out, strange: {key: 1}}", tmp_path)
    assert found.settings == {} and found.words == ()
    assert why(found) == {
        "output_dir": "results go to the lake: set home or storage_url",
        "strange.key": "not a key of stopes' global mining that is known here",
    }


def test_a_name_that_is_no_language_and_a_folder_left_open_are_told(tmp_path: Path) -> None:
    found = imported(SPEECH, tmp_path)
    assert found.settings["languages"] == ["deu"] and "speech_pairs" not in found.settings
    assert found.words == ()
    assert why(found)["tgt_lang"] == "frA names no language: give its code, --language frA=xxx"
    assert why(found)["lang_configs.frA.existing_embedding_glob"] == "demo_dir is left open (???)"


def test_every_key_is_told_one_way_or_the_other(tmp_path: Path) -> None:
    """Alone or with others of its group."""
    found = imported(SPEECH, tmp_path, "demo_dir=/data", frA="fra")
    config = config_of(SPEECH, tmp_path, "demo_dir=/data")
    told = [row.key for row in found.told]
    for key, _ in config.leaves():
        assert any(key == one or key.startswith(f"{one}.") for one in told), key
    assert all(row.became or row.why for row in found.told)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        (("src_lang=eng_Latn", "tgt_lang=deu"), {"text_pairs": ["deu-eng"], "speech_text_pairs": []}),
        (("src_lang=fr", "tgt_lang=eng_Latn"), {"speech_text_pairs": ["fra-eng"]}),
        (("src_lang=eng_Latn", "tgt_lang=fr"), {"text_speech_pairs": ["eng-fra"], "speech_text_pairs": []}),
    ],
)
def test_pairs_with_text_are_of_their_kind(tmp_path: Path, words: tuple[str], settings: dict[str, list[str]]) -> None:
    text = """
        mine_threshold: 1.05
        embed_text: {encoder: {_target_: a.SonarTextEncoder, _name: basic}}
        data: {shard_glob: "/d/{lang}.*.xz"}
        lang_configs: {fr: {embed_speech: {encoder: {_target_: a.Sonar2MiningSpeechEncoder, encoder_model: s}}}}
    """
    found = imported(text, tmp_path, *words)
    pairs = {name: value for name, value in found.settings.items() if name.endswith("pairs")}
    assert pairs == settings
    assert found.settings["text"]["shards"]["eng"] == ["/d/eng_Latn.*.xz"]
    assert found.settings["text_encoders"]["eng"] == "sonar:basic"
    kind = "text_threshold" if "text_pairs" in settings else "threshold"
    assert found.settings["text"][kind] == 1.05 and "mining" not in found.settings
    Settings.model_validate(found.settings)


def test_a_threshold_of_doubled_cosines_is_halved_and_the_floor_goes_with_it(tmp_path: Path) -> None:
    text = """
        mine_indexes: {config: {margin_type: distance, mine_threshold: 0.1}}
        mine_sentences: {config: {mine_threshold: 0.12}}
    """
    found = imported(text, tmp_path)
    assert found.settings == {"mining": {"margin": "distance", "threshold": 0.06, "floor": 0.06}}
    told = {row.key: row.why for row in found.told if row.became}
    assert told["mine_sentences.config.mine_threshold"] == "half of it: stopes doubles cosines"
    assert told["mine_indexes.config.mine_threshold"] == "the higher of the two counts"
    Settings.model_validate(found.settings)


def test_index_types_are_carried_over_where_both_sides_have_one(tmp_path: Path) -> None:
    text = "{src_lang: deu, tgt_lang: eng, index_type: 'IVF64,Flat', lang_configs: {eng: {index_type: OTHER}}}"
    assert imported(text.replace("OTHER", "'IVF64,Flat'"), tmp_path).settings["index_factory"] == "IVF64,Flat"
    found = imported(text.replace("OTHER", "'OPQ64,IVF64,PQ64'"), tmp_path)
    assert "index_factory" not in found.settings
    assert "all languages have one type here" in why(found)["lang_configs.eng.index_type"]


def test_the_nearest_neighbour_is_an_option_of_the_command(tmp_path: Path) -> None:
    text = SPEECH.replace("sort_neighbors: True", "sort_neighbors: False")
    assert "--best nearest" in imported(text, tmp_path, "demo_dir=/data", frA="fra").command
    (reason,) = [told for key, told in why(imported(text, tmp_path)).items() if key.endswith("sort_neighbors")]
    assert "`s2s mine --best nearest`" in reason


def test_other_shards_of_speech_are_no_catalogue(tmp_path: Path) -> None:
    text = SPEECH.replace("speech/deu/*.tsv.gz", "speech/*.ogg")
    found = imported(text, tmp_path, "demo_dir=/data")
    assert "catalogue_url" not in found.settings
    assert "<folder>/<language>/<shard>.tsv" in why(found)["lang_configs.deu.data.shard_glob"]


# --- the text of settings ---------------------------------------------------------------------------------------------

values = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.dictionaries(st.text(min_size=1), inner, max_size=4),
    max_leaves=12,
)


@given(settings=st.dictionaries(st.text(min_size=1), values | st.lists(st.text(), max_size=3), max_size=5))
def test_settings_written_are_settings_read(settings: dict[str, object]) -> None:
    assert tomllib.loads(toml_text(settings)) == _without_empty(settings)


def _without_empty(tree: object) -> object:
    """A table of nothing is not written."""
    if not isinstance(tree, dict):
        return tree
    kept = {name: _without_empty(value) for name, value in tree.items()}
    return {name: value for name, value in kept.items() if value != {} or not isinstance(value, dict)}


# --- the command ------------------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["s2s", "import-stopes", *words])
        with pytest.raises(SystemExit) as exited:
            main()
        said = capsys.readouterr()
        return int(exited.value.code or 0), said.out, " ".join(said.err.split())

    return command


def test_the_command_prints_and_writes_only_where_it_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(SPEECH)
    words = ("c.yaml", "demo_dir=/data", "--language", "frA=fra")

    code, out, _ = run(*words)
    assert code == 0 and [path.name for path in tmp_path.iterdir()] == ["c.yaml"]
    printed = tomllib.loads(out[: out.index("# pairs of")])
    assert printed["encoders"] == {"deu": "sonar:sonar_speech_encoder_deu"}
    assert "Carried over" in out and "Has no counterpart" in out and "because" in out

    assert run(*words, "--out", "s2s.toml")[0] == 0
    assert tomllib.loads((tmp_path / "s2s.toml").read_text()) == printed
    code, _, error = run(*words, "--out", "s2s.toml")
    assert code == 2 and "s2s.toml is there already" in error


def test_values_that_cannot_be_our_settings_are_named_by_their_keys(run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(SPEECH)
    code, _, error = run("c.yaml", "calculate_distances.config.knn=5000")
    assert code == 2 and "calculate_distances.config.knn cannot be our setting mining.k" in error and "5000" in error
    code, _, error = run("c.yaml", "--language", "frA=French")
    assert code == 2 and "--language frA=French gives no code" in error


def test_settings_in_force_here_have_no_part_in_it(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2S_MINING__K", "not a number")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"mine_threshold": 1.1}))
    code, out, error = run("c.yaml")
    assert code == 0, error
    assert tomllib.loads(out[: out.index("Carried")]) == {"mining": {"threshold": 1.1}}


def test_meta_files_belong_to_the_shards_of_their_language(tmp_path: Path) -> None:
    text = """
        src_lang: deu
        tgt_lang: eng
        embed_text: {encoder: {_target_: a.SonarTextEncoder, _name: basic}}
        data: {shard_glob: "/d/{lang}.*.xz", meta_glob: "/d/meta.{lang}.*.xz"}
        lang_configs: {eng: {data: {meta_glob: "/m/*.xz"}}}
    """
    found = imported(text, tmp_path)
    assert found.settings["text"]["shards"] == {"deu": ["/d/deu.*.xz"], "eng": ["/d/eng.*.xz"]}
    assert found.settings["text"]["meta"] == {"deu": ["/d/meta.deu.*.xz"], "eng": ["/m/*.xz"]}
    became = {row.key: row.became for row in found.told}
    assert became["lang_configs.eng.data.meta_glob"] == "text.meta.eng" and became["data.meta_glob"] == "text.meta.deu"
    assert Settings.model_validate(found.settings).text.meta["eng"] == ("/m/*.xz",)
