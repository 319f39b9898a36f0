from pathlib import Path

import pytest

from speech_mining.errors import SpeechMiningError
from speech_mining.quality.catalogue import ask, filled
from tests.quality_lake import small_lake

OF_A_PAIR = "SELECT score FROM corpora WHERE language_pair = $pair ORDER BY score DESC"


def test_a_value_that_is_sql_stays_a_value(tmp_path: Path) -> None:
    lake = small_lake(tmp_path)
    assert ask(lake, OF_A_PAIR, bound={"pair": "deu-eng"}).height == 3
    assert ask(lake, OF_A_PAIR, bound={"pair": "' OR '1' = '1"}).is_empty()


def test_a_number_is_bound_beside_a_name(tmp_path: Path) -> None:
    asked = f"SELECT * FROM ({OF_A_PAIR}) WHERE score > $least"
    found = ask(small_lake(tmp_path), asked, bound={"pair": "deu-eng", "least": 1.07})
    assert found["score"].round(2).to_list() == [1.20, 1.10]


def test_a_name_without_a_value_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpeechMiningError, match="pair"):
        ask(small_lake(tmp_path), OF_A_PAIR)


def test_what_is_shown_has_its_values_written_in_and_quoted() -> None:
    bound = {"pair": "a'b", "factor": 1.5}
    assert filled("a = $pair AND b > $factor AND c = $other", bound) == "a = 'a''b' AND b > 1.5 AND c = $other"
