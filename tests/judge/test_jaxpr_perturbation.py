"""What the JAX oracle perturbs, and by how much: lengths of reductions, exact operands and operations, domains."""

from fractions import Fraction

import numpy as np
import pytest

from oracles import check, manual
from oracles.backends.jax_reference import jax_vjp
from oracles.constants import COMMON_SIGNS, CONFIDENCE, SIGN_SIZES
from oracles.perturbation import jaxpr_primitives as primitives
from oracles.perturbation.jaxpr_reading import CONTROL, Reading
from oracles.perturbation.random_signs import perturber, unit_of
from oracles.rule import NotPerturbable, Perturbation, ReferenceFailed

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
import jax.scipy.special as js  # noqa: E402
from jax import lax  # noqa: E402

H = 2.0**-30
LARGEST = SIGN_SIZES[1]  # of a random sign


def real(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape)


def equations_of(f, *arrays):
    """The equations that the oracle reads off a function and its VJP."""

    def with_pullback(delta, *some):
        return jax.vjp(f, *some)[1](delta)

    with jax.enable_x64(True):
        delta = jax.tree.map(jnp.ones_like, jax.eval_shape(f, *arrays))
        for closed in (jax.make_jaxpr(f)(*arrays), jax.make_jaxpr(with_pullback)(delta, *arrays)):
            yield from Reading(closed.jaxpr, closed.consts).equations


def terms_of(primitive, f, *arrays):
    return {
        eq.kernel.terms
        for eq in equations_of(f, *arrays)
        if eq.primitive not in CONTROL and eq.primitive == primitive and eq.kernel.rounds
    }


def convolved(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), "VALID")


@pytest.mark.parametrize(
    ("primitive", "f", "arrays", "expected"),
    [
        ("mul", lambda x: x * x, [np.ones(100)], {1}),
        ("exp", jnp.exp, [np.ones(100)], {1}),
        ("dot_general", lambda x, w: x @ w, [np.ones((3, 7)), np.ones((7, 5))], {7, 5, 3}),
        ("reduce_sum", lambda x: x.sum((0, 2)), [np.ones((3, 4, 5))], {15}),
        ("reduce_prod", lambda x: x.prod(1), [np.ones((3, 4))], {4}),
        ("cumsum", lambda x: x.cumsum(1), [np.ones((3, 4))], {4}),
        ("reduce_window_sum", lambda x: lax.reduce_window(x, 0.0, lax.add, (3,), (1,), "VALID"), [np.ones(9)], {3}),
        ("scatter-add", lambda x: x[jnp.array([0, 0, 2])], [np.ones((5, 9))], {4}),
        ("conv_general_dilated", convolved, [np.ones((2, 3, 6, 5)), np.ones((4, 3, 2, 2))], {12, 16, 40}),
        ("fft", lambda x: jnp.fft.fft(x).real, [np.ones((2, 8))], {8}),
    ],
)
def test_operands_move_by_the_length_of_the_operations_own_reduction(primitive, f, arrays, expected):
    assert terms_of(primitive, f, *arrays) == expected


def test_overlapping_windows_count_as_terms():
    def pooled(x):
        return lax.reduce_window(x, -jnp.inf, lax.max, (3, 3), (2, 1), "VALID")

    assert terms_of("select_and_scatter_add", pooled, np.ones((9, 9))) == {6}


def largest_move(f, at, samples=16, absolute=0.0, h=H):
    """The largest relative move of the outputs of a function over some samples, in units of h."""
    rule = jax_vjp(f)
    y, _ = rule(**at)
    moves = []
    for seed in range(samples):
        ys, _ = rule.evaluate_perturbed(at, np.zeros_like(y), Perturbation(np.random.default_rng(seed), h, absolute))
        with np.errstate(divide="ignore", invalid="ignore"):
            moves.append(np.max(np.abs(ys[0] - y) / np.abs(y)) / h)
    return np.max(moves)


def test_an_elementwise_operation_does_not_know_how_many_entries_there_are():
    assert largest_move(lambda z: z * z, {"z": real(0, 1000)}) < 4
    # One entry counts. It moves by √4096, what is common to all terms by as much, and the two roundings after it by 1.
    assert 80 < largest_move(lambda z: z.sum() + 0.0, {"z": np.eye(1, 4096)[0]}) < 131 * LARGEST


