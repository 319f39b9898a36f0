"""Dagster on the cluster, as the Helm chart deploys it: an instance, a code server, what the UI and the daemon do.

The webserver and the daemon are this process: `launch` and `terminate` send the UI's own GraphQL, `dequeue`,
`monitor`, `retry` and `free_slots` are the daemon's iterations. Runs and steps are pods.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import ModuleTarget

from benchmarks.postgres import Cluster as Postgres
from tests.kubernetes.cluster import NAMESPACE, Cluster, wait_until

IMAGE = "registry.example/speech-mining:1"
LOCATION = "s2s_assets.definitions"
VARIABLES = "s2s"
"""The config map that tells every pod the settings."""

PASSWORD = "s2s-postgres"
"""The secret of the database's password."""

_LAUNCH = """
mutation Launch($executionParams: ExecutionParams!) {
  launchPipelineExecution(executionParams: $executionParams) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
_TERMINATE = """
mutation Terminate($runId: String!) {
  terminateRun(runId: $runId) {
    __typename
    ... on TerminateRunFailure { message }
    ... on PythonError { message }
  }
}"""
_logger = logging.getLogger("tests.kubernetes")


@dataclass(frozen=True)
class Deployment:
    """A running deployment."""

    cluster: Cluster
    instance: dg.DagsterInstance
    context: WorkspaceProcessContext

    def launch(
        self, *assets: str, partition: str = "", tags: Mapping[str, str] | None = None, checks: Sequence[str] = ()
    ) -> str:
        """Materialize assets as the UI does.

        Args:
            assets: their keys, such as `deu/segments`.
            partition: of all of them.
            tags: of the run, such as those of `book_range`.
            checks: which of the assets' checks run too, such as `s2s_pairs:scores_reach_the_floor`.

        Returns:
            The run's id.
        """
        given = {**({"dagster/partition": partition} if partition else {}), **(tags or {})}
        selector = {
            "repositoryLocationName": LOCATION,
            "repositoryName": "__repository__",
            "pipelineName": "__ASSET_JOB",
            "assetSelection": [{"path": asset.split("/")} for asset in assets],
            "assetCheckSelection": [_check(check) for check in checks],
        }
        told = {"tags": [{"key": name, "value": value} for name, value in given.items()]}
        answer = self.ask(_LAUNCH, executionParams={"selector": selector, "mode": "default", "executionMetadata": told})
        assert answer["__typename"] == "LaunchRunSuccess", answer
        self.dequeue()
        return str(answer["run"]["runId"])

    def terminate(self, run_id: str) -> str:
        """Terminate a run as the UI does; returns the name of the answer's type."""
        return str(self.ask(_TERMINATE, runId=run_id)["__typename"])

    def ask(self, query: str, **variables: object) -> Mapping[str, Any]:
        """The UI's GraphQL, answered by its own schema."""
        from dagster_graphql.test.utils import execute_dagster_graphql

        told = execute_dagster_graphql(self.context.create_request_context(), query, variables)
        answer: Mapping[str, Any] = next(iter(told.data.values()))
        return answer

    def run(self, run_id: str) -> dg.DagsterRun:
        found = self.instance.get_run_by_id(run_id)
        assert found is not None
        return found

    def until_ended(self, *run_ids: str) -> list[dg.DagsterRunStatus]:
        """Wait for runs; how each ended."""
        wait_until(lambda: all(self.run(run_id).is_finished for run_id in run_ids), "a run did not end", 900.0)
        return [self.run(run_id).status for run_id in run_ids]

    def succeed(self, *run_ids: str) -> None:
        """Wait for runs, which must succeed.

        Raises:
            AssertionError: one did not; with what its events and pods tell.
        """
        ended = dict(zip(run_ids, self.until_ended(*run_ids), strict=True))
        wrong = [run_id for run_id, status in ended.items() if status != dg.DagsterRunStatus.SUCCESS]
        assert not wrong, "\n".join(self.told(run_id) for run_id in wrong)

    def told(self, run_id: str) -> str:
        """Events of a run that tell of something wrong, and the ends of its pods' logs."""
        errors = [f"{event.message}\n{_error(event)}" for event in self.events(run_id) if _error(event)]
        pods = self.cluster.pods("", run_id)
        logs = [f"--- {pod['metadata']['name']}\n{self.cluster.log(pod)[-3000:]}" for pod in pods]
        return "\n".join([*errors, *logs, *self.cluster.broken])

    def events(self, run_id: str, *kinds: dg.DagsterEventType) -> list[dg.EventLogEntry]:
        """Events of a run, of some kinds or of all."""
        return list(self.instance.all_logs(run_id, of_type=set(kinds) or None))

    def messages(self, run_id: str) -> str:
        """All that a run's log tells, errors with what caused them."""
        return "\n".join(f"{event.message}\n{_error(event)}" for event in self.events(run_id))

    def dequeue(self) -> None:
        """The daemon launches what is queued."""
        from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon

        self._all_well(QueuedRunCoordinatorDaemon(interval_seconds=5).run_iteration(self.context))

    def monitor(self) -> None:
        """The daemon looks at every run once."""
        from dagster._daemon.monitoring.run_monitoring import execute_run_monitoring_iteration

        self._all_well(execute_run_monitoring_iteration(self.context, _logger))

    def free_slots(self) -> None:
        """The daemon gives back the places in pools that ended runs hold."""
        from dagster._daemon.monitoring.concurrency import execute_concurrency_slots_iteration

        self._all_well(execute_concurrency_slots_iteration(self.context, _logger))

    def retry(self, failed: str = "") -> list[str]:
        """The daemon starts again what failed; ids of the runs that it has begun for `failed`."""
        from dagster._daemon.auto_run_reexecution.event_log_consumer import EventLogConsumerDaemon

        self._all_well(EventLogConsumerDaemon().run_iteration(self.context))
        self.dequeue()
        return [run.run_id for run in self.instance.get_runs() if failed and run.parent_run_id == failed]

    def _all_well(self, iteration: Iterator[Any]) -> None:
        errors = [error for error in iteration if error is not None]
        assert not errors, errors


