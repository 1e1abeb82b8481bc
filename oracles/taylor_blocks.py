"""Find the wrong blocks of a gradient: random projections on blocks, halved where the projection is wrong.

The error of a gradient along a direction is linear in the direction, so that of a block is the sum of those of its
halves: one measurement decides two of them. A projection on random numbers hides an error whose norm, weighted by the
direction, is r tolerances with a chance of about √(2/π) / r.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from oracles.rule import Array
from oracles.taylor_lines import Arrays, Line, Noise, short_slope

Region = Mapping[str, tuple[slice, ...]]  # by array, which part of it


@dataclass(frozen=True)
class Block:
    """A part of the parameters, and the error of the gradient along a random direction inside.

    Attributes:
        address: where it is, as code: ``params["W"][128:256]``.
        entries: how many numbers it has.
        error: ⟨∇f − g, v⟩, v being the direction inside the block.
        tolerance: how far truncation and rounding can move the error.
        claimed: ⟨g, v⟩.
        throughout: whether all quarters of it are wrong, so that it was not divided further.
    """

    address: str
    entries: int
    error: float
    tolerance: float
    claimed: float
    throughout: bool = False

    @property
    def is_wrong(self) -> bool:
        """Whether the error is none of truncation and rounding."""
        return abs(self.error) > self.tolerance


@dataclass(frozen=True)
class _Part:
    region: Region
    block: Block


@dataclass
class BlockSearch:
    """A search of blocks along one direction.

    Attributes:
        line_of: makes the line of a direction.
        direction: the direction; the same numbers are used in every block.
        step: a step at which differences along the whole direction converge.
        noise: the rounding of the function.
        smallest: blocks of so many numbers are not halved.
        pairs: how many pairs of values it may take.
        taken: how many it has taken.
    """

    line_of: Callable[[Arrays], Line]
    direction: Arrays
    step: float
    noise: Noise
    smallest: int
    pairs: int
    taken: int = 0
    extra: Callable[[Arrays], float] = field(default=lambda direction: 0.0)

    def whole(self, names: Sequence[str]) -> Region:
        """Return the region of whole arrays."""
        return {n: tuple(slice(0, extent) for extent in np.shape(self.direction[n])) for n in names}

    def can_measure(self) -> bool:
        """Return whether a pair of steps may still be taken."""
        return self.taken + 2 <= self.pairs

    def measured(self, region: Region) -> Block:
        """Return a block with its error, from two pairs of values."""
        part = self.part_of_direction(region)
        line = self.line_of(part)
        error, tolerance = short_slope(line, self.step, self.noise)
        self.taken += 2
        entries = sum(prod(s.stop - s.start for s in index) for index in region.values())
        return Block(self._address(region), entries, error, tolerance + self.extra(part), line.claimed)

    def part_of_direction(self, region: Region) -> dict[str, Array]:
        """Return the direction inside a region, and zeros in the rest of its arrays."""
        part = {}
        for n, index in region.items():
            part[n] = np.zeros(np.shape(self.direction[n]))
            part[n][index] = self.direction[n][index]
        return part

    def wrong_blocks(self, region: Region, known: Block) -> list[Block]:
        """Return the smallest blocks of a wrong region that are wrong, as far as the pairs reach.

        Args:
            region: the region.
            known: it with its error.
        """
        found: list[Block] = []
        pending = [(-abs(known.error), 0, _Part(region, replace(known, address=self._address(region))))]
        count = 0
        while pending:
            _, _, part = heapq.heappop(pending)
            children, throughout = self._wrong_parts(part)
            if not children:
                found.append(replace(part.block, throughout=throughout))
            for child in children:
                count += 1
                heapq.heappush(pending, (-abs(child.block.error), count, child))
        return sorted(found, key=lambda block: block.address)

    def _wrong_parts(self, part: _Part) -> tuple[list[_Part], bool]:
        """Return the wrong ones of the halves of a part; none if it is wrong throughout, or cannot be divided."""
        if len(part.region) > 1:
            names = list(part.region)
            halves = [{n: part.region[n] for n in names[i:j]} for i, j in _cut(len(names))]
            return self._wrong_of(part, halves) if self.can_measure() else [], False
        ((name, index),) = part.region.items()
        extents = [s.stop - s.start for s in index]
        axes = sorted((a for a, extent in enumerate(extents) if extent > 1), key=lambda a: -extents[a])
        if part.block.entries <= self.smallest:
            return [], False
        first: list[_Part] = []
        for axis in axes:
            if not self.can_measure():
                return first, False
            wrong = self._wrong_of(part, _halves(name, index, axis))
            if len(wrong) < 2:
                return wrong, False
            first = first or wrong
        if not first or not self._is_wrong_throughout(first):
            return first, False
        return [], True

    def _wrong_of(self, part: _Part, halves: Sequence[Region]) -> list[_Part]:
        one = self.measured(halves[0])
        rest = replace(
            one,
            address=self._address(halves[1]),
            entries=part.block.entries - one.entries,
            error=part.block.error - one.error,
            tolerance=part.block.tolerance + one.tolerance,
            claimed=part.block.claimed - one.claimed,
        )
        return [_Part(r, b) for r, b in zip(halves, (one, rest), strict=True) if b.is_wrong]

    def _is_wrong_throughout(self, halves: Sequence[_Part]) -> bool:
        """Return whether both halves of both halves are wrong, along the longest axis."""
        for half in halves:
            ((name, index),) = half.region.items()
            extents = [s.stop - s.start for s in index]
            if max(extents) < 2 or not self.can_measure():
                return True
            if len(self._wrong_of(half, _halves(name, index, extents.index(max(extents))))) < 2:
                return False
        return True

    def _address(self, region: Region) -> str:
        names = list(region)
        if len(names) > 1:
            return f"{names[0]} … {names[-1]} ({len(names)} arrays)"
        shape = np.shape(self.direction[names[0]])
        steps = [
            ":" if s == slice(0, extent) else f"{s.start}:{s.stop}" if s.stop - s.start > 1 else str(s.start)
            for s, extent in zip(region[names[0]], shape, strict=True)
        ]
        while steps and steps[-1] == ":":
            steps.pop()
        return names[0] + (f"[{', '.join(steps)}]" if steps else "")


def _cut(count: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, count // 2), (count // 2, count)


def _halves(name: str, index: tuple[slice, ...], axis: int) -> list[Region]:
    """Return the two halves of a part of an array along an axis."""
    start, stop = index[axis].start, index[axis].stop
    middle = start + (stop - start) // 2
    return [{name: (*index[:axis], slice(*ends), *index[axis + 1 :])} for ends in ((start, middle), (middle, stop))]