def test_integers_that_come_from_no_primal_are_exact():
    z = {"z": np.array([0.5, 1.5, 2.5])}
    assert largest_move(lambda z: z + (1.0 - 3.0) * 0 + jnp.sqrt(4.0) * 0, z) < 3.2 * LARGEST  # two sums and the result
    at_order = largest_move(lambda z: js.polygamma(3, z), z)
    # (n+1) / z times h at most for the argument; an order that moves would add its own.
    assert at_order < 12
    assert np.isfinite(largest_move(lambda z: z**3.0, {"z": np.array([-2.0, 3.0])}))


def test_large_integers_round_in_a_coarse_precision():
    few = largest_move(lambda z: z * 0.0 + 300.0, {"z": np.ones(2)}, h=2.0**-12)
    many = largest_move(lambda z: z * 0.0 + 300.0, {"z": np.ones(2)}, h=2.0**-5)
    assert few <= 1.5  # the result alone
    assert many > 1.5


def test_integers_of_the_program_are_exact_operands():
    labels = np.array([0, 2])

    def picked(z):
        return z * jax.nn.one_hot(labels, 3).sum() + z * jnp.arange(3).astype(z.dtype)

    # One for z in the product, one for the sum, one for the result.
    assert largest_move(picked, {"z": np.ones(3)}) < 3.2 * LARGEST


@pytest.mark.parametrize(
    ("f", "z"),
    [
        (jnp.arcsin, [1.0, -1.0, 0.5]),
        (lambda z: jnp.arccos((z * z).sum() / jnp.sqrt((z * z).sum()) ** 2), [1.0, 0.25, 3.0]),
        (lambda z: jnp.sqrt(z - z[0]), [0.5, 0.75, 0.625]),
        (lambda z: jnp.log1p(-z), [1.0 - 2.0**-53, 0.5]),
        (lambda z: js.betainc(2.0, 3.0, z), [0.0, 1.0, 0.5]),
        (lambda z: js.gammainc(2.0, z), [0.0, 5e-324]),
        (jnp.exp, [709.782712893384]),
        (lambda z: (-z) ** (z + 1.0 - z), [3.0]),
    ],
)
@pytest.mark.parametrize("absolute", [0.0, 2.0**-1022])
def test_a_perturbation_that_leaves_the_domain_is_replaced(f, z, absolute):
    at = {"z": np.array(z)}
    rule = jax_vjp(f)
    y, _ = rule(**at)
    assert np.all(np.isfinite(y))
    for seed in range(8):
        ys, _ = rule.evaluate_perturbed(
            at, np.zeros_like(y), Perturbation(np.random.default_rng(seed), 2.0**-50, absolute)
        )
        assert np.all(np.isfinite(ys[0])), ys


def test_a_callback_with_a_domain_stays_inside_too():
    def double(x):
        if np.any(np.asarray(x) > 1):
            raise ValueError("outside of [0, 1]")
        return np.asarray(x) * 2

    def f(z):
        return jax.pure_callback(double, jax.ShapeDtypeStruct(z.shape, z.dtype), lax.stop_gradient(z)) * z

    assert np.isfinite(largest_move(f, {"z": np.array([1.0, 0.5])}))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_cast_to_a_coarser_dtype_rounds_in_that_precision(dtype):
    z, unit = {"z": np.array([0.3, 1.7])}, unit_of(jnp.dtype(dtype))
    cast = largest_move(lambda z: jnp.sin(z.astype(dtype).astype(z.dtype)), z, h=2.0**-50) * 2.0**-50
    assert unit < cast < 4 * CONFIDENCE * unit
    constant = jnp.asarray(0.1, dtype)
    scaled = largest_move(lambda z: z * constant, z, h=2.0**-50) * 2.0**-50
    assert unit < scaled < 4 * CONFIDENCE * unit
    integers = jnp.asarray([2.0, 3.0], dtype)
    assert largest_move(lambda z: z * integers, z, h=2.0**-50) < 4


