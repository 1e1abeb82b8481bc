"""Keep the state of the process: what a subject changes in it is put back, and the subject cannot end the process.

`judging` encloses a whole judgement, `call_foreign` each call of somebody's code. NumPy's error state, torch's default
dtype and grad mode, and the functions that the judge computes with are put back after each call, before the judge
computes with them. Random states, the working directory, the environment and the like are put back at the end. They are
not put back in between, where a subject that draws from them would seem to repeat itself.
"""

from __future__ import annotations

import decimal
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import itemgetter
from types import ModuleType
from typing import Any, NamedTuple, NoReturn, TypeAlias, TypeVar

import numpy as np

T = TypeVar("T")
State: TypeAlias = Any  # a state as its owner returns it, which is handed back to it and never looked into


class ProcessEnded(RuntimeError):
    """The code under judgement tried to end the process; ``__cause__`` is the SystemExit, where it raised one."""


class ReplacedFunction(RuntimeError):
    """The code under judgement replaced a function that the judge computes with."""


# The functions that the judge and its references compute with, by module. tests/judge/test_process_state.py compares
# NumPy's with the source.
COMPUTED_WITH: Mapping[str, Sequence[str]] = {
    "numpy": tuple(
        """
        abs absolute add all any append arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin
        argsort argwhere array array2string array_equal array_split asanyarray asarray ascontiguousarray asfortranarray
        atleast_1d bincount bitwise_and bitwise_or bitwise_xor broadcast_shapes broadcast_to cbrt ceil choose clip
        concatenate conjugate copysign copyto cos cosh count_nonzero cumsum diff divide dot einsum empty equal errstate
        exp exp2 expand_dims expm1 eye flatnonzero flip floor floor_divide fmax fmod frexp frombuffer frompyfunc full
        full_like get_printoptions geterr greater greater_equal imag indices invert iscomplexobj isfinite isin isinf
        isnan ix_ ldexp left_shift less less_equal lexsort linspace load log log1p log2 logaddexp logical_not matmul max
        maximum may_share_memory mean median min minimum moveaxis multiply nan_to_num ndim negative nextafter nonzero
        not_equal ones ones_like pad partition positive power prod ptp ravel real require reshape resize result_type
        right_shift rint roll round savez searchsorted set_printoptions shape shares_memory sign signbit sin sinh size
        sort sqrt square stack subtract sum swapaxes take take_along_axis tan tanh tile transpose tril triu trunc unique
        unravel_index vdot vstack where zeros zeros_like
    """.split()  # noqa: SIM905
    ),
    "numpy.linalg": ("lstsq", "norm", "solve", "qr", "svd"),
    "numpy.random": ("default_rng",),
    "builtins": ("abs", "all", "any", "bool", "float", "isinstance", "len", "max", "min", "sorted", "sum", "zip"),
    "torch": (
        "as_tensor", "empty_like", "enable_grad", "from_numpy", "mul", "ones_like", "tensor", "zeros", "zeros_like",
    ),
    "torch.autograd": ("backward", "grad"),
    "jax": ("jit", "jvp", "linearize", "make_jaxpr", "vjp"),
}  # fmt: skip


class _Functions:
    """The functions of one module as they were when this process first judged."""

    def __init__(self, module: ModuleType, names: Sequence[str]) -> None:
        self.names = tuple(name for name in names if name in vars(module))
        self.namespace = vars(module)
        self.read = itemgetter(*self.names, *self.names[:1])  # two names at least, so that it returns a tuple
        self.originals = self.read(self.namespace)

    def replaced(self) -> dict[str, object]:
        """Return the present values of the names that are bound to something else by now."""
        if self.read(self.namespace) == self.originals:
            return {}
        pairs = zip(self.names, self.originals, strict=False)
        return {name: self.namespace[name] for name, original in pairs if self.namespace[name] is not original}

    def put_back(self, names: Mapping[str, object]) -> None:
        """Bind names to the original functions."""
        self.namespace.update({n: f for n, f in zip(self.names, self.originals, strict=False) if n in names})


_FUNCTIONS: dict[str, _Functions] = {}


def _record_functions() -> None:
    """Record the functions of the modules that are loaded and were not recorded before."""
    for name, names in COMPUTED_WITH.items():
        module = sys.modules.get(name)
        if name not in _FUNCTIONS and module is not None and hasattr(module, names[-1]):
            _FUNCTIONS[name] = _Functions(module, names)


