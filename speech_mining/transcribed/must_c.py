"""MuST-C: talks, and the spans of them that are sentences, in `en-de/data/<split>/txt` and `wav`.

`txt/<split>.yaml` lists a span an entry, `- {duration: 3.5, offset: 16.08, speaker_id: spk.767, wav: ted_767.wav}` in
the first release, with the words `rW` and `uW` of each in later ones; `txt/<split>.en` and `txt/<split>.de` have its
transcription and its translation in the line of the same number. mTEDx has the same layout, with FLAC that its yaml
calls `.wav`, and folders without translation (`es-es`).

Figures are published on `tst-COMMON`: it is the test set, and `tst-HE` is read only where its own folder is given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from speech_mining.sources.foreign_text import shown
from speech_mining.transcribed.directions import named_language, the_one_wanted
from speech_mining.transcribed.folder import Folder
from speech_mining.transcribed.languages import Wanted
from speech_mining.transcribed.listing import (
    SPLITS,
    Listed,
    ListedClip,
    Reading,
    RejectedClip,
    Row,
    TranscribedSpeechError,
    UnusableClipError,
    listed_rows,
    readable,
    seconds,
    span_name,
    split_named,
)

_DIRECTION = re.compile(r"[A-Za-z]{2,3}-[A-Za-z]{2,3}")
# An entry on one line whose values are plain, as in all releases: 1.3 s for the 230 000 of a train.yaml, where yaml's
# own reader in C takes 50 s. It reads the others.
_PLAIN = re.compile(r"-\s+\{([^'\"{}\[\]#&*!|>%@`]*)\}\s*")
_OTHER_TESTS = frozenset({"tst-HE"})
_ENTRY = b"- "
_TEXTS = ("transcription", "translation")


@dataclass(frozen=True)
class _Part:
    """A split: the folder that holds `txt` and `wav`."""

    folder: Path
    split: str

    def text(self, suffix: str) -> Path:
        """The file of `txt` with this suffix."""
        return self.folder / "txt" / f"{self.folder.name}.{suffix}"


@dataclass(frozen=True)
class _Direction:
    name: str
    source: str
    target: str
    """As files name them: "en"."""
    language: str
    translation_language: str
    parts: tuple[_Part, ...]
    left: tuple[str, ...]
    """Folders that are not read."""

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of the files of text: what is said, and its translation where there is one."""
        return (self.source, self.target) if self.translation_language else (self.source,)


def seen(folder: Path) -> str:
    """The first list of spans; empty where there is none."""
    lists = (part.text("yaml") for _, folders in _folders(folder) for part in _parts(folders)[0])
    return next((str(path.relative_to(folder.absolute())) for path in lists), "")


def read(folder: Path, wanted: Wanted) -> Reading:
    """Clips of one direction.

    Args:
        folder: that holds `en-de`; or `en-de`, its `data`, or one split of it.
        wanted: languages that choose among several directions.

    Raises:
        TranscribedSpeechError: none, or several, and the languages wanted do not choose; texts or talks are missing;
            or the lists of a split differ in length, so that nobody knows which text goes with which span.
    """
    held = [_direction(name, folders) for name, folders in _folders(folder)]
    direction = the_one_wanted(
        folder, held, wanted, nothing="no data/<split>/txt/<split>.yaml in a folder such as en-de"
    )
    inside = Folder(folder)
    for part in direction.parts:
        _require(part, direction)
    clips = (listed for part in direction.parts for listed in _clips(inside, direction, part))
    return Reading(clips, (f"not read: {', '.join(direction.left)}",) if direction.left else ())


def _folders(folder: Path) -> list[tuple[str, tuple[Path, ...]]]:
    """Names of directions, each with the folders of its splits; none where nothing is named after a direction."""
    here = folder.absolute()
    found: list[tuple[str, tuple[Path, ...]]]
    if (here / "txt").is_dir():
        found = [(here.parent.parent.name, (here,))]
    elif here.name == "data":
        found = [(here.parent.name, _below(here))]
    elif (here / "data").is_dir():
        found = [(here.name, _below(here / "data"))]
    else:
        found = [(path.name, _below(path / "data")) for path in _below(here)]
    return [(name, parts) for name, parts in found if _DIRECTION.fullmatch(name) and _parts(parts)[0]]