def are_signs(x):
    """Whether all are random signs, each of its own size."""
    least, most = SIGN_SIZES
    return np.all((np.abs(x) > least - 1e-5) & (np.abs(x) < most + 1e-5))


def test_a_complex_number_moves_in_both_parts():
    perturb = perturber(Perturbation(np.random.default_rng(0), H))
    z = np.full(1000, 3.0 + 0j)
    moved = (perturb(z) - z) / (3 * H)
    assert are_signs(moved.real)
    assert are_signs(moved.imag)
    assert abs(np.mean(moved.real * moved.imag)) < 0.2
    reduced = (perturb(z, None, 16) - z) / (3 * H)
    assert any(are_signs(reduced.real / 4 - common) for common in COMMON_SIGNS)


@pytest.mark.parametrize("size", [7, 5000, 70_000])
@pytest.mark.parametrize("terms", [1, 9])
def test_arrays_of_all_sizes_move_by_the_same(size, terms):
    perturb = perturber(Perturbation(np.random.default_rng(0), H, 2.0**-1000))
    moved = (perturb(np.ones(size), (size,), terms) - 1) / H / terms**0.5
    # All terms of a sum have a part of the error in common.
    (own,) = [moved - c for c in (COMMON_SIGNS if terms > 1 else (0.0,)) if are_signs(moved - c)]
    assert abs(own.sum()) < 6 * size**0.5


X, I = real(3, 4, 6), np.array([0, 2, 2])
# Functions that reach each operation without rounding, on operands whose sums are none of their entries.
EXACT = [
    lambda x: -x, lambda x: jnp.maximum(x, x[::-1]), lambda x: jnp.minimum(x, x[::-1]), jnp.abs,
    lambda x: lax.clamp(-0.5, x, 0.5 + 0 * 1.0), lambda x: x.reshape(6, 4), lambda x: x.T, lambda x: x[I],
    lambda x: lax.dynamic_slice(x, (1, 2), (2, 3)), lambda x: lax.dynamic_update_slice(x, x[:1, :2], (2, 1)),
    lambda x: x.at[I].set(x[:3]), lambda x: x.at[I].min(x[:3]), lambda x: x.at[I].max(x[:3]),
    lambda x: jnp.concatenate([x, x[:1]]), lambda x: jnp.pad(x, 1, constant_values=x[0, 0]), lambda x: x[::-1],
    lambda x: x[::2, 1:], lambda x: jnp.stack([x, x]), lambda x: jnp.broadcast_to(x[:1], x.shape),
    lambda x: jnp.squeeze(x[:1], 0), lambda x: jnp.sort(x), lambda x: lax.top_k(x, 2)[0], lambda x: x.max(0),
    lambda x: x.min(0), lambda x: lax.cummax(x, 1), lambda x: lax.cummin(x, 1),
    lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID"),
    lambda x: lax.reduce_window(x, jnp.inf, lax.min, (2, 2), (1, 1), "VALID"), lambda x: jnp.where(x > 0, x, x[::-1]),
    lambda x: jnp.split(x, 2, 1)[1], lambda x: jnp.unstack(x)[1], lambda x: lax.select_n(x > 0, x, -x),
    lambda x: jnp.tile(x, (2, 1)), lambda x: x * -1.0, lambda x: lax.complex(x, x[::-1]).imag,
    lambda x: lax.conj(lax.complex(x, x)).real,
    lambda x: x[:1].sum(0),
]  # fmt: skip
# Operations without rounding whose results are integers or comparisons, or are checked below.
OF_INTEGERS = {
    "floor", "ceil", "is_finite", "gt", "lt", "ge", "le", "eq", "ne", "and", "or", "xor", "not", "shift_left",
    "shift_right_arithmetic", "sign", "round", "reduce_and", "reduce_or", "reduce_xor", "argmax", "argmin", "iota",
    "platform_index", "convert_element_type",
}  # fmt: skip
CHECKED_BELOW = {"rem", "nextafter", "bitcast_convert_type"}
ALLOCATES = {"empty2"}


def names_of(f):
    with jax.enable_x64(True):
        closed = jax.make_jaxpr(f)(X)
    return {eq.primitive: eq for eq in Reading(closed.jaxpr, closed.consts).equations}


