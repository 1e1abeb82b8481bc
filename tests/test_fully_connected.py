"""A fully connected network by hand against torch.autograd and jax.grad: (1) to (21) of docs/derivation.md."""

from functools import partial
from itertools import pairwise

import jax
import numpy as np
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import oracles
from manual_bp import HalfSquaredError, Linear, ReLU, Sequential, Sigmoid, Tanh, deltas, value_and_grad

LOSS = HalfSquaredError("mean")
TORCH_FUNCTIONS = {ReLU(): torch.relu, Tanh(): torch.tanh, Sigmoid(): torch.sigmoid}
JAX_FUNCTIONS = {ReLU(): jax.nn.relu, Tanh(): jax.numpy.tanh, Sigmoid(): jax.nn.sigmoid}


def by_hand(network, x, target, **params):
    """Return δ^1 … δ^n, then the gradient by each parameter, as manual_bp computes them."""
    y, _ = network.forward(params, x)
    delta_n = LOSS.backward(LOSS.forward(y, target)[1])
    _, grads = value_and_grad(network, LOSS, params, x, target)
    return *deltas(network, params, x, delta_n), *(grads[name] for name in params)


def loss_value(network, functions, zeros, params, x, target):
    """Return L in torch or JAX, without any derivative: δ^l is the gradient by a zero that is added to z^l."""
    z = x + zeros[0]
    for index, (layer, zero) in enumerate(zip(network.layers, zeros[1:], strict=True)):
        z = zero + (functions[layer](z) if layer in functions else z @ params[f"{index}.W"] + params[f"{index}.b"])
    return ((z - target) ** 2).sum() / 2 / len(x)


def by_torch(network, zeros, x, target, **params):
    zeros = [torch.from_numpy(zero).requires_grad_() for zero in zeros]
    params = {name: value.detach().requires_grad_() for name, value in params.items()}
    value = loss_value(network, TORCH_FUNCTIONS, zeros, params, x, target)
    return torch.autograd.grad(value, [*zeros, *params.values()])


def by_jax(network, zeros, x, target, **params):
    of_zeros, of_params = jax.grad(partial(loss_value, network, JAX_FUNCTIONS), (0, 1))(zeros, params, x, target)
    return *of_zeros, *(of_params[name] for name in params)


@st.composite
def cases(draw, activations, numbers):
    """Draw depth, widths, activations and batch size, then every number."""
    rows, widths = draw(st.sampled_from([1, 4])), draw(st.lists(st.sampled_from([1, 3]), min_size=2, max_size=4))
    layers = [layer for n in pairwise(widths) for layer in (Linear(*n), draw(st.sampled_from(activations)))]
    network = Sequential(*layers[:-1])
    zeros = [np.zeros((rows, width)) for width in np.repeat(widths, 2)[1:-1]]  # a width lasts through its activation
    shapes = {name: value.shape for name, value in network.init(np.random.default_rng(0)).items()}
    shapes = {"x": (rows, widths[0]), "target": (rows, widths[-1]), **shapes}
    return network, zeros, {name: draw(arrays(float, shape, elements=numbers)) for name, shape in shapes.items()}


@settings(deadline=None)  # JAX compiles each new shape
@given(cases([ReLU()], st.integers(-3, 3)))
def test_gradients_of_integers_agree_exactly(case):
    """Nothing is rounded, so nothing is tolerated: every sum is a whole number of quarters, far below 2^53."""
    network, zeros, primals = case
    of_torch = by_torch(network, zeros, **{name: torch.from_numpy(array) for name, array in primals.items()})
    with jax.enable_x64(True):
        of_jax = map(np.asarray, by_jax(network, zeros, **primals))
    for gradient, *others in zip(by_hand(network, **primals), of_torch, of_jax, strict=True):
        assert [np.array_equal(gradient, other) for other in others] == [True, True]


@settings(deadline=None, max_examples=settings.default.max_examples // 10, phases=[Phase.generate])  # do not shrink
@given(cases([ReLU(), Tanh(), Sigmoid()], st.floats(-2, 2, width=32)))
def test_gradients_of_real_numbers_agree_within_rounding(case):
    """The judge derives from the input itself how far rounding can move each gradient."""
    network, zeros, primals = case
    subject = oracles.Rule(lambda **primals: (by_hand(network, **primals), lambda delta: {}))
    torchs, jaxs = partial(by_torch, network, zeros), partial(by_jax, network, zeros)
    oracles.check(subject, primals, against=[oracles.torch_autograd(torchs), oracles.jax_vjp(jaxs)])
