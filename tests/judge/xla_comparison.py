"""Compare translated programs with XLA, for the tests of the JAX oracle."""

import numpy as np

from oracles.backends.jax_reference import jax_vjp
from oracles.rule import Perturbation

SAMPLES, CONFIDENCE, H = 8, 8.0, 2.0**-26
f8 = np.float64


def parts(y):
    return list(y) if isinstance(y, tuple) else [y]


def draw(shapes, seed=0, dtype=f8):
    """Draw primals by name: normal numbers for a shape; an array is used as it is."""
    rng = np.random.default_rng(seed)
    return {k: s if isinstance(s, np.ndarray) else rng.standard_normal(s).astype(dtype) for k, s in shapes.items()}


def deltas_of(y, seed=1):
    rng = np.random.default_rng(seed)
    ds = tuple(np.asarray(rng.standard_normal(part.shape), part.dtype) for part in parts(y))
    return ds if isinstance(y, tuple) else ds[0]


def evaluate_perturbed(rule, primals, delta, h, seed):
    wide = tuple(np.asarray(d, f8) if d.dtype.kind == "f" else d for d in parts(delta))
    ys, gs = rule.evaluate_perturbed(
        primals, wide if isinstance(delta, tuple) else wide[0], Perturbation(np.random.default_rng(seed), h)
    )
    return dict(enumerate(ys)) | gs


def disagreements(f, primals, unit=2.0**-53, rule=None):
    """Return the names whose NumPy and XLA values differ by more than rounding can explain: c √n u noise."""
    rule = rule or jax_vjp(f)
    (y, pull), (y_xla, pull_xla) = rule(**primals), jax_vjp(f, through="xla")(**primals)
    delta = deltas_of(y)
    ours = dict(enumerate(parts(y))) | pull(delta)
    xla = dict(enumerate(parts(y_xla))) | pull_xla(delta)
    assert ours.keys() == xla.keys()
    wide = {k: a.astype(f8) if a.dtype.kind == "f" else a for k, a in primals.items()}
    centre, noise = evaluate_perturbed(rule, wide, delta, 0.0, 0), {k: np.zeros(np.shape(v)) for k, v in ours.items()}
    for seed in range(SAMPLES):
        for k, v in evaluate_perturbed(rule, wide, delta, H, seed).items():
            with np.errstate(invalid="ignore"):
                noise[k] = np.fmax(noise[k], np.abs(v - centre[k]) / H) if v.dtype.kind == "f" else noise[k]
    n = max((e for a in (*primals.values(), *parts(delta)) for e in a.shape), default=1)
    wrong = []
    for k, a in ours.items():
        b = xla[k]
        assert (a.shape, a.dtype, type(a)) == (b.shape, b.dtype, np.ndarray)
        assert a.flags.writeable
        assert a.base is None
        with np.errstate(invalid="ignore"):
            agree = (
                (np.abs(a - b) <= CONFIDENCE * max(n, 1) ** 0.5 * unit * noise[k]) if a.dtype.kind == "f" else a == b
            )
        if not np.all(agree | (a == b) | ((a != a) & (b != b))):
            wrong.append(k)
    return wrong
