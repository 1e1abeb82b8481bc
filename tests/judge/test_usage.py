"""Arguments of oracles.check that are no rules: the line to write instead is made from what is there."""

import numpy as np
import pytest

import oracles
from oracles import InvalidInput, Verdict

torch = pytest.importorskip("torch")
POINT = {"z": np.ones(3)}
SINE = oracles.manual(lambda z: (np.sin(z), z), lambda z, delta: {"z": delta * np.cos(z)})


def sigmoid(z):
    return 1 / (1 + np.exp(-z)), z


def sigmoid_backward(z, delta):
    return {"z": delta}


class Dense:
    def __init__(self):
        self.kernel, self.offset = np.ones((3, 3)), np.zeros(3)

    def forward(self, z):
        return z @ self.kernel + self.offset

    def backward(self, delta):
        return delta @ self.kernel.T


class Layer:
    def init(self, rng, dtype):
        return {}

    def forward(self, params, z):
        return z, z

    def backward(self, cache, delta):
        return delta, {}


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z * z

    @staticmethod
    def backward(ctx, delta):
        return delta


class Network:
    """Keeps its parameters in a dict, under other method names, and its gradients in another dict."""

    def __init__(self, n_in, n_out):
        self.n_in = n_in
        self.params = {"W": np.zeros((n_in, n_out)), "b": np.zeros((1, n_out))}

    def fprop(self, z):
        self.z = z
        return z @ self.params["W"] + self.params["b"]

    def bprop(self, delta):
        self.grads = {"W": self.z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}
        return delta @ self.params["W"].T


DENSE = {"z": np.ones((2, 3)), "W": np.ones((3, 2)), "b": np.ones((1, 2))}
OF_NETWORK = (
    "forward='fprop', backward='bprop', params={'W': \"params['W']\", 'b': \"params['b']\"}, grads=\"grads['{}']\")"
)


SUBJECTS = {
    "a pair": ((sigmoid, sigmoid_backward), "oracles.manual(sigmoid, sigmoid_backward)"),
    "a function": (sigmoid, "oracles.manual(sigmoid, backward)"),
    "a Function": (Square, "oracles.torch_function(Square)"),
    "a module": (torch.nn.Tanh(), "oracles.torch_module(Tanh)"),
    "a layer": (Layer(), "oracles.manual_layer(layer)"),
    "a class": (Dense, "oracles.stateful(Dense, params="),
    "an object": (Dense(), "params=['kernel', 'offset']"),
    "a number": (3.0, "oracles.manual(forward, backward)"),
    "a class with arguments": (Network, f"oracles.stateful(lambda: Network(n_in=..., n_out=...), {OF_NETWORK}"),
    "an object with dicts": (Network(3, 2), f"oracles.stateful(lambda: Network(...), {OF_NETWORK}"),
    "the class of a layer": (Layer, "oracles.manual_layer(Layer())"),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_a_subject_that_is_no_rule(name):
    subject, line = SUBJECTS[name]
    with pytest.raises(InvalidInput) as excinfo:
        oracles.check(subject, POINT)
    assert line in str(excinfo.value).split("Fix:")[1]


@pytest.mark.parametrize(
    ("primals", "against", "argument"),
    [
        (np.ones(3), (), "primals"),
        (POINT, SINE, "against"),
        (POINT, 3, "against"),
        (POINT, [SINE, torch.sin], "against[1]"),
    ],
)
def test_arguments_that_are_neither_arrays_nor_oracles(primals, against, argument):
    with pytest.raises(InvalidInput) as excinfo:
        oracles.check(SINE, primals, against)
    assert argument in str(excinfo.value)
    assert "Fix:" in str(excinfo.value)


def test_nothing_agrees_about_empty_arrays():
    wrong = oracles.manual(lambda z: (np.sin(z), z), lambda z, delta: {"z": 5 * delta})
    empty = oracles.check(wrong, {"z": np.zeros((0, 3))}, [oracles.torch_autograd(torch.sin)])
    assert empty.verdict is Verdict.VACUOUS
    assert not empty.refuses
    with pytest.raises(oracles.Disagreement):
        oracles.check(wrong, POINT, [oracles.torch_autograd(torch.sin)])


def test_the_gradient_of_what_an_empty_batch_uses_is_judged():
    def forward(z, w):
        return z @ w, (z, w)

    subject = oracles.manual(forward, lambda c, d: {"z": d @ c[1].T, "w": c[0].T @ d})
    result = oracles.check(
        subject, {"z": np.zeros((0, 3)), "w": np.ones((3, 2))}, [oracles.torch_autograd(torch.matmul)]
    )
    assert result.verdict is Verdict.AGREES
    assert result.judged["w"] == (6, 6)


def refusal_of_input(subject, primals=DENSE):
    """The fix that the message names for a usage that cannot be judged."""
    with pytest.raises(InvalidInput) as excinfo:
        oracles.check(subject, primals, [oracles.torch_autograd(lambda z, W, b: z @ W + b)])
    return str(excinfo.value).split("Fix:")[1]


@pytest.mark.parametrize("params", [["w", "b"], ["W"], [], {"W": "weight", "b": "bias"}], ids=str)
def test_wrong_params_are_answered_with_all_of_them(params):
    fix = refusal_of_input(oracles.stateful(lambda: Network(3, 2), forward="fprop", backward="bprop", params=params))
    assert fix.strip() == f"oracles.stateful(lambda: Network(...), {OF_NETWORK}"
    right = oracles.stateful(
        lambda: Network(3, 2),
        forward="fprop",
        backward="bprop",
        params={"W": "params['W']", "b": "params['b']"},
        grads="grads['{}']",
    )
    assert oracles.check(right, DENSE, [oracles.torch_autograd(lambda z, W, b: z @ W + b)]).judged["W"] == (6, 6)


def test_parameters_of_other_names_are_found_by_their_shapes():
    subject = oracles.stateful(lambda: Network(3, 2), forward="fprop", backward="bprop", params=["kernel", "bias"])
    primals = {"z": DENSE["z"], "kernel": DENSE["W"], "bias": DENSE["b"]}
    assert "params={'kernel': \"params['W']\", 'bias': \"params['b']\"}" in refusal_of_input(subject, primals)


def test_a_class_that_needs_arguments_is_no_wrong_subject():
    with pytest.raises(InvalidInput) as excinfo:
        oracles.stateful(Network, forward="fprop", backward="bprop", params=["W"])
    assert "oracles.stateful(lambda: Network(n_in=..., n_out=...)" in str(excinfo.value)


def linear(z, W, b):
    return z @ W + b, (z, W)


def gradients(cache, delta, **others):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta.sum(axis=0, keepdims=True)} | others


