"""How often a check calls the subject, and what the few calls show."""

import numpy as np
import pytest
import torch

import oracles
from oracles import Verdict

POINT = {"x": np.linspace(-1.0, 1.0, 12).reshape(3, 4), "w": np.linspace(0.5, 2.0, 12).reshape(3, 4)}
TORCH = oracles.torch_autograd(lambda x, w: x * w + torch.sin(x))


class Counted:
    """x ⊙ w + sin x, with a defect, which counts its calls."""

    def __init__(self, defect=""):
        self.defect, self.forwards, self.pullbacks, self.kept = defect, 0, 0, None

    def forward(self, x, w):
        self.forwards += 1
        self.kept = x
        if self.defect == "random":
            x = x * (1 + 1e-6 * (self.forwards == 2))
        if self.defect == "another function later" and self.forwards > 2:
            x = 2 * x
        if self.defect == "writes into x":
            y = x * w + np.sin(x), (x.copy(), w)
            x[...] = 0.0
            return y
        if self.defect == "strides" and not x.flags.c_contiguous:
            return x.T.reshape(x.shape) * w + np.sin(x), (x, w)
        if self.defect == "shared" and x is w:
            return 2 * x + np.sin(x), (x, w)
        return x * w + np.sin(x), (x, w)

    def backward(self, cache, delta):
        self.pullbacks += 1
        x, w = cache
        if self.defect == "state":
            x = self.kept
        if self.defect == "expanded delta" and 0 in delta.strides:
            delta = delta / 2
        if self.defect == "delta in the order of memory":
            delta = delta.ravel(order="K").reshape(delta.shape)
        if self.defect == "writes into its cache":
            x *= delta / delta
            w += delta
        if self.defect == "overwrites what it returned":
            self.buffer = getattr(self, "buffer", None) if self.pullbacks > 1 else np.empty_like(x)
            return {"x": np.multiply(delta, w + np.cos(x), out=self.buffer), "w": delta * x}
        dx = np.empty_like(x) if self.defect == "unwritten" else delta * (w + np.cos(x))
        if self.defect == "unwritten":
            dx[:-1] = (delta * (w + np.cos(x)))[:-1]
            if not np.isfinite(dx[-1]).all() or self.pullbacks == 1:
                dx[-1:] = (delta * (w + np.cos(x)))[-1:] if self.pullbacks == 1 else np.nan
        return {"x": dx, "w": delta * x}


def check(counted, **options):
    return oracles.check(oracles.manual(counted.forward, counted.backward), POINT, against=[TORCH], **options)


@pytest.mark.parametrize("size", [1, 400])
def test_agreement_takes_six_forwards_and_one_pullback_twice(size):
    counted = Counted()
    point = {n: np.tile(a, (size, 1)) for n, a in POINT.items()}
    subject = oracles.manual(counted.forward, counted.backward)
    assert oracles.check(subject, point, against=[TORCH]).verdict is Verdict.AGREES
    assert (counted.forwards, counted.pullbacks) == (6, 7)


def test_one_given_cotangent_takes_as_many():
    counted = Counted()
    assert check(counted, delta=np.ones((3, 4))).verdict is Verdict.AGREES
    assert (counted.forwards, counted.pullbacks) == (6, 7)


@pytest.mark.parametrize(
    "defect",
    [
        "random",
        "another function later",
        "state",
        "writes into x",
        "strides",
        "shared",
        "expanded delta",
        "unwritten",
        "delta in the order of memory",
        "writes into its cache",
        "overwrites what it returned",
    ],
)
def test_the_few_calls_show_a_defect(defect):
    counted = Counted(defect)
    with pytest.raises(oracles.Disagreement) as excinfo:
        check(counted)
    assert excinfo.value.verdict is Verdict.WRONG
    assert counted.forwards > 6


@pytest.mark.parametrize("defect", ["state", "writes into x", "shared"])
def test_a_defect_that_only_further_calls_show_is_named(defect):
    with pytest.raises(oracles.Disagreement) as excinfo:
        check(Counted(defect))
    assert excinfo.value.evidence.reason


@pytest.mark.parametrize("scale", [1.0, -3.0])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_cotangents_are_no_multiple_of_a_primal_from_the_same_seed(scale, dtype):
    """A norm has no gradient along z itself: an error of one per cent would pass."""
    z = (scale * np.random.default_rng(0).standard_normal((6, 8))).astype(dtype)
    deltas = []

    def backward(cache, delta):
        y, inverse = cache
        deltas.append(np.array(delta, np.float64))
        return {"z": (delta - y * np.mean(delta * y, -1, keepdims=True)) * inverse}

    def forward(z):
        inverse = 1 / np.sqrt(np.mean(z * z, -1, keepdims=True))
        return z * inverse, (z * inverse, inverse)

    oracles.check(oracles.manual(forward, backward), {"z": z})
    wide = z.astype(np.float64)
    assert all(np.ptp(delta / wide) > 0.1 for delta in deltas if np.ptp(delta))


# ---- cotangents whose axes are no one axis in memory: a kernel that steps by one stride through two axes


POINT_3D = {"x": np.random.default_rng(2).standard_normal((3, 4, 5))}
SQUARE = [oracles.torch_autograd(lambda x: x * x)]


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, d):
        (x,) = ctx.saved_tensors
        return 2 * d * x


class Merged(Square):
    @staticmethod
    def backward(ctx, d):
        (x,) = ctx.saved_tensors
        batch, length, width = d.shape
        rows = torch.as_strided(d, (batch * length, width), (d.stride(1), d.stride(2)))
        return 2 * rows.reshape(d.shape) * x


class View(Square):
    @staticmethod
    def backward(ctx, d):
        (x,) = ctx.saved_tensors
        return 2 * d.view(-1, d.shape[-1]).view(d.shape) * x


