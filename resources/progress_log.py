"""Progress in Dagster's log: which partition, how far, of what.

What belongs here is how often a line is written. Who tells is the library, by `speech_mining.progress`.
"""

import dagster as dg

from speech_mining.progress import Progress


def telling(context: dg.AssetExecutionContext, what: str, *, parts: int | None = None) -> Progress:
    """Log lines of the step's partition.

    Args:
        context: of the step; it has a partition.
        what: the unit, such as updates.
        parts: a line at every such part of the work, such as 20 for every twentieth; None: whenever it is told.
    """
    told = -1

    def tell(done: int, total: int, /) -> None:
        nonlocal told
        part = told + 1 if parts is None else parts * done // max(total, 1)
        if part > told:
            told = part
            context.log.info(f"{context.partition_key}: {done} of {total} {what}")

    return tell