class Affine:
    """A layer by the contract of manual_bp, with any gradients."""

    def __init__(self, grads):
        self.grads = grads

    def forward(self, params, z):
        return linear(z, **params)

    def backward(self, cache, delta):
        grads = self.grads(gradients(cache, delta))
        return grads.pop("z"), grads


def rule_of(grads):
    return oracles.Rule(
        lambda **primals: (linear(**primals)[0], lambda delta: grads(gradients(linear(**primals)[1], delta)))
    )


def without(name, **others):
    return lambda grads: {n: g for n, g in grads.items() if n != name} | others


ADAPTED = {
    "a pair": lambda grads: oracles.manual(linear, lambda cache, delta: grads(gradients(cache, delta))),
    "a layer": lambda grads: oracles.manual_layer(Affine(grads)),
    "a rule": rule_of,
}


@pytest.mark.parametrize("kind", ADAPTED)
def test_a_stray_key_is_answered_with_the_whole_dict(kind):
    stray = ADAPTED[kind](without("W", w=np.ones((3, 2))))
    assert "'W': dW, 'b': db}" in refusal_of_input(stray)
    right = oracles.check(ADAPTED[kind](dict), DENSE, [oracles.torch_autograd(lambda z, W, b: z @ W + b)])
    assert right.verdict is Verdict.AGREES


def test_a_missing_key_is_answered_with_the_whole_dict():
    result = oracles.check(ADAPTED["a pair"](without("b")), DENSE, [oracles.torch_autograd(lambda z, W, b: z @ W + b)])
    assert result.not_claimed == ("b",)
    assert any("return {'z': dz, 'W': dW, 'b': db}" in note for note in result.notes)
    said = oracles.check(ADAPTED["a pair"](without("b", b=None)), DENSE)
    assert said.not_claimed == ("b",)
    assert not any("return" in note for note in said.notes)
    assert "return dz, {'W': dW, 'b': db}" in refusal_of_input(ADAPTED["a layer"](without("b")))


def test_a_pullback_that_returns_no_dict_is_no_wrong_subject():
    rule = oracles.Rule(lambda **primals: (linear(**primals)[0], lambda delta: (delta,)))
    assert refusal_of_input(rule).strip() == "return {'z': dz, 'W': dW, 'b': db}"


def test_gradients_that_are_none_where_they_are_looked_for():
    class Elsewhere(Network):
        def __init__(self):
            super().__init__(3, 2)
            self.dW = self.db = None

    params = {"W": "params['W']", "b": "params['b']"}
    subject = oracles.stateful(Elsewhere, forward="fprop", backward="bprop", params=params)
    result = oracles.check(subject, DENSE)
    assert result.not_claimed == ("W", "b")
    assert any("grads={'W': \"grads['W']\"}" in note for note in result.notes)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * z

    @staticmethod
    def backward(ctx, delta):
        (z,) = ctx.saved_tensors
        return (2 * z * delta).double()


def doubled_in_jax(z):
    import jax

    @jax.custom_vjp
    def square(z):
        return z * z

    square.defvjp(lambda z: (z * z, z), lambda z, delta: ((2 * z * delta).astype("float64"),))
    return square


@pytest.mark.parametrize(
    ("subject", "fix"),
    [
        (lambda: oracles.torch_function(Doubled), "dz = dz.to(z.dtype)"),
        (lambda: oracles.jax_function(doubled_in_jax(None)), "dz = dz.astype(z.dtype)"),
        (
            lambda: oracles.manual(lambda z: (z * z, z), lambda z, d: {"z": (2 * z * d).astype(np.float64)}),
            "dz = dz.astype(z.dtype)",
        ),
        (
            lambda: oracles.manual(lambda z: (z * z, z), lambda z, d: {"z": (2 * z * d).double()}, arrays="torch"),
            "dz = dz.to(z.dtype)",
        ),
    ],
    ids=["a Function", "a custom_vjp", "a pair", "a pair of torch's"],
)
def test_the_fix_is_a_line_of_the_subjects_framework(subject, fix):
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(subject(), {"z": np.ones(3, np.float32)}, [oracles.torch_autograd(lambda z: z * z)])
    line = excinfo.value.evidence.fix
    assert line.startswith(fix)
    assert ("np.zeros" in line) == (subject().runtime.value == "numpy")
    assert f"fix:    {fix}" in str(excinfo.value)
