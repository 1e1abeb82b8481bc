"""The comparisons that are audited: whose functions they are, their operands and their tolerances."""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from oracles.audit.torchscript import scriptable

Named: TypeAlias = Mapping[str, Any]
# The tolerance of an entry, given the arguments by name, the largest expected magnitude and the dtype.
Tolerance: TypeAlias = Callable[[Named, float, str], float]


class Comparison(NamedTuple):
    """A function that compares two arrays, and how it is called again.

    ``modules`` are those in which it is replaced. ``parameters`` are the names of its arguments in their order, the
    actual and the expected operand first. ``quiet`` are arguments without which a refusal would format both arrays.
    ``raises`` is whether a refusal is an exception, rather than a false result. A sample of the entries may be
    compared in place of all (``may_sample``).
    """

    modules: tuple[str, ...]
    name: str
    parameters: tuple[str, ...]
    tolerance: Tolerance
    quiet: Named = types.MappingProxyType({})
    raises: bool = True
    may_sample: bool = True

    def named(self, args: tuple[Any, ...], kwargs: Named) -> dict[str, Any]:
        """Return the arguments by their names."""
        return {**dict(zip(self.parameters, args, strict=False)), **kwargs}


class Composite(NamedTuple):
    """A function that compares gradients by one of `COMPARISONS`, which sees the analytical gradient itself.

    ``part`` is the name of that comparison, ``caller`` the package that calls it, ``is_gradient`` whether the
    arguments are those of a comparison of gradients.
    """

    modules: tuple[str, ...]
    name: str
    part: str
    caller: str
    is_gradient: Callable[[tuple[Any, ...], Named], bool]


def _relative(rtol: float, atol: float) -> Tolerance:
    def tolerance(named: Named, scale: float, dtype: str) -> float:
        return float(named.get("rtol", rtol) * scale + named.get("atol", atol))

    return tolerance


def _decimals(default: int) -> Tolerance:
    return lambda named, scale, dtype: 1.5 * 10.0 ** -named.get("decimal", default)


def _exact(named: Named, scale: float, dtype: str) -> float:
    return 0.0


# The defaults of torch.testing.assert_close, as its documentation has them.
_OF_DTYPE = {"float16": (1e-3, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7),
             "complex64": (1.3e-6, 1e-5), "complex128": (1e-7, 1e-7)}  # fmt: skip


def _by_dtype(named: Named, scale: float, dtype: str) -> float:
    rtol, atol = named.get("rtol"), named.get("atol")
    if rtol is None or atol is None:
        rtol, atol = _OF_DTYPE.get(dtype, (0.0, 0.0))
    return float(rtol * scale + atol)


def _approx(named: Named, scale: float, dtype: str) -> float:
    relative, absolute = named.get("rel"), named.get("abs")
    if relative is None:
        relative = 1e-6 if absolute is None else 0.0
    return float(max(relative * scale, 1e-12 if absolute is None else absolute))


_TESTING, _QUIET = ("numpy.testing",), {"verbose": False}
COMPARISONS = (
    Comparison(_TESTING, "assert_allclose", ("actual", "desired", "rtol", "atol"), _relative(1e-7, 0), _QUIET),
    Comparison(_TESTING, "assert_array_almost_equal", ("actual", "desired", "decimal"), _decimals(6), _QUIET),
    Comparison(_TESTING, "assert_almost_equal", ("actual", "desired", "decimal"), _decimals(7), _QUIET),
    Comparison(_TESTING, "assert_array_equal", ("actual", "desired"), _exact, _QUIET),
    Comparison(_TESTING, "assert_equal", ("actual", "desired"), _exact, _QUIET),
    Comparison(("numpy",), "allclose", ("a", "b", "rtol", "atol"), _relative(1e-5, 1e-8), raises=False),
    Comparison(("numpy",), "isclose", ("a", "b", "rtol", "atol"), _relative(1e-5, 1e-8), raises=False),
    Comparison(("numpy",), "array_equal", ("a1", "a2"), _exact, raises=False),
    Comparison(("torch",), "allclose", ("input", "other", "rtol", "atol"), _relative(1e-5, 1e-8), raises=False),
    Comparison(("torch",), "equal", ("input", "other"), _exact, raises=False),
    Comparison(("torch.testing",), "assert_close", ("actual", "expected"), _by_dtype, {"msg": "refused"}),
)
# Its `==` compares. The expected operand is inside, so all entries are compared.
APPROX = Comparison(("pytest",), "approx", ("actual", "expected"), _approx, raises=False, may_sample=False)
COMPOSITES = (
    # Other comparisons inside, of undefined and of batched gradients, state no tolerances of their own.
    Composite(
        ("torch.autograd.gradcheck", "torch.autograd"), "gradcheck", "allclose", "torch.autograd",
        lambda args, named: len(args) == 4 or "rtol" in named,
    ),
    # The outputs are compared too: "primal".
    Composite(
        ("jax.test_util",), "check_grads", "assert_allclose", "jax",
        lambda args, named: not str(named.get("err_msg", "")).endswith("primal"),
    ),
)  # fmt: skip


def roundings(comparison: Comparison, named: Named, scale: float, dtype: str, rounding: float) -> float | None:
    """Return the tolerance at the largest entry in units of its rounding, u·|expected|; ``None`` where that is 0."""
    if not rounding or not scale:
        return None
    value = comparison.tolerance(named, scale, dtype) / (rounding * scale)
    return value if math.isfinite(value) else None


def accepts(comparison: Comparison, call: Callable[[], object]) -> bool:
    """Return whether a repeated comparison accepts.

    Raises:
        Exception: whatever it raises, besides AssertionError.
    """
    try:
        result = call()
    except AssertionError:
        return False
    return comparison.raises or is_true(result)


def is_true(result: object) -> bool:
    """Return whether a comparison accepts, given its result: a truth value, or one for each entry."""
    return isinstance(result, bool | np.generic | np.ndarray) and bool(np.all(result))


class Replacement:
    """Stands for a built-in function of torch, ``torch.allclose`` or ``torch.equal``: equal to it, and shown as it.

    torch hands the original to ``__torch_function__``. Who looks up what to do for ``torch.allclose`` in a dict finds
    it under this one. TorchScript, which must find a function, finds one that calls the original.
    """

    def __init__(self, original: Callable[..., Any], call: Callable[..., Any]) -> None:
        functools.update_wrapper(self, original)
        self._original, self._call = original, call

    @property
    def __class__(self) -> Any:
        return types.FunctionType

    @__class__.setter
    def __class__(self, other: type) -> None:
        raise TypeError("the type of a function stays")

    def __prepare_scriptable__(self) -> Callable[..., Any]:
        return scriptable(self._original)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function that compares and audits."""
        __tracebackhide__ = True
        return self._call(*args, **kwargs)

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._original

    def __hash__(self) -> int:
        return hash(self._original)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_original"], name)

    def __repr__(self) -> str:
        return repr(self._original)

    def __reduce__(self) -> str:
        return str(self._original.__name__)
