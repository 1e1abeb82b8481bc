"""Extents of drawn axes: mostly short, and in some examples of a search one or two long ones, of a boundary size.

Code that works in blocks of 32, 64, 128 … entries is wrong one entry before or behind a block, and only there. Random
sizes rarely hit such a size, so a search goes through all of them by a schedule. Cases draw their shapes in the user's
code, with `rows` and `widths`; while a search draws a case, these two look up whether their call is one of the long
ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from oracles.constants import LADDER_POWERS, LONG_PRODUCT, MAX_EXTENT, POINTS_PER_CASE, TILED_SHARE
from oracles.lazy_modules import LazyModule
from oracles.options import LEAST_BLOCK
from oracles.rule import InvalidInput

if TYPE_CHECKING:
    from hypothesis import strategies as st
else:  # a check draws nothing with Hypothesis
    st = LazyModule("hypothesis.strategies")

# The sizes around a block b, in the order in which a search goes through them: one entry into the second tile, and two
# whole tiles, first. A half of a last tile is no power of two, and near none unless the block is one.
AROUND_A_BLOCK: tuple[Callable[[int], int], ...] = (
    lambda b: b + 1,
    lambda b: 2 * b,
    lambda b: b,
    lambda b: b + (b + 1) // 2,
    lambda b: b - 1,
    lambda b: 2 * b + 1,
)
# The least extent that counts as long.
FIRST_LONG = 2 ** LADDER_POWERS[0] - 1


def widths(most: int | None = None, *, blocks: Sequence[int] = ()) -> st.SearchStrategy[int]:
    """Draw the extent of an axis of features: 1 … 8, and in some examples of a search a boundary size up to 1,025.

    Args:
        most: the largest extent; with it, no axis is longer.
        blocks: the block sizes of this axis; `tile_sizes` of them are drawn too. `Case.blocks` are those of every axis.

    Returns:
        The strategy.

    Raises:
        InvalidInput: if ``most`` is below 2.
    """
    _require_several("widths", most)
    return _extents(st.integers(1, most or MAX_EXTENT), most, blocks)


def rows(most: int | None = None, *, blocks: Sequence[int] = ()) -> st.SearchStrategy[int]:
    """Draw a number of rows, as `widths` does, and in a sixth of the draws 0, the empty batch; shrinks to 1.

    Args:
        most, blocks: as in `widths`.

    Returns:
        The strategy.

    Raises:
        InvalidInput: as in `widths`.
    """
    _require_several("rows", most)
    longest = most or MAX_EXTENT
    # Not by `one_of`: in a short run Hypothesis may take one of its branches nearly always.
    short = st.integers(1, longest + -(-longest // 5)).map(lambda n: n if n <= longest else 0)
    return _extents(short, most, blocks)


def _require_several(where: str, most: object) -> None:
    """Require a largest extent of which a search learns something: of one entry, no sum and no order is wrong.

    Raises:
        InvalidInput: if it is below 2.
    """
    if most is not None and (not isinstance(most, int) or most < 2):
        raise InvalidInput(
            f"{where}: most: expected the largest extent of the axis, at least 2, got {most!r}.\n"
            f"Fix:    {where}()      # from 1 on; an axis that always has one entry is a 1 in the shape: real(1, n)"
        )


def _extents(short: st.SearchStrategy[int], most: int | None, blocks: Sequence[int]) -> st.SearchStrategy[int]:
    if most is not None and most < FIRST_LONG and not blocks:
        return short  # no long axis fits
    return short.map(lambda extent: _extent(extent, most, tuple(blocks)))


@dataclass(frozen=True)
class LongAxes:
    """Which calls of `rows` and `widths` in one case give long axes: pairs of a call's number and an extent."""

    extents: tuple[tuple[int, int], ...] = ()

    def parts(self) -> Iterator[LongAxes]:
        """Return these axes, then each of them alone."""
        yield self
        if len(self.extents) > 1:
            yield from (LongAxes((each,)) for each in self.extents)


