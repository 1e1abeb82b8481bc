"""NumPy evaluates each operation as XLA computes it, forward and VJP, for every shape, dtype and option."""

from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")
import jax.numpy as jnp  # noqa: E402
from jax import lax, nn  # noqa: E402
from jax_operations import OPERATIONS, mlp, mlp_shapes  # noqa: E402
from xla_comparison import disagreements, draw, parts  # noqa: E402

from oracles.backends.jax_reference import jax_family, jax_vjp  # noqa: E402
from oracles.perturbation import jaxpr  # noqa: E402
from oracles.perturbation import jaxpr_primitives as primitives  # noqa: E402
from oracles.perturbation.jaxpr_primitives import Kernel  # noqa: E402
from oracles.rule import NotPerturbable  # noqa: E402


def of(**shapes):
    return shapes


def attention(q, k, v):
    scores = q @ k.swapaxes(-1, -2) / jnp.sqrt(q.shape[-1])
    mask = jnp.tril(jnp.ones(scores.shape[-2:], bool))
    return nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1) @ v


def layer_norm(z, g, b):
    m, v = z.mean(-1, keepdims=True), z.var(-1, keepdims=True)
    return (z - m) * lax.rsqrt(v + 1e-5) * g + b


def batch_norm(z, g):
    return (z - z.mean(0)) / jnp.sqrt(z.var(0) + 1e-5) * g


def cross_entropy(z, labels):
    return -(nn.log_softmax(z) * nn.one_hot(labels, z.shape[1], dtype=z.dtype)).sum() / z.shape[0]


def picked(z, labels):
    return (nn.logsumexp(z, axis=1) - jnp.take_along_axis(z, labels[:, None], 1)[:, 0]).mean()


def rnn(z, W):
    def step(h, x):
        h = jnp.tanh(h @ W + x)
        return h, h * x

    return lax.scan(step, jnp.zeros(z.shape[1:]), z)


def conv(z, W):
    return lax.conv_general_dilated(z, W, (2, 1), [(1, 1), (0, 2)], feature_group_count=2)


def pool(z):
    z = lax.reduce_window(z, -jnp.inf, lax.max, (1, 2), (1, 2), "SAME")
    return lax.reduce_window(z, 0.0, lax.add, (2, 1), (1, 1), "VALID") + z[:1]


def chosen(z):
    return lax.cond(z.sum() > 0, lambda x: x * jnp.sin(x), lambda x: jnp.exp(x) - x, z)


def many(z):
    return z.T, z.sum(), (z > 0).astype(jnp.int32), jnp.broadcast_to(z[:1], z.shape)


def indexed(z):
    i = jnp.array([0, 2, 0])
    return z[i] * 2 + lax.dynamic_slice(z, (1, 0), (3, z.shape[1])).at[1].add(z[0]) + jnp.roll(z, 1, 0)[:3]


def looped(z):
    return lax.fori_loop(0, 3, lambda i, x: x * jnp.cos(x) + i, z)


def assembled(z):
    a, b = jnp.split(jnp.concatenate([z, z[::-1] * 2], 1), 2, axis=1)
    return (
        jnp.pad(a[1:, ::2], ((1, 0), (0, 2)), constant_values=3.0),
        jnp.stack([a * b, b, z]),
        jnp.sort(b, 0) + lax.top_k(z, 2)[0].sum(),
    )


def running(z):
    return jnp.cumsum(z, 1) * jnp.cumprod(z, 0) + lax.cummax(z, 1) + jnp.round(z) + jnp.remainder(z, 2.0) + z.argmax()


def elementary(z):
    a = jnp.abs(z) + 0.1
    b = jnp.log1p(a) * jnp.expm1(z) + jnp.sin(z) * jnp.cos(z) + jnp.arctan2(z, a) + jnp.cbrt(a) + a**2.5 + jnp.exp2(z)
    return (
        b + lax.erf(z) + lax.lgamma(a) + 1 / a**3 + jnp.sqrt(a) * jnp.log(a) + jnp.clip(z, -0.5, 0.5) + jnp.sign(z) * z
    )


def activations(z):
    return sum(g(z) for g in (nn.relu, nn.leaky_relu, nn.elu, nn.softplus, nn.sigmoid, nn.silu, nn.selu)) + nn.gelu(z)


def exact_gelu(z):
    return nn.gelu(z, approximate=False) + nn.log_sigmoid(z)


