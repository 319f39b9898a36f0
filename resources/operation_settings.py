"""Settings of how the work is run: what is done by itself and how fast, what a step may take, where steps run.

What belongs here is what an operator chooses; what is mined, and how, is in `resources.settings`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Language = Annotated[str, Field(pattern=r"^[a-z]{3}$")]
Quantity = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(m|k|[KMGTP]i?)?$")]
"""An amount as Kubernetes writes it: 500m (half a core), 2, 8Gi (bytes)."""


class Strict(BaseModel):
    """A group of settings: names that it does not know are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FanOutSettings(Strict):
    """Neighbours of large pairs, searched in blocks that are steps of their own: on Kubernetes a pod each."""

    enabled: bool | None = Field(None, description="Default: where execution is 'k8s'.")
    products: int = Field(5 * 10**13, ge=1, description="Products of a block, at most: some minutes of a GPU.")
    rows: int = Field(10**7, ge=1, description="Rows of either side of a block, at most: its memory grows with them.")
    most_blocks: int = Field(200, ge=1, description="Blocks of a pair, about; beyond, they have more products.")
    in_place: int = Field(
        2 * 10**10, ge=0, description="So few products are searched where blocks are merged: no pod is worth its start."
    )


class ReembeddingSettings(Strict):
    """How fast the sensor `reembedding` has languages embedded again after another encoder was promoted."""

    books_a_day: int = Field(500, ge=0, description="Audiobooks a day (UTC), over all languages; 0: by hand only.")
    books_a_run: int = Field(25, ge=1, le=1000, description="Audiobooks of one run, at most.")
    most_runs: int = Field(2, ge=1, description="Runs of the sensor that may be queued or under way at once.")


class FreshnessSettings(Strict):
    """When a language or a pair is old: what it lacks was there for so long."""

    index_days: float = Field(14.0, gt=0, description="An index lacks what was embedded so long ago (two ticks).")
    pair_days: float = Field(14.0, gt=0, description="A corpus lacks what was indexed or mined so long ago.")
    languages: dict[Language, float] = Field(default_factory=dict, description="Language → days, where they differ.")
    pairs: dict[str, float] = Field(default_factory=dict, description="Pair, such as deu-eng → days, likewise.")
    catalogue_days: float | None = Field(
        None, gt=0, description="The catalogue is old when it was not read for so long; default: never."
    )
    every_minutes: float = Field(60.0, ge=1, description="How often the sensor `freshness` looks.")

    @field_validator("languages", "pairs")
    @classmethod
    def _positive(cls, value: dict[str, float]) -> dict[str, float]:
        for name, days in value.items():
            if days <= 0:
                raise ValueError(f"{name}: {days:g} days is not more than nothing")
        return value


class AlertSettings(Strict):
    """Who is told of failed runs, blocking checks, age and recovery. No address stands here: it may be a secret."""

    log: bool = Field(True, description="Into the log of the sensor that noticed.")
    webhook: str = Field("", description="Name of the environment variable that holds the URL to POST JSON to.")
    webhook_timeout_s: float = Field(5.0, gt=0, le=60, description="Of one request.")
    webhook_attempts: int = Field(4, ge=1, le=10, description="Requests in a row that may fail before it is given up.")
    webhook_first_wait_s: float = Field(1.0, ge=0, description="Wait before the second; it doubles from there.")
    hook: str = Field("", description="One's own: 'module:callable', called with an `Alert`.")
    repeat_hours: float = Field(24.0, gt=0, description="What lasts is told again after so long, never sooner.")
    ui_url: str = Field("", description="Address of the Dagster UI, for links to runs.")

    @field_validator("webhook")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if value and not value.replace("_", "a").isalnum():
            raise ValueError("alerts.webhook is the name of an environment variable, and holds no URL itself")
        return value

    @field_validator("hook")
    @classmethod
    def _is_a_callable(cls, value: str) -> str:
        module, _, name = value.partition(":")
        if value and not (name.isidentifier() and all(part.isidentifier() for part in module.split("."))):
            raise ValueError("alerts.hook is 'module:callable', such as ours.alerts:page_somebody")
        return value


class PoolSettings(Strict):
    """How many steps of a kind run at once on this instance."""

    gpu: int = Field(1, ge=1, description="Steps that embed, index and search; on a workstation: its devices.")
    cpu: int = Field(2, ge=1, description="Steps that segment, score, select and export.")
    download: int = Field(2, ge=1, description="Steps that wait for a server.")


