"""The first wrong layer on the way back is named, whatever the network is made of."""

import numpy as np
import pytest
import torch
from planted_bugs.pairs_student import POINT, WRONG_CHAINS, names_of

from manual_bp import Linear, Sequential, Sigmoid
from oracles import Disagreement, check, manual_layer, torch_autograd, torch_module
from oracles.diagnosis.diagnose import diagnosis_of
from oracles.diagnosis.layers import first_wrong_layer


class ForgottenSigmoid(Sigmoid):
    def backward(self, cache, delta):
        return delta, {}


class Value(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        a = torch.sigmoid(z)
        ctx.save_for_backward(a)
        return a

    @staticmethod
    def backward(ctx, delta):
        return delta * ctx.saved_tensors[0]


class ValueModule(torch.nn.Module):
    def forward(self, z):
        return Value.apply(z)


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.activation, self.linear = ValueModule(), torch.nn.Linear(2, 2)

    def forward(self, z):
        return self.linear(self.activation(z))


def refusal(subject, primals):
    with pytest.raises(Disagreement) as excinfo:
        check(subject, primals)
    return excinfo.value.result


@pytest.mark.parametrize("place", WRONG_CHAINS)
def test_a_class_with_a_list_of_layers(place):
    wrong, pattern = WRONG_CHAINS[place]
    result = refusal(wrong, {n: POINT[n] for n in ("x", *names_of(2))})
    layer = first_wrong_layer(result)
    assert f"{layer.location} ({layer.kind})" == place
    assert diagnosis_of(result).pattern == pattern
    assert place in str(diagnosis_of(result))


def test_a_sequential_inside_a_sequential():
    rng = np.random.default_rng(0)
    network = Sequential(Linear(2, 3), Sequential(ForgottenSigmoid(), Linear(3, 2)), Sigmoid())
    result = refusal(manual_layer(network), {"z": rng.standard_normal((2, 2)), **network.init(rng)})
    layer = first_wrong_layer(result)
    assert (layer.location, layer.kind) == ("layers[1].layers[0]", "ForgottenSigmoid")
    assert diagnosis_of(result).pattern == "derivative_missing"


FORWARDS = []


class CountedLinear(Linear):
    """Linear, whose forwards are counted."""

    def forward(self, params, z):
        FORWARDS.append(z.shape)
        return super().forward(params, z)


def judged_against_torch(network, width, rows):
    """Return the refusal of a network of linear layers and sigmoids with square weights."""
    rng = np.random.default_rng(0)
    primals = {"z": rng.standard_normal((rows, width)), **network.init(rng)}

    def reference(z, **params):
        for i, layer in enumerate(network.layers):
            linear = isinstance(layer, Linear)
            z = z @ params[f"{i}.W"] + params[f"{i}.b"] if linear else torch.sigmoid(z)
        return z

    with pytest.raises(Disagreement) as excinfo:
        check(manual_layer(network), primals, [torch_autograd(reference)])
    return excinfo.value


@pytest.mark.parametrize("rows", [48, 70])
def test_square_weights_are_judged_for_few_rows(rows):
    width = 48
    network = Sequential(CountedLinear(width, width), ForgottenSigmoid(), CountedLinear(width, width), Sigmoid())
    FORWARDS.clear()
    refused = judged_against_torch(network, width, rows)
    smaller = refused.result.reduced["z"].setting.primals
    assert smaller["z"].shape[0] < rows // 4
    assert smaller["0.W"].shape == (width, width)
    assert "layers[1] (ForgottenSigmoid)" in refused.diagnosis
    assert diagnosis_of(refused.result).pattern == "derivative_missing"
    # Finite differences of every entry, or of a hundred, are several thousand forwards.
    assert len(FORWARDS) < 1000


class NegligibleLinear(Linear):
    """Linear, wrong in one entry of W alone, by more than rounding."""

    def backward(self, cache, delta):
        dz, grads = super().backward(cache, delta)
        grads["W"] = grads["W"] + (np.arange(grads["W"].size) == 5).reshape(grads["W"].shape)
        return dz, grads


def test_one_wrong_entry_of_a_large_layer_is_seen_along_a_direction():
    width = 48
    network = Sequential(Linear(width, width), Sigmoid(), NegligibleLinear(width, width), Sigmoid())
    refused = judged_against_torch(network, width, 70)
    assert "layers[2] (NegligibleLinear)" in refused.diagnosis


def test_a_child_of_a_module():
    rng = np.random.default_rng(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), Block())
    result = refusal(torch_module(module), {"z": rng.standard_normal((2, 2))})
    layer = first_wrong_layer(result)
    assert (layer.location, layer.kind) == ("1.activation", "ValueModule")
    assert layer.result.refuses


def test_a_class_is_as_before_after_a_diagnosis():
    wrong, _ = WRONG_CHAINS["layers[1] (Sigmoid)"]
    before = {c: attributes(c) for c in {type(layer) for layer in wrong.implementation.layers}}
    first_wrong_layer(refusal(wrong, {n: POINT[n] for n in ("x", *names_of(2))}))
    assert {c: attributes(c) for c in before} == before


def attributes(layer_type: type) -> dict[str, object]:
    """The attributes of a class, without `__slotnames__`: copyreg keeps it there once an object has been copied."""
    return {name: value for name, value in vars(layer_type).items() if name != "__slotnames__"}