SHORT = LongAxes()


@dataclass
class Calls:
    """The calls of `rows` and `widths` while one case is drawn.

    Attributes:
        long: which of them give long axes.
        number: how many there were.
        blocks: the block sizes of each call that declares some, by the call's number.
    """

    long: LongAxes = SHORT
    number: int = 0
    blocks: dict[int, tuple[int, ...]] = field(default_factory=dict)


_CALLS: ContextVar[Calls | None] = ContextVar("calls", default=None)


def _extent(short: int, most: int | None, blocks: tuple[int, ...]) -> int:
    """Return the extent of this call: the drawn one, unless the call gives a long axis that is allowed."""
    calls = _CALLS.get()
    if calls is None:
        return short
    call, calls.number = calls.number, calls.number + 1
    if blocks:
        calls.blocks[call] = blocks
    # An empty batch would hide whatever the other, long axis shows.
    extent = dict(calls.long.extents).get(call, max(short, 1) if calls.long.extents else short)
    return extent if most is None or extent <= most else short


@contextmanager
def drawing(long: LongAxes) -> Iterator[Calls]:
    """Make the calls of `rows` and `widths` inside the block give these long axes, and count them."""
    calls = Calls(long)
    token = _CALLS.set(calls)
    try:
        yield calls
    finally:
        _CALLS.reset(token)


def restart_calls() -> None:
    """Count the calls from 0 again: a filter has rejected a case, and another one is drawn."""
    calls = _CALLS.get()
    if calls is not None:
        calls.number = 0


def boundary_sizes(summands: Sequence[int] = (-1, 0, 1)) -> list[int]:
    """Return the powers of two plus each summand, in increasing order."""
    return [2**power + summand for power in range(*LADDER_POWERS) for summand in summands]


def require_blocks(where: str, blocks: object) -> tuple[int, ...]:
    """Return the sizes of blocks as a tuple.

    Raises:
        ValueError: if they are no whole numbers of at least `LEAST_BLOCK`.
    """
    sizes = tuple(blocks) if isinstance(blocks, Sequence) and not isinstance(blocks, str) else (None,)
    if not all(isinstance(size, int) and size >= LEAST_BLOCK for size in sizes):
        raise ValueError(
            f"{where}: blocks: expected whole numbers of at least {LEAST_BLOCK}, got {blocks!r}.\n"
            "Fix:    blocks=(64, 128)"
        )
    return sizes


def tile_sizes(blocks: Sequence[int]) -> list[int]:
    """Return the extents around blocks and their multiples: b − 1, b, b + 1, 1.5 b, 2 b, 2 b + 1."""
    sizes = (around(block) for around in AROUND_A_BLOCK for block in blocks)
    return list(dict.fromkeys(size for size in sizes if size > 0))


def ladder(axes: int, blocks: dict[int, tuple[int, ...]], tiles: Sequence[int] = ()) -> Iterator[LongAxes]:
    """Return the long axes of the examples of a search, in their order, for cases of so many axes that can be long.

    Sizes around blocks come first, on one axis at a time. Then, where the product stays small, two axes are long at a
    time, one at an increasing and one at a decreasing size.

    Args:
        axes: the number of axes.
        blocks: the blocks of single axes, by the axis.
        tiles: the blocks of all axes.
    """
    around = {call: tile_sizes((*blocks.get(call, ()), *tiles)) for call in {*blocks, *(range(axes) if tiles else ())}}
    for i in range(max(map(len, around.values()), default=0)):
        yield from (LongAxes(((call, sizes[i]),)) for call, sizes in sorted(around.items()) if i < len(sizes))
    for summand in (1, 0, -1):
        sizes = boundary_sizes((summand,))
        together = sizes[: next(n for n, size in enumerate(sizes) if size * sizes[0] > LONG_PRODUCT)]
        for first in range(0, axes, 2):
            pair = (first, first + 1)[: axes - first]
            for one, other in zip(together, reversed(together), strict=True):
                yield LongAxes(tuple(zip(pair, (one, other), strict=False)))
            yield from (LongAxes(((call, size),)) for size in sizes[len(together) :] for call in pair)


