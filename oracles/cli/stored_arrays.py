"""Read arrays from a ``.npz`` or ``.npy`` file of unknown origin: all is checked before memory is taken for it."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from oracles.constants import MOST_STORED_BYTES
from oracles.registry import Unusable
from oracles.rule import Array

# What the readers of zip files, of compressed data and of headers raise on what is damaged or too large.
_DAMAGED = (
    EOFError, LookupError, MemoryError, OSError, OverflowError, RuntimeError, SyntaxError, TypeError, ValueError,
    lzma.LZMAError, struct.error, zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error,
)  # fmt: skip
_MAGIC, _ZIP = b"\x93NUMPY", b"PK"


def arrays_of(path: str, option: str) -> dict[str, Array]:
    """Read a ``.npz`` file (or one ``.npy`` array, under the name "delta").

    Raises:
        Unusable: (a ValueError) if there is no such file, it holds anything but numbers, it is damaged, or its arrays
            need more than `MOST_STORED_BYTES`; names the file and the array, and says how to write it.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(len(_MAGIC))
            size = file.seek(0, 2)
            file.seek(0)
            if start == _MAGIC:
                with _reading(option, path, "the array"):
                    array = _read_array(file, size, MOST_STORED_BYTES)
            elif start[:2] == _ZIP:
                return _read_archive(file, option, path)
            else:
                fix = f"np.savez({path!r}, z=z, W=W)"
                raise Unusable(f"{option}: {path} is no file of arrays: it is neither .npz nor .npy.\nFix:    {fix}")
    except FileNotFoundError:
        raise Unusable(f"{option}: no file {path}") from None
    except OSError as error:
        raise Unusable(f"{option}: {path} cannot be read: {error.strerror or error}") from None
    if option == "--primals":
        fix = f"np.savez({str(Path(path).stem)!r}, z=array)"
        raise Unusable(f"{option}: {path} holds one array without a name.\nFix:    {fix}")
    return {"delta": array}


def _read_archive(file: IO[bytes], option: str, path: str) -> dict[str, Array]:
    """Return the arrays of a zip file; together they take no more memory than is allowed."""
    arrays: dict[str, Array] = {}
    with _reading(option, path, "the archive"):
        archive = zipfile.ZipFile(file)
    with archive:
        left = MOST_STORED_BYTES
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            with _reading(option, path, repr(name)):
                if name in arrays:
                    raise ValueError("it is stored twice")
                with archive.open(entry) as stream:
                    if stream.read(len(_MAGIC)) != _MAGIC:
                        raise ValueError("it is no array")
                # A second time from the start: not every stream can go back.
                with archive.open(entry) as stream:
                    arrays[name] = _read_array(stream, entry.file_size, left)
            left -= arrays[name].nbytes
    if not arrays:
        raise Unusable(f"{option}: {path} holds no array.\nFix:    np.savez({path!r}, z=z, W=W)")
    return arrays


@contextmanager
def _reading(option: str, path: str, what: str) -> Iterator[None]:
    try:
        yield
    except Unusable:
        raise
    except _DAMAGED as error:
        reason = str(error) or type(error).__name__
        fix = f"np.savez({path!r}, z=z, W=W)"
        raise Unusable(f"{option}: {path}: {what} cannot be read: {reason:.300}.\nFix:    {fix}") from None


def _read_array(stream: IO[bytes], size: int, left: int) -> Array:
    """Read one array in the format of NumPy.

    Args:
        stream: the array with its header.
        size: the bytes that the stream is said to have.
        left: the bytes that the array may take.

    Raises:
        ValueError, EOFError: if it is no array of numbers, is too large, or ends too early or too late.
    """
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format {'.'.join(map(str, version))} is none of plain numbers")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(stream)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which reading would execute")
    if dtype.kind not in "fciub":
        raise ValueError(f"its dtype is {dtype}, expected numbers")
    if any(extent < 0 for extent in shape):
        raise ValueError(f"its shape is {shape}")
    needed = prod(shape) * dtype.itemsize
    if needed > left:
        limit = f"a file may take {MOST_STORED_BYTES / 2**30:g} GiB"
        raise ValueError(f"shape {shape}, dtype {dtype} takes {needed:.3g} bytes of memory; {limit}")
    if stream.tell() + needed != size:
        raise EOFError(f"shape {shape}, dtype {dtype} takes {needed} bytes, but {size - stream.tell()} are stored")
    memory = np.empty(needed, np.uint8)
    view, filled = memory.data, 0
    while filled < needed:
        count = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not count:
            raise EOFError(f"it ends after {filled} of {needed} bytes")
        filled += count
    stream.read(1)  # at the end of its data, zipfile compares the checksum
    array = memory.view(dtype)
    return array.reshape(shape[::-1]).T if is_fortran else array.reshape(shape)
