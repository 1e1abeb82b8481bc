"""Invalid input: the message names the argument, what was expected, what was given, and the fix."""

import sys

import numpy as np
import pytest
import torch
from dense_classes import Attributes
from forms import as_class, as_function
from pairs import PAIRS

import oracles
from oracles import Disagreement, InvalidInput

DENSE, TANH = PAIRS["dense"], PAIRS["tanh"]
AT, Z = DENSE.at(), TANH.at()
RIGHT = oracles.manual(DENSE.forward, DENSE.backward)
STATEFUL = oracles.stateful(as_class(DENSE), params=DENSE.params)
FUNCTION = oracles.torch_function(as_function(DENSE))


def message_of(error, subject, at, against, **options):
    with pytest.raises(error) as excinfo:
        oracles.check(subject, at, against, **options)
    return " ".join(str(excinfo.value).split())


def assert_contains(message, *parts):
    missing = [part for part in parts if part not in message]
    assert not missing, message


@pytest.mark.parametrize("subject", [RIGHT, STATEFUL, FUNCTION], ids=["manual", "stateful", "torch_function"])
def test_a_reference_with_other_parameters(subject):
    message = message_of(InvalidInput, subject, AT, [oracles.torch_autograd(lambda z, weight, b: z @ weight + b)])
    assert_contains(message, "(z, weight, b)", "z, W, b")
    assert_contains(message, "Fix: ", "def reference(z, W, b)")
    message = message_of(InvalidInput, subject, AT, [oracles.jax_vjp(lambda z, W: z @ W)])
    assert_contains(message, "(z, W)", "z, W, b")


@pytest.mark.parametrize("subject", [RIGHT, STATEFUL, FUNCTION], ids=["manual", "stateful", "torch_function"])
def test_a_cotangent_of_another_shape(subject):
    for delta, shapes in (
        (np.ones((2, 3)), "(2, 3)"),
        (np.ones(3), "(3,)"),
        ((np.ones((3, 2)),) * 2, "(3, 2), (3, 2)"),
    ):
        message = message_of(InvalidInput, subject, AT, [DENSE.torch], delta=delta)
        assert f"delta: expected shape (3, 2) like the output, got {shapes}" in message
        assert_contains(message, "Fix: ", "delta=rng.standard_normal((3, 2))")


def test_forwards_and_backwards_of_other_names():
    message = message_of(InvalidInput, oracles.manual(lambda z, weight: None, DENSE.backward), AT, [DENSE.torch])
    assert_contains(message, "(z, weight)", "z, W, b")
    assert "def reference(z, W, b): ..." in message
    message = message_of(InvalidInput, oracles.manual(DENSE.forward, lambda c, d: {"x": d}), AT, [DENSE.torch])
    assert_contains(message, "backward: ", "['z', 'W', 'b']", "got one of ['x']")
    assert_contains(message, "Fix: return {'z': dz, 'W': dW, 'b': db}")
    message = message_of(InvalidInput, oracles.manual(DENSE.forward, lambda c, d: (d, d)), AT, [DENSE.torch])
    assert_contains(message, "backward: ", "3 cotangents")
    assert "(z, W, b), got a tuple of 2" in message
    assert_contains(message, "Fix: return {'z': dz, 'W': dW, 'b': db}")
    message = message_of(InvalidInput, oracles.manual(lambda z: z, lambda c, d: d), Z, [TANH.torch])
    assert_contains(message, "forward", "(y, cache)", "got an array of shape (3, 3), dtype float64")
    assert "Fix: y = ... return y, (z, W)" in message


def test_objects_of_other_names():
    message = message_of(InvalidInput, oracles.stateful(Attributes, forward="fprop"), AT, [])
    assert_contains(message, "Attributes", "'fprop'", "backward, forward, pulled")
    assert_contains(message, "Fix: ", "forward='fprop', backward='bprop'")
    message = message_of(InvalidInput, oracles.stateful(Attributes, params=["W", "bias"]), AT, [])
    assert_contains(message, "params: ", "z, W, b", "got bias")
    message = message_of(InvalidInput, oracles.stateful(Attributes, params={"W": "weights", "b": "b"}), AT, [])
    assert_contains(message, "weights: ", "Attributes", "W, b")
    message = message_of(InvalidInput, oracles.stateful(Attributes, params=["W", "b"], grads="grad_{}"), AT, [])
    assert_contains(message, "grad_W: ", "Attributes")
    assert_contains(message, "Fix: ", "grads={'W': 'dW'}")
    message = message_of(
        InvalidInput, oracles.stateful(Attributes, params=["W", "b"]), AT | {"W": AT["W"].T.copy()}, []
    )
    assert_contains(message, "params: W: ", "expected shape (2, 4)", "got (4, 2)")
    assert "oracles.declared(subject, layout={'W': 'ij->ji'})" in message
    message = message_of(InvalidInput, oracles.stateful(Attributes, params={"W": "W[", "b": "b"}), AT, [])
    assert_contains(message, "'W['", "params['W']", "layers[0].W")
    with pytest.raises(InvalidInput, match=r"expected .*class.* got 3"):
        oracles.stateful(3)
    with pytest.raises(InvalidInput, match=r"rate: .* got 0"):
        oracles.Update("step", 0)


class GivesNothing(Attributes):
    def forward(self, z):
        super().forward(z)


def test_an_object_that_returns_nothing():
    message = message_of(InvalidInput, oracles.stateful(GivesNothing, params=["W", "b"]), AT, [])
    assert "GivesNothing: forward: expected an output, got nothing (None). Fix: return y" in message


