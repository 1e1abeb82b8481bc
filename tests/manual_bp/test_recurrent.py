"""Recurrent layers against their definition, step by step and entry by entry; lengths, directions, a custom cell."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import manual_bp as m
from manual_bp.recurrent import Recurrent, gate_slopes, gates, tanh_slopes

KINDS = [m.LSTM, m.GRU]
# Sums and products of a few dozen numbers below 4, each rounded a few hundred times at most.
ROUNDINGS = 2.0**-53 * 4 * 256


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def lstm_step(own, x, state):
    h, c = state
    n, width = len(h), own["U"].shape[1]
    a = [sum(x[i] * own["W"][i, j] for i in range(len(x))) for j in range(width)]
    a = [a[j] + sum(h[i] * own["U"][i, j] for i in range(n)) + own["b"][0, j] for j in range(width)]
    new_c = [sigmoid(a[n + j]) * c[j] + sigmoid(a[j]) * np.tanh(a[2 * n + j]) for j in range(n)]
    return [sigmoid(a[3 * n + j]) * np.tanh(new_c[j]) for j in range(n)], new_c


def gru_step(own, x, state):
    (h,) = state
    n = len(h)
    a = [sum(x[i] * own["W"][i, j] for i in range(len(x))) + own["b"][0, j] for j in range(3 * n)]
    s = [sum(h[i] * own["U"][i, j] for i in range(n)) + own["d"][0, j] for j in range(3 * n)]
    r, u = ([sigmoid(a[k * n + j] + s[k * n + j]) for j in range(n)] for k in (0, 1))
    new = [np.tanh(a[2 * n + j] + r[j] * s[2 * n + j]) for j in range(n)]
    return ([(1 - u[j]) * new[j] + u[j] * h[j] for j in range(n)],)


def by_definition(layer, params, z, states, lengths):
    """One direction and one layer, row by row: y and the final states."""
    step = lstm_step if isinstance(layer, m.LSTM) else gru_step
    own = {name.removeprefix("0."): p for name, p in params.items()}
    y = np.zeros((*z.shape[:2], layer.n_hidden), complex)
    finals = [np.array(s, complex) for s in states]
    for row in range(len(z)):
        state = [list(s[row, 0]) for s in states]
        for t in range(lengths[row]):
            state = step(own, z[row, t], state)
            y[row, t] = state[0]
        for final, s in zip(finals, state, strict=True):
            final[row, 0] = s
    return [y, *finals]


def draw_inputs(layer, n_rows, steps, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n_rows, steps, layer.n_in)).astype(dtype)
    shape = n_rows, layer.n_layers * layer.n_directions, layer.n_hidden
    states = tuple(rng.standard_normal(shape).astype(dtype) for _ in layer.cell.states)
    return layer.init(rng, dtype), (z, *states), rng


def deltas_of(rng, outputs):
    return tuple(rng.standard_normal(y.shape).astype(y.dtype) for y in outputs)


@pytest.mark.parametrize("kind", KINDS)
def test_recurrence_matches_its_definition(kind):
    """The definition in complex numbers gives the derivative too: f(x + ih) = f(x) + ih f'(x), without a difference."""
    layer = kind(2, 3, lengths=True)
    params, inputs, rng = draw_inputs(layer, 3, 4)
    lengths = np.array([4, 0, 2])
    outputs, cache = layer.forward(params, (*inputs, lengths))
    for one, other in zip(outputs, by_definition(layer, params, inputs[0], inputs[1:], lengths), strict=True):
        assert np.abs(one - other.real).max() <= ROUNDINGS
    delta = deltas_of(rng, outputs)
    (*back, none), grads = layer.backward(cache, delta)
    assert none is None
    arguments = dict(zip(layer.inputs, inputs, strict=False)) | params
    for name, gradient in (dict(zip(layer.inputs, back, strict=False)) | grads).items():
        for index in np.ndindex(gradient.shape):
            at = {n: a.astype(complex) for n, a in arguments.items()}
            at[name][index] += 1e-200j
            row_outputs = by_definition(
                layer, {n: at[n] for n in params}, at["z"], [at[s] for s in layer.cell.states], lengths
            )
            slope = sum(float((d * y.imag).sum()) for d, y in zip(delta, row_outputs, strict=True)) * 1e200
            assert abs(gradient[index] - slope) <= ROUNDINGS, (name, index)


