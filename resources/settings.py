"""Settings, in one place: `s2s.toml` in the home, overridden by `S2S_*` environment variables.

What belongs here is what a user may choose, with its default and its reason. Nested names are joined by two
underscores in the environment: `S2S_MINING__THRESHOLD=1.07`. `s2s settings` prints what is in force and from where.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from speech_mining.errors import SettingsError

FILE = "s2s.toml"
MINIATURE = "miniature"
"""Names the embedded library as catalogue, and the embedded encoder."""

LIBRARY = Path(__file__).parent.parent / "demo" / "library"
"""The embedded miniature library: what `make demo` mines."""

Language = Annotated[str, Field(pattern=r"^[a-z]{3}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SegmentationSettings(_Strict):
    """How recordings are cut into candidate segments."""

    min_s: float = Field(3.0, gt=0, description="Shortest segment, seconds.")
    max_s: float = Field(20.0, gt=0, description="Longest segment, seconds.")
    threshold: float = Field(0.5, gt=0, lt=1, description="Speech probability above which a frame is speech.")
    min_silence_ms: int = Field(100, ge=32, description="Shortest pause that counts as a silence.")
    min_speech_ms: int = Field(250, ge=0, description="A run of speech that is not longer than this is dropped.")
    detector: Literal["silero", "energy"] = Field(
        "silero", description="Silero's model, or loudness over a tracked noise floor: quicker, but deaf to music."
    )
    max_pad_ms: int = Field(300, ge=0, description="A segment begins and ends at most so far from its speech.")
    max_gap_ms: int | None = Field(None, ge=0, description="Longest silence inside a segment; default: any.")
    max_per_hour: int | None = Field(
        None, ge=1, description="Most segments an hour, between the longest silences; default: all."
    )
    max_ends: int | None = Field(None, ge=1, description="Most segments that begin at one place; default: all.")

    @model_validator(mode="after")
    def _ordered(self) -> SegmentationSettings:
        if self.min_s >= self.max_s:
            raise ValueError(f"min_s ({self.min_s}) must be below max_s ({self.max_s})")
        if self.max_pad_ms > 250 * self.max_s:
            raise ValueError(f"max_pad_ms ({self.max_pad_ms}) must not exceed a quarter of max_s ({self.max_s} s)")
        return self


class MiningSettings(_Strict):
    """How neighbours become pairs, and pairs a corpus."""

    k: int = Field(16, ge=1, le=256, description="Neighbours in each direction (the paper's 16).")
    margin: Literal["ratio", "distance", "absolute"] = "ratio"
    strategy: Literal["forward", "backward", "intersection", "union", "max"] = "max"
    floor: float = Field(1.0, description="Pairs from this score upward are kept, so that thresholds can be compared.")
    threshold: float = Field(1.06, description="Pairs from this score upward enter the corpus (speech with speech).")
    selection: Literal["greedy", "optimal"] = Field(
        "greedy", description="Of overlapping pairs: the best first, or the most margin in all (on the source side)."
    )
    memory_gb: float | None = Field(None, gt=0, description="Memory for the search; default: a share of the machine's.")

    @model_validator(mode="after")
    def _ordered(self) -> MiningSettings:
        if self.floor > self.threshold:
            raise ValueError(f"floor ({self.floor}) must not exceed threshold ({self.threshold})")
        return self


class RecurringSettings(_Strict):
    """When a segment counts as a preamble: the same words in many recordings of a language."""

    similarity: float = Field(0.95, gt=0, le=1, description="Cosine from which two segments say the same.")
    min_recordings: int = Field(3, ge=2, description="Recordings it must be heard in, its own included.")
    min_share: float = Field(0.05, ge=0, le=1, description="Share of the language's recordings it must be heard in.")


class LibriVoxSettings(_Strict):
    """How politely recordings are fetched, and from where."""

    user_agent_contact: str = Field("", description="An address that an archive's operators may write to.")
    requests_per_second: float = Field(1.0, gt=0, description="API and metadata requests; LibriVox asks for 1.")
    attempts: int = Field(6, ge=1, description="Requests in a row that may fail before a recording is given up.")
    first_wait_s: float = Field(1.0, ge=0, description="Wait before the second attempt; it doubles from there.")
    step_retries: int = Field(3, ge=0, description="How often a step that found no server is tried again.")
    allowed_hosts: tuple[str, ...] = Field((), description="Hosts beyond librivox.org and archive.org.")
    mirrors: dict[str, list[str]] = Field(
        default_factory=dict, description="URL prefix → the prefixes to fetch from instead, in order."
    )
    max_recording_mb: int = Field(512, gt=0, description="A recording larger than this is refused.")
    limit_books: int | None = Field(None, gt=0, description="At most so many audiobooks a language (for a first try).")
    whole_every_days: float = Field(
        7.0, ge=0, description="How often all of the catalogue is read, and not only what is new."
    )

    @field_validator("mirrors", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        """`{"https://archive.org": "http://mirror.lan"}` is a list of one."""
        if not isinstance(value, dict):
            return value
        return {origin: [told] if isinstance(told, str) else told for origin, told in value.items()}


class StorageSettings(_Strict):
    """What the lake's keeper may take of the disks, beside the lake."""

    reserve_mb: int = Field(512, ge=0, description="What must stay free when a book starts to be fetched.")
    quarantine_mb: int = Field(2048, ge=0, description="What refused files may take; the oldest give way.")
    copies_gb: float = Field(20.0, gt=0, description="What copies of an object store's files may take in the home.")
    wait_for_writer_s: float = Field(10.0, ge=0, description="How long another writer of a book is waited for.")


