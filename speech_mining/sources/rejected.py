"""A thing that is listed and cannot be used: data with a reason, on its way to a table of rejections."""

from __future__ import annotations

from speech_mining.records import RejectionReason


class RejectedError(Exception):
    """Raised where something is read, and caught where it is counted; a user never meets it.

    Args:
        reason: what the rejection is called.
        detail: what was met, for people.
    """

    def __init__(self, reason: RejectionReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail
