"""Memory: what a step may take of it, and what happens to one that took too much.

A step that dies of memory is tried again with half of everything that it may choose: the batch of its encoder and the
memory of its search. Three deaths are told apart. An error that says so (CUDA, numpy, `bad_alloc`) is turned into a
retry here. A process that the kernel kills leaves no error: Dagster's retry policy starts it again. A whole run or pod
that dies is launched again by the daemon (`run_retries` in dagster.yaml), and says so in a tag. Neither the batch nor
the memory changes what is found: see docs/resources.md for what was measured.

What belongs here is arithmetic and this translation; the device of a step is `resources.devices`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import dagster as dg
from dagster._core.errors import DagsterExecutionStepExecutionError
from dagster._core.storage.tags import RETRY_NUMBER_TAG

from resources.settings import Settings
from speech_mining.encoders.feeding import is_out_of_memory
from speech_mining.memory_limit import MemoryLimit, memory_limit

Pool: TypeAlias = Literal["gpu", "cpu"]
GB = 10**9
REPEATS_GB = 4.0
"""What finding repeats takes where nobody says otherwise; its time hardly falls with more (docs/text.md)."""
SMALLEST_SHARE = 2**-10
"""Less than a thousandth of a batch is a single item, which halving does not help."""
_FULL = ("bad_alloc", "cannot allocate memory", "memory allocation of", "cuda_error_out_of_memory", "cudamalloc")
"""How libraries other than torch word it: C++'s own, the system's, Rust's, the CUDA driver's, FAISS."""


@dataclass(frozen=True)
class Budget:
    """What one step may take, and where that comes from."""

    memory_gb: float
    """10^9 bytes."""
    why: str


# How often it was tried


def attempt_of(context: Any) -> int:
    """How often this step was begun before: 0 at first.

    Counted are the retries of the step in its run, and of the run by the daemon.

    Args:
        context: of an asset or an op.
    """
    told = context.run.tags.get(RETRY_NUMBER_TAG, "0")
    return int(context.retry_number) + (int(told) if told.isdigit() else 0)


def share(attempt: int) -> float:
    """Of the batch and of the memory that an attempt may take: 1, 1/2, 1/4 and so on."""
    return max(SMALLEST_SHARE, float(2**-attempt))


# What a step may take


def memory_of(settings: Settings) -> MemoryLimit:
    """The memory of this machine or container, or less where the settings say so."""
    if settings.memory.limit_gb is not None:
        return MemoryLimit(round(settings.memory.limit_gb * GB), "memory.limit_gb")
    return memory_limit()


def step_budget(settings: Settings, pool: Pool) -> Budget:
    """What one step of a pool may take, when as many run as the pool lets.

    A pod has one step, which has the shares of both pools to itself.
    """
    limit, asked = memory_of(settings), settings.memory
    if settings.execution == "k8s":
        part, told = asked.gpu_share + asked.cpu_share, "one step a pod"
    else:
        slots = getattr(settings.pools, pool)
        part = (asked.gpu_share if pool == "gpu" else asked.cpu_share) / slots
        told = f"memory.{pool}_share among {slots} of pool {pool}"
    return Budget(limit.total_bytes / GB * part, f"{limit.why}, {limit.total_bytes / GB:.1f} GB; {told}")


def search_budget(settings: Settings, attempt: int = 0) -> Budget:
    """What one search of neighbours may take, besides the matrices themselves."""
    if settings.mining.memory_gb is not None:
        return _halved(Budget(settings.mining.memory_gb, "mining.memory_gb"), attempt)
    return _halved(step_budget(settings, "gpu"), attempt)


def search_memory_gb(settings: Settings, attempt: int) -> float | None:
    """The same as a number, for `speech_mining.knn`."""
    return search_budget(settings, attempt).memory_gb


def repeats_budget(settings: Settings, attempt: int = 0) -> Budget:
    """What finding repeated sentences may take."""
    if settings.text.memory_gb is not None:
        return _halved(Budget(settings.text.memory_gb, "text.memory_gb"), attempt)
    of_step = step_budget(settings, "cpu")
    usual = Budget(REPEATS_GB, "enough for any number of rows")
    return _halved(min(usual, of_step, key=lambda budget: budget.memory_gb), attempt)


def _halved(budget: Budget, attempt: int) -> Budget:
    why = budget.why if attempt == 0 else f"{budget.why}; {share(attempt):g} of it after {attempt} attempts"
    return Budget(budget.memory_gb * share(attempt), why)


# What happens to a step that took too much


def memory_retries(settings: Settings) -> dg.RetryPolicy | None:
    """For steps whose process the kernel may kill: they say nothing, so that Dagster must start them again.

    Used together with `retried_with_half`, which keeps every other error from being tried again.
    """
    if not settings.memory.retries:
        return None
    return dg.RetryPolicy(max_retries=settings.memory.retries, delay=settings.memory.retry_wait_s)


def died_of_memory(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that memory did not suffice."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        if is_out_of_memory(cause) or _worded_so(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


@contextmanager
def retried_with_half(context: Any, settings: Settings) -> Iterator[int]:
    """Try a step again where it dies of memory; any other error ends it at once, as it was raised.

    Yields:
        how often it was begun before.

    Raises:
        dagster.RetryRequested: an error said that memory did not suffice.
    """
    attempt = attempt_of(context)
    if attempt:
        context.log.warning(f"attempt {attempt + 1}: {share(attempt):g} of the batch and of the memory")
    try:
        yield attempt
    except (dg.DagsterError, dg.Failure, dg.RetryRequested):
        raise
    except Exception as error:
        if died_of_memory(error):
            context.log.warning(f"memory did not suffice: {error}")
            asked = settings.memory
            raise dg.RetryRequested(max_retries=asked.retries, seconds_to_wait=asked.retry_wait_s) from error
        raise _for_good(context, error) from error


def _for_good(context: Any, error: Exception) -> Exception:
    """What Dagster raises of a step that has no retry policy: the policy is for deaths that leave no error."""
    step = getattr(context, "op_execution_context", context).get_step_execution_context()
    return DagsterExecutionStepExecutionError(  # type: ignore[no-untyped-call]
        f"Error occurred while executing {step.describe_op()}:",
        user_exception=error,
        original_exc_info=sys.exc_info(),
        step_key=step.step.key,
        op_name=step.op.name,
        op_def_name=step.op_def.name,
    )


def _worded_so(error: BaseException) -> bool:
    if type(error).__name__ == "OutOfMemoryException":  # DuckDB's
        return True
    return isinstance(error, (RuntimeError, OSError)) and any(told in str(error).lower() for told in _FULL)
