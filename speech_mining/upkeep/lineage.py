"""Whether each partition was made of what is there now, told by the versions that partitions keep of their sources.

Dagster knows the same from its record, but only where it made the partition and remembers it; the files know it
wherever they are. What belongs here is comparing; nothing is mined, and nothing is read but small files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from speech_mining.errors import SpeechMiningError
from speech_mining.knn.roll import LAYOUTS, SPEECH, TEXT, Layout
from speech_mining.lake import Lake, Partition
from speech_mining.mining.kinds import KINDS, Kind
from speech_mining.records import CATALOGUE, RECORDINGS, SEGMENTS
from speech_mining.upkeep.findings import Finding
from speech_mining.upkeep.partitions import asset_of
from speech_mining.upkeep.places import Key

Keys = Callable[[str], list[Key]]
"""Layer → keys of its partitions that can be read."""
Step = Callable[[str], None]
"""Told the layer that was compared."""


@dataclass(frozen=True)
class Lineage:
    """A lake to compare.

    Args:
        lake: to read from.
        keys: of the partitions that can be read, by layer.
    """

    lake: Lake
    keys: Keys

    def behind(self, layers: frozenset[str] = frozenset(), step: Step = lambda layer: None) -> list[Finding]:
        """What was made of something else than what is there now; of some layers, or of all.

        A partition is named once, with the nearest source that differs: what is made of it follows from that.
        """
        found: list[Finding] = []
        for layer, compare in self._comparisons:
            if not layers or layer in layers:
                found += compare()
                step(layer)
        return found

    @cached_property
    def _comparisons(self) -> list[tuple[str, Callable[[], list[Finding]]]]:
        one_by_one: dict[str, Callable[[Key], str]] = {
            "raw_audio": self._recordings,
            "segments": self._segments,
            "speech_embeddings": self._embeddings,
            "text_sentences": self._sentences,
            TEXT.repeats: self._repeats,
            "speech_index": lambda key: self._index(key, SPEECH),
            "text_index": lambda key: self._index(key, TEXT),
        }
        for kind in KINDS:
            one_by_one[kind.layer("neighbours")] = lambda key, kind=kind: self._neighbours(key, kind)  # type: ignore[misc]
            one_by_one[kind.layer("pairs")] = lambda key, kind=kind: self._pairs(key, kind)  # type: ignore[misc]
            one_by_one[kind.layer("pair_quality")] = lambda key, kind=kind: self._scores(key, kind)  # type: ignore[misc]
            one_by_one[kind.layer("corpus")] = lambda key, kind=kind: self._corpus(key, kind)  # type: ignore[misc]
        compared = [(layer, _over(self, layer, compare)) for layer, compare in one_by_one.items()]
        return [*compared, ("speech_embeddings", self._unlisted_and_mixed)]

    def each(self, layer: str, compare: Callable[[Key], str]) -> Iterator[Finding]:
        """Findings of a layer: `compare` tells what differs in a partition, and nothing where nothing does."""
        for key in self.keys(layer):
            try:
                differs = compare(key)
            except (SpeechMiningError, OSError, ValueError, KeyError, pl.exceptions.PolarsError) as problem:
                differs = f"what it was made of cannot be told ({problem})"
            if differs:
                yield _behind(layer, key, differs)

    # of an audiobook

    @cached_property
    def _catalogue(self) -> dict[tuple[str, str], pl.DataFrame]:
        if self.lake.find("catalogue") is None:
            return {}
        known = self.lake.partition("catalogue").read_table("catalogue.parquet", CATALOGUE)
        parts = known.partition_by("language", "audiobook", as_dict=True)
        return {(str(language), str(book)): rows for (language, book), rows in parts.items()}

    def _recordings(self, key: Key) -> str:
        from speech_mining.sources.earlier import LISTING, LISTING_FILE, listing

        sections = self._catalogue.get((key[0], key[1]))
        if sections is None:
            return ""  # told as unlisted
        made_of = self.lake.partition("raw_audio", *key).read_table(LISTING_FILE, LISTING)
        places = ["section", "url"]
        same = listing(sections).select(places).equals(made_of.sort(places).select(places))
        return "" if same else "the catalogue lists other sections or addresses now"

    def _segments(self, key: Key) -> str:
        audio = self.lake.find("raw_audio", *key)
        if audio is None:
            return "its raw_audio is not there"
        heard = self.lake.partition("segments", *key).read_frame("sections.parquet")["section"]
        unheard = self.lake.partition("segments", *key).read_frame("rejections.parquet")
        known = set(heard) | set(unheard.filter(pl.col("start_sample").is_null())["section"])
        there = set(audio.read_table("recordings.parquet", RECORDINGS)["section"])
        return _differing("recordings", there - known, known - there)

    def _embeddings(self, key: Key) -> str:
        segments = self.lake.find("segments", *key)
        if segments is None:
            return "its segments are not there"
        there = segments.read_table("segments.parquet", SEGMENTS)
        own = self.lake.partition("speech_embeddings", *key)
        embedded = own.read_table("segments.parquet", SEGMENTS)
        gone = embedded.join(there, on="segment_id", how="anti").height
        left = there.height - (embedded.height - gone) - own.read_frame("rejections.parquet").height
        return f"{gone} of its segments are gone, {left} are new" if gone or left else ""

    def _unlisted_and_mixed(self) -> list[Finding]:
        mixed: dict[str, set[str]] = {}
        for language, book in self.keys("speech_embeddings"):
            made_by = self.lake.partition("speech_embeddings", language, book).read_json("encoder.json")
            mixed.setdefault(language, set()).add(f"{made_by['name']} {made_by['version']}")
        return [*self._unlisted(), *(_mixed(language, told) for language, told in mixed.items() if len(told) > 1)]

    def _unlisted(self) -> Iterator[Finding]:
        if not self._catalogue:
            return
        for layer in ("raw_audio", "segments", "speech_embeddings"):
            for language, book in self.keys(layer):
                if (language, book) not in self._catalogue:
                    yield _not_listed(layer, (language, book))

    # of text

    @cached_property
    def _shards(self) -> dict[tuple[str, str], str]:
        if self.lake.find("text_shards") is None:
            return {}
        table = self.lake.partition("text_shards").read_frame("shards.parquet")
        return {(row["language"], row["shard"]): row["version"] for row in table.iter_rows(named=True)}

    def _sentences(self, key: Key) -> str:
        if not self._shards:
            return ""
        listed = self._shards.get((key[0], key[1]))
        made_by = self.lake.partition("text_sentences", *key).read_json("shard.json")["made_by"]
        return "" if made_by["version"] == listed else "its file changed, or is not listed any more"

    def _repeats(self, key: Key) -> str:
        looked_at = self.lake.partition(TEXT.repeats, *key).read_json("shards.json")
        return self._differing_blocks("text_sentences", key[0], looked_at)

    # of a language

    def _index(self, key: Key, layout: Layout) -> str:
        table = self.lake.partition(layout.index, *key).read_table("roll.parquet", layout.roll)
        rolled = dict(table.select(layout.block, "data_version").iter_rows())
        # a block of text that lost repeats has more behind its version
        return self._differing_blocks(
            layout.embeddings, key[0], {block: version.partition("-")[0] for block, version in rolled.items()}
        )

    def _differing_blocks(self, layer: str, language: str, made_of: dict[str, str]) -> str:
        there = {
            name: self.lake.partition(layer, language, name).data_version
            for of_language, name in self.keys(layer)
            if of_language == language
        }
        new = {name for name in there if there[name] != made_of.get(name)}
        return _differing(layer, new, made_of.keys() - there.keys())

    # of a pair

    def _rolls(self, pair: str, kind: Kind) -> list[str]:
        """Versions of the rolls that the two indexes have now, as `Roll.version` tells them."""
        sides = zip(pair.split("-"), (LAYOUTS[kind.source], LAYOUTS[kind.target]), strict=True)
        return [roll_version(self.lake.partition(layout.index, language), layout) for language, layout in sides]

    def _neighbours(self, key: Key, kind: Kind) -> str:
        made_of = self.lake.partition(kind.layer("neighbours"), *key).read_json("search.json")
        return _differing_rolls(key[0], made_of.get("rolls"), self._rolls(key[0], kind), "its index")

    def _pairs(self, key: Key, kind: Kind) -> str:
        found = self.lake.find(kind.layer("neighbours"), *key)
        if found is None:
            return "its neighbours are not there"
        made_of = self.lake.partition(kind.layer("pairs"), *key).read_json("scoring.json")
        return _differing_rolls(key[0], made_of.get("rolls"), found.read_json("search.json").get("rolls"), "neighbours")

    def _scores(self, key: Key, kind: Kind) -> str:
        pairs = self.lake.find(kind.layer("pairs"), *key)
        made_of = self.lake.partition(kind.layer("pair_quality"), *key).read_json("made_by.json")["pairs"]
        return "" if pairs is not None and pairs.data_version == made_of else "its pairs were mined again since"

    def _corpus(self, key: Key, kind: Kind) -> str:
        pairs = self.lake.find(kind.layer("pairs"), *key)
        if pairs is None:
            return "its pairs are not there"
        corpus = self.lake.partition(kind.layer("corpus"), *key).read_frame("corpus.parquet")
        rolls = [f"{side}_roll" for side in ("source", "target")]
        if corpus.is_empty() or not set(rolls) <= set(corpus.columns):
            return ""
        made_of = list(corpus.select(rolls).row(0))
        return _differing_rolls(key[0], made_of, pairs.read_json("scoring.json").get("rolls"), "pairs")


def roll_version(index: Partition, layout: Layout) -> str:
    """`Roll.version` of the roll that an index was made of, from its tables alone."""
    table = index.read_table("roll.parquet", layout.roll).select(layout.block, "data_version", "rows").rows()
    encoder = index.read_json("encoder.json")["encoder"]
    return hashlib.blake2b(repr((encoder, table)).encode(), digest_size=6).hexdigest()


def _over(lineage: Lineage, layer: str, compare: Callable[[Key], str]) -> Callable[[], list[Finding]]:
    return lambda: list(lineage.each(layer, compare))


def _differing(what: str, new: set[Any], gone: set[Any]) -> str:
    told = [f"{len(new)} {what} are new or changed ({_some(new)})"] if new else []
    return "; ".join(told + ([f"{len(gone)} are gone ({_some(gone)})"] if gone else []))


def _differing_rolls(pair: str, made_of: list[str] | None, now: list[str] | None, source: str) -> str:
    if made_of is None or now is None:
        return "it does not tell what it was made of"
    differ = [
        f"{language} ({source})"
        for language, one, other in zip(pair.split("-"), made_of, now, strict=True)
        if one != other
    ]
    return f"made of another roll of {', '.join(differ)}" if differ else ""


def _some(names: set[Any]) -> str:
    shown = sorted(map(str, names))
    return ", ".join(shown[:5]) + (", …" if len(shown) > 5 else "")


def _behind(layer: str, key: Key, differs: str) -> Finding:
    return Finding(
        "behind",
        layer,
        key,
        differs,
        "it is whole, and not what its sources would give now",
        f"materialize {asset_of(layer, key)}",
    )


def _mixed(language: str, encoders: set[str]) -> Finding:
    return Finding(
        "behind",
        "speech_embeddings",
        (language,),
        f"{len(encoders)} encoders made them: {', '.join(sorted(encoders))}",
        "the index refuses a mixture",
        f"materialize {language}/speech_embeddings of the audiobooks that are behind",
    )


def _not_listed(layer: str, key: Key) -> Finding:
    return Finding(
        "unlisted",
        layer,
        key,
        "the catalogue does not list it any more",
        "it is mined as before, and never fetched again",
        "`s2s gc --unused-partitions` removes it",
    )