def book_range(books: Sequence[str]) -> dict[str, str]:
    """Run tags of a range of audiobooks, as a batched backfill sets them."""
    return {ASSET_PARTITION_RANGE_START_TAG: books[0], ASSET_PARTITION_RANGE_END_TAG: books[-1]}


def _check(told: str) -> dict[str, Any]:
    asset, _, name = told.partition(":")
    return {"assetKey": {"path": asset.split("/")}, "name": name}


@contextmanager
def deployment(
    cluster: Cluster,
    home: Path,
    variables: Mapping[str, str],
    postgres: Postgres | None = None,
    **sections: Mapping[str, Any],
) -> Iterator[Deployment]:
    """Deploy Dagster with the code location of this project until the block ends.

    Args:
        cluster: where runs and steps become pods.
        home: of the lake and of the instance; every pod mounts it.
        variables: settings of every pod and of the code server, beside those of a cluster.
        postgres: for the records; None: SQLite in the home.
        sections: of dagster.yaml, where they differ from those here.
    """
    told = {**_settings(home), **variables}
    cluster.claims["s2s-home"] = home
    cluster.give("configmaps", VARIABLES, told)
    whole = {**_dagster_yaml(cluster, home), **sections}
    own = {**told, "DAGSTER_CURRENT_IMAGE": IMAGE, "NO_PROXY": "127.0.0.1"}
    if postgres:
        cluster.give("secrets", PASSWORD, {"postgresql-password": postgres.password})
        own["DAGSTER_PG_PASSWORD"] = postgres.password
        whole["run_launcher"]["config"]["postgres_password_secret"] = PASSWORD
        whole["storage"] = _storage(postgres)
    (home / "dagster").mkdir(parents=True, exist_ok=True)
    (home / "dagster/dagster.yaml").write_text(yaml.safe_dump(whole), "utf-8")
    with ExitStack() as stack:
        stack.enter_context(_environment(own))
        instance = stack.enter_context(dg.DagsterInstance.from_config(str(home / "dagster")))
        target = ModuleTarget(LOCATION, attribute=None, working_directory=None, location_name=LOCATION)
        context = stack.enter_context(WorkspaceProcessContext(instance, target, version="", read_only=False))
        deployed = Deployment(cluster, instance, context)
        deployed.retry()  # the first iteration only learns where the log ends
        yield deployed


def _settings(home: Path) -> dict[str, str]:
    return {
        "S2S_EXECUTION": "k8s",
        "S2S_HOME": str(home),
        "S2S_KUBERNETES__VOLUME_CLAIM": "s2s-home",
        "S2S_KUBERNETES__VOLUME_MOUNT": str(home),
    }


def _storage(postgres: Postgres) -> dict[str, Any]:
    """The block `storage` of dagster.yaml; the password comes from the environment, as in production."""
    database = postgres.storage["postgres"]["postgres_db"]
    return {"postgres": {"postgres_db": {**database, "password": {"env": "DAGSTER_PG_PASSWORD"}}}}


def _dagster_yaml(cluster: Cluster, home: Path) -> dict[str, Any]:
    launcher = {
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "dagster_home": str(home / "dagster"),
        "load_incluster_config": False,
        "kubeconfig_file": str(cluster.kubeconfig),
        "job_namespace": NAMESPACE,
        "image_pull_policy": "IfNotPresent",
        "env_config_maps": [VARIABLES],
        "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}, "limits": {"memory": "2Gi"}},
        "fail_pod_on_run_failure": True,
    }
    return {
        "telemetry": {"enabled": False},
        "nux": {"enabled": False},
        "concurrency": {"pools": {"granularity": "op"}},
        "run_launcher": {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher},
        "run_monitoring": {"enabled": True, "free_slots_after_run_end_seconds": 1},
        "run_retries": {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False},
    }


@contextmanager
def _environment(told: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(told)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _error(event: dg.EventLogEntry) -> str:
    told = getattr(event.dagster_event and event.dagster_event.event_specific_data, "error", None)
    return told.to_string() if told else ""
