"""Settings, in one place: `s2s.toml` in the home, overridden by `S2S_*` environment variables.

What belongs here is what a user may choose, with its default and its reason. Nested names are joined by two
underscores in the environment: `S2S_MINING__THRESHOLD=1.07`. `s2s settings` prints what is in force and from where.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from resources.operation_settings import (
    AlertSettings,
    DeviceSettings,
    FanOutSettings,
    FreshnessSettings,
    KubernetesSettings,
    Language,
    MemorySettings,
    PoolSettings,
    ReembeddingSettings,
    Strict,
    WordSettings,
)
from resources.secrets import holds_secret, secrets_in
from speech_mining.errors import SettingsError
from speech_mining.text.rules import Cleaning

FILE = "s2s.toml"
MINIATURE = "miniature"
"""Names the embedded library as catalogue, and the embedded encoder."""

LIBRARY = Path(__file__).parent.parent / "demo" / "library"
"""The embedded miniature library: what `make demo` mines."""

STUDENT = "student:"
"""Before the name of a student of one's own, where an encoder is named."""

StudentName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class SegmentationSettings(Strict):
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


class MiningSettings(Strict):
    """How neighbours become pairs, and pairs a corpus."""

    k: int = Field(16, ge=1, le=256, description="Neighbours in each direction (the paper's 16).")
    margin: Literal["ratio", "distance", "absolute"] = "ratio"
    strategy: Literal["forward", "backward", "intersection", "union", "max"] = "max"
    floor: float = Field(1.0, description="Pairs from this score upward are kept, so that thresholds can be compared.")
    threshold: float = Field(1.06, description="Pairs from this score upward enter the corpus (speech with speech).")
    selection: Literal["greedy", "optimal"] = Field(
        "greedy", description="Of overlapping pairs: the best first, or the most margin in all (on the source side)."
    )
    memory_gb: float | None = Field(
        None, gt=0, description="Memory for one search; default: its share of the machine's (memory.gpu_share)."
    )

    @model_validator(mode="after")
    def _ordered(self) -> MiningSettings:
        if self.floor > self.threshold:
            raise ValueError(f"floor ({self.floor}) must not exceed threshold ({self.threshold})")
        return self


class FilterSettings(Strict):
    """Which models judge the pairs by their embeddings, and what a pair must reach; the encoder must be SONAR."""

    blaser: str = Field("", description="Card of BLASER 2.0-QE, such as 'blaser_2_0_qe'; empty: off.")
    mutox: str = Field("", description="Card of MuTox, such as 'sonar_mutox'; empty: off.")
    least_blaser_qe: float | None = Field(None, description="Least BLASER score, about 1 to 5; default: any.")
    most_toxicity: float | None = Field(None, ge=0, le=1, description="Most toxicity of either side; default: any.")
    most_added_toxicity: float | None = Field(
        None, ge=0, le=1, description="How much more toxic the target may be than the source; default: any."
    )
    most_lost_toxicity: float | None = Field(
        None, ge=0, le=1, description="How much more toxic the source may be than the target; default: any."
    )
    vector_length: float | None = Field(
        None, gt=0, description="Length of SONAR's vectors, for MuTox, where the lake does not keep it (about 0.2)."
    )

    @model_validator(mode="after")
    def _judged(self) -> FilterSettings:
        of_mutox = ("most_toxicity", "most_added_toxicity", "most_lost_toxicity", "vector_length")
        for card, names in (("blaser", ("least_blaser_qe",)), ("mutox", of_mutox)):
            idle = [name for name in names if getattr(self, name) is not None and not getattr(self, card)]
            if idle:
                raise ValueError(f"{idle[0]} is set, and filters.{card} names no card that gives the score")
        return self

    def but(self, changes: Mapping[str, float]) -> FilterSettings:
        """The same with other limits, held against the cards.

        Raises:
            SettingsError: a limit that cannot be, or has no card.
        """
        try:
            return FilterSettings.model_validate({**self.model_dump(), **changes})
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsError(
                f"The filters {dict(changes)} cannot be: {first['msg']}.",
                expected="limits of filters that are on, toxicity from 0 to 1",
                fix="name the card in filters.blaser or filters.mutox, or leave the limit out of the run's config",
            ) from None

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the scores that are on; none: no filter is."""
        of_mutox = ("source_toxicity", "target_toxicity") if self.mutox else ()
        return (*(("blaser_qe",) if self.blaser else ()), *of_mutox)


class RecurringSettings(Strict):
    """When a segment counts as a preamble: the same words in many recordings of a language."""

    similarity: float = Field(0.95, gt=0, le=1, description="Cosine from which two segments say the same.")
    min_recordings: int = Field(3, ge=2, description="Recordings it must be heard in, its own included.")
    min_share: float = Field(0.05, ge=0, le=1, description="Share of the language's recordings it must be heard in.")


class LibriVoxSettings(Strict):
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


class StorageSettings(Strict):
    """What the lake's keeper may take of the disks, beside the lake."""

    reserve_mb: int = Field(512, ge=0, description="What must stay free when a book starts to be fetched.")
    quarantine_mb: int = Field(2048, ge=0, description="What refused files may take; the oldest give way.")
    copies_gb: float = Field(20.0, gt=0, description="What copies of an object store's files may take in the home.")
    wait_for_writer_s: float = Field(10.0, ge=0, description="How long another writer of a book is waited for.")


