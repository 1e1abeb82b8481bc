"""What a run needs of its process: threads, versions, deferred interrupts, atomic writes, described exceptions."""

from __future__ import annotations

import os
import secrets
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from traceback import extract_tb

# The packages whose versions may change a verdict.
PACKAGES = ("manual-bp", "numpy", "torch", "jax", "python-flint", "hypothesis")


def pin_threads() -> None:
    """Ask BLAS, OpenMP, torch and XLA for one thread each. Call this before any of them is imported.

    Small problems run several times slower on more threads, and reductions in another order give other bits.
    """
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def installed_versions() -> dict[str, str]:
    """Return the version of each package that takes part in a verdict, or "not installed"."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def versions_line() -> str:
    """Return the installed versions in one line."""
    return ", ".join(f"{package} {installed}" for package, installed in installed_versions().items())


_PACKAGE = str(Path(__file__).parent)


def write_atomically(path: str | Path, text: str) -> None:
    """Write a text file so that no reader, and no crash, ever sees half of it.

    It has the permissions of the file that it replaces, else those that the process gives to new files.
    """
    path = Path(path)
    # In the folder of the file itself: os.replace is atomic within one file system only.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    try:
        if path.is_file():
            os.chmod(temporary, stat.S_IMODE(path.stat().st_mode))
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            # Without this, a crash of the machine after the rename may leave an empty file.
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def require_writable(option: str, path: str) -> None:
    """Require that a file can be written, by writing another one to its folder and removing it.

    Raises:
        ValueError: if the folder does not exist or takes no file, or if there is a folder of this name.
    """
    folder = Path(path).absolute().parent
    if not folder.is_dir():
        raise ValueError(f"{option}: the folder of {path} does not exist")
    if Path(path).is_dir():
        raise ValueError(f"{option}: {path} is a folder")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{option}: {path} cannot be written: {error.strerror}") from error


@contextmanager
def deferred_interrupts() -> Iterator[Callable[[], None]]:
    """Defer KeyboardInterrupt raised inside ignored callbacks.

    Python raises KeyboardInterrupt in whatever code runs when the signal arrives. Some callbacks ignore exceptions: a
    ``__del__``, or the callback by which Hypothesis times the garbage collector. There the interrupt would be printed
    and lost, and the run would go on.

    Yields:
        A function that raises KeyboardInterrupt if a signal has arrived since. Call it wherever the run may stop.

    The signal also raises where it arrives. Nothing changes where Python does not raise for it: in another thread than
    the main one, in a background job whose shell ignores it, or under a handler of the caller's own.
    """
    interrupted = threading.Event()

    def raise_again() -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt

    def handler(signum: int, frame: object) -> None:
        interrupted.set()
        raise KeyboardInterrupt

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield raise_again
        return
    signal.signal(signal.SIGINT, handler)
    try:
        yield raise_again
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def describe_error(error: BaseException) -> str:
    """Return type, message and origin of an exception: the last line outside this package and installed ones."""
    frames = [f for f in extract_tb(error.__traceback__) if not f.filename.startswith((_PACKAGE, "<"))]
    frames = [f for f in frames if "site-packages" not in f.filename]
    where = f"{frames[-1].filename}:{frames[-1].lineno} in {frames[-1].name}: " if frames else ""
    return f"{where}{type(error).__name__}: {error}"


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message."""
    return str(error).partition("\n")[0]