_record_functions()


class _Judgement(NamedTuple):
    """Who judges at present."""

    pid: int
    thread: int


_judgement: _Judgement | None = None


def call_foreign(function: Callable[..., T], /, *args: object, **named: object) -> T:
    """Call somebody's code, and put back what it changed of the judge's own arithmetic.

    Raises:
        ProcessEnded: if it raises SystemExit, or another exception that is no `Exception`, or tries to end the process.
        ReplacedFunction: if it replaced a function of `COMPUTED_WITH`, which is put back.
        Exception: whatever it raises; KeyboardInterrupt and the exceptions by which pytest and Hypothesis steer a run.
    """
    torch = sys.modules.get("torch")
    modes = _torch_modes(torch) if torch is not None else None
    try:
        with np.errstate():  # without arguments: what np.seterr changes inside ends with the block
            return function(*args, **named)
    except BaseException as error:
        if isinstance(error, Exception | KeyboardInterrupt) or steers_a_run(error):
            raise
        raise ProcessEnded(f"raised {type(error).__name__}: {error}") from error
    finally:
        if torch is not None and modes != _torch_modes(torch):
            _set_torch_modes(torch, modes)
        if _judgement is not None:
            _require_functions()


def steers_a_run(error: BaseException) -> bool:
    """Return whether pytest, Hypothesis or an event loop steers a run by an exception: it is not the subject's."""
    # Of all bases: pytest says of `Failed` itself that it is a builtin.
    packages = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return not packages.isdisjoint(("_pytest", "pytest", "hypothesis", "asyncio", "trio", "anyio"))


def _torch_modes(torch: ModuleType) -> tuple[object, ...]:
    try:
        return torch.get_default_dtype(), torch.is_grad_enabled()
    except AttributeError:  # it is being imported by another thread
        return ()


def _set_torch_modes(torch: ModuleType, modes: tuple[Any, ...] | None) -> None:
    if modes:
        torch.set_default_dtype(modes[0])
        torch.set_grad_enabled(modes[1])


def _require_functions() -> None:
    """Put back replaced functions.

    Raises:
        ReplacedFunction: if there were any.
    """
    names = []
    for module, functions in _FUNCTIONS.items():
        if replaced := functions.replaced():
            functions.put_back(replaced)
            names += [f"{module}.{name}" for name in replaced]
    if names:
        raise ReplacedFunction(f"replaced {', '.join(names)}, which the judge computes with")


@contextmanager
def judging(*, puts_back: bool = True) -> Iterator[None]:
    """Judge inside the block: the arithmetic is the judge's own, and the process is afterwards as it was before.

    Inside, no floating-point error raises, functions that were replaced before are the original ones, and ``os._exit``
    and its like raise `ProcessEnded`. The caller's own state comes back at the end, unless ``puts_back`` is false: a
    module that is imported inside may configure a framework. A judgement inside another one adds nothing.
    """
    global _judgement
    if _judgement is not None:
        yield
        return
    _record_functions()
    before = {module: functions.replaced() for module, functions in _FUNCTIONS.items()}
    for module, replaced in before.items():
        _FUNCTIONS[module].put_back(replaced)
    _judgement = _Judgement(os.getpid(), threading.get_ident())
    states, endings = _present_states() if puts_back else [], _intercept_endings(_judgement)
    try:
        # A caller may silence NumPy's warnings; but "raise" would let the judge's own arithmetic fail.
        warn = {kind for kind, how in np.geterr().items() if how == "warn" or (how != "ignore" and kind != "under")}
        kinds: Any = {kind: "warn" if kind in warn else "ignore" for kind in np.geterr()}
        with np.errstate(**kinds):
            yield
    finally:
        _judgement = None
        for (module, name), original in endings.items():
            if module in sys.modules:
                setattr(sys.modules[module], name, original)
        for restore, state in states:
            with suppress(OSError, ValueError, AttributeError):  # the working directory may be gone
                restore(state)
        for module, replaced in before.items():
            functions = _FUNCTIONS[module]
            functions.put_back(functions.replaced())
            functions.namespace.update(replaced)