class MemorySettings(Strict):
    """What steps may take of the memory, and how often one that died of it is tried again."""

    limit_gb: float | None = Field(
        None, gt=0, description="Memory for all steps here, 10^9 bytes; default: the container's or the machine's."
    )
    gpu_share: float = Field(0.5, gt=0, le=1, description="Of it for the steps of pool gpu, shared by all its slots.")
    cpu_share: float = Field(0.25, gt=0, le=1, description="Of it for the steps of pool cpu, likewise.")
    retries: int = Field(3, ge=0, description="How often a step that died of memory is tried again, halved each time.")
    retry_wait_s: float = Field(5.0, ge=0, description="Wait before it is, for the memory of the dead to be free.")

    @model_validator(mode="after")
    def _of_one_memory(self) -> MemorySettings:
        if self.gpu_share + self.cpu_share > 1:
            raise ValueError(f"gpu_share ({self.gpu_share}) and cpu_share ({self.cpu_share}) together exceed 1")
        return self


class DeviceSettings(Strict):
    """How steps of one machine share its GPUs."""

    wait_s: float = Field(300.0, ge=0, description="How long a step waits for a device that nobody holds.")
    locks: Path | None = Field(
        None, description="Folder of the lock files; one for all homes of a machine. Default: in the home's scratch."
    )


