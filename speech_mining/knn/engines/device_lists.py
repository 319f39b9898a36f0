"""Running lists of the best candidates on a device, and how a tile of products is folded into them.

Torch operations only, the same ones on a GPU and on a CPU. What belongs here is the arithmetic of the lists; in what
order tiles come, and what overlaps what, is in `cuda`.

A list takes a handful of the millions of products it is shown. To find them without comparing every product twice with
a floor, each tile is first reduced to the maxima of groups of `GROUP` products, once along its rows and once along its
columns: two passes that only read. Floors are then compared with maxima, a 32nd of the tile, and the few groups that
exceed one are looked into.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from speech_mining.knn.products import bands
from speech_mining.knn.toplists import Floors, Keys, TopLists

GROUP = 32
"""Products that share a maximum. Groups are strided, so that reducing them reads memory in order in both directions."""
GROUPS_AT_ONCE = 1 << 17
"""Groups that are looked into together; where all products are alike, all groups are, and memory has to hold."""
HIT_BYTES = 96
"""What one product of a group that is looked into may take, in all temporary tensors together."""
LISTS_AT_ONCE = 1 << 13
"""Lists that are cut, or copied from or to the host, together: copies of all of them would not fit beside them."""
SPARE = 64
"""Room beyond what is kept, so that a list is cut once in many tiles: a cut sorts, an append does not."""

_VACANT = torch.iinfo(torch.int64).min
"""Less than any key: what an unused place holds."""
_LAST = 0x7FFFFFFF
"""The lower half of a key is this, less the row."""


@dataclass(frozen=True, eq=False)
class DeviceLists:
    """`TopLists` on a device: the same keys, with vacant places marked, and with floors of the same meaning."""

    keys: torch.Tensor
    """int64 (n, most + 1): the first `counts` of a row are in use, then come vacant ones; the last takes overflow."""
    counts: torch.Tensor
    """int64 (n,)."""
    floors: torch.Tensor
    """float32 (n,): whatever was not taken has a value of at most this."""
    kept: int
    """Candidates a full list is cut to."""

    @classmethod
    def load(cls, lists: TopLists, rows: slice, device: torch.device) -> DeviceLists:
        """Copy some rows' lists to a device."""
        size = rows.stop - rows.start, places(lists)
        keys = torch.full(size, _VACANT, dtype=torch.int64, device=device)
        counts = torch.zeros(size[0], dtype=torch.int64, device=device)
        loaded = cls(keys, counts, torch.zeros(size[0], device=device), lists.kept)
        for piece in bands(size[0], LISTS_AT_ONCE):
            loaded.part(piece)._copy(*lists.part(slice(rows.start + piece.start, rows.start + piece.stop)))
        return loaded

    def _copy(self, keys: Keys, counts: npt.NDArray[np.int32], floors: Floors) -> None:
        used = int(counts.max(initial=0))
        beyond = np.arange(used) >= counts[:, None]
        self.keys[:, :used] = torch.from_numpy(np.where(beyond, _VACANT, keys[:, :used])).to(self.keys.device)
        self.counts.copy_(torch.from_numpy(counts.copy()))
        self.floors.copy_(torch.from_numpy(floors.copy()))

    def unload(self, lists: TopLists, rows: slice) -> None:
        """Cut the lists and copy them back to where they came from."""
        self._cut((self.counts > self.kept).nonzero().flatten())
        for piece in bands(len(self.counts), LISTS_AT_ONCE):
            own, place = self.part(piece), slice(rows.start + piece.start, rows.start + piece.stop)
            keys, counts, floors = lists.part(place)
            used = min(self.kept, keys.shape[1])
            keys[:, :used] = own.keys[:, :used].cpu().numpy()
            counts[:] = own.counts.cpu().numpy()
            floors[:] = own.floors.cpu().numpy()

    def part(self, rows: slice) -> DeviceLists:
        """Views of some rows."""
        return DeviceLists(self.keys[rows], self.counts[rows], self.floors[rows], self.kept)

    def start(self, maxima: torch.Tensor) -> None:
        """Raise floors to just below the least of the `kept` largest maxima of groups, if there are so many.

        That many products exceed such a floor, so a list that starts from it still fills; without it, all products of
        the first tile would enter.

        Args:
            maxima: (n, groups), in the type of the products; changed by nobody.
        """
        if maxima.shape[1] < self.kept:
            return
        least = maxima.topk(self.kept, dim=1, sorted=False).values.amin(1).float()
        torch.maximum(self.floors, torch.nextafter(least, least.new_full((), -torch.inf)), out=self.floors)

    def fold(self, groups: torch.Tensor, maxima: torch.Tensor, offset: int) -> None:
        """Take what exceeds the floors.

        Args:
            groups: products (n, GROUP, g), float16 or float32, of any strides; member s of group c is the product with
                candidate `offset + s * g + c`. Minus infinity stands where there is no candidate.
            maxima: (n, g), the maximum of each group.
            offset: number of the first candidate.
        """
        found = (maxima > self.floors[:, None]).nonzero()
        for some in torch.split(found, GROUPS_AT_ONCE):
            lists, group = some.unbind(1)
            values = groups[lists, :, group]
            hits, member = (values > self.floors[lists, None]).nonzero().unbind(1)
            candidates = offset + member * groups.shape[2] + group[hits]
            self.offer(lists[hits], values[hits, member].float(), candidates)

    def offer(self, lists: torch.Tensor, values: torch.Tensor, candidates: torch.Tensor) -> None:
        """Append candidates above their list's floor; full lists are cut, and what found no place is offered again.

        Args:
            lists: int64 (h,), ascending: the list of each candidate.
            values: float32 (h,).
            candidates: int64 (h,), their rows on the other side.
        """
        most = self.keys.shape[1] - 1
        while len(lists):
            rank = torch.arange(len(lists), device=lists.device) - torch.searchsorted(lists, lists)
            place = self.counts[lists] + rank
            self.keys[lists, place.clamp(max=most)] = keys_of(values, candidates)
            self.counts.scatter_add_(0, lists, torch.ones_like(lists)).clamp_(max=most)
            self._cut((self.counts == most).nonzero().flatten())
            left = ((place >= most) & (values > self.floors[lists])).nonzero().flatten()
            lists, values, candidates = lists[left], values[left], candidates[left]

    def _cut(self, lists: torch.Tensor) -> None:
        """Leave the best of some lists that hold more than is kept; floors rise to the least value left."""
        for some in torch.split(lists, LISTS_AT_ONCE):
            held = self.keys[some]
            held[:, -1] = _VACANT
            best = held.topk(self.kept, dim=1, sorted=False).values
            held.fill_(_VACANT)[:, : self.kept] = best
            self.keys[some] = held
            self.counts[some] = self.kept
            self.floors[some] = torch.maximum(self.floors[some], values_of(best.amin(1)))


def places(lists: TopLists) -> int:
    """Places that a row's list has on the device."""
    return max(lists.kept + SPARE, int(lists.keys.shape[1])) + 1


def keys_of(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Candidates as `kernels.key_of` makes them of float32 values and int64 rows."""
    return _turned(values.view(torch.int32)).long() * (1 << 32) + (_LAST - rows)


def values_of(keys: torch.Tensor) -> torch.Tensor:
    """The float32 values of candidates."""
    return _turned((keys >> 32).int()).view(torch.float32)


def _turned(bits: torch.Tensor) -> torch.Tensor:
    """From the bits of float32 to int32 of the same order, and back again (`kernels.ordered`)."""
    return bits ^ ((bits >> 31) & _LAST)
