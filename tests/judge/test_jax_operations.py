"""Every operation that a reference may use is what XLA computes, forward and VJP, at whatever shapes and options."""

from functools import partial

import numpy as np
import pytest

jax = pytest.importorskip("jax")
from against_xla import disagreements, parts  # noqa: E402
from jax_operations import OPERATIONS, cumulative  # noqa: E402

from oracles.backends.jax_reference import jax_family, jax_vjp  # noqa: E402


def drawn(draw, seed, dtype="float64"):
    primals, options = draw(np.random.default_rng(seed))
    return {n: a.astype(dtype) if a.dtype.kind == "f" else a for n, a in primals.items()}, options


@pytest.mark.slow
@pytest.mark.parametrize(("f", "draw"), OPERATIONS, ids=lambda f: f.__name__)
def test_what_xla_computes(f, draw):
    family = jax_family(f)
    for seed in range(2):
        primals, options = drawn(draw, seed)
        rule = family(options)
        assert disagreements(partial(f, **options), primals, rule=rule) == []
        assert rule.evaluate.compilations == 0


@pytest.mark.deep
@pytest.mark.parametrize(("f", "draw"), OPERATIONS, ids=lambda f: f.__name__)
def test_what_xla_computes_at_more_shapes(f, draw):
    family = jax_family(f)
    for seed in range(100, 108):
        dtype = ("float32", "float64")[seed % 2]
        primals, options = drawn(draw, seed, dtype)
        unit = float(np.finfo(dtype).eps) / 2
        assert disagreements(partial(f, **options), primals, unit, rule=family(options)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("f", "draw"), [o for o in OPERATIONS if o[0] is not cumulative], ids=lambda f: f.__name__)
def test_few_traces_serve_many_shapes(f, draw):
    family, traces = jax_family(f), 0
    for seed in range(60):
        primals, options = drawn(draw, seed)
        rule = family(options)
        rule(**primals)
        traces += rule.evaluate.traces
    assert traces <= 25


@pytest.mark.slow
@pytest.mark.parametrize(("f", "draw"), OPERATIONS, ids=lambda f: f.__name__)
def test_a_shared_program_gives_what_a_trace_of_its_own_gives(f, draw):
    family = jax_family(f)
    for seed in range(8):
        primals, options = drawn(draw, seed)
        (y, pull), (own, own_pull) = family(options)(**primals), jax_vjp(f, options=options)(**primals)
        deltas = tuple(np.ones_like(part) for part in parts(own))
        delta = deltas if isinstance(own, tuple) else deltas[0]
        ours, theirs = (dict(enumerate(parts(a))) | p(delta) for a, p in ((y, pull), (own, own_pull)))
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name], strict=True)
