"""How the steps of a batch run: one after the other in the run's own process, and not a process each.

A process for every step costs 4 to 6 s of a core before anything is done: Python, Dagster and our definitions are
imported again, then the encoder's framework. In a run of 50 short audiobooks that was most of the time. The steps of a
batch form a chain, so that processes of their own would not run at once anyway; and one that dies costs the same
either way, since a step's audiobooks are recorded when it ends. All other runs keep a process a step.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.in_process import InProcessExecutor
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_START_TAG


class BatchesInProcess(dg.Executor):
    """Runs of a range of partitions in one process; any other as `otherwise` runs it."""

    def __init__(self, otherwise: dg.Executor) -> None:
        self.otherwise = otherwise

    @property
    def retries(self) -> RetryMode:
        """As the other's."""
        return self.otherwise.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """As the other's."""
        return self.otherwise.step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """Run the steps."""
        batch = ASSET_PARTITION_RANGE_START_TAG in plan_context.dagster_run.tags
        chosen = InProcessExecutor(self.retries, self.step_dependency_config) if batch else self.otherwise
        yield from chosen.execute(plan_context, execution_plan)


def batches_in_process(base: dg.ExecutorDefinition) -> dg.ExecutorDefinition:
    """An executor of the same configuration, which runs batches in one process."""
    create = base.executor_creation_fn

    @dg.executor(name=base.name, config_schema=base.config_schema.as_field(), requirements=base.get_requirements)
    def chosen(context: dg.InitExecutorContext) -> dg.Executor:
        if create is None:  # a definition that only carries configuration
            raise dg.DagsterInvalidDefinitionError(f"The executor {base.name} cannot be made.")
        return BatchesInProcess(create(context))

    return chosen