@pytest.mark.parametrize("f", EXACT)
def test_what_counts_as_exact_returns_entries_of_its_operands(f):
    assert not any(eq.kernel.rounds for eq in names_of(f).values())
    y, _ = jax_vjp(lambda x: f(x))(x=X)
    assert np.isin(np.abs(y), [*np.abs(X).ravel(), 0.5]).all()
    # JAX may use other operations where it differentiates.
    detached = jax_vjp(lambda x: f(lax.stop_gradient(x)))
    ys, _ = detached.evaluate_perturbed({"x": X}, y, Perturbation(np.random.default_rng(0), 0.1))
    assert np.array_equal(ys[0], y)


def test_every_operation_is_perturbed_or_known_to_be_exact():
    shown = {name for f in EXACT for name in names_of(f)}
    # Those that round at any operands, and so never reach the kernels above.
    rounding = {*primitives._ROUNDING, *primitives._SPECIAL} | {
        "rsqrt", "logistic", "mul", "div", "pow", "integer_pow", "one_minus_square", "polynomial", "reduce_sum",
        "reduce_prod", "cumsum", "cumprod", "cumlogsumexp", "dot_general", "scatter-add", "scatter-sub", "scatter-mul",
        "reduce_window_sum", "select_and_scatter_add", "conv_general_dilated", "pure_callback", "fft",
    }  # fmt: skip
    rest = {*primitives.PRIMITIVES} - shown - rounding - OF_INTEGERS - CHECKED_BELOW - ALLOCATES
    assert rest <= {"squeeze", "tile", "split", "stack", "unstack", "real", "select_n"}, rest


@pytest.mark.parametrize(
    ("primitive", "f"),
    [
        ("reduce_sum", lambda x: x.sum()), ("cumsum", lambda x: x.cumsum(0)), ("cumprod", lambda x: x.cumprod(0)),
        ("scatter-add", lambda x: x[I]), ("scatter-mul", lambda x: x.at[I].multiply(x[:3], unique_indices=True)),
        ("select_and_scatter_add", lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2, 2), (1, 1), "VALID")),
        ("reduce_window_sum", lambda x: lax.reduce_window(x, 0.0, lax.add, (2, 2), (1, 1), "VALID")),
        ("convert_element_type", lambda x: x.astype(jnp.float32)), ("abs", lambda x: jnp.abs(lax.complex(x, x))),
        ("add_any", lambda x: x[:2].sum() + x[1:].max()), ("fft", lambda x: jnp.fft.fft(x).real),
    ],
)  # fmt: skip
def test_what_sums_or_narrows_rounds(primitive, f):
    assert any(eq.kernel.rounds for eq in equations_of(f, X) if eq.primitive == primitive)


def test_the_remainder_is_exact():
    x, y = real(5, 50) * 100, np.abs(real(6, 50)) + 0.01
    r, _ = jax_vjp(lax.rem)(x=x, y=y)
    for a, b, c in zip(x, y, r, strict=True):
        whole = Fraction(a) / Fraction(b)
        assert Fraction(c) == Fraction(a) - Fraction(b) * int(whole)


# --- Faults of the interpreter, and of the reference ---


def square_and_sine(z):
    return z * jnp.sin(z)


def backward(z, delta):
    return {"z": delta * (np.sin(z) + z * np.cos(z))}


def wrong_backward(z, delta):
    return {"z": delta * (np.sin(z) + 1.001 * z * np.cos(z))}


def broken_kernel(eq):
    def function(*operands):
        raise RuntimeError("planted")

    return primitives.Kernel(function, rounds=True, broadcasts=True)


def broken_maker(eq):
    raise RuntimeError("planted")


