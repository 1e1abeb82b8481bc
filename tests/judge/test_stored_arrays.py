"""A `.npz` or `.npy` file of any content is read exactly, or refused by its name and the array's, in bounded memory."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from oracles.cli.stored_arrays import arrays_of
from oracles.registry import Unusable


def header(shape, dtype="<f8", order=False):
    text = f"{{'descr': {dtype!r}, 'fortran_order': {order}, 'shape': {shape!r}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text) + 1) + text + b"\n"


def archive(path, compression=zipfile.ZIP_STORED, **entries):
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in entries.items():
            file.writestr(f"{name}.npy", content)


def stored(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


GOOD = stored(np.arange(6.0).reshape(2, 3))


def huge_header(path):
    archive(path, z=GOOD, W=header((10**12,)))


def huge_extents(path):
    archive(path, W=header((2**62, 2**62)))


def negative_extent(path):
    archive(path, W=header((-4,)) + bytes(32))


def flipped_bit(path):
    archive(path, z=GOOD, W=GOOD)
    content = bytearray(path.read_bytes())
    content[content.rindex(GOOD) + len(GOOD) - 3] ^= 8
    path.write_bytes(content)


def bomb(path):
    """Ten million times 300 zeros, in some kilobytes, for an array whose header tells the truth."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("W.npy", "w", force_zip64=True) as entry:
        entry.write(header((3 * 10**8,)))
        block = bytes(2**24)
        for _ in range(3):
            entry.write(block)


def objects(path):
    archive(path, W=stored(np.array([{}, []], object), allow_pickle=True))


def truncated_array(path):
    archive(path, W=GOOD[:-5])


def trailing_bytes(path):
    archive(path, W=GOOD + b"more")


def stored_twice(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("W.npy", GOOD)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("W.npy", GOOD)


def text_inside(path):
    archive(path, W=b"no array at all")


def words(path):
    archive(path, W=stored(np.array(["a", "b"])))


IN_AN_ARRAY = [
    huge_header, huge_extents, negative_extent, flipped_bit, bomb, objects, truncated_array, trailing_bytes,
    stored_twice, text_inside, words,
]  # fmt: skip


@pytest.mark.parametrize("write", IN_AN_ARRAY, ids=lambda f: f.__name__)
def test_a_bad_array_is_refused_by_name_in_little_memory(write, tmp_path):
    path = tmp_path / "bad.npz"
    write(path)
    tracemalloc.start()
    with pytest.raises(Unusable) as refusal:
        arrays_of(str(path), "--primals")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24
    assert all(part in str(refusal.value) for part in ("--primals", "bad.npz", "'W'", "Fix:"))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"PK\x03\x04garbage", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff", b"text", GOOD[:90], header(())],
)
def test_a_bad_file_is_refused_by_name(content, tmp_path):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(Unusable, match=r"(?s)--delta.*bad\.npz"):
        arrays_of(str(path), "--delta")
    with pytest.raises(Unusable, match="--delta"):
        arrays_of(str(tmp_path), "--delta")


def test_an_archive_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "bad.npz"
    archive(path, W=GOOD)
    content = path.read_bytes()
    for stop in range(0, len(content), 7):
        path.write_bytes(content[:stop])
        with pytest.raises(Unusable, match="bad"):
            arrays_of(str(path), "--primals")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_good_arrays_are_read_exactly(save, tmp_path):
    path = tmp_path / "good.npz"
    arrays = {
        "z": np.array([[-0.0, np.nan], [np.inf, 5e-324]]),
        "F order": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "labels": np.arange(5),
        "mask": np.array([True, False]),
        "scalar": np.float16(2.5),
        "empty": np.zeros((0, 3)),
        "big endian": np.arange(3, dtype=">f8"),
        "long": np.arange(3, dtype=np.longdouble),
    }
    save(path, **arrays)
    read = arrays_of(str(path), "--primals")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].tobytes() == array.tobytes()
        assert read[name].flags.writeable


def test_one_array_is_the_delta(tmp_path):
    np.save(tmp_path / "d.npy", np.arange(3.0))
    assert arrays_of(str(tmp_path / "d.npy"), "--delta")["delta"].tolist() == [0, 1, 2]