class Reshaped(Square):
    @staticmethod
    def backward(ctx, d):
        (x,) = ctx.saved_tensors
        return 2 * d.reshape(-1, d.shape[-1]).view(d.shape) * x


class Sorted(Square):
    """Reads the entries in their order in memory."""

    @staticmethod
    def backward(ctx, d):
        (x,) = ctx.saved_tensors
        order = sorted(range(d.dim()), key=lambda axis: -d.stride(axis))
        return 2 * d.permute(order).reshape(d.shape) * x


@pytest.mark.parametrize("function", [Merged, View, Sorted])
def test_a_function_that_reads_a_transposed_cotangent_wrongly_is_refused(function):
    with pytest.raises(oracles.Disagreement, match="a cotangent with strides"):
        oracles.check(oracles.torch_function(function), POINT_3D, SQUARE)


@pytest.mark.parametrize("function", [Square, Reshaped])
def test_a_function_that_reads_any_cotangent_agrees(function):
    result = oracles.check(oracles.torch_function(function), POINT_3D, SQUARE)
    assert result.verdict is Verdict.AGREES
    assert not result.notes


@pytest.mark.parametrize("kept", ["merged", "order of memory"])
def test_a_numpy_backward_that_reads_a_transposed_cotangent_wrongly_is_refused(kept):
    def backward(x, d):
        if kept == "merged":
            strides = (d.strides[1], d.strides[2])
            d = np.lib.stride_tricks.as_strided(d, (12, 5), strides).reshape(d.shape)
        else:
            d = d.ravel(order="K").reshape(d.shape)
        return {"x": 2 * d * x}

    with pytest.raises(oracles.Disagreement, match="a cotangent with strides"):
        oracles.check(oracles.manual(lambda x: (x * x, x), backward), POINT_3D, SQUARE)


# ---- a pullback that is asked twice


def manual_square(backward, kept=lambda x: [2 * x], **options):
    return oracles.manual(lambda x: (x * x, kept(x)), backward, **options)


def multiplied(cache, d):
    cache[0] *= d
    return {"x": cache[0]}


class Multiplied(Square):
    @staticmethod
    def forward(ctx, x):
        ctx.slope = 2 * x
        return x * x

    @staticmethod
    def backward(ctx, d):
        ctx.slope *= d
        return ctx.slope


class MultipliedSaved(Square):
    @staticmethod
    def backward(ctx, d):
        (x,) = ctx.saved_tensors
        with torch.no_grad():
            return x.data.mul_(d).mul(2)


class OncePerForward(Square):
    """Frees what its forward kept."""

    @staticmethod
    def forward(ctx, x):
        ctx.kept = x
        return x * x

    @staticmethod
    def backward(ctx, d):
        x, ctx.kept = ctx.kept, None
        if x is None:
            raise RuntimeError("what forward kept was freed")
        return 2 * d * x


def grown(cache, d):
    cache.append(None)
    return {"x": cache[0] * d * (len(cache) - 1)}


@pytest.mark.parametrize(
    "subject",
    [
        manual_square(multiplied),
        manual_square(grown),
        manual_square(multiplied, arrays="torch"),
        oracles.torch_function(Multiplied),
        oracles.torch_function(MultipliedSaved),
    ],
)
@pytest.mark.parametrize("delta", [None, np.full((3, 4, 5), 2.0)], ids=["drawn", "given"])
def test_a_backward_that_writes_into_what_forward_kept_is_refused(subject, delta):
    with pytest.raises(oracles.Disagreement, match=r"a second backward of the same forward|was written into"):
        oracles.check(subject, POINT_3D, SQUARE, delta)


def test_a_list_of_jax_arrays_that_a_backward_changes_is_refused():
    pytest.importorskip("jax")

    def backward(cache, d):
        cache[0] = cache[0] * d
        return {"x": cache[0]}

    with pytest.raises(oracles.Disagreement, match="a second backward of the same forward"):
        oracles.check(manual_square(backward, arrays="jax"), POINT_3D, SQUARE)


def freed_graph():
    """The graph of torch is freed by the first backward, as by default."""

    def forward(x):
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = leaf.exp()
        return y.detach(), (leaf, y)

    return oracles.manual(forward, lambda c, d: {"x": torch.autograd.grad(c[1], c[0], d)[0]}, arrays="torch")


@pytest.mark.parametrize("point", [POINT_3D, {"x": np.array(0.5)}], ids=["array", "number"])
def test_a_pullback_that_can_be_asked_once_alone_is_noted(point):
    exp = [oracles.torch_autograd(lambda x: torch.exp(x))]
    for subject, against in ((freed_graph(), exp), (oracles.torch_function(OncePerForward), SQUARE)):
        result = oracles.check(subject, point, against)
        assert result.verdict is Verdict.AGREES
        assert [n for n in result.notes if n.startswith("a second backward of the same forward raises RuntimeError")]


def test_a_pullback_that_is_wrong_in_its_second_answer_is_no_freed_one():
    """It raises at the first cotangent of a further forward: so it is refused."""
    calls = []

    def backward(x, d):
        calls.append(1)
        if len(calls) > 5:
            raise RuntimeError("later")
        return {"x": 2 * d * x}

    with pytest.raises(oracles.Disagreement):
        oracles.check(oracles.manual(lambda x: (x * x, x), backward), POINT_3D, SQUARE)


def test_declared_writes_are_no_second_answer():
    def backward(x, d):
        d *= x
        return {"x": 2 * d}

    subject = oracles.declared(oracles.manual(lambda x: (x * x, x), backward), writes="delta")
    assert oracles.check(subject, POINT_3D, SQUARE).verdict is Verdict.AGREES
