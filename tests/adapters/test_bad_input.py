"""What does not fit: the message says what came, what was expected, and shows the fix."""

import sys

import numpy as np
import pytest
import torch
from dense_classes import Attributes
from kinds import KINDS
from ways import as_class, as_function

import oracles
from oracles import Disagreement, InvalidInput

DENSE, TANH = KINDS["dense"], KINDS["tanh"]
AT, Z = DENSE.at(), TANH.at()
RIGHT = oracles.manual(DENSE.forward, DENSE.backward)
STATEFUL = oracles.stateful(as_class(DENSE), params=DENSE.params)
FUNCTION = oracles.torch_function(as_function(DENSE))


def said_by(error, subject, at, against, **options):
    with pytest.raises(error) as refused:
        oracles.check(subject, at, against, **options)
    return " ".join(str(refused.value).split())


@pytest.mark.parametrize("subject", [RIGHT, STATEFUL, FUNCTION], ids=["manual", "stateful", "torch_function"])
def test_a_reference_of_other_names(subject):
    said = said_by(InvalidInput, subject, AT, [oracles.torch_autograd(lambda z, weight, b: z @ weight + b)])
    assert "takes (z, weight, b), but the primals are z, W, b" in said
    assert "Fix: name its parameters like the primals: def reference(z, W, b): ..." in said
    said = said_by(InvalidInput, subject, AT, [oracles.jax_vjp(lambda z, W: z @ W)])
    assert "takes (z, W), but the primals are z, W, b" in said


@pytest.mark.parametrize("subject", [RIGHT, STATEFUL, FUNCTION], ids=["manual", "stateful", "torch_function"])
def test_a_cotangent_of_another_shape(subject):
    for delta, came in ((np.ones((2, 3)), "(2, 3)"), (np.ones(3), "(3,)"), ((np.ones((3, 2)),) * 2, "(3, 2), (3, 2)")):
        said = said_by(InvalidInput, subject, AT, [DENSE.torch], delta=delta)
        assert f"delta: expected shape (3, 2) like the output, got {came}" in said
        assert "Fix: leave delta out, and three are drawn; or delta=rng.standard_normal((3, 2))" in said


def test_forwards_and_backwards_of_other_names():
    said = said_by(InvalidInput, oracles.manual(lambda z, weight: None, DENSE.backward), AT, [DENSE.torch])
    assert "takes (z, weight), but the primals are z, W, b" in said
    assert "def reference(z, W, b): ..." in said
    said = said_by(InvalidInput, oracles.manual(DENSE.forward, lambda c, d: {"x": d}), AT, [DENSE.torch])
    assert "backward returned a cotangent for ['x'], but the primals are ['z', 'W', 'b']" in said
    assert "Fix: return {'z': dz, 'W': dW, 'b': db}" in said
    said = said_by(InvalidInput, oracles.manual(DENSE.forward, lambda c, d: (d, d)), AT, [DENSE.torch])
    assert "a tuple of 2, expected a dict or a tuple of 3 cotangents in the order of the primals (z, W, b)" in said
    assert "Fix: return {'z': dz, 'W': dW, 'b': db}" in said
    said = said_by(InvalidInput, oracles.manual(lambda z: z, lambda c, d: d), Z, [TANH.torch])
    assert "forward must return a pair (y, cache), got an array of shape (3, 3), dtype float64" in said
    assert "Fix: y = ... return y, (z, W)" in said


def test_objects_of_other_names():
    said = said_by(InvalidInput, oracles.stateful(Attributes, forward="fprop"), AT, [])
    assert "Attributes has no method 'fprop'; it has backward, forward, pulled" in said
    assert "Fix: name it: oracles.stateful(..., forward='fprop', backward='bprop')" in said
    said = said_by(InvalidInput, oracles.stateful(Attributes, params=["W", "bias"]), AT, [])
    assert "params names bias, but the primals are z, W, b" in said
    said = said_by(InvalidInput, oracles.stateful(Attributes, params={"W": "weights", "b": "b"}), AT, [])
    assert "weights: there is nothing in Attributes: it has W, b" in said
    said = said_by(InvalidInput, oracles.stateful(Attributes, params=["W", "b"], grads="grad_{}"), AT, [])
    assert "the gradient of W at grad_W: there is nothing in Attributes" in said
    assert "Fix: arrays of its shape are at dW: grads={'W': 'dW'}" in said
    said = said_by(InvalidInput, oracles.stateful(Attributes, params=["W", "b"]), AT | {"W": AT["W"].T.copy()}, [])
    assert "W has shape (4, 2), the primal W (2, 4)" in said
    assert "oracles.declared(subject, layout={'W': 'ij->ji'})" in said
    said = said_by(InvalidInput, oracles.stateful(Attributes, params={"W": "W[", "b": "b"}), AT, [])
    assert "expected one like W, params['W'] or layers[0].W; lost at '['" in said
    with pytest.raises(InvalidInput, match="expected a class, an instance or a function without arguments, got 3"):
        oracles.stateful(3)
    with pytest.raises(InvalidInput, match="rate: expected a finite number other than 0, got 0"):
        oracles.Update("step", 0)


class GivesNothing(Attributes):
    def forward(self, z):
        super().forward(z)


def test_an_object_that_returns_nothing():
    said = said_by(InvalidInput, oracles.stateful(GivesNothing, params=["W", "b"]), AT, [])
    assert "GivesNothing: forward returned nothing (None). Fix: return y" in said