def tanh_but(y=None, dz=None):
    """tanh, with another value as its output or cotangent."""
    forward = (lambda z: (y(np.tanh(z)), np.tanh(z))) if y else TANH.forward
    return oracles.manual(forward, (lambda c, d: {"z": dz(TANH.backward(c, d)["z"])}) if dz else TANH.backward)


WITH_GRAD = (
    lambda a: torch.tensor(a, requires_grad=True),
    "a torch tensor of shape (3, 3) (float64, requires grad), expected a NumPy array of shape (3, 3)",
    "{}.detach().cpu().numpy() # or say arrays='torch'",
)
WRONG_VALUES = [
    (lambda a: a.tolist(), "a list of 3, expected a NumPy array of shape (3, 3)", "{0} = np.array({0})"),
    (lambda a: 0.5, "0.5 (", "an array of shape (3, 3): one entry for each of"),
    (lambda a: np.float64(0.5), "shape (), expected (3, 3)", ""),
    WITH_GRAD,
    (lambda a: a.astype(int), "dtype int64, expected float64", "{} = np.zeros(shape, z.dtype) # not integers"),
    (lambda a: a.sum(0), "shape (3,), expected (3, 3)", ""),
    (lambda a: a[..., None], "shape (3, 3, 1), expected (3, 3)", "{0} = {0}.reshape(3, 3)"),
    (lambda a: a[None] + np.zeros((2, 3, 3)), "shape (2, 3, 3), expected (3, 3)", "{0} = {0}.sum(axis=0"),
    (lambda a: a + 0j, "complex", ""),
]


@pytest.mark.parametrize(("replaced", "reason", "fix"), WRONG_VALUES)
@pytest.mark.parametrize("what", ["y", "dz"])
def test_values_of_another_type_shape_or_dtype(replaced, reason, fix, what):
    message = message_of(Disagreement, tanh_but(**{what: replaced}), Z, [TANH.torch])
    where = "output" if what == "y" else "the cotangent of z"
    assert f"WRONG in {where}" in message
    if what == "y" and reason == "complex":  # it is judged as two real outputs
        assert "output.real" in message
    elif not (what == "y" and reason.startswith("0.5")):  # a float may be a scalar output: its shape is off then
        assert reason in message
        assert fix.format(what) in message


def test_an_output_that_is_nothing():
    message = message_of(Disagreement, tanh_but(y=lambda a: None), Z, [TANH.torch])
    assert "nothing (None), expected a NumPy array of shape (3, 3)" in message
    assert "fix: return y, cache # an array of shape (3, 3)" in message


def test_a_backward_that_returns_nothing():
    message = message_of(InvalidInput, oracles.manual(TANH.forward, lambda c, d: None), Z, [TANH.torch])
    assert "backward: expected a dict, or a tuple of 1 cotangents" in message
    assert "got nothing (None)" in message
    assert "Fix: return {'z': dz}" in message


def test_a_view_of_the_input_is_noted():
    view = oracles.manual(lambda z: (z[:], None), lambda c, d: {"z": d})
    result = oracles.check(view, Z, [oracles.torch_autograd(lambda z: z.clone())])
    assert all(part in str(result) for part in ("output", "shares memory", "z"))
    assert "return y.copy()" in str(result)
    assert "return dz.copy()" in str(result)


@pytest.mark.parametrize("value", [["a"], [None], {"a": "b"}])
def test_primals_that_are_no_numbers(value):
    with pytest.raises((InvalidInput, TypeError), match=r"primals\['z'\]"):
        oracles.check(tanh_but(), {"z": value})


def test_primals_of_other_libraries_are_converted():
    against = [TANH.torch]
    for value in (torch.tensor(Z["z"], requires_grad=True), Z["z"].tolist(), torch.tensor(Z["z"]).bfloat16()):
        assert oracles.check(tanh_but(), {"z": value}, against).verdict == "agrees"


def test_backends_that_do_not_exist():
    with pytest.raises(InvalidInput, match=r"arrays: expected .* got 'tensorflow'"):
        oracles.manual(TANH.forward, TANH.backward, arrays="tensorflow")
    with pytest.raises(InvalidInput, match=r"device: .*'torch'.* got arrays='numpy'"):
        oracles.manual(TANH.forward, TANH.backward, device="cuda")
    with pytest.raises(InvalidInput, match=r"of: expected .* got 'slope'"):
        oracles.elementwise(np.tanh, np.tanh, of="slope")


@pytest.mark.parametrize("missing", ["torch", "jax"])
def test_a_missing_package_is_named(missing, monkeypatch):
    oracle = oracles.torch_autograd if missing == "torch" else oracles.jax_vjp
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not installed
    for subject, against in (
        (tanh_but(), [oracle(lambda z: z)]),
        (oracles.manual(TANH.forward, TANH.backward, arrays=missing), []),
    ):
        assert f"{missing} is not installed. Fix: pip install 'manual-bp[{missing}]'" in message_of(
            InvalidInput, subject, Z, against
        )


def test_value_and_grad_that_does_not_fit():
    at = {"y": Z["z"], "t": Z["z"] + 1}
    message = message_of(InvalidInput, oracles.value_and_grad(lambda y, t: (y - t).sum()), at, [])
    assert "expected a pair (value, gradient), got" in message
    assert "Fix: return loss, dy" in message
    message = message_of(InvalidInput, oracles.value_and_grad(lambda y, t: (0.0, (y, t, t))), at, [])
    assert "expected 2 gradient(s) for wrt=('y', 't') of the primals y, t, got 3" in message
    assert "Fix: name their primals: oracles.value_and_grad(f, wrt=" in message
