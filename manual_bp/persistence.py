"""Parameters and optimizer states on disk: .npz archives without pickle, written atomically, verified when read."""

from __future__ import annotations

import os
from typing import IO, TYPE_CHECKING

import numpy as np

from ._validation import REALS
from .protocol import Array, Params

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

# int64 is the dtype of an optimizer's count of steps.
STORED = REALS | {np.dtype(np.int64)}


def save_params(path: str | os.PathLike[str], params: Params) -> None:
    """Write params to a .npz archive that `numpy.load` reads too, replacing the file atomically.

    The archive is written under another name in the same folder, flushed to the disk and then renamed. If anything
    fails on the way, the old file stays as it was and no other file is left.

    Args:
        path: the file to write.
        params: arrays by name; an optimizer's state, which contains an int64 count of steps, works too.

    Raises:
        TypeError: for values that are not arrays of floats or int64.
        ValueError: for a name that an archive cannot store.
        OSError: from the file system.
    """
    for name, value in params.items():
        if not isinstance(name, str) or not name or "\0" in name:
            raise ValueError(f"save_params: params: expected names without NUL, got {name!r}")
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

    Names, shapes and dtypes are compared before any data is read, no more is read than they need, and nothing is ever
    unpickled: a file from an untrusted source is safe to open.

    Args:
        path: the file to read.
        expected: arrays with the names, shapes and dtypes to expect; their values do not matter.

    Returns:
        The parameters, new arrays.

    Raises:
        FileNotFoundError: (or another OSError) if the file cannot be opened.
        ValueError: naming the file and what is wrong, if it is damaged or contains anything else than expected.
    """
    from zipfile import ZipFile  # here, since `import manual_bp` loads NumPy alone

    with open(path, "rb") as file:
        try:
            with ZipFile(file) as archive:
                members = _members(archive, expected)
                for name, like in expected.items():
                    with archive.open(members[name]) as member:
                        _require_header(member, members[name], like)
                return {name: _read(archive, members[name], like) for name, like in expected.items()}
        except Exception as error:  # a damaged archive can make zipfile, zlib or the header's parser raise anything
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
        raise ValueError("expected distinct names, got two members of one name")
    if missing := sorted(expected.keys() - members.keys()):
        raise ValueError(f"expected also {', '.join(missing)}")
    if unknown := sorted(members.keys() - expected.keys()):
        raise ValueError(f"expected {sorted(expected)}, got also {', '.join(unknown[:8])}")
    return members


def _require_header(member: IO[bytes], info: ZipInfo, like: Array) -> bool:
    """Compare a member's header and length with `like`, and return whether its order is Fortran's."""
    if np.lib.format.read_magic(member) != (1, 0):
        raise ValueError(f"{info.filename}: expected version 1.0 of the npy format")
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(member)
    if dtype != like.dtype or dtype not in STORED:
        raise ValueError(f"{info.filename}: expected dtype {like.dtype}, got {dtype}")
    if shape != like.shape:
        raise ValueError(f"{info.filename}: expected shape {like.shape}, got {shape}")
    if info.file_size != member.tell() + like.nbytes:
        raise ValueError(f"{info.filename}: expected {like.nbytes} bytes of data, got {info.file_size - member.tell()}")
    return bool(is_fortran)


def _read(archive: ZipFile, info: ZipInfo, like: Array) -> Array:
    """Return one member's array, after its header was compared with `like`."""
    with archive.open(info) as member:
        is_fortran = _require_header(member, info, like)
        data = member.read(like.nbytes + 1)  # the byte beyond the end makes zipfile verify the checksum
    if len(data) != like.nbytes:
        raise ValueError(f"{info.filename}: expected {like.nbytes} bytes of data, got {len(data)}")
    return np.frombuffer(data, like.dtype).reshape(like.shape, order="F" if is_fortran else "C").copy()
