"""Parameters on disk, and files that mean harm."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest

from manual_bp import Linear, Sequential, load_params, save_params

NETWORK = Sequential(Linear(3, 2), Linear(2, 1))


def params(dtype=np.float32):
    return NETWORK.init(np.random.default_rng(0), dtype)


def npy(array, **options):
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, **options)
    return buffer.getvalue()


def archive(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as file:
        for name, data in members:
            file.writestr(name, data)


def good():
    return {f"{name}.npy": npy(value) for name, value in params().items()}


def refused(path, reason):
    with pytest.raises(ValueError, match=reason) as excinfo:
        load_params(path, params())
    assert str(path) in str(excinfo.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.longdouble])
def test_round_trip(tmp_path, dtype):
    path = tmp_path / "p.npz"
    saved = params(dtype) | {"file": np.zeros((0, 3), dtype), "strided": np.eye(4, dtype=dtype).T[::2]}
    save_params(path, saved)
    loaded = load_params(path, saved)
    assert list(loaded) == list(saved)
    for name, value in saved.items():
        np.testing.assert_array_equal(loaded[name], value, strict=True)
        assert loaded[name].flags.writeable
    assert os.listdir(tmp_path) == ["p.npz"]
    with np.load(path) as archived:
        np.testing.assert_array_equal(archived["0.W"], saved["0.W"])


def test_reads_what_numpy_writes(tmp_path):
    for write in (np.savez, np.savez_compressed):
        write(tmp_path / "p.npz", **params())
        np.testing.assert_array_equal(load_params(tmp_path / "p.npz", params())["1.W"], params()["1.W"])


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_params(tmp_path / "none.npz", params())


def test_a_pickle_is_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    path = tmp_path / "p.npz"
    payload = np.array([[Bomb()]], object)
    archive(path, (good() | {"0.W.npy": npy(payload, allow_pickle=True)}).items())
    refused(path, "expected dtype float32, got object")
    path.write_bytes(pickle.dumps(Bomb()))
    refused(path, "not a zip file")
    assert not (tmp_path / "executed").exists()


def test_damage_is_named(tmp_path):
    path = tmp_path / "p.npz"
    save_params(path, params())
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "not a zip file|zip")
    start = whole.index(params()["0.W"].tobytes())
    path.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
    refused(path, "Bad CRC-32")


def header(text):
    data = text.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(data).to_bytes(2, "little") + data


@pytest.mark.parametrize(
    ("member", "reason"),
    [
        (npy(np.zeros((3, 2))), "0.W.npy"),
        (npy(np.zeros((2, 3), np.float32)), r"0.W.npy"),
        (npy(np.zeros((3, 2), ">f4")), "expected dtype float32, got >f4"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"), "expected shape"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2)}"), "bytes"),
        (npy(np.zeros((3, 2), np.float32)) + bytes(10**6), "bytes"),
        (header("(" * 5000), "load_params"),
        (header("__import__('os').abort()"), "load_params"),
        (header("{'descr': '<f4'}" + " " * 60000), "load_params"),
        (b"\x93NUMPY\x02\x00" + b"\xff" * 4, "version 1.0"),
        (b"hello", "load_params"),
        (b"", "load_params"),
    ],
)
def test_hostile_members(tmp_path, member, reason):
    path = tmp_path / "p.npz"
    archive(path, (good() | {"0.W.npy": member}).items(), compression=zipfile.ZIP_DEFLATED)
    refused(path, reason)


def test_wrong_names(tmp_path):
    path = tmp_path / "p.npz"
    archive(path, [item for item in good().items() if item[0] != "1.b.npy"])
    refused(path, "1.b")
    archive(path, [*good().items(), ("evil.npy", b"")])
    refused(path, "evil")
    with pytest.warns(UserWarning, match="Duplicate"):
        archive(path, [*good().items(), ("0.W.npy", good()["0.W.npy"])])
    refused(path, "distinct names")


def test_a_failure_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.npz"
    save_params(path, params())
    before = path.read_bytes()

    def fail(*args, **options):
        raise OSError("disk full")

    for module, name in ((os, "fsync"), (os, "replace"), (np.lib.format, "write_array")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(OSError, match="disk full"):
                save_params(path, params(np.float64))
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == ["p.npz"]


def test_saves_only_what_it_can_load(tmp_path):
    for bad in (np.zeros(2, np.int32), np.zeros(2, bool), np.array([None]), [1.0], np.zeros(2, ">f4")):
        with pytest.raises(TypeError, match=r"params\['w'\]: expected a numpy.ndarray of floats or int64"):
            save_params(tmp_path / "p.npz", {"w": bad})
    for name in ("", "a\0b", 3):
        with pytest.raises(ValueError, match="params"):
            save_params(tmp_path / "p.npz", {name: np.zeros(2)})
    assert os.listdir(tmp_path) == []
