"""What TorchScript compiles where it finds an audited function of torch: a call of the original."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oracles.lazy_modules import Tensor

# TorchScript reads the text of these functions, whose parameters are those of the original. It knows what a Tensor is,
# where no name of this module says another thing.


def scriptable(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that TorchScript can compile, and that calls a comparison of torch.

    Raises:
        KeyError: for another function.
    """
    return _SCRIPTABLE[original.__name__](original)


def _allclose(original: Callable[..., Any]) -> Callable[..., Any]:
    def allclose(
        input: Tensor, other: Tensor, rtol: float = 1e-05, atol: float = 1e-08, equal_nan: bool = False
    ) -> bool:
        return original(input, other, rtol, atol, equal_nan)  # type: ignore[no-any-return]

    return allclose


def _equal(original: Callable[..., Any]) -> Callable[..., Any]:
    def equal(input: Tensor, other: Tensor) -> bool:
        return original(input, other)  # type: ignore[no-any-return]

    return equal


_SCRIPTABLE = {"allclose": _allclose, "equal": _equal}