@pytest.mark.parametrize("fault", [broken_kernel, broken_maker])
@pytest.mark.parametrize("primitive", ["sin", "cos"])
def test_a_fault_of_the_interpreter_is_no_verdict(fault, primitive, monkeypatch):
    monkeypatch.setitem(primitives.PRIMITIVES, primitive, fault)
    z = {"z": np.array([0.4, 2.0])}
    rule = jax_vjp(square_and_sine)
    y, pull = rule(**z)
    assert np.array_equal(y, jax_vjp(square_and_sine, through="xla")(**z)[0])
    assert np.array_equal(pull(y)["z"], jax_vjp(square_and_sine, through="xla")(**z)[1](y)["z"])
    with pytest.raises(NotPerturbable):
        rule.evaluate_perturbed(z, y, Perturbation(np.random.default_rng(0), H))
    forward = manual(lambda z: (z * np.sin(z), z), backward)
    assert check(forward, z, [jax_vjp(square_and_sine)]).verdict == "agrees"
    with pytest.raises(AssertionError) as excinfo:
        check(manual(lambda z: (z * np.sin(z), z), wrong_backward), z, [jax_vjp(square_and_sine)])
    assert excinfo.value.verdict == "wrong"


def raising(z):
    raise KeyError("of the reference")


@pytest.mark.parametrize(
    "f",
    [
        raising, lambda z: z @ jnp.ones((7, 7)), lambda z: None, lambda z: {"y": "y"}, lambda z: "y",
        lambda z: lax.while_loop(lambda x: x.sum() < 9, lambda x: x * 2, z), lambda z: z if z.sum() > 0 else -z,
    ],
)  # fmt: skip
def test_what_a_reference_raises_is_its_own(f):
    with pytest.raises(ReferenceFailed):
        check(manual(lambda z: (z * 1.0, z), lambda c, d: {"z": d * 1.0}), {"z": np.ones(3)}, [jax_vjp(f)])


def test_what_a_callback_raises_is_the_references_own():
    def fail(x):
        raise ValueError("planted")

    def f(z):
        return jax.pure_callback(fail, jax.ShapeDtypeStruct(z.shape, z.dtype), lax.stop_gradient(z)) * z

    with pytest.raises(ReferenceFailed):
        check(manual(lambda z: (z * 1.0, z), lambda c, d: {"z": d * 1.0}), {"z": np.ones(3)}, [jax_vjp(f)])


# --- Integer outputs ---


def extreme(z):
    return z.max(1), z.argmax(1), z > 0


def extreme_forward(where):
    return lambda z: ((z.max(1), where(z), z > 0), z)


def extreme_backward(z, delta):
    g = np.zeros_like(z)
    g[np.arange(len(z)), z.argmax(1)] = delta[0]
    return {"z": g}


def test_integer_outputs_are_compared_as_values():
    z = {"z": real(7, 3, 4)}
    for where in (lambda z: z.argmax(1), lambda z: z.argmax(1).astype(np.int32)):
        assert check(manual(extreme_forward(where), extreme_backward), z, [jax_vjp(extreme)]).verdict == "agrees"
    with pytest.raises(AssertionError) as excinfo:
        check(manual(extreme_forward(lambda z: z.argmin(1)), extreme_backward), z, [jax_vjp(extreme)])
    assert {f.quantity for f in excinfo.value.result.findings if f.verdict == "wrong"} == {"output[1]"}


@pytest.mark.parametrize("through", ["numpy", "xla"])
def test_the_cotangent_of_an_integer_output_is_ignored(through):
    z = real(7, 3, 4)
    y, pull = jax_vjp(extreme, through=through)(z=z)
    assert [part.dtype for part in y] == [np.float64, np.int64, np.bool_]
    expected = extreme_backward(z, y)["z"]
    for ignored in (np.zeros(3), np.full(3, np.nan), np.zeros(3, jax.dtypes.float0), np.ones(3, int)):
        assert np.array_equal(pull((y[0], ignored, np.zeros((3, 4))))["z"], expected)


def test_integer_outputs_alone_have_zero_cotangents():
    z = real(7, 3, 4)
    rule = jax_vjp(lambda z: z.argmax(1))
    y, pull = rule(z=z)
    assert np.array_equal(pull(np.zeros(3))["z"], np.zeros((3, 4)))
    ys, gs = rule.evaluate_perturbed({"z": z}, np.zeros(3), Perturbation(np.random.default_rng(0), H))
    assert np.array_equal(ys[0], y)
    assert not gs["z"].any()