class TolerationSettings(Strict):
    """A taint of a node that a step's pod puts up with."""

    key: str = Field("", description="Of the taint; empty, with 'Exists': every taint.")
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str = Field("", description="Of the taint, for 'Equal'.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field("", description="Empty: every effect.")


class PodSettings(Strict):
    """What the pod of a step asks for; quantities as Kubernetes writes them (500m, 2, 8Gi)."""

    cpu: Quantity = Field("1", description="Cores it is sure of; it may use what is idle beside them.")
    cpu_limit: Quantity | Literal[""] = Field("", description="Cores it is held to; default: not held.")
    memory: Quantity = Field("4Gi", description="Request and limit at once, so that a node is never overbooked.")
    ephemeral_storage: Quantity = Field("10Gi", description="Scratch on the node's disk, request and limit.")
    gpus: int = Field(0, ge=0, description="Devices of kubernetes.gpu_resource.")
    image: str = Field("", description="With another torch, such as CUDA's; default: as all steps have it.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that its node must have.")
    tolerations: tuple[TolerationSettings, ...] = Field((), description="Taints of nodes that it puts up with.")
    priority_class: str = Field("", description="Name of its PriorityClass.")


class GpuPodSettings(PodSettings):
    """Pods of pool gpu: one device, and the taint that clusters usually keep GPU nodes free with."""

    cpu: Quantity = Field("4", description="Cores it is sure of; it may use what is idle beside them.")
    memory: Quantity = Field("32Gi", description="Request and limit at once, so that a node is never overbooked.")
    ephemeral_storage: Quantity = Field("50Gi", description="Scratch on the node's disk, request and limit.")
    gpus: int = Field(1, ge=0, description="Devices of kubernetes.gpu_resource.")
    tolerations: tuple[TolerationSettings, ...] = Field(
        (TolerationSettings(key="nvidia.com/gpu", effect="NoSchedule"),),
        description="Taints of nodes that it puts up with.",
    )


class CpuPodSettings(PodSettings):
    """Pods of pool cpu: decoding, segmenting, scoring, exports."""

    cpu: Quantity = Field("2", description="Cores it is sure of; it may use what is idle beside them.")
    memory: Quantity = Field("8Gi", description="Request and limit at once, so that a node is never overbooked.")
    ephemeral_storage: Quantity = Field("20Gi", description="Scratch on the node's disk, request and limit.")


class DownloadPodSettings(PodSettings):
    """Pods of pool download: they mostly wait for a server."""

    cpu: Quantity = Field("500m", description="Cores it is sure of; it may use what is idle beside them.")
    memory: Quantity = Field("2Gi", description="Request and limit at once, so that a node is never overbooked.")


class CheckPodSettings(PodSettings):
    """Pods of asset checks, about a dozen for a pair: each reads a table or two and is gone."""

    cpu: Quantity = Field("500m", description="Cores it is sure of; it may use what is idle beside them.")
    memory: Quantity = Field("3Gi", description="Request and limit at once, so that a node is never overbooked.")


class KubernetesSettings(Strict):
    """Steps as pods, where execution is 'k8s'. What is left empty comes from the run launcher."""

    gpu: GpuPodSettings = GpuPodSettings()
    cpu: CpuPodSettings = CpuPodSettings()
    download: DownloadPodSettings = DownloadPodSettings()
    check: CheckPodSettings = CheckPodSettings()
    assets: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Asset (segments, or deu/segments) → what its pods ask for otherwise, such as {memory = '64Gi'}.",
    )
    gpu_resource: str = Field("nvidia.com/gpu", min_length=1, description="How the cluster's device plugin names it.")
    image: str = Field("", description="Of steps; default: the code location's own.")
    image_pull_policy: Literal["", "IfNotPresent", "Always", "Never"] = ""
    namespace: str = Field("", description="Where steps run.")
    service_account: str = Field("", description="Of steps.")
    volume_claim: str = Field("", description="PersistentVolumeClaim that steps share, for a lake that is a folder.")
    volume_mount: str = Field("/s2s", pattern=r"^/", description="Where volume_claim is mounted.")
    secrets: tuple[str, ...] = Field((), description="Names of Secrets whose keys become environment variables.")
    config_maps: tuple[str, ...] = Field((), description="Names of ConfigMaps, likewise.")
    most_steps: int | None = Field(None, ge=1, description="Pods of one run at once; default: what the pools let.")
    keep_finished_s: int = Field(86_400, ge=0, description="How long a finished step's pod and its log are kept.")
    end_with_run: bool = Field(
        True, description="Steps end when their run's pod is deleted, as when a person terminates the run."
    )
    pod_retries: int = Field(2, ge=0, description="How often a step is started again whose pod was lost or evicted.")

    @field_validator("assets")
    @classmethod
    def _of_pods(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Only what a pod can ask for, and of its kind."""
        for name, wanted in value.items():
            try:
                PodSettings.model_validate(wanted)
            except ValidationError as error:
                first = error.errors()[0]
                raise ValueError(f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        return value


class WordSettings(Strict):
    """Words of speech and of text whose spaces are aligned without a dictionary; see docs/words.md."""

    most: int = Field(300, ge=20, le=20_000, description="Words of either side that get a vector, at most.")
    least: int = Field(5, ge=1, description="A word that is met less often gets none.")
    types: int = Field(500, ge=20, le=10_000, description="Groups of tokens that sound alike; fewer of few tokens.")
    vectors: Literal["contexts", "speech2vec"] = Field(
        "contexts", description="Of spoken words: the company their types keep, or what Speech2Vec learned."
    )
    dimension: int = Field(30, ge=2, le=1000, description="Of the vectors; fewer where there are fewer words.")
    window: int = Field(40, ge=1, description="Words on either side that keep a word company.")
    pause_ms: int = Field(400, ge=0, description="A longer silence ends the company of what was said.")
    boundaries: Literal["auto", "encoder", "sound"] = Field(
        "auto",
        description="Where pieces of speech without known words are cut: where the language's encoder hears another "
        "word, or where the sound changes; 'auto' asks the encoder if it is one that can say so.",
    )
    epochs: int = Field(20, ge=0, le=1000, description="Of Speech2Vec.")
    timings: dict[Language, Path] = Field(
        default_factory=dict,
        description="Language → table (parquet, or .tsv) of known words: audiobook, section, start_ms, end_ms, word.",
    )
    dictionaries: dict[str, Path] = Field(
        default_factory=dict, description="Pair, such as deu-eng → lines of word and translation, to evaluate with."
    )
    method: Literal["frequency", "auto", "distribution", "gw", "adversarial"] = Field(
        "frequency", description="Of the first guess; 'auto' tries all, which takes longer. See docs/words.md."
    )
    restarts: int = Field(16, ge=1, le=100, description="Attempts of each method.")
    time_limit_minutes: float = Field(5.0, gt=0, description="After which the best alignment so far is taken.")
    seed: int = Field(0, ge=0, description="Of all that is left to chance.")
    least_criterion: float = Field(0.5, ge=-1, le=1, description="A map of a lower mean cosine is taken for collapsed.")