def reduced(z):
    return z.max(0) + z.min(0) + z.prod(0) + jnp.linalg.norm(z, axis=0) + (z * z.shape[0]).mean(0)


def einsums(a, b):
    return jnp.einsum("bij,bjk->ibk", a, b), jnp.einsum("bij,bjk->k", a, b), jnp.einsum("bij->ij", a)


def divided(z, i):
    return z * (i // 2) + (i % 3) + jnp.where((i > 0) & ~(i == 2), z, -z)


def reinterpreted(z):
    bits = lax.bitcast_convert_type(z, jnp.uint64)
    upper = lax.bitcast_convert_type(bits & jnp.uint64(0xFFFFFFFF00000000), z.dtype)
    halves = lax.bitcast_convert_type(z, jnp.uint32)
    return z * lax.stop_gradient(upper), halves, lax.bitcast_convert_type(halves, jnp.uint64)


def fused(z):
    """What JAX has since 0.12."""
    return lax.one_minus_square(z), lax.polynomial(z, [1.0, z[:1], 0.25])


INTS = np.array([[-5, 2, 0], [7, -1, 3]])
CASES = [
    (mlp, [mlp_shapes(3, 4, 5, 2, 6), mlp_shapes(1, 1, 1, 1, 1), mlp_shapes(0, 3, 2, 4, 1)]),
    (attention, [of(q=(2, 4, 3), k=(2, 4, 3), v=(2, 4, 5)), of(q=(1, 1, 1), k=(1, 1, 1), v=(1, 1, 1))]),
    (
        layer_norm,
        [of(z=(5, 6), g=(6,), b=(6,)), of(z=(0, 3), g=(3,), b=(3,)), of(z=(2, 2), g=(2,), b=(1,))],
    ),
    (batch_norm, [of(z=(7, 3), g=(3,)), of(z=(2, 1), g=(1,))]),
    (cross_entropy, [of(z=(3, 4), labels=np.array([0, 3, 3])), of(z=(1, 1), labels=np.array([0]))]),
    (picked, [of(z=(3, 4), labels=np.array([0, -1, 3])), of(z=(2, 3), labels=np.array([7, 0]))]),
    (rnn, [of(z=(4, 3), W=(3, 3)), of(z=(1, 1), W=(1, 1))]),
    (conv, [of(z=(2, 4, 6, 5), W=(6, 2, 3, 2)), of(z=(1, 2, 5, 3), W=(2, 1, 1, 1))]),
    (pool, [of(z=(4, 7)), of(z=(2, 2))]),
    (chosen, [of(z=(3, 2)), of(z=np.full((2, 2), -1.5))]),
    (many, [of(z=(3, 2)), of(z=(1, 1))]),
    (indexed, [of(z=(5, 3))]),
    (looped, [of(z=(3,)), of(z=())]),
    (assembled, [of(z=(3, 4)), of(z=(2, 2))]),
    (running, [of(z=(3, 4)), of(z=(1, 1))]),
    (elementary, [of(z=(3, 4)), of(z=()), of(z=(0,))]),
    (activations, [of(z=(3, 4)), of(z=np.array([-800.0, -40.0, 0.0, 1e-300, 40.0, 800.0]))]),
    (exact_gelu, [of(z=(3, 4)), of(z=(1,))]),
    (reduced, [of(z=(3, 4)), of(z=(1, 1)), of(z=(2, 0))]),
    (einsums, [of(a=(2, 3, 4), b=(2, 4, 5)), of(a=(1, 1, 1), b=(1, 1, 1))]),
    (divided, [of(z=(2, 3), i=INTS), of(z=(1, 3), i=INTS.astype(np.int32))]),
    (reinterpreted, [of(z=(2, 3)), of(z=(0,))]),
]
if hasattr(lax, "polynomial"):
    CASES.append((fused, [of(z=(3, 1)), of(z=np.array([0.0, 1e-20, 1.0 - 2.0**-50, -1.0]))]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("f", "shapes"),
    [pytest.param(f, s, id=f"{f.__name__}-{i}") for f, many in CASES for i, s in enumerate(many)],
)
def test_agrees_with_xla(f, shapes):
    assert disagreements(f, draw(shapes)) == []


def primals_of(draw, seed, dtype="float64"):
    primals, options = draw(np.random.default_rng(seed))
    return {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in primals.items()}, options


@pytest.mark.slow
@pytest.mark.parametrize(("f", "draw"), OPERATIONS, ids=lambda f: f.__name__)
def test_each_operation_agrees_with_xla(f, draw):
    family = jax_family(f)
    for seed in range(2):
        primals, options = primals_of(draw, seed)
        rule = family(options)
        assert disagreements(partial(f, **options), primals, rule=rule) == []
        assert rule.evaluate.compilations == 0


@pytest.mark.deep
@pytest.mark.parametrize(("f", "draw"), OPERATIONS, ids=lambda f: f.__name__)
def test_each_operation_agrees_with_xla_at_more_shapes(f, draw):
    family = jax_family(f)
    for seed in range(100, 108):
        dtype = ("float32", "float64")[seed % 2]
        primals, options = primals_of(draw, seed, dtype)
        unit = float(np.finfo(dtype).eps) / 2
        assert disagreements(partial(f, **options), primals, unit, rule=family(options)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("f", "draw"), OPERATIONS, ids=lambda f: f.__name__)
def test_a_shared_trace_gives_what_a_trace_of_its_own_gives(f, draw):
    family = jax_family(f)
    for seed in range(8):
        primals, options = primals_of(draw, seed)
        (y, pull), (own, own_pull) = family(options)(**primals), jax_vjp(f, options=options)(**primals)
        deltas = tuple(np.ones_like(part) for part in parts(own))
        delta = deltas if isinstance(own, tuple) else deltas[0]
        shared, alone = (dict(enumerate(parts(a))) | p(delta) for a, p in ((y, pull), (own, own_pull)))
        for name in alone:
            np.testing.assert_array_equal(shared[name], alone[name], strict=True)


def swapped(eq):
    return Kernel(lambda x, y: y - x, rounds=True, broadcasts=True)


def transposed(eq):
    product, shape = primitives._dot_general(eq).function, eq.outputs[0].shape
    return Kernel(lambda x, y: product(x, y).T.reshape(shape), rounds=True)


def over_the_first_axis(eq):
    return Kernel(lambda x: np.add.reduce(x, 0), rounds=True)


def one_step(eq, perturbed):
    """Treat a scan as a call of its body."""
    body = jaxpr._body(eq.params["jaxpr"], perturbed)
    return lambda perturb, *operands: body(perturb, *operands)


def off_by_a_little(eq):
    power = primitives._integer_power(eq).function
    return Kernel(lambda x: power(x * 1.0000000001), rounds=True, broadcasts=True)


def in_float32(eq):
    return Kernel(lambda x: np.tanh(x.astype("f4")).astype("f8"), rounds=True, broadcasts=True)


def branches_swapped(eq):
    return Kernel(lambda which, no, yes: np.where(which, no, yes), broadcasts=True)


PLANTS = [
    ("sub", primitives.PRIMITIVES["add"], layer_norm, of(z=(4, 4), g=(4,), b=(4,))),
    ("sub", swapped, batch_norm, of(z=(7, 3), g=(3,))),
    ("dot_general", transposed, mlp, mlp_shapes(3, 4, 5, 2, 6)),
    ("reduce_sum", over_the_first_axis, layer_norm, of(z=(4, 4), g=(4,), b=(4,))),
    ("scatter-add", primitives.PRIMITIVES["scatter"], indexed, of(z=(5, 3))),
    ("select_n", branches_swapped, activations, of(z=(3, 4))),
    ("integer_pow", off_by_a_little, elementary, of(z=(3, 4))),
    ("tanh", in_float32, mlp, mlp_shapes(2, 2, 2, 2, 2)),
    ("scan", one_step, rnn, of(z=(3, 3), W=(3, 3))),
]


@pytest.mark.parametrize(
    ("primitive", "plant", "f", "shapes"), PLANTS, ids=[f"{p[0]}-{i}" for i, p in enumerate(PLANTS)]
)
def test_planted_bug_is_refused(primitive, plant, f, shapes, monkeypatch):
    monkeypatch.setitem(jaxpr._CONTROL if primitive == "scan" else primitives.PRIMITIVES, primitive, plant)
    try:
        wrong = disagreements(f, draw(shapes))
    except (NotPerturbable, ValueError, IndexError, AssertionError) as error:  # not even the shapes are kept
        wrong = [error]
    assert wrong
