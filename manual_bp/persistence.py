"""Parameters and states on disk: a .npz archive without pickle, written whole or not at all, read with suspicion."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from .protocol import Array, Params
from .validation import REALS

# The integers are an optimizer's count of steps.
STORED = REALS | {np.dtype(np.int64)}

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo


def save_params(path: str | os.PathLike[str], params: Params) -> None:
    """Write params to a .npz archive that `numpy.load` reads too, replacing the file at once or not at all.

    The archive is written under another name in the same folder, flushed to the disk and then renamed;
    whatever fails on the way leaves the old file as it was and no other behind.

    An optimizer's state is params in this respect, its int64 count of steps included.

    Raises: TypeError for values that are no arrays of floats or int64, ValueError for a name that no archive can
    hold, OSError from the file system.
    """
    for name, value in params.items():
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError(f"save_params: {name!r} cannot name a parameter")
        if type(value) is not np.ndarray or value.dtype not in STORED:
            kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(f"save_params: params[{name!r}]: expected a numpy.ndarray of floats or int64, got {kind}")
    target = os.path.realpath(path)
    temporary = f"{target}.{os.urandom(8).hex()}.tmp"
    try:
        with open(temporary, "xb") as file:
            _write(file, params)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def load_params(path: str | os.PathLike[str], expected: Params) -> Params:
    """Read parameters with the names, shapes and dtypes of `expected`, as `network.init` gives them.

    Names, shapes and dtypes are compared before any data is read, no more is read than they call for, and
    nothing is ever unpickled: a file from a stranger can be refused, not obeyed.

    Raises: FileNotFoundError (or another OSError) where the file cannot be opened; ValueError, naming the
    file and what is wrong, where it is damaged or holds anything else than expected.
    """
    from zipfile import ZipFile

    with open(path, "rb") as file:
        try:
            with ZipFile(file) as archive:
                members = _members(archive, expected)
                for name, like in expected.items():
                    _read(archive, members[name], like, header_only=True)
                return {name: _read(archive, members[name], like) for name, like in expected.items()}
        except Exception as error:  # a hostile archive may make zipfile, zlib or the header's parser raise anything
            reason = str(error) or type(error).__name__
            raise ValueError(f"load_params: {os.fspath(path)}: {reason}") from error


def _write(file: IO[bytes], params: Params) -> None:
    from zipfile import ZipFile

    with ZipFile(file, "w") as archive:
        for name, value in params.items():
            with archive.open(name + ".npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, value, version=(1, 0), allow_pickle=False)


def _members(archive: ZipFile, expected: Params) -> dict[str, ZipInfo]:
    """Return the archive's members by parameter, exactly one for each."""
    infos = archive.infolist()
    members = {info.filename.removesuffix(".npy"): info for info in infos}
    if len(members) != len(infos):
        raise ValueError("two members have the same name")
    if missing := sorted(expected.keys() - members.keys()):
        raise ValueError(f"parameters missing: {', '.join(missing)}")
    if unknown := sorted(members.keys() - expected.keys()):
        raise ValueError(f"parameters unknown: {', '.join(unknown[:8])}")
    return members


def _read(archive: ZipFile, info: ZipInfo, like: Array, header_only: bool = False) -> Any:
    """Return one member's array, having compared what it claims and how long it is with what is expected."""
    with archive.open(info) as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{info.filename}: expected version 1.0 of the npy format")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
        if dtype != like.dtype or dtype not in STORED:
            raise ValueError(f"{info.filename}: expected dtype {like.dtype}, got {dtype}")
        if shape != like.shape:
            raise ValueError(f"{info.filename}: expected shape {like.shape}, got {shape}")
        if info.file_size != member.tell() + like.nbytes:
            raise ValueError(f"{info.filename}: {info.file_size} bytes do not hold an array of shape {shape}")
        if header_only:
            return None
        data = member.read(like.nbytes + 1)  # the byte beyond the end makes zipfile verify the checksum
    if len(data) != like.nbytes:
        raise ValueError(f"{info.filename}: data end after {len(data)} of {like.nbytes} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C").copy()