def pair(y=None, dz=None):
    """tanh, with what is no array of the right kind in place of its output or cotangent."""
    forward = (lambda z: (y(np.tanh(z)), np.tanh(z))) if y else TANH.forward
    return oracles.manual(forward, (lambda c, d: {"z": dz(TANH.backward(c, d)["z"])}) if dz else TANH.backward)


WITH_GRAD = (
    lambda a: torch.tensor(a, requires_grad=True),
    "a torch tensor of shape (3, 3) (float64, requires grad), expected a NumPy array of shape (3, 3)",
    "{}.detach().cpu().numpy() # or say arrays='torch'",
)
NO_ARRAYS = [
    (lambda a: a.tolist(), "a list of 3, expected a NumPy array of shape (3, 3)", "{0} = np.array({0})"),
    (lambda a: 0.5, "0.5 (", "an array of shape (3, 3): one entry for each of"),
    (lambda a: np.float64(0.5), "shape (), expected (3, 3)", ""),
    WITH_GRAD,
    (lambda a: a.astype(int), "dtype int64, expected float64", "{} = np.zeros(shape, float64) # not integers"),
    (lambda a: a.sum(0), "shape (3,), expected (3, 3)", ""),
    (lambda a: a[..., None], "shape (3, 3, 1), expected (3, 3)", "{0} = {0}.reshape(3, 3)"),
    (lambda a: a[None] + np.zeros((2, 3, 3)), "shape (2, 3, 3), expected (3, 3)", "{0} = {0}.sum(axis=0"),
    (lambda a: a + 0j, "complex", ""),
]


@pytest.mark.parametrize(("made", "said", "fix"), NO_ARRAYS)
@pytest.mark.parametrize("what", ["y", "dz"])
def test_what_is_no_array_of_the_right_kind(made, said, fix, what):
    found = said_by(Disagreement, pair(**{what: made}), Z, [TANH.torch])
    where = "output" if what == "y" else "the cotangent of z"
    assert f"WRONG in {where}" in found
    if not (what == "y" and said.startswith("0.5")):  # a float may be a scalar output: then its shape is what is off
        assert said in found
        assert fix.format(what) in found


def test_an_output_that_is_nothing():
    found = said_by(Disagreement, pair(y=lambda a: None), Z, [TANH.torch])
    assert "nothing (None), expected a NumPy array of shape (3, 3)" in found
    assert "fix: return y, cache # an array of shape (3, 3)" in found


def test_a_backward_that_returns_nothing():
    found = said_by(InvalidInput, oracles.manual(TANH.forward, lambda c, d: None), Z, [TANH.torch])
    assert "backward returned nothing (None), expected a dict or a tuple of 1 cotangents" in found
    assert "Fix: return {'z': dz}" in found


def test_a_view_of_the_input_is_noted():
    view = oracles.manual(lambda z: (z[:], None), lambda c, d: {"z": d})
    result = oracles.check(view, Z, [oracles.torch_autograd(lambda z: z.clone())])
    assert "note: returned output shares memory with given z: writing into one changes the other" in str(result)
    assert "return y.copy()" in str(result)
    assert "return dz.copy()" in str(result)


@pytest.mark.parametrize("value", [["a"], [1j], [None], {"a": 1}])
def test_primals_that_are_no_numbers(value):
    with pytest.raises(
        (InvalidInput, TypeError), match=r"primals\['z'\]: expected a floating, integer or boolean array"
    ):
        oracles.check(pair(), {"z": value})


def test_primals_of_other_libraries_are_taken():
    against = [TANH.torch]
    for value in (torch.tensor(Z["z"], requires_grad=True), Z["z"].tolist(), torch.tensor(Z["z"]).bfloat16()):
        assert oracles.check(pair(), {"z": value}, against).verdict == "agrees"


def test_homes_that_do_not_exist():
    with pytest.raises(InvalidInput, match="arrays: expected 'numpy', 'torch' or 'jax', got 'cupy'"):
        oracles.manual(TANH.forward, TANH.backward, arrays="cupy")
    with pytest.raises(InvalidInput, match="expected arrays='torch' beside device='cuda', got arrays='numpy'"):
        oracles.manual(TANH.forward, TANH.backward, device="cuda")
    with pytest.raises(InvalidInput, match="of: expected 'input' or 'output', got 'slope'"):
        oracles.elementwise(np.tanh, np.tanh, of="slope")


@pytest.mark.parametrize("missing", ["torch", "jax"])
def test_what_is_not_installed_is_nobodys_fault(missing, monkeypatch):
    lift = oracles.torch_autograd if missing == "torch" else oracles.jax_vjp
    monkeypatch.setitem(sys.modules, missing, None)  # as if it were not there
    for subject, against in (
        (pair(), [lift(lambda z: z)]),
        (oracles.manual(TANH.forward, TANH.backward, arrays=missing), []),
    ):
        assert f"{missing} is not installed. Fix: pip install 'manual-bp[{missing}]'" in said_by(
            InvalidInput, subject, Z, against
        )


def test_value_and_grad_that_does_not_fit():
    at = {"y": Z["z"], "t": Z["z"] + 1}
    said = said_by(InvalidInput, oracles.value_and_grad(lambda y, t: (y - t).sum()), at, [])
    assert "expected a pair (value, gradient), got" in said
    assert "Fix: return loss, dy" in said
    said = said_by(InvalidInput, oracles.value_and_grad(lambda y, t: (0.0, (y, t, t))), at, [])
    assert "3 gradient(s) came back for wrt=('y', 't'), the primals are y, t" in said
    assert "Fix: say which they belong to: oracles.value_and_grad(f, wrt=" in said
