"""Classes that keep parameters, caches and gradients in their objects, at any location."""

import dense_classes as classes
import numpy as np
import pytest
from dense_classes import AT, TORCH
from forms import as_class
from pair_bugs import BUGS, QUICK
from pairs import DTYPES, PAIRS, slow_except

import oracles
from manual_bp import Linear, Sequential, SoftmaxCrossEntropy, Tanh
from oracles import Disagreement, Update, Verdict, stateful

WB = ("W", "b")
IN_DICTS = {"params": {"W": "params['W']", "b": 'params["b"]'}, "grads": "grads['{}']"}
LOCATIONS = {
    "attributes": lambda: stateful(classes.Attributes, params=WB),
    "an instance": lambda: stateful(classes.Attributes(), params=WB),
    "a factory": lambda: stateful(lambda: classes.Attributes(), params=WB),
    "dicts": lambda: stateful(classes.Dicts, **IN_DICTS),
    "dicts, keys unquoted": lambda: stateful(
        classes.Dicts, params={"W": "params[W]", "b": "params[b]"}, grads="grads[{}]"
    ),
    "dicts in lists": lambda: stateful(
        classes.Nested,
        params={"W": "layers[0]['weights']", "b": "layers[-1]['bias']"},
        grads={"W": "gradients[0][0]", "b": "gradients[-1][-1]"},
    ),
    "aliased, by attribute": lambda: stateful(classes.Aliased, params=WB),
    "aliased, by the list": lambda: stateful(classes.Aliased, params={"W": "parameters[0]", "b": "parameters[1]"}),
    "lists of lists": lambda: stateful(classes.Lists, params={"W": "weights", "b": "biases"}),
    "properties": lambda: stateful(
        classes.Properties, params=WB, grads={n: lambda obj, n=n: obj.gradients()[n] for n in WB}
    ),
    "a setter": lambda: stateful(
        classes.Attributes, params={"W": lambda obj, array: setattr(obj, "W", array), "b": "b"}
    ),
    "lazy attributes": lambda: stateful(classes.Lazy, params=WB),
    "a lazy dict": lambda: stateful(classes.LazyDict, **IN_DICTS),
    "slots": lambda: stateful(classes.Slots, params=WB),
    "accumulated": lambda: stateful(classes.Accumulating, params=WB),
    "accumulated, declared": lambda: stateful(classes.Accumulating, params=WB, accumulates=True),
    "accumulated, flushed": lambda: stateful(classes.Accumulating, params=WB, flush="zero_grad"),
    "accumulated, flushed by a function": lambda: stateful(
        classes.Accumulating, params=WB, flush=lambda obj: obj.zero_grad(), accumulates=True
    ),
    "a stack of caches": lambda: stateful(classes.Stack, params=WB),
    "a cache that is freed": lambda: stateful(classes.Freeing, params=WB),
    "returned": lambda: stateful(classes.Returning, params=WB),
    "returned, by index": lambda: stateful(
        classes.Returning, params=WB, grads={"z": "return[0]", "W": "return[1]", "b": "return[2]"}
    ),
    "fprop and bprop": lambda: stateful(classes.Fprop, forward="fprop", backward="bprop", params=WB),
    "functions of the object": lambda: stateful(
        classes.Fprop, forward=lambda obj, z: obj.fprop(z), backward=lambda obj, d: obj.bprop(d), params=WB
    ),
    "a step": lambda: stateful(classes.Stepping, params=WB, grads=Update("step", 0.5)),
    "a small step": lambda: stateful(classes.Stepping, params=WB, grads=Update(lambda obj: obj.step(1e-3), 1e-3)),
    "a huge step": lambda: stateful(classes.Stepping, params=WB, grads=Update(lambda obj: obj.step(2.0**40), 2.0**40)),
    "a step uphill": lambda: stateful(classes.Stepping, params=WB, grads=Update(lambda obj: obj.step(-1), -1)),
    "a backward that learns": lambda: stateful(
        classes.LearningBackward, backward=lambda obj, d: obj.backward(d, 1.0), params=WB, grads=Update("", 1.0)
    ),
}


OFTEN = ("attributes", "dicts in lists", "lists of lists", "a lazy dict", "accumulated", "a small step")


@pytest.mark.parametrize("where", LOCATIONS)
def test_correct_classes_agree_at_every_location(where):
    result = oracles.check(LOCATIONS[where](), AT, against=[TORCH])
    assert result.verdict is Verdict.AGREES
    assert {f.quantity for f in result.findings} == {"output", "z", "W", "b"}