def _below(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()


def _parts(folders: tuple[Path, ...]) -> tuple[tuple[_Part, ...], tuple[str, ...]]:
    """Splits in order, and the names of folders that are none or the second test set."""
    known = [
        _Part(folder, split)
        for folder in folders
        if (split := split_named(folder.name)) and (folder / "txt" / f"{folder.name}.yaml").is_file()
    ]
    kept = [part for part in known if len(known) == 1 or part.folder.name not in _OTHER_TESTS]
    kept.sort(key=lambda part: (SPLITS.index(part.split), part.folder.name))
    read_from = {part.folder for part in kept}
    return tuple(kept), tuple(folder.name for folder in folders if folder not in read_from)


def _direction(name: str, folders: tuple[Path, ...]) -> _Direction:
    source, _, target = name.partition("-")
    parts, left = _parts(folders)
    codes = [named_language(parts[0].folder, code, example="en-de") for code in (source, target)]
    return _Direction(name, source, target, codes[0], codes[1] if target != source else "", parts, left)


def _require(part: _Part, direction: _Direction) -> None:
    for path in (*(part.text(suffix) for suffix in direction.suffixes), part.folder / "wav"):
        if not path.exists():
            raise TranscribedSpeechError(
                f"There is no {path}.",
                expected=f"{part.folder.name}.yaml and a file of each language in txt/, talks in wav/",
                cause="features (h5) were unpacked without the audio" if (part.folder / "h5").is_dir() else "",
                fix=f"unpack the archive of {direction.name} whole",
            )


def _clips(folder: Folder, direction: _Direction, part: _Part) -> Iterator[Listed]:
    yield from listed_rows(_rows(folder, direction, part), _name, _clip_of(folder, direction, part))


def _rows(folder: Folder, direction: _Direction, part: _Part) -> Iterator[Row | RejectedClip]:
    """Spans with their texts."""
    table, files = part.text("yaml"), [part.text(suffix) for suffix in direction.suffixes]
    texts = [_lines(file) for file in files]
    _require_as_many(table, {file.name: len(lines) for file, lines in zip(files, texts, strict=True)})
    source = folder.shown(table)
    for (line, entry), *said in zip(_entries(table), *texts, strict=True):
        yield _row(source, line, entry, said)


def _row(source: str, line: int, entry: str, said: Sequence[bytes]) -> Row | RejectedClip:
    cells = _cells(entry)
    if cells is None:
        return RejectedClip(source, line, "", "malformed", f"no mapping: {shown(entry[:60])}")
    try:
        words = [text.decode("utf-8-sig") for text in said]
    except UnicodeDecodeError:
        return RejectedClip(source, line, readable(cells.get("wav", "")), "malformed", "its text is not UTF-8")
    return Row(source, line, {**cells, **dict(zip(_TEXTS, words, strict=False))})


def _lines(path: Path) -> list[bytes]:
    r"""Lines that end in "\n" and in nothing else: texts hold U+2028 and lone carriage returns."""
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise TranscribedSpeechError(
            f"{path} cannot be read: {problem.strerror}.", expected="a list that this user may read"
        ) from problem
    return content.removesuffix(b"\n").split(b"\n") if content else []


def _require_as_many(table: Path, lines: Mapping[str, int]) -> None:
    spans = sum(line.startswith(_ENTRY) for line in _lines(table))
    if any(count != spans for count in lines.values()):
        raise TranscribedSpeechError(
            f"{table} lists {spans} spans; lines: {', '.join(f'{name} {count}' for name, count in lines.items())}.",
            expected="as many lines as spans",
            cause="a file was cut, or blank lines were taken out: nobody knows which text goes with which span",
            fix="unpack it again",
        )


def _entries(table: Path) -> Iterator[tuple[int, str]]:
    """Each entry with the number of its first line; what is not UTF-8 has question marks."""
    first, held = 0, b""
    for number, line in enumerate(_lines(table), start=1):
        if line.startswith(_ENTRY):
            if first:
                yield first, held.decode("utf-8", "replace")
            first, held = number, line
        elif first:
            held += b"\n" + line
    if first:
        yield first, held.decode("utf-8", "replace")


def _cells(entry: str) -> dict[str, str] | None:
    """Keys and values of an entry as they are written; None where it is no mapping of plain values."""
    plain = _PLAIN.fullmatch(entry)
    if plain is None:
        return _cells_of_yaml(entry)
    pairs = [pair.partition(":") for pair in plain[1].split(",")]
    return {key.strip(): value.strip() for key, _, value in pairs}


def _cells_of_yaml(entry: str) -> dict[str, str] | None:
    import yaml

    try:
        loaded = yaml.load(entry, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except yaml.YAMLError:
        return None
    told = loaded[0] if isinstance(loaded, list) and len(loaded) == 1 else None
    if not isinstance(told, dict):
        return None
    return {key: value for key, value in told.items() if isinstance(key, str) and isinstance(value, str)}


def _clip_of(folder: Folder, direction: _Direction, part: _Part) -> Callable[[Row], ListedClip]:
    files: dict[str, Path] = {}  # a talk has a hundred spans, and following links takes 20 µs

    def clip_of(row: Row) -> ListedClip:
        name, start_s = row.first("wav"), seconds(row.first("offset"))
        duration_s = seconds(row.first("duration"))
        if start_s is None or duration_s is None:
            raise UnusableClipError("malformed", "it has no duration or no offset")
        if name not in files:
            files[name] = _talk(folder, part, name)
        end_s = round(start_s + duration_s, 6)
        return ListedClip(
            row.source,
            row.line,
            span_name(name, start_s, end_s),
            part.split,
            direction.language,
            files[name],
            start_s=start_s,
            end_s=end_s,
            transcription=row.first("transcription"),
            translation=row.first("translation"),
            translation_language=direction.translation_language,
            speaker=row.first("speaker_id"),
        )

    return clip_of


def _talk(folder: Folder, part: _Part, name: str) -> Path:
    """The recording; mTEDx has it as FLAC."""
    below = str((part.folder / "wav").relative_to(folder.root))
    file = folder.file(name, below=below)
    if name.endswith(".wav") and not file.exists():
        packed = folder.file(f"{name.removesuffix('.wav')}.flac", below=below)
        return packed if packed.exists() else file
    return file


def _name(row: Row) -> str:
    return row.first("wav")
