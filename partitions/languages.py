"""Languages: a one-key partition set each, so that built-in mappings reach from a language to its pairs.

Language codes are ISO 639-3. Asset keys of a language's layers are `[language, layer]`.
"""

from __future__ import annotations

import dagster as dg


def layer(language: str, name: str) -> dg.AssetKey:
    """The key of a layer of a language, such as `deu/segments`."""
    return dg.AssetKey([language, name])


def language_partition(language: str) -> dg.StaticPartitionsDefinition:
    """The set whose one key is the language itself.

    An asset of the whole language has this set and no plain lack of partitions, because the built-in
    `StaticPartitionMapping` can then lead from it to exactly the language's pairs; the daemon drops custom mappings.
    """
    return dg.StaticPartitionsDefinition([language])