class IngestSettings(_Strict):
    """How fast the sensor `audiobooks` asks for new audiobooks."""

    books_a_run: int = Field(25, ge=1, le=1000, description="Audiobooks of one run, at most.")
    most_runs: int = Field(4, ge=1, description="Runs of the sensor that may be queued or under way at once.")
    retry_hours: float = Field(6.0, gt=0, description="How often what is missing or incomplete is tried again.")


class PoolSettings(_Strict):
    """How many steps of a kind run at once on this instance."""

    gpu: int = Field(1, ge=1)
    cpu: int = Field(2, ge=1)
    download: int = Field(2, ge=1)


class Settings(BaseSettings):
    """Everything a user may choose."""

    model_config = SettingsConfigDict(
        env_prefix="S2S_", env_nested_delimiter="__", extra="forbid", frozen=True, toml_file=None
    )

    home: Path = Field(Path("s2s_home"), description="Folder of the lake, the models and s2s.toml.")
    storage_url: str = Field("", description="The lake, any fsspec URL; default: `lake` in the home.")
    catalogue_url: str = Field(MINIATURE, description="LibriVox API, a mirror of it, or the embedded 'miniature'.")
    languages: Annotated[tuple[Language, ...], NoDecode] = ("deu", "eng", "fra", "spa")
    speech_pairs: Annotated[tuple[str, ...], NoDecode] = Field((), description="Default: every two languages.")
    encoder: str = Field(MINIATURE, description="'miniature', 'sonar', 'sonar:<card>', or a student's path.")
    encoders: dict[str, str] = Field(default_factory=dict, description="Language → encoder, where it differs.")
    model_dir: Path | None = Field(None, description="Folder of SONAR cards and checkpoints (air-gapped machines).")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:1'.")
    index_factory: str = Field("", description="FAISS index_factory string; default: chosen by size.")
    truth: Path | None = Field(None, description="Known translations, to compare with (parquet).")
    segmentation: SegmentationSettings = SegmentationSettings()
    mining: MiningSettings = MiningSettings()
    recurring: RecurringSettings = RecurringSettings()
    librivox: LibriVoxSettings = LibriVoxSettings()
    storage: StorageSettings = StorageSettings()
    ingest: IngestSettings = IngestSettings()
    pools: PoolSettings = PoolSettings()
    catalogue_cron: str = Field("0 1 * * *", description="When the catalogue is read again.")
    remine_cron: str = Field("0 3 * * 1", description="When languages with new audiobooks are indexed and mined.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments win over the environment, the environment over the file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, home() / FILE)

    @field_validator("languages", "speech_pairs", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """`deu,eng` in the environment is a list too."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _pairs_are_of_languages(self) -> Settings:
        for pair in self.speech_pairs:
            source, _, target = pair.partition("-")
            if source not in self.languages or target not in self.languages or source >= target:
                raise ValueError(
                    f"speech_pairs: {pair!r} is not two of {','.join(self.languages)} in alphabetical order"
                )
        unknown = set(self.encoders) - set(self.languages)
        if unknown:
            raise ValueError(f"encoders: {sorted(unknown)} are not among the languages {','.join(self.languages)}")
        return self

    @field_validator("truth")
    @classmethod
    def _is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @property
    def lake_url(self) -> str:
        """Where the lake is."""
        return self.storage_url or str(self.home.absolute() / "lake")

    @property
    def mined_pairs(self) -> tuple[str, ...]:
        """The speech–speech pairs to mine, alphabetical."""
        if self.speech_pairs:
            return tuple(sorted(self.speech_pairs))
        known = sorted(set(self.languages))
        return tuple(f"{a}-{b}" for i, a in enumerate(known) for b in known[i + 1 :])

    @property
    def truth_path(self) -> Path | None:
        """Known translations; the embedded library brings its own."""
        if self.truth is None and self.catalogue_url == MINIATURE:
            return LIBRARY / "truth.parquet"
        return self.truth

    def encoder_of(self, language: str) -> str:
        """Name or path of the encoder of a language."""
        return self.encoders.get(language, self.encoder)


def home() -> Path:
    """The home that the environment names, before any file is read."""
    return Path(os.environ.get("S2S_HOME", "s2s_home"))


def load_settings(**overrides: Any) -> Settings:
    """Read the settings in force.

    Raises:
        SettingsError: a value is of the wrong kind, or names what does not exist.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "the settings together"
        raise SettingsError(
            f"The setting {name} is wrong: {first['msg']} (found {first.get('input')!r}).",
            cause=f"{home() / FILE}, or an environment variable that starts with S2S_",
            fix="correct it there; `s2s settings` shows every name, its value and where it came from",
        ) from None
    except ValueError as error:  # of the TOML reader, whose module differs between Python 3.10 and 3.11
        raise SettingsError(
            f"{home() / FILE} cannot be read: {error}.",
            expected='TOML, such as: languages = ["deu", "eng"]',
            fix="correct the file, or move it away to use the defaults",
        ) from None


def origins(settings: Settings) -> Mapping[str, tuple[str, str]]:
    """Name → (value in force, where it came from), for every setting; nested names are joined by a dot."""
    told: dict[str, tuple[str, str]] = {}
    file = TomlConfigSettingsSource(Settings, home() / FILE)()
    for name, value in _flat(settings.model_dump(mode="json")):
        variable = "S2S_" + name.replace(".", "__").upper()
        if variable in {key.upper() for key in os.environ} or f"S2S_{name.split('.')[0]}".upper() in os.environ:
            origin = variable
        elif name in dict(_flat(file)):
            origin = str(home() / FILE)
        else:
            origin = "default"
        told[name] = (str(value), origin)
    return told


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping) and value and name not in {"mirrors", "encoders"}:
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
