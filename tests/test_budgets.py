"""What a step may take of the memory, and what becomes of one that took more: real processes that really die."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import ValidationError

from resources.budgets import died_of_memory, memory_of, repeats_budget, search_budget, share, step_budget
from resources.operation_settings import MemorySettings
from resources.settings import Settings, load_settings
from speech_mining.memory_limit import MemoryLimit, memory_limit
from tests import dying_steps
from tests.dying_steps import JOURNAL

GB = 10**9
MACHINE = 64 * GB


def settings(**given: object) -> Settings:
    return load_settings(**{"memory": {"limit_gb": 64.0}, **given})


# The memory that there is


def groups(folder: Path, files: dict[str, str], membership: str) -> MemoryLimit:
    """The limit where the control groups hold these files and the process is in these groups."""
    for name, text in files.items():
        file = folder / "cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (folder / "membership").write_text(membership)
    return memory_limit(folder / "cgroup", folder / "membership", MACHINE)


def test_a_machine_without_limits_gives_all_its_memory(tmp_path: Path) -> None:
    found = groups(tmp_path, {"memory.max": "max\n"}, "0::/\n")
    assert (found.total_bytes, found.why) == (MACHINE, "the memory of the machine")


def test_a_container_gives_its_limit_in_version_two(tmp_path: Path) -> None:
    found = groups(tmp_path, {"memory.max": f"{8 * GB}\n"}, "0::/\n")
    assert found.total_bytes == 8 * GB
    assert found.why.endswith("memory.max")


def test_the_lowest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    files = {"pods/one/memory.max": "max", "pods/memory.max": str(4 * GB), "memory.max": str(16 * GB)}
    assert groups(tmp_path, files, "0::/pods/one\n").total_bytes == 4 * GB


def test_a_container_gives_its_limit_in_version_one(tmp_path: Path) -> None:
    files = {"memory/box/memory.limit_in_bytes": str(2 * GB), "memory/memory.limit_in_bytes": "9223372036854771712"}
    membership = "11:cpu,cpuacct:/box\n4:memory:/box\n0::/\n"
    assert groups(tmp_path, files, membership).total_bytes == 2 * GB


def test_a_group_whose_folder_a_container_does_not_see_leaves_the_root_of_its_own(tmp_path: Path) -> None:
    files = {"memory/memory.limit_in_bytes": str(3 * GB)}
    assert groups(tmp_path, files, "4:memory:/docker/0123abc\n").total_bytes == 3 * GB


def test_limits_beyond_the_machine_are_none(tmp_path: Path) -> None:
    assert groups(tmp_path, {"memory.max": str(999 * GB)}, "0::/\n").total_bytes == MACHINE


# What a step may take


def test_the_steps_of_a_pool_together_take_its_share() -> None:
    four = settings(pools={"gpu": 4, "cpu": 8})
    assert search_budget(four).memory_gb == pytest.approx(64 * 0.5 / 4)
    assert step_budget(four, "cpu").memory_gb == pytest.approx(64 * 0.25 / 8)
    assert "among 4 of pool gpu" in search_budget(four).why
    assert "memory.limit_gb, 64.0 GB" in search_budget(four).why


def test_a_pod_has_its_memory_to_itself() -> None:
    assert search_budget(settings(execution="k8s", pools={"gpu": 400})).memory_gb == pytest.approx(48)


def test_what_a_person_asked_for_counts_as_it_stands() -> None:
    asked = settings(mining={"memory_gb": 20.0}, text={"memory_gb": 9.0}, pools={"gpu": 4})
    assert (search_budget(asked).memory_gb, repeats_budget(asked).memory_gb) == (20.0, 9.0)


def test_every_attempt_halves() -> None:
    assert [search_budget(settings(), attempt).memory_gb for attempt in range(4)] == [32, 16, 8, 4]
    assert [share(attempt) for attempt in (0, 1, 2, 10, 40)] == [1, 0.5, 0.25, 2**-10, 2**-10]
    assert "0.25 of it after 2 attempts" in search_budget(settings(), 2).why


def test_finding_repeats_takes_no_more_than_helps() -> None:
    assert repeats_budget(settings()).memory_gb == 4.0
    assert repeats_budget(settings(memory={"limit_gb": 4.0})).memory_gb == pytest.approx(4 * 0.25 / 2)


def test_without_settings_the_machine_is_asked() -> None:
    assert memory_of(load_settings()) == memory_limit()


def test_shares_of_more_than_everything_are_refused() -> None:
    with pytest.raises(ValidationError, match="together exceed 1"):
        MemorySettings(gpu_share=0.8, cpu_share=0.3)


# Deaths


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("Error in faiss: 'err == cudaSuccess' failed: Failed to cudaMalloc 1024 bytes on device 0"),
        OSError(12, "Cannot allocate memory"),
        type("OutOfMemoryException", (Exception,), {})("could not allocate block of size 256.0 KiB"),
    ],
)
def test_a_death_by_memory_is_told_from_others_also_as_a_cause(error: Exception) -> None:
    assert died_of_memory(error)
    wrapped = ValueError("the batch failed")
    wrapped.__cause__ = error
    assert died_of_memory(wrapped)
    assert not died_of_memory(ValueError("the index is out of range"))


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """A real instance in which one step of pool gpu runs at once, and the journal of what the steps were given."""
    (tmp_path / "dagster.yaml").write_text(
        "concurrency: {pools: {granularity: op}}\ntelemetry: {enabled: false}\n"
        "run_retries: {enabled: true, max_retries: 3, retry_on_asset_or_op_failure: false}\n"
        "run_monitoring: {enabled: true, free_slots_after_run_end_seconds: 1}\n"
    )
    monkeypatch.setenv(JOURNAL, str(tmp_path / "journal"))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as made:
        made.event_log_storage.set_concurrency_slots("gpu", 1)
        yield made


def given(tmp_path: Path) -> list[tuple[int, float]]:
    """Attempt and memory of every time that the step was begun."""
    lines = [json.loads(line) for line in (tmp_path / "journal").read_text().splitlines()]
    return [(attempt, memory_gb) for _, attempt, memory_gb in lines]


def run(instance: dg.DagsterInstance, job: dg.JobDefinition) -> bool:
    """Run a job with a process for each step; whether it succeeded."""
    with dg.execute_job(dg.reconstructable(job), instance, raise_on_error=False) as result:
        return result.success


def test_a_step_whose_memory_does_not_suffice_is_tried_with_half_until_it_does(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert run(instance, dying_steps.takes)
    assert given(tmp_path) == [(0, 4.0), (1, 2.0), (2, 1.0)]


def test_a_step_that_the_kernel_kills_is_tried_with_half_and_leaves_its_place_in_the_pool(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    assert run(instance, dying_steps.killed)
    assert given(tmp_path) == [(0, 4.0), (1, 2.0), (2, 1.0)]
    assert instance.event_log_storage.get_concurrency_info("gpu").claimed_slots == []


def test_a_step_that_never_fits_ends_after_its_retries(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    assert not run(instance, dying_steps.always)
    assert [attempt for attempt, _ in given(tmp_path)] == [0, 1, 2, 3]


def test_any_other_error_is_not_tried_again_and_stands_as_it_was_raised(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    with dg.execute_job(dg.reconstructable(dying_steps.wrong), instance, raise_on_error=False) as result:
        (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert given(tmp_path) == [(0, 4.0)]
    error = failure.step_failure_data.error
    assert error is not None and error.cause is not None
    assert error.cause.cls_name == "KeyError" and "no such segment" in error.cause.message


@pytest.mark.slow
def test_a_run_that_dies_is_launched_again_with_half(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import ModuleTarget

    target = ModuleTarget("tests.dying_steps", None, str(Path(__file__).parent.parent), "dying")
    with WorkspaceProcessContext(instance, target) as workspace:
        launch(instance, workspace)
        for _ in range(500):
            look_after(instance, workspace)
            if [run.status for run in instance.get_runs()].count(dg.DagsterRunStatus.SUCCESS):
                break
            time.sleep(0.5)
    assert given(tmp_path) == [(0, 4.0), (1, 2.0), (2, 1.0)]
    assert sorted(run.status.value for run in instance.get_runs()) == ["FAILURE", "FAILURE", "SUCCESS"]


def launch(instance: dg.DagsterInstance, workspace: Any) -> None:
    """Submit the job whose run is killed, as the UI does."""
    from dagster._core.definitions.selector import JobSubsetSelector

    context = workspace.create_request_context()
    location = context.get_code_location("dying")
    job = location.get_job(JobSubsetSelector("dying", next(iter(location.get_repositories())), "run_killed", None))
    origins = {"remote_job_origin": job.get_remote_origin(), "job_code_origin": job.get_python_origin()}
    run = instance.create_run_for_job(job_def=dying_steps.run_killed, **origins)
    instance.submit_run(run.run_id, context)


def look_after(instance: dg.DagsterInstance, workspace: Any) -> None:
    """A round of what the daemon does: free places, launch runs that died again, start what is queued."""
    from dagster._daemon.auto_run_reexecution.auto_run_reexecution import consume_new_runs_for_automatic_reexecution
    from dagster._daemon.monitoring.concurrency import execute_concurrency_slots_iteration
    from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

    log = logging.getLogger("daemon")
    list(execute_concurrency_slots_iteration(workspace, log))
    failed = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    list(consume_new_runs_for_automatic_reexecution(workspace, failed, log))
    list(QueuedRunCoordinatorDaemon(interval_seconds=1).run_iteration(workspace))


# What half of a batch changes


@pytest.mark.slow
def test_a_batch_of_books_that_dies_in_the_middle_embeds_none_twice_and_the_same_bytes(tmp_path: Path) -> None:
    from s2s_assets.definitions import build
    from speech_mining.lake import Lake
    from tests import greedy_encoder

    told = load_settings(home=tmp_path, languages="deu", encoder="tests.greedy_encoder:Greedy", memory=QUICK)
    job = build(told).resolve_implicit_global_asset_job_def()
    lake = Lake(told.lake_url)
    with dg.DagsterInstance.ephemeral() as instance:
        assert job.execute_in_process(instance=instance, asset_selection=[dg.AssetKey("catalogue")]).success
        books = instance.get_dynamic_partitions("audiobooks_deu")
        embed(job, instance, books, "raw_audio", "segments", "speech_embeddings")
        undisturbed = [lake.partition("speech_embeddings", "deu", book).data_version for book in books]
        for book in books:
            lake.remove("speech_embeddings", "deu", book)
        once = list(greedy_encoder.calls)
        greedy_encoder.calls.clear()
        greedy_encoder.fails_at[:] = [len(once) - 1]
        result = embed(job, instance, books, "speech_embeddings")
    greedy_encoder.fails_at.clear()
    retried = [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert len(retried) == 1 and len(books) > 1
    assert [lake.partition("speech_embeddings", "deu", book).data_version for book in books] == undisturbed
    of_the_last_book = len(greedy_encoder.calls) - (len(once) - 1)
    assert 0 < of_the_last_book < len(once)
    assert once[-of_the_last_book:] == greedy_encoder.calls[-of_the_last_book:]


QUICK = {"retry_wait_s": 0.0}


def embed(job: Any, instance: dg.DagsterInstance, books: list[str], *layers: str) -> dg.ExecuteInProcessResult:
    from partitions.batches import Batch

    return job.execute_in_process(
        instance=instance,
        asset_selection=[dg.AssetKey(["deu", name]) for name in layers],
        tags=Batch(books[0], books[-1], tuple(books)).tags,
    )


@pytest.mark.slow
def test_half_the_batch_changes_a_vector_by_no_more_than_the_last_bit_of_float16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    from resources.encoders import Encoders
    from resources.gpu_steps import Means
    from speech_mining.encoders.protocol import SpeechSpan
    from speech_mining.encoders.sonar import LoadedSpeech
    from tests.tiny_sonar import build_speech

    name, batches, run = build_speech(tmp_path), [], LoadedSpeech.run
    monkeypatch.setattr(LoadedSpeech, "run", lambda self, part: batches[-1].append(part.items) or run(self, part))
    noise = np.random.default_rng(7).standard_normal(16_000 * 20).astype(np.float32) * 0.1
    seconds = 1 + np.arange(60) / 8
    spans = [SpeechSpan(noise, 0, int(16_000 * length), "deu") for length in seconds]
    encoders, made = Encoders(default=f"sonar:{name}", model_dir=str(tmp_path)), []
    for attempt in range(3):
        batches.append([])
        means = Means("cpu", "the CPU", attempt)
        made.append(encoders.given(means).speech("deu").embed(spans).vectors)
    padded = [max(len(items) * seconds[items].max() for items in given) for given in batches]
    assert [60 * share(attempt) / 2 < most <= 60 * share(attempt) for attempt, most in enumerate(padded)] == [True] * 3
    for vectors in made[1:]:
        steps = np.abs(vectors.view(np.int16).astype(np.int32) - made[0].view(np.int16))
        print(f"{(steps > 0).mean():.4%} of the values differ, by {steps.max()} steps of float16")
        assert np.abs(vectors.astype(np.float32) - made[0]).max() <= 2**-11


@pytest.mark.slow
def test_half_the_batch_of_sentences_has_half_the_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from resources.encoders import Encoders
    from resources.gpu_steps import Means
    from speech_mining.encoders.protocol import Sentence
    from speech_mining.encoders.sonar import LoadedText
    from tests.tiny_sonar import build_text

    name, batches, run = build_text(tmp_path), [], LoadedText.vectors
    monkeypatch.setattr(LoadedText, "vectors", lambda self, given: batches[-1].append(given) or run(self, given))
    sentences = [Sentence(f"hello {number} " * 8, "deu") for number in range(600)]
    encoders, made = Encoders(text_default=f"sonar:{name}", model_dir=str(tmp_path)), []
    for attempt in range(2):
        batches.append([])
        made.append(encoders.given(Means("cpu", "the CPU", attempt)).text("deu").embed(sentences).vectors)
    padded = [max(len(given) * max(map(len, given)) for given in batch) for batch in batches]
    assert 4096 < padded[0] <= 8192 and 2048 < padded[1] <= 4096
    assert np.abs(made[0].astype(np.float32) - made[1]).max() <= 2**-11


def test_a_search_with_a_part_of_a_card_takes_no_more_and_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from speech_mining.knn.engines import cuda
    from speech_mining.knn.hardware import make_engine
    from tests.test_cuda import found_by
    from tests.test_knn import assert_same, random_rows

    taken, divide = [], cuda.divide
    monkeypatch.setattr(cuda, "CPU_BYTES", 8_000_000_000)
    monkeypatch.setattr(cuda, "divide", lambda free, load: taken.append(free) or divide(free, load))
    source, target = (random_rows(rows, 64, seed) for seed, rows in enumerate((700, 900)))
    found = []
    for part in (1.0, 0.25):
        engine = cuda.Cuda(64, "cpu", free_share=part)
        found.append(found_by(engine, source, target, 5))
    assert taken[1] == taken[0] / 4
    assert_same(*found)
    assert isinstance(make_engine("cuda", 64, 0.5), cuda.Cuda)
