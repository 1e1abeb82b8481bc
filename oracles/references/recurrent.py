"""Reference cases of `LSTM` and `GRU`: torch's own networks, and a scan of a cell in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from manual_bp import GRU, LSTM
from manual_bp.recurrent import Recurrent
from oracles.adapters.functions import manual_layer
from oracles.lazy_modules import JaxArray, Tensor, jax, jnp, torch
from oracles.registry import Case, Reference, oracle_for
from oracles.strategies import Drawn, indices, real, rows, widths


def along_a_sequence(
    draw: st.DrawFn,
    kind: Callable[..., Recurrent],
    reference: Reference,
) -> Case:
    """One or two layers and directions, with and without biases and lengths; one step too, and lengths of 0."""
    n_layers, bidirectional, bias, lengths = draw(
        st.sampled_from(
            (
                (1, False, True, False),
                (1, False, False, True),
                (1, True, True, True),
                (2, False, True, False),
                (2, True, False, True),
            )
        )
    )
    n_rows, steps = draw(rows(3)), draw(widths(3))
    layer = kind(draw(widths(2)), draw(widths(2)), n_layers, bidirectional, bias, lengths)
    state = n_rows, n_layers * layer.n_directions, layer.n_hidden
    primals = {"z": real(n_rows, steps, layer.n_in), **{name: real(*state) for name in layer.cell.states}}
    if lengths:
        primals["lengths"] = indices(n_rows, below=steps + 1)
    return reference.case(
        manual_layer(layer),
        {**primals, **parameters(layer)},
        batched=layer.inputs,
    )


def parameters(layer: Recurrent) -> dict[str, Drawn]:
    """Weights for which sums of n_hidden terms have magnitude one."""
    return {name: real(*shape, scale=layer.n_hidden**-0.5) for name, shape in layer._shapes().items()}


def options(layer: Recurrent) -> dict[str, Any]:
    """The number of passes; the rest follows from the parameters."""
    return {"n_layers": layer.n_layers, "bidirectional": layer.bidirectional}


def passes(primals: dict[str, Any], n_layers: int, bidirectional: bool) -> list[list[dict[str, Any]]]:
    """Return the weights of every direction of every layer, under their own names."""
    prefixes = [[f"{k}.", f"{k}.reverse."] if bidirectional else [f"{k}."] for k in range(n_layers)]
    return [
        [{n: primals[prefix + n] for n in ("W", "U", "b", "d") if prefix + n in primals} for prefix in layer]
        for layer in prefixes
    ]


def torch_network(
    function: Callable[..., Any],
    z: Tensor,
    states: tuple[Tensor, ...],
    lengths: Tensor,
    layers: list[list[dict[str, Tensor]]],
) -> tuple[Tensor, ...]:
    """Call torch's network, on packed rows if there are lengths, without the rows of length 0."""
    flat = [w for layer in layers for own in layer for w in torch_weights(own)]
    tail = (bool("b" in layers[0][0]), len(layers), 0.0, False, len(layers[0]) == 2)
    columns = len(layers[0]) * layers[-1][0]["U"].shape[0]
    live = torch.arange(len(z), device=z.device) if lengths is None else torch.nonzero(lengths)[:, 0]
    if not len(live):
        return (z.new_zeros(*z.shape[:2], columns) + 0 * z.sum(), *(s.clone() for s in states))
    first = [s[live].transpose(0, 1).contiguous() for s in states]
    if lengths is None:
        y, *last = function(z, first if len(first) > 1 else first[0], flat, *tail, True)
        return (y, *(s.transpose(0, 1) for s in last))
    packed = torch.nn.utils.rnn.pack_padded_sequence(z[live], lengths[live], batch_first=True, enforce_sorted=False)
    first = [s[:, packed.sorted_indices] for s in first]
    data, *last = function(packed.data, packed.batch_sizes, first if len(first) > 1 else first[0], flat, *tail)
    back = torch.nn.utils.rnn.PackedSequence(data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(back, batch_first=True, total_length=z.shape[1])
    last = [s[:, packed.unsorted_indices].transpose(0, 1) for s in last]
    whole = z.new_zeros(*z.shape[:2], columns).index_copy(0, live, y)
    return (whole, *(s.index_copy(0, live, new) for s, new in zip(states, last, strict=True)))


def torch_weights(own: dict[str, Tensor]) -> list[Tensor]:
    """torch keeps weights transposed, biases flat, and always two of them."""
    weights = [own["W"].T.contiguous(), own["U"].T.contiguous()]
    if "b" in own:
        b = own["b"][0]
        weights += [b, own["d"][0] if "d" in own else b.new_zeros(b.shape)]
    return weights


def jax_network(
    cell: Callable[..., tuple[JaxArray, ...]],
    z: JaxArray,
    states: tuple[JaxArray, ...],
    lengths: JaxArray,
    layers: list[list[dict[str, JaxArray]]],
) -> tuple[JaxArray, ...]:
    """Scan a cell over the steps, from either end; `cell(own, x, state) -> state` takes one."""
    n_steps = z.shape[1]
    counts = jnp.full(z.shape[:1], n_steps) if lengths is None else lengths
    live = (jnp.arange(n_steps)[:, None] < counts)[..., None]
    x, last, k = z.swapaxes(0, 1), [], 0
    for layer in layers:
        directions = []
        for d, own in enumerate(layer):

            def step(state: JaxArray, at: JaxArray, own: JaxArray = own) -> JaxArray:
                x, live = at
                new = tuple(jnp.where(live, n, s) for n, s in zip(cell(own, x, state), state, strict=True))
                return new, jnp.where(live, new[0], 0)

            final, hs = jax.lax.scan(step, tuple(s[:, k] for s in states), (x, live), reverse=d == 1)
            directions.append(hs)
            last.append(final)
            k += 1
        x = jnp.concatenate(directions, axis=-1)
    return (x.swapaxes(0, 1), *(jnp.stack(part, axis=1) for part in zip(*last, strict=True)))


def lstm_torch(
    z: Tensor, h: Tensor, c: Tensor, n_layers: int, bidirectional: bool, lengths: Tensor = None, **params: Tensor
) -> Tensor:
    """The function behind torch.nn.LSTM."""
    return torch_network(torch.lstm, z, (h, c), lengths, passes(params, n_layers, bidirectional))


def lstm_jax(
    z: JaxArray,
    h: JaxArray,
    c: JaxArray,
    n_layers: int,
    bidirectional: bool,
    lengths: JaxArray = None,
    **params: JaxArray,
) -> JaxArray:
    """A scan of the cell."""
    return jax_network(lstm_cell, z, (h, c), lengths, passes(params, n_layers, bidirectional))


def lstm_cell(own: JaxArray, x: JaxArray, state: JaxArray) -> JaxArray:
    """Return the next (h, c), (56)–(58)."""
    h, c = state
    a = x @ own["W"] + h @ own["U"] + own.get("b", 0)
    i, f, g, o = jnp.split(a, 4, axis=1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


LSTM_REFERENCE = Reference(lstm_torch, lstm_jax, options=options, parameters=parameters)


@oracle_for(LSTM, reference=LSTM_REFERENCE)
def lstm(draw: st.DrawFn) -> Case:
    """Every option."""
    return along_a_sequence(draw, LSTM, LSTM_REFERENCE)


def gru_torch(
    z: Tensor, h: Tensor, n_layers: int, bidirectional: bool, lengths: Tensor = None, **params: Tensor
) -> Tensor:
    """The function behind torch.nn.GRU."""
    return torch_network(torch.gru, z, (h,), lengths, passes(params, n_layers, bidirectional))


def gru_jax(
    z: JaxArray, h: JaxArray, n_layers: int, bidirectional: bool, lengths: JaxArray = None, **params: JaxArray
) -> JaxArray:
    """A scan of the cell."""
    return jax_network(gru_cell, z, (h,), lengths, passes(params, n_layers, bidirectional))


def gru_cell(own: JaxArray, x: JaxArray, state: JaxArray) -> JaxArray:
    """Return the next (h,), (63)–(65)."""
    (h,) = state
    x_r, x_u, x_n = jnp.split(x @ own["W"] + own.get("b", 0), 3, axis=1)
    s_r, s_u, s_n = jnp.split(h @ own["U"] + own.get("d", 0), 3, axis=1)
    u = jax.nn.sigmoid(x_u + s_u)
    n = jnp.tanh(x_n + jax.nn.sigmoid(x_r + s_r) * s_n)
    return ((1 - u) * n + u * h,)


GRU_REFERENCE = Reference(gru_torch, gru_jax, options=options, parameters=parameters)


@oracle_for(GRU, reference=GRU_REFERENCE)
def gru(draw: st.DrawFn) -> Case:
    """Every option."""
    return along_a_sequence(draw, GRU, GRU_REFERENCE)
