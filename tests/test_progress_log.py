"""Progress in the log of a run: how often, and of which partition."""

import dagster as dg
import pytest

from resources.progress_log import telling


def lines(parts: int | None, done: list[int], total: int) -> list[str]:
    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["deu-eng"]))
    def work(context: dg.AssetExecutionContext) -> None:
        tell = telling(context, "updates", parts=parts)
        for count in done:
            tell(count, total)

    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize([work], instance=instance, partition_key="deu-eng").run_id
        return [entry.user_message for entry in instance.all_logs(run) if not entry.is_dagster_event]


def test_a_line_names_the_partition_and_what_is_counted() -> None:
    assert lines(None, [3], 8) == ["deu-eng: 3 of 8 updates"]


@pytest.mark.parametrize("parts", [10, 20])
def test_there_is_a_line_for_every_part_of_the_work_and_one_at_its_start(parts: int) -> None:
    told = lines(parts, list(range(1001)), 1000)
    assert told == [f"deu-eng: {1000 * part // parts} of 1000 updates" for part in range(parts + 1)]


def test_without_parts_every_call_is_a_line_even_where_the_count_begins_again() -> None:
    told = lines(None, [0, 2, 0, 2], 2)
    assert told == [f"deu-eng: {done} of 2 updates" for done in (0, 2, 0, 2)]


def test_no_work_at_all_is_told_once() -> None:
    assert lines(20, [0, 0], 0) == ["deu-eng: 0 of 0 updates"]