class IngestSettings(Strict):
    """How fast the sensor `audiobooks` asks for new audiobooks."""

    books_a_run: int = Field(25, ge=1, le=1000, description="Audiobooks of one run, at most.")
    most_runs: int = Field(4, ge=1, description="Runs of the sensor that may be queued or under way at once.")
    retry_hours: float = Field(6.0, gt=0, description="How often what is missing or incomplete is tried again.")


class StudentSettings(Strict):
    """A student: an encoder of speech that is trained here, from transcribed speech into a teacher's space."""

    data: tuple[Path, ...] = Field(min_length=1, description="Sets of transcribed speech, see docs/training.md.")
    format: str = Field("auto", description="Of the sets; 'auto' finds it.")
    language: str = Field("", description="Of clips that name none, ISO 639-3.")
    translation_language: str = Field("", description="Of translations that name none, ISO 639-3.")
    teacher: str = Field("sonar", description="The encoder of text whose space is learned.")
    target: Literal["transcription", "translation", "both"] = Field(
        "transcription", description="Whose vectors the student learns to give."
    )
    dev_share: float = Field(0.05, gt=0, lt=0.5, description="Of the clips, where a set has no split 'dev'.")
    test_share: float = Field(0.05, gt=0, lt=0.5, description="Of the clips, where a set has no split 'test'.")
    keep_leaks: bool = Field(False, description="Train also on clips that dev or test hold too.")
    against: tuple[str, ...] = Field((), description="Encoders of speech to examine beside it, such as 'sonar'.")
    tolerance: float = Field(
        0.0, ge=0, lt=1, description="How much higher than the current encoder's its error may be, as a share of all."
    )
    training: dict[str, Any] = Field(
        default_factory=dict, description="Architecture, loss, schedule and the rest: see docs/training.md."
    )