@pytest.mark.parametrize("where", slow_except(OFTEN, [w for w in LOCATIONS if w != "slots"]))
def test_a_wrong_gradient_is_refused_at_every_location(where, monkeypatch):
    """tanh' = 1 − y for 1 − y²: the same defect at every location."""

    def wrong(self, delta):
        e = delta * (1 - self.y)
        return e @ self.W.T, self.z.T @ e, e.sum(0, keepdims=True)

    monkeypatch.setattr(classes.Attributes, "pulled", wrong)
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(LOCATIONS[where](), AT, against=[TORCH])
    assert excinfo.value.verdict is Verdict.WRONG
    assert {f.quantity for f in excinfo.value.result.findings if f.refuses} == {"z", "W", "b"}


@pytest.mark.parametrize("where", slow_except(("a step",), [w for w in LOCATIONS if "step" in w]))
def test_a_step_of_another_rate_than_declared_is_refused(where):
    grads = Update(lambda obj: obj.step(0.25), 0.5)
    with pytest.raises(Disagreement, match=r"0\.5 times"):
        oracles.check(stateful(classes.Stepping, params=WB, grads=grads), AT, against=[TORCH])


def adapt(pair, backward=None):
    return stateful(as_class(pair, backward), params=pair.params)


@pytest.mark.parametrize("dtype", slow_except(("float64",), DTYPES))
@pytest.mark.parametrize("name", PAIRS)
def test_right_classes_agree(name, dtype):
    pair = PAIRS[name]
    pair.assert_agrees(adapt(pair), dtype, seeds=2 if dtype == "float64" else 6)


@pytest.mark.parametrize("bug", slow_except(QUICK, BUGS))
def test_planted_bugs_are_refused(bug):
    BUGS[bug].assert_explains(BUGS[bug].refusal_of(adapt))


class OurLinear:
    """Linear of manual_bp as a class with state."""

    layer = Linear(4, 2)

    def __init__(self):
        self.params, self.grads = self.layer.init(np.random.default_rng(0)), {}

    def forward(self, z):
        y, self.cache = self.layer.forward(self.params, z)
        return y

    def backward(self, delta):
        dz, self.grads = self.layer.backward(self.cache, delta)
        return dz


class OurNetwork(OurLinear):
    layer = Sequential(Linear(4, 3), Tanh(), Linear(3, 2))


class OurLoss:
    """A loss object: forward(y, target), backward() without a delta."""

    def forward(self, y, target):
        value, self.cache = SoftmaxCrossEntropy().forward(y, target)
        return value

    def backward(self):
        return SoftmaxCrossEntropy().backward(self.cache)


@pytest.mark.parametrize("dtype", slow_except(("float64",), ("float64", "float32")))
def test_our_own_layers_agree_as_classes(dtype):
    for seed, make in enumerate((OurLinear, OurNetwork)):
        at = {"z": AT["z"].astype(dtype), **make.layer.init(np.random.default_rng(seed), dtype)}
        names = {n: f"params['{n}']" for n in at if n != "z"}
        subject = stateful(make, params=names, grads="grads['{}']")
        assert oracles.check(subject, at).verdict in (Verdict.AGREES, Verdict.UNSTABLE)  # 1 − y², where it saturates
    loss = stateful(OurLoss, backward=lambda obj, d: {"y": d * obj.backward()})
    at = {"y": AT["z"].astype(dtype), "target": np.array([0, 3, 1])}
    assert oracles.check(loss, at).verdict is Verdict.AGREES


def test_none_is_not_claimed():
    class Frozen(classes.Attributes):
        def backward(self, delta):
            dz = super().backward(delta)
            self.db = None
            return dz

    result = oracles.check(stateful(Frozen, params=WB), AT, against=[TORCH])
    assert result.not_claimed == ("b",)
    assert result.not_claimed == ("b",)

    class ReturnsNothing(classes.Attributes):
        def backward(self, delta):
            super().backward(delta)

    assert oracles.check(stateful(ReturnsNothing, params=WB), AT, against=[TORCH]).not_claimed == ("z",)


def test_several_inputs_by_name_and_in_order():
    class Cell:
        def __init__(self):
            self.U, self.V = np.zeros((3, 2)), np.zeros((2, 2))

        def forward(self, x, h):
            y, self.cache = PAIRS["cell"].forward(x, h, self.U, self.V)
            return y

        def backward(self, delta):
            gradients = PAIRS["cell"].backward(self.cache, delta)
            self.dU, self.dV = gradients["U"], gradients["V"]
            return gradients["x"], gradients["h"]

    subject, pair = stateful(Cell, params=["U", "V"]), PAIRS["cell"]
    at = pair.at(4)
    assert oracles.check(subject, at, against=[pair.torch]).verdict is Verdict.AGREES
    with pytest.raises(Disagreement, match="mixed up"):  # a tuple is in the primals' order
        oracles.check(subject, dict(reversed(at.items())), against=[pair.torch])