@pytest.mark.parametrize("kind", KINDS)
def test_two_layers_are_a_network_of_two(kind):
    layer = kind(2, 3, n_layers=2)
    params, (z, *states), rng = draw_inputs(layer, 4, 5)
    network = m.Sequential(kind(2, 3), kind(3, 3))
    apart = {f"{name[0]}.0.{name[2:]}": p for name, p in params.items()}
    sides = [s[:, k : k + 1] for k in range(2) for s in states]
    outputs, cache = layer.forward(params, (z, *states))
    (y, *finals), inner_cache = network.forward(apart, (z, *sides))
    assert network.inputs[1:] == tuple(f"{k}.{s}" for k in range(2) for s in layer.cell.states)
    assert np.array_equal(y, outputs[0])
    delta = deltas_of(rng, outputs)
    back, grads = layer.backward(cache, delta)
    (dz, *dsides), grads_apart = network.backward(
        inner_cache, (delta[0], *(d[:, k : k + 1] for k in range(2) for d in delta[1:]))
    )
    assert np.array_equal(dz, back[0])
    assert all(np.array_equal(grads[n], grads_apart[f"{n[0]}.0.{n[2:]}"]) for n in grads)
    count = len(states)
    for i in range(count):
        assert np.array_equal(np.concatenate(finals[i::count], axis=1), outputs[1 + i])
        assert np.array_equal(np.concatenate(dsides[i::count], axis=1), back[1 + i])


@pytest.mark.parametrize("kind", KINDS)
def test_reverse_direction_starts_at_each_rows_own_end(kind):
    layer, one = kind(2, 3, bidirectional=True, lengths=True), kind(2, 3)
    params, (z, *states), rng = draw_inputs(layer, 3, 4)
    lengths = np.array([4, 1, 3])
    outputs, cache = layer.forward(params, (z, *states, lengths))
    delta = deltas_of(rng, outputs)
    (dz, *dstates, _), _ = layer.backward(cache, delta)
    onward = {n: p for n, p in params.items() if "reverse" not in n}
    back = {n.replace("reverse.", ""): p for n, p in params.items() if "reverse" in n}
    for row, length in enumerate(lengths):
        whole = np.zeros_like(z[row : row + 1])
        for d, (own, order) in enumerate(((onward, slice(None)), (back, slice(None, None, -1)))):
            columns = slice(3 * d, 3 * d + 3)
            row_states = [s[row : row + 1, d : d + 1] for s in states]
            row_outputs, inner_cache = one.forward(own, (z[row : row + 1, :length][:, order], *row_states))
            dy = delta[0][row : row + 1, :length, columns][:, order]
            (dx, *dfirst), _ = one.backward(inner_cache, (dy, *(each[row : row + 1, d : d + 1] for each in delta[1:])))
            assert np.abs(outputs[0][row, :length, columns] - row_outputs[0][0][order]).max() <= ROUNDINGS
            assert not outputs[0][row, length:].any()
            whole[:, :length] += dx[:, order]
            for k, (final, first) in enumerate(zip(row_outputs[1:], dfirst, strict=True)):
                assert np.abs(outputs[1 + k][row, d] - final[0, 0]).max() <= ROUNDINGS
                assert np.abs(dstates[k][row, d] - first[0, 0]).max() <= ROUNDINGS
        assert np.abs(dz[row] - whole).max() <= ROUNDINGS