class TextSettings(Strict):
    """Text: where it is, and how speech is mined against it. How it is cleaned is `cleaning`."""

    shards: dict[Language, tuple[str, ...]] = Field(
        default_factory=dict, description="Language → files, folders, globs, lists of files or URLs of its text."
    )
    meta: dict[Language, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Language → meta files of its shards: an address for each of text.shards, in the same order.",
    )
    format: str = Field("auto", description="Of the shards; 'auto' looks at each.")
    threshold: float = Field(1.07, description="Pairs from this score upward enter a corpus of speech and text.")
    text_threshold: float = Field(1.06, description="Pairs from this score upward enter a corpus of text and text.")
    cleaning: dict[str, Any] = Field(default_factory=dict, description="What is kept of a text: see docs/text.md.")
    lower_case: bool = Field(False, description="Whether the encoder reads lower case, as LASER does.")
    strip_quotes: bool = Field(False, description="Whether quotes around a whole sentence are kept from the encoder.")
    memory_gb: float | None = Field(
        None, gt=0, description="Memory for finding what is repeated across shards; default: 4, or its share if less."
    )

    @field_validator("shards")
    @classmethod
    def _of_languages(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        from langcodes.data_dicts import LANGUAGE_ALPHA3_BIBLIOGRAPHIC

        from speech_mining.sources.languages import iso_639_3

        for language in value:
            known = iso_639_3(language)
            if known is None:
                raise ValueError(f"{language!r} is no language of ISO 639-3, as deu (German) and cmn (Mandarin) are")
            if language in LANGUAGE_ALPHA3_BIBLIOGRAPHIC.values():
                raise ValueError(f"{language!r} is a code for libraries; in ISO 639-3 it is {known!r}")
        return value

    @field_validator("cleaning")
    @classmethod
    def _as_cleaning_takes_them(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Names that there are, and values of their kind: what the environment tells is text."""
        known = [field.name for field in fields(Cleaning)]
        unknown = sorted(set(value) - set(known))
        if unknown:
            raise ValueError(f"there is no {', '.join(unknown)} in {', '.join(known)}")
        try:
            cleaning = TypeAdapter(Cleaning).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"{'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}") from None
        except SettingsError as error:
            raise ValueError(str(error)) from None
        return {name: getattr(cleaning, name) for name in value}

    @model_validator(mode="after")
    def _meta_of_every_address(self) -> TextSettings:
        for language, addresses in self.meta.items():
            shards = self.shards.get(language, ())
            if len(addresses) != len(shards):
                raise ValueError(f"meta of {language} has {len(addresses)} addresses, and shards has {len(shards)}")
        return self


class QualitySettings(Strict):
    """What the checks of quality let pass."""

    score_shift: float = Field(
        0.01, ge=0, description="How far a corpus' scores may move from the last accepted one: mean of nine deciles."
    )
    lost_share: float = Field(0.1, ge=0, le=1, description="Share of pairs and hours that mining again may lose.")
    length_factor: float = Field(
        1.5, gt=1, description="A pair is odd whose ratio of lengths is so many times the usual one of the languages."
    )
    odd_lengths_share: float = Field(0.05, ge=0, le=1, description="Share of odd pairs above which a check warns.")
    least_level_dbfs: float = Field(-50.0, le=0, description="A span of a corpus is silent below this level.")
    clipped_share: float = Field(0.001, gt=0, le=1, description="A span is clipped with such a share at full scale.")
    heard_recordings: int = Field(8, ge=0, description="Recordings of each side that are decoded to look for clipping.")


class ExportSettings(Strict):
    """In which formats corpora are exported whenever they change, and what is held out of them."""

    formats: tuple[Literal["hugging-face", "lhotse-shar", "web-dataset", "fairseq", "nemo", "links"], ...] = Field(
        (), description="Formats of the export assets; none: no asset."
    )
    dev_share: float = Field(0.05, ge=0, lt=0.5, description="Audiobooks and readers held out for dev.")
    test_share: float = Field(0.05, ge=0, lt=0.5, description="Audiobooks and readers held out for test.")


class DownstreamSetSettings(Strict):
    """What people have translated of a pair: the base that a model is trained on, and what it is examined on."""

    data: tuple[Path, ...] = Field(min_length=1, description="Sets of transcribed speech with translations.")
    target_data: tuple[Path, ...] = Field((), description="For speech with speech: sets that speak the translations.")
    format: str = Field("auto", description="Of the sets; 'auto' finds it.")


class DownstreamSettings(Strict):
    """Proof that mined data helps: models trained with and without it, on one budget."""

    sets: dict[str, DownstreamSetSettings] = Field(
        default_factory=dict, description="Pair, such as deu-eng → its base and test sets; default: the known truth."
    )
    thresholds: tuple[float, ...] = Field((), description="Of the mined pairs; the corpus' own is always one of them.")
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Each condition is trained once for each.")
    most_base_hours: float | None = Field(None, gt=0, description="Hours of the base that are used; default: all.")
    most_test: int | None = Field(None, ge=1, description="Examples of the test set that are used; default: all.")
    training: dict[str, Any] = Field(
        default_factory=dict, description="Of the models: size, updates, start and the rest: see docs/downstream.md."
    )
    retrieval: dict[str, Any] = Field(
        default_factory=dict, description="What is otherwise for the models of speech with speech."
    )
    time_limit_hours: float | None = Field(
        None, gt=0, description="After which a run stops; the next one goes on. Default: none."
    )


class PublishedSettings(Strict):
    """A manifest that others have published, to hold ours against."""

    manifest: Path = Field(description="A table, plain or gzipped, its first column the score.")
    pair: str = Field(pattern=r"^[a-z]{3}-[a-z]{3}$", description="Languages of its sides, as a pair that is mined.")
    source: str = Field("", description="Column of the source side; empty: nothing is compared but rows.")
    target: str = Field("", description="Column of the target side.")
    pattern: str = Field("", description="Regular expression of a cell, with the groups recording, start and end.")
    unit: Literal["samples", "milliseconds", "seconds"] = Field("samples", description="Of start and end.")

    @model_validator(mode="after")
    def _readable(self) -> PublishedSettings:
        given = [bool(self.source), bool(self.target), bool(self.pattern)]
        if any(given) and not all(given):
            raise ValueError("source, target and pattern belong together")
        return self


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
    speech_text_pairs: Annotated[tuple[str, ...], NoDecode] | None = Field(
        None, description="Speech first, as in deu-eng. Default: every language with every language of text."
    )
    text_speech_pairs: Annotated[tuple[str, ...], NoDecode] = Field((), description="Text first. Default: none.")
    text_pairs: Annotated[tuple[str, ...], NoDecode] = Field((), description="Text with text. Default: none.")
    encoder: str = Field(
        MINIATURE, description="'miniature', 'sonar', 'sonar:<card>', a student's path, or 'student:<name>'."
    )
    encoders: dict[str, str] = Field(default_factory=dict, description="Language → encoder, where it differs.")
    text_encoder: str = Field("", description="Of text; default: the one whose space the encoder of speech shares.")
    text_encoders: dict[str, str] = Field(
        default_factory=dict, description="Language → encoder of text, if it differs."
    )
    students: dict[StudentName, StudentSettings] = Field(
        default_factory=dict, description="Name → an encoder that is trained here."
    )
    model_dir: Path | None = Field(None, description="Folder of SONAR cards and checkpoints (air-gapped machines).")
    device: str = Field("auto", description="'auto', 'cpu', 'cuda', 'cuda:1'.")
    index_factory: str = Field("", description="FAISS index_factory string; default: chosen by size.")
    truth: Path | None = Field(None, description="Known translations, to compare with (parquet).")
    text_truth: Path | None = Field(None, description="Known texts of speech, to compare with (parquet).")
    segmentation: SegmentationSettings = SegmentationSettings()
    mining: MiningSettings = MiningSettings()
    fan_out: FanOutSettings = FanOutSettings()
    filters: FilterSettings = FilterSettings()
    recurring: RecurringSettings = RecurringSettings()
    text: TextSettings = TextSettings()
    librivox: LibriVoxSettings = LibriVoxSettings()
    storage: StorageSettings = StorageSettings()
    ingest: IngestSettings = IngestSettings()
    reembedding: ReembeddingSettings = ReembeddingSettings()
    quality: QualitySettings = QualitySettings()
    exports: ExportSettings = ExportSettings()
    downstream: DownstreamSettings = DownstreamSettings()
    words: WordSettings = WordSettings()
    published: dict[StudentName, PublishedSettings] = Field(
        default_factory=dict, description="Name → a manifest of others, to compare with."
    )
    freshness: FreshnessSettings = FreshnessSettings()
    alerts: AlertSettings = AlertSettings()
    pools: PoolSettings = PoolSettings()
    memory: MemorySettings = MemorySettings()
    devices: DeviceSettings = DeviceSettings()
    execution: Literal["local", "k8s"] = Field(
        "local", description="Where steps run: processes of this machine, or a Kubernetes pod each."
    )
    kubernetes: KubernetesSettings = KubernetesSettings()
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

    @field_validator("languages", "speech_pairs", "speech_text_pairs", "text_speech_pairs", "text_pairs", mode="before")
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

    @model_validator(mode="after")
    def _pairs_with_text_are_of_languages(self) -> Settings:
        spoken, written = set(self.languages), set(self.text_languages)
        sides = {
            "speech_text_pairs": (self.speech_text_pairs or (), spoken, written),
            "text_speech_pairs": (self.text_speech_pairs, written, spoken),
            "text_pairs": (self.text_pairs, written, written),
        }
        for name, (pairs, sources, targets) in sides.items():
            for pair in pairs:
                source, _, target = pair.partition("-")
                if source not in sources or target not in targets or (name == "text_pairs" and source >= target):
                    raise ValueError(
                        f"{name}: {pair!r} is not of {','.join(sorted(sources)) or 'nothing'} and "
                        f"{','.join(sorted(targets)) or 'nothing'}; text comes from text.shards"
                    )
        return self

    @model_validator(mode="after")
    def _ages_are_of_what_is_mined(self) -> Settings:
        mined = {pair for kind in ("s2s", "s2t", "t2s", "t2t") for pair in self.pairs_of(kind)}
        known = {"languages": {*self.languages, *self.text_languages}, "pairs": mined}
        for name, there in known.items():
            if unknown := sorted(set(getattr(self.freshness, name)) - there):
                raise ValueError(f"freshness.{name}: {', '.join(unknown)}: nothing of that name is indexed or mined")
        return self

    @model_validator(mode="after")
    def _students_are_there(self) -> Settings:
        for chosen in (self.encoder, *self.encoders.values()):
            if chosen.startswith(STUDENT) and chosen.removeprefix(STUDENT) not in self.students:
                raise ValueError(f"encoder {chosen!r}: the students are {', '.join(sorted(self.students)) or 'none'}")
        return self

    @field_validator("truth", "text_truth")
    @classmethod
    def _is_there(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"there is no file {value}")
        return value

    @model_validator(mode="after")
    def _hold_no_secret(self) -> Settings:
        for name in secrets_in(self.model_dump(mode="json")):
            raise ValueError(
                f"{name} has an address with a user, a key or a signature in it, and settings are shown to everybody: "
                "take it out, and give it in the environment, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://"
            )
        return self

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
    def text_shards(self) -> dict[str, tuple[str, ...]]:
        """Language → where its text is; the embedded library brings its own."""
        if not self.text.shards and self.catalogue_url == MINIATURE:
            return {language: (str(LIBRARY / "text" / language),) for language in sorted(self.languages)}
        return dict(sorted(self.text.shards.items()))

    @property
    def text_languages(self) -> tuple[str, ...]:
        """The languages that have text."""
        return tuple(self.text_shards)

    def pairs_of(self, kind: str) -> tuple[str, ...]:
        """The pairs to mine of a kind: s2s, s2t, t2s or t2t."""
        if kind == "s2s":
            return self.mined_pairs
        if kind == "s2t" and self.speech_text_pairs is None:
            return tuple(f"{spoken}-{written}" for spoken in sorted(self.languages) for written in self.text_languages)
        named = {"s2t": self.speech_text_pairs, "t2s": self.text_speech_pairs, "t2t": self.text_pairs}
        return tuple(sorted(named[kind] or ()))

    @property
    def fans_out(self) -> bool:
        """Whether the neighbours of a pair are searched in blocks that are steps of their own."""
        return self.execution == "k8s" if self.fan_out.enabled is None else self.fan_out.enabled

    def threshold_of(self, kind: str) -> float:
        """The score from which pairs of a kind enter its corpus."""
        return {"s2s": self.mining.threshold, "t2t": self.text.text_threshold}.get(kind, self.text.threshold)

    @property
    def truth_path(self) -> Path | None:
        """Known translations; the embedded library brings its own."""
        if self.truth is None and self.catalogue_url == MINIATURE:
            return LIBRARY / "truth.parquet"
        return self.truth

    @property
    def text_truth_path(self) -> Path | None:
        """Known texts of speech; the embedded library brings its own."""
        if self.text_truth is None and self.catalogue_url == MINIATURE and not self.text.shards:
            return LIBRARY / "text_truth.parquet"
        return self.text_truth

    def encoder_of(self, language: str) -> str:
        """Name or path of the encoder of a language."""
        return self.encoders.get(language, self.encoder)

    def text_encoder_of(self, language: str) -> str:
        """Name of the encoder of a language's text."""
        own = MINIATURE if self.encoder == MINIATURE else "sonar"
        return self.text_encoders.get(language) or self.text_encoder or own


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
            f"The setting {name} is wrong: {first['msg']}{_found(name, first.get('input'))}.",
            cause=f"{home() / FILE}, or an environment variable that starts with S2S_",
            fix="correct it there; `s2s settings` shows every name, its value and where it came from",
        ) from None
    except ValueError as error:  # of the TOML reader, whose module differs between Python 3.10 and 3.11
        raise SettingsError(
            f"{home() / FILE} cannot be read: {error}.",
            expected='TOML, such as: languages = ["deu", "eng"]',
            fix="correct the file, or move it away to use the defaults",
        ) from None


def _found(name: str, value: object) -> str:
    """What was met; nothing where it may be an address that somebody must not read, nor where it is all settings."""
    told = repr(value)
    hidden = name.startswith("alerts") or isinstance(value, (Mapping, BaseModel)) or holds_secret(told)
    return "" if hidden else f" (found {told})"


_TOLD_WHOLE = frozenset(
    "mirrors encoders text_encoders students shards meta cleaning assets sets training retrieval timings "
    "dictionaries".split()
)
"""Tables whose names are a user's own: they are told as one value."""


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
        if isinstance(value, Mapping) and value and name not in _TOLD_WHOLE:
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found