@dataclass(frozen=True)
class Slot:
    """One example of a search.

    Attributes:
        points: at how many points its case is judged.
        long: its long axes.
    """

    points: int = POINTS_PER_CASE
    long: LongAxes = SHORT


class Schedule:
    """Distributes the points of a search over its examples: first cases of short axes alone, then the ladder.

    Hypothesis chooses at random, and so few examples would miss most sizes. Therefore each example draws a ticket, and
    each new ticket takes the next slot. A ticket keeps its slot, so the same choices always give the same example. The
    ticket of zeros, to which Hypothesis shrinks, has short axes.
    """

    def __init__(self, points: int, share: float, tiles: Sequence[int] = ()) -> None:
        """Distribute so many points; this share of them has long axes, also around the blocks of ``tiles``."""
        self._total, self._tiled_share = points, share + TILED_SHARE
        self._distribute(self._tiled_share if tiles else share)
        self._slots: dict[bytes, Slot] = {}
        self._axes, self._blocks = 0, dict[int, tuple[int, ...]]()
        self._tiles = dict.fromkeys(tiles)
        self._ladder: Iterator[LongAxes] = iter(())
        self.searching = True

    @property
    def examples(self) -> int:
        """The number of examples."""
        return len(self._points)

    def _distribute(self, share: float) -> None:
        """Give examples of short axes several points each, and those of long axes, this share of the points, one."""
        number_long = int(share * self._total)
        short, rest = divmod(self._total - number_long, POINTS_PER_CASE)
        self._points = [POINTS_PER_CASE] * short + ([rest] if rest else []) + [1] * number_long
        self._first_long = len(self._points) - number_long

    def take(self, ticket: bytes) -> tuple[Slot, bool]:
        """Return the slot of a ticket, and whether it is taken for the first time."""
        if ticket in self._slots:
            return self._slots[ticket], False
        taken, slot = len(self._slots), Slot()
        if self.searching and taken < self.examples:
            slot = Slot(self._points[taken])
            if taken >= self._first_long:
                slot = replace(slot, long=self._next_long())
        if not any(ticket):  # whatever is found later shrinks to this one, at whichever of its points
            slot = Slot()
        self._slots[ticket] = slot
        return slot, True

    def any_axes(self) -> st.SearchStrategy[LongAxes]:
        """Return a strategy that draws short axes, or long ones of the ladder, as Hypothesis chooses."""
        long = list(ladder(self._axes, self._blocks, tuple(self._tiles)))
        return st.one_of(st.just(SHORT), st.sampled_from(long)) if long else st.just(SHORT)

    def learn(self, calls: Calls, tiles: Sequence[int] = ()) -> None:
        """Learn from a drawn case how many axes can be long, and the blocks that it declares."""
        share = self._tiled_share
        if tiles and not self._tiles and len(self._slots) * POINTS_PER_CASE <= (1 - share) * self._total:
            self._distribute(share)  # there are more sizes to be tried than without tiles
        self._tiles.update(dict.fromkeys(tiles))
        self._axes = max(self._axes, calls.number)
        self._blocks.update(calls.blocks)

    def _next_long(self) -> LongAxes:
        long = next(self._ladder, None)
        if long is None:  # the first time, or all sizes are done: from the beginning
            self._ladder = ladder(self._axes, self._blocks, tuple(self._tiles))
            long = next(self._ladder, SHORT)
        return long


def shorter(long: LongAxes) -> list[LongAxes]:
    """Return the axes among which the smallest failing ones are looked for: from short axes to the given ones."""
    singles = [LongAxes(((call, size),)) for size in boundary_sizes() for call, most in long.extents if size < most]
    return [SHORT, *singles, *reversed(list(long.parts()))]