@pytest.mark.parametrize("kind", KINDS)
def test_steps_beyond_a_rows_length_are_ignored(kind):
    layer = kind(2, 3, n_layers=2, bidirectional=True, lengths=True)
    params, (z, *states), rng = draw_inputs(layer, 2, 3)
    lengths = np.array([0, 2], np.uint8)
    outputs, cache = layer.forward(params, (z, *states, lengths))
    delta = deltas_of(rng, outputs)
    (dz, *dstates, _), grads = layer.backward(cache, delta)
    corrupted = z.copy()
    corrupted[0], corrupted[1, 2] = np.nan, np.inf
    again, inner_cache = layer.forward(params, (corrupted, *states, lengths))
    more = delta[0].copy()
    more[0], more[1, 2] = 7, -7
    (other, *_), grads_again = layer.backward(inner_cache, (more, *delta[1:]))
    assert all(np.array_equal(a, b) for a, b in zip(outputs, again, strict=True))
    assert np.array_equal(dz, other)
    assert not dz[0].any()
    assert not dz[1, 2].any()
    assert all(np.array_equal(grads[n], grads_again[n]) for n in grads)
    for final, state, d, dfinal in zip(outputs[1:], states, dstates, delta[1:], strict=True):
        assert np.array_equal(final[0], state[0])  # a row of no steps hands its state through
        assert np.array_equal(d[0], dfinal[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_rows", "steps"), [(0, 3), (2, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.longdouble])
def test_no_rows_and_no_steps(kind, n_rows, steps, dtype):
    layer = kind(2, 3, n_layers=2, bidirectional=True)
    params, inputs, rng = draw_inputs(layer, n_rows, steps, dtype)
    outputs, cache = layer.forward(params, inputs)
    assert [y.shape for y in outputs] == [(n_rows, steps, 6), *[(n_rows, 4, 3)] * len(layer.cell.states)]
    delta = deltas_of(rng, outputs)
    back, grads = layer.backward(cache, delta)
    assert [d.shape for d in back] == [a.shape for a in inputs]
    assert {a.dtype for a in (*outputs, *back, *grads.values())} == {np.dtype(dtype)}
    assert list(grads) == list(params)
    if steps == 0:
        assert all(
            np.array_equal(a, b) for a, b in zip((*outputs[1:], *back[1:]), (*inputs[1:], *delta[1:]), strict=True)
        )
    if n_rows * steps == 0:
        assert not any(g.any() for g in grads.values())


@pytest.mark.parametrize(("kind", "weight"), [(m.LSTM, 25.0), (m.GRU, 8.0)])
def test_saturated_gates_keep_their_digits(kind, weight):
    """Where every gate is near 0 or 1, y(1 − y) is 0 in float32; its value is not."""
    layer = kind(1, 1)
    params = {n: np.full(p.shape, weight, np.float32) for n, p in layer.init(np.random.default_rng(0)).items()}
    inputs = [np.full((1, 1, 1), -1.0, np.float32), *[np.full((1, 1, 1), 0.5, np.float32)] * len(layer.cell.states)]
    grads = {}
    for dtype in (np.float32, np.longdouble):
        outputs, cache = layer.forward(
            {n: p.astype(dtype) for n, p in params.items()}, tuple(a.astype(dtype) for a in inputs)
        )
        grads[dtype] = layer.backward(cache, tuple(np.ones_like(y) for y in outputs))[1]["0.W"]
    assert np.all(grads[np.longdouble] != 0)
    # Every gate stands at 12 or 12.5, whose roundoff exp makes 12 of its own: two or three factors of that.
    assert np.all(np.abs(grads[np.float32] / grads[np.longdouble] - 1) <= 2.0**-24 * 64)


class TanhCell:
    gates, states, recurrent_bias = 1, ("h",), False

    def forward(self, x, r, state):
        h = np.tanh(x + r)
        return (h,), x + r

    def backward(self, a, dstate):
        da = dstate[0] * tanh_slopes(gate_slopes(*gates(a)))
        return da, da, (None,)


@dataclass(frozen=True)
class Elman(Recurrent):
    cell: ClassVar = TanhCell()


def test_recurrent_accepts_a_custom_cell():
    layer = Elman(2, 3, n_layers=2, bidirectional=True, lengths=True)
    params, (z, h), rng = draw_inputs(layer, 3, 4)
    lengths = np.array([4, 2, 3])
    assert layer.inputs == ("z", "h", "lengths")
    outputs, cache = layer.forward(params, (z, h, lengths))
    delta = deltas_of(rng, outputs)
    (dz, dh, _), grads = layer.backward(cache, delta)
    by_name = {"z": dz, "h": dh, **grads}
    for name, gradient in by_name.items():
        v = rng.standard_normal(gradient.shape)
        step = 2.0**-17
        sides = []
        for sign in (1, -1):
            at = {"z": z, "h": h, **params}
            at[name] = at[name] + sign * step * v
            row_outputs, _ = layer.forward({n: at[n] for n in params}, (at["z"], at["h"], lengths))
            sides.append(sum(float((d * y).sum()) for d, y in zip(delta, row_outputs, strict=True)))
        # Central differences: third derivatives of a few dozen, times h², and rounding by 2^-53/h.
        assert abs((sides[0] - sides[1]) / (2 * step) - float((gradient * v).sum())) <= 2.0**-34 * 512
