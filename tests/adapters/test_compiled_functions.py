"""Compiled C behind ctypes: correct functions agree, wrong ones are refused; a crash ends the child process alone."""

import ctypes
import shutil
import subprocess

import numpy as np
import pytest

import oracles
from oracles import Disagreement, InvalidInput, Verdict

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")

SOURCE = r"""
#include <math.h>
void forward(const double *z, double *y, long n) { for (long i = 0; i < n; i++) y[i] = tanh(z[i]); }
void right(const double *y, const double *d, double *g, long n) {
    for (long i = 0; i < n; i++) g[i] = d[i] * (1 - y[i] * y[i]);
}
void no_delta(const double *y, const double *d, double *g, long n) {
    for (long i = 0; i < n; i++) g[i] = 1 - y[i] * y[i];
}
void last_forgotten(const double *y, const double *d, double *g, long n) {
    for (long i = 0; i + 1 < n; i++) g[i] = d[i] * (1 - y[i] * y[i]);
}
void in_float(const double *y, const double *d, double *g, long n) {
    for (long i = 0; i < n; i++) g[i] = (float)(d[i] * (1 - y[i] * y[i]));
}
void into_delta(const double *y, double *d, double *g, long n) {
    for (long i = 0; i < n; i++) { d[i] *= 1 - y[i] * y[i]; g[i] = d[i]; }
}
void added(const double *y, const double *d, double *g, long n) {
    static double saved = 0;
    for (long i = 0; i < n; i++) g[i] = d[i] * (1 - y[i] * y[i]) + saved;
    saved += 1;
}
void out_of_bounds(const double *y, const double *d, double *g, long n) {
    for (long i = 0; i < n + (1L << 40); i++) g[i] = d[i] * (1 - y[i] * y[i]);
}
"""
AT = {"z": np.random.default_rng(12).standard_normal((3, 4))}
TORCH = oracles.torch_autograd(lambda z: z.tanh())


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "tanh.c").write_text(SOURCE)
    subprocess.run(
        [COMPILER, "-O1", "-shared", "-fPIC", "-o", folder / "tanh.so", folder / "tanh.c", "-lm"], check=True
    )
    return ctypes.CDLL(str(folder / "tanh.so"))


def adapt(library, backward, **options):
    def pointer(array):
        return array.ctypes.data_as(ctypes.c_void_p)

    def call_by_name(name, *arrays):
        result = np.zeros_like(arrays[0])
        getattr(library, name)(*map(pointer, arrays), pointer(result), ctypes.c_long(result.size))
        return result

    def forward(z):
        y = call_by_name("forward", np.ascontiguousarray(z))
        return y, y

    return oracles.manual(
        forward,
        lambda y, d: {"z": call_by_name(backward, y, np.ascontiguousarray(d))},
        dtypes=("float64",),
        name=backward,
        **options,
    )


def test_correct_c_function_agrees(library):
    for against, isolate in (([TORCH], False), ([TORCH], True), ([], False)):
        result = oracles.check(adapt(library, "right"), AT, against, isolate=isolate)
        assert result.verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("backward", "message"),
    [
        ("no_delta", "ones"),
        ("last_forgotten", "z[2, 3]"),
        pytest.param("in_float", "right up to float32", marks=pytest.mark.slow),
        ("into_delta", "delta[0] was written into"),
        ("added", None),
    ],
)
def test_wrong_c_function_is_refused(library, backward, message):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(adapt(library, backward), AT, against=[TORCH])
    assert message is None or message in str(excinfo.value)


def test_a_read_out_of_bounds_ends_its_own_process_only(library):
    with pytest.raises(Disagreement, match=r"pullback.* SIG(SEGV|BUS|ABRT)"):
        oracles.check(adapt(library, "out_of_bounds"), AT, against=[TORCH], isolate=True)
    assert oracles.check(adapt(library, "right"), AT, against=[TORCH], isolate=True).verdict is Verdict.AGREES


def test_another_dtype_is_invalid(library):
    with pytest.raises(InvalidInput, match=r"^dtypes: .*float64, got float32"):
        oracles.check(adapt(library, "right"), {"z": AT["z"].astype(np.float32)}, against=[TORCH])


def test_sliced_primals_keep_their_strides(library):
    """The wrapper is right because of its ascontiguousarray; without it, strided primals show the error."""
    at = {"z": np.repeat(AT["z"], 2, axis=1)[:, ::2]}
    assert oracles.check(adapt(library, "right"), at, against=[TORCH]).verdict is Verdict.AGREES

    def careless(z):
        y = np.zeros(z.shape)
        library.forward(z.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_long(y.size))
        return y, y

    subject = oracles.manual(careless, lambda y, d: {"z": d * (1 - y * y)})
    for point in (AT, at):
        with pytest.raises(Disagreement, match="strides"):
            oracles.check(subject, point, against=[TORCH])


def test_a_strided_cotangent_keeps_its_strides(library):
    def careless(y, d):
        result = np.zeros(y.shape)
        library.right(*(a.ctypes.data_as(ctypes.c_void_p) for a in (y, d, result)), ctypes.c_long(y.size))
        return {"z": result}

    subject = oracles.manual(lambda z: (np.tanh(z), np.tanh(np.array(z, order="C"))), careless)
    with pytest.raises(Disagreement, match="a cotangent with strides"):
        oracles.check(subject, AT, against=[TORCH])