def _present_states() -> list[tuple[Callable[[State], object], State]]:
    """Return the state of each part of the process that a judgement puts back, with the function that does so."""
    states: list[tuple[Callable[[State], object], State]] = [
        (random.setstate, random.getstate()),
        (np.random.set_state, np.random.get_state(legacy=False)),  # noqa: NPY002
        (lambda options: np.set_printoptions(**options), np.get_printoptions()),
        (_set_environment, dict(os.environ)),
        (_set_filters, list(warnings.filters)),
        (decimal.setcontext, decimal.getcontext().copy()),
        (sys.setrecursionlimit, sys.getrecursionlimit()),
    ]
    with suppress(OSError):
        states.append((_change_folder, os.getcwd()))
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch is not None and hasattr(torch, "get_rng_state"):
        states.append((torch.set_rng_state, torch.get_rng_state()))
        states.append((lambda modes: _set_torch_modes(torch, modes), _torch_modes(torch)))
        if torch.cuda.is_initialized():
            with suppress(RuntimeError):  # a device that is lost has no state
                states.append((partial(_set_cuda_states, torch), torch.cuda.get_rng_state_all()))
    if jax is not None and hasattr(jax, "config"):
        states.append((_set_x64, jax.config.jax_enable_x64))
    return states


def _set_cuda_states(torch: Any, states: State) -> None:
    with suppress(RuntimeError):  # the subject may have lost the device
        torch.cuda.set_rng_state_all(states)


def _set_environment(environment: Mapping[str, str]) -> None:
    if os.environ != environment:
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)


def _set_filters(filters: list[Any]) -> None:
    if warnings.filters != filters:
        warnings.resetwarnings()
        warnings.filters[:] = filters  # type: ignore[index]


def _change_folder(folder: str) -> None:
    if os.getcwd() != folder:
        os.chdir(folder)


def _set_x64(enabled: bool) -> None:
    config = sys.modules["jax"].config
    if config.jax_enable_x64 != enabled:
        config.update("jax_enable_x64", enabled)


# What ends a process, or replaces its program: the module's name, and the function's.
_ENDINGS = tuple(
    (module, name)
    for module in ("os", "posix", "nt", "signal")
    for name in ("_exit", "abort", "kill", "execv", "execve", "raise_signal")
)


def _intercept_endings(judgement: _Judgement) -> dict[tuple[str, str], Callable[..., Any]]:
    """Replace the functions that end the process, and return the original ones."""
    originals = {}
    for module, name in _ENDINGS:
        if module in sys.modules and hasattr(sys.modules[module], name):
            originals[module, name] = original = getattr(sys.modules[module], name)
            setattr(sys.modules[module], name, _Ending(name, original, judgement))
    # ``from os import _exit`` has made a name of its own.
    name, ending = "_exit", os._exit
    original = originals["os", name]
    for module, namespace in [(m, getattr(sys.modules[m], "__dict__", {})) for m in tuple(sys.modules)]:
        if namespace.get(name) is original and sys.modules.get(module) is not None:
            originals[module, name] = original
            vars(sys.modules[module])[name] = ending
    return originals


class _Ending:
    """``os._exit`` and its like while a subject is judged."""

    def __init__(self, name: str, original: Callable[..., Any], judgement: _Judgement) -> None:
        self.name, self.original, self.judgement = name, original, judgement

    def __call__(self, *args: Any, **options: Any) -> Any:
        # A child that a subject, or the judge, has forked may end as it likes.
        if os.getpid() != self.judgement.pid or not self._ends(args):
            return self.original(*args, **options)
        if threading.get_ident() != self.judgement.thread:
            # A watchdog that ends a run that takes too long does so from a thread; but never as a success.
            return self.original(*((args[0] or 1,) if self.name == "_exit" and args else args), **options)
        self._refuse(args)

    def _refuse(self, args: tuple[object, ...]) -> NoReturn:
        module = "signal" if self.name == "raise_signal" else "os"
        raise ProcessEnded(f"called {module}.{self.name}({', '.join(map(repr, args))})")

    def _ends(self, args: tuple[Any, ...]) -> bool:
        """Return whether a call ends this process: a signal to it, with no handler of Python's, does."""
        if self.name not in ("kill", "raise_signal"):
            return True
        number = args[-1] if args else 0
        with suppress(ValueError, TypeError, OSError):
            handled = signal.getsignal(number) is not signal.SIG_DFL and number != getattr(signal, "SIGKILL", None)
            harmless = number in (0, *(getattr(signal, n, 0) for n in ("SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH")))
            return not handled and not harmless and (self.name == "raise_signal" or args[0] in (0, os.getpid()))
        return False
