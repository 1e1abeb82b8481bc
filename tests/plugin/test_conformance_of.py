"""Another implementation of a layer, judged by the cases of the layer of manual_bp."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import strategies as st

import manual_bp
import oracles
from oracles import Disagreement, conformance, conformance_of, manual, manual_layer, registry
from oracles.options import SearchOptions
from oracles.properties import FORWARD_PROPERTIES, PROPERTIES
from oracles.search import Search
from oracles.strategies import real

FEW, MANY = SearchOptions(max_examples=24, seed=0), SearchOptions(max_examples=400, seed=0)


class Mine:
    """As a course would have it: no dataclass, no option for the bias."""

    def __init__(self, n_in, n_out):
        self.shape = n_in, n_out

    def forward(self, params, z):
        return z @ params["W"] + params["b"], (z, params["W"])

    def backward(self, cache, delta):
        z, W = cache
        return delta @ W.T, {"W": z.T @ delta, "b": delta.sum(axis=0, keepdims=True)}


class ForgetsToSum(Mine):
    def backward(self, cache, delta):
        dz, grads = super().backward(cache, delta)
        return dz, grads | {"b": grads["b"] / max(len(delta), 1)}


def decorated(*arguments, **options):
    """Return the searches that pytest would parametrize a test with, by id."""

    @conformance_of(*arguments, **options)
    def test(search):
        search()

    (mark,) = test.pytestmark
    assert mark.args[0] == "search"
    return dict(zip(mark.kwargs["ids"], mark.args[1], strict=True))


def result_at(searches, name="cotangents_agree-float64", options=FEW):
    return replace(searches[name], options=options)()


def test_one_search_for_each_property_and_dtype():
    searches = decorated(Mine, like=manual_bp.Linear)
    assert list(searches) == [f"{name}-{dtype}" for name in PROPERTIES for dtype in ("float64", "float32")]
    assert repr(searches["layout_independent-float32"]) == "<layout_independent in float32 on Mine>"


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_right_layer_passes(name):
    tally = result_at(decorated(Mine, like=manual_bp.Linear), f"{name}-float32")
    assert tally.points == 24


def test_planted_bug_is_refused_under_the_subclass_name():
    with pytest.raises(Disagreement, match=r"^ForgetsToSum like Linear\(n_in=1, n_out=1, bias=True\): WRONG"):
        result_at(decorated(ForgetsToSum, like=manual_bp.Linear))


def test_options_that_a_class_lacks_are_left_out_and_reported():
    search = decorated(Mine, like=manual_bp.Linear)["primal_agrees-float64"]
    assert search.note == "takes no bias: only cases with bias=True were drawn"
    assert search.sparse
    assert decorated(manual_bp.Linear, like=manual_bp.Linear)["primal_agrees-float64"].note == ""


KINDS = sorted({entry.layer_type for entry in registry.entries()}, key=lambda kind: kind.__name__)


@pytest.mark.parametrize("ours", KINDS, ids=lambda kind: kind.__name__)
def test_every_layer_loss_and_optimizer_that_has_cases_can_be_asked_for(ours):
    other = type("Theirs", (ours,), {})
    searches = decorated(other, like=ours, dtypes=("float64",))
    names = PROPERTIES if all(entry.pullback for entry in registry.entries_for(ours)) else FORWARD_PROPERTIES
    assert [name.removesuffix("-float64") for name in searches] == list(names)
    assert result_at(searches, "primal_agrees-float64", SearchOptions(max_examples=4, seed=0)).points == 4


@pytest.mark.parametrize(
    "ours", [manual_bp.HalfSquaredError, manual_bp.SoftmaxCrossEntropy], ids=lambda kind: kind.__name__
)
def test_a_planted_bug_in_a_loss_is_refused(ours):
    class Doubled(ours):
        def backward(self, cache, delta=1.0):
            return 2 * super().backward(cache, delta)

    with pytest.raises(Disagreement, match="WRONG in the cotangent of y"):
        result_at(decorated(Doubled, like=ours))


def adapt(linear):
    """Another contract altogether: the weight transposed, names of its own."""

    def forward(z, W, b=None):
        return z @ W + (0 if b is None else b), (z, W)

    def backward(cache, delta):
        z, W = cache
        grads = {"z": delta @ W.T, "W": z.T @ delta}
        return grads | ({"b": delta.sum(axis=0, keepdims=True)} if linear.bias else {})

    return manual(forward, backward, name="other")


def test_an_adapter_reaches_any_contract_and_every_case():
    searches = decorated(Mine, like=manual_bp.Linear, adapt=adapt)
    assert searches["primal_agrees-float64"].note == ""
    assert result_at(searches).points == 24

    def wrong(linear):
        rule = adapt(linear)
        return manual(lambda **p: (rule(**p)[0], p), lambda p, delta: {"z": delta @ p["W"].T * 1.5}, name="wrong")

    with pytest.raises(Disagreement, match="wrong: WRONG in the cotangent of z"):
        result_at(decorated(Mine, like=manual_bp.Linear, adapt=wrong))


@pytest.mark.slow
def test_convention_is_required_only_if_declared():
    @dataclass(frozen=True)
    class Half:
        def forward(self, params, z):
            return np.maximum(z, 0), z

        def backward(self, z, delta):
            return delta * np.where(z == 0, 0.5, z > 0).astype(delta.dtype), {}

    assert result_at(decorated(Half, like=manual_bp.ReLU), options=MANY).points == 400
    Half.kink_convention = manual_bp.ReLU.kink_convention
    with pytest.raises(Disagreement, match="subgradient"):
        result_at(decorated(Half, like=manual_bp.ReLU), options=MANY)


class NoBackward:
    def __init__(self, n_in, n_out):
        pass

    def forward(self, params, z):
        return z, None


class Raises(Mine):
    def __init__(self, n_in, n_out):
        raise ZeroDivisionError("in the constructor")


class OtherNames(Mine):
    def forward(self, params, z):
        return z @ params["weight"], z


class Unknown:
    pass


@pytest.mark.parametrize(
    ("arguments", "error", "parts"),
    [
        ({"like": Unknown}, ValueError, ["like=Unknown", "Linear", "@oracles.oracle_for(Unknown)"]),
        ({"like": manual_bp.Linear(2, 3)}, TypeError, ["like:", "like=Linear"]),
        ({"subject": Mine(1, 2)}, TypeError, ["Mine object", "conformance_of(Mine, "]),
        ({"subject": lambda units: None}, TypeError, ["units", "Linear", "adapt=lambda linear: "]),
        ({"subject": lambda n_in: None}, TypeError, ["n_out", "adapt=lambda linear: "]),
        ({"subject": NoBackward}, TypeError, ["NoBackward", "backward(cache, delta)"]),
        ({"subject": Raises}, TypeError, ["Raises(n_in=", "ZeroDivisionError: in the constructor"]),
        ({"adapt": lambda linear: linear}, TypeError, ["adapt returned Linear(", "Rule", "adapt=lambda linear: "]),
        ({"dtypes": "float64"}, ValueError, ["dtypes:", "float64, float32", "'float64'"]),
        ({"against": ("numpy",)}, ValueError, ["against:", "jax, torch", "('numpy',)"]),
        ({"max_examples": 0}, ValueError, ["max_examples:", "at least 1", "0"]),
    ],
)
def test_bad_input_is_refused_when_the_test_is_decorated(arguments, error, parts):
    with pytest.raises(error) as refused:
        conformance_of(**{"subject": Mine, "like": manual_bp.Linear, **arguments})
    message = str(refused.value)
    assert message.startswith("conformance_of: ")
    assert [part for part in parts if part not in message] == []


def test_a_type_whose_cases_do_not_say_what_they_adapted(monkeypatch):
    monkeypatch.setattr(registry, "_ENTRIES", {entry.name: entry for entry in registry.entries()})

    class NotPerturbable:
        pass

    @oracles.oracle_for(NotPerturbable)
    def opaque(draw):
        return oracles.Case(manual(lambda z: (z, None), lambda cache, delta: delta), {"z": real(2)})

    with pytest.raises(ValueError, match="instance"):
        conformance_of(Mine, like=NotPerturbable, adapt=adapt)


def test_an_error_in_their_forward_names_the_primals():
    searches = decorated(OtherNames, like=manual_bp.Linear)
    with pytest.raises(KeyError, match="weight") as excinfo:
        result_at(searches)
    assert "was given z float64[1, 1], W float64[1, 1], b float64[1, 1]" in "".join(excinfo.value.__notes__)
    assert "pass adapt=" in "".join(excinfo.value.__notes__)


@pytest.mark.parametrize(
    ("decorate", "error", "output"),
    [
        (
            lambda: conformance(adapt),
            TypeError,
            r"got <function adapt.*\n(?s:.*)@oracles\.conformance\(adapt\(\)\)",
        ),
        (lambda: conformance([]), TypeError, r"expected a Hypothesis strategy of oracles\.Case, got \[\]"),
        (lambda: conformance_of(Mine, manual_bp.Linear)(lambda: None), TypeError, r"takes no argument named search"),
        (lambda: oracles.oracle_for(adapt), TypeError, r"oracle_for.*<function adapt.*\nFix: +@oracles\.oracle_for\("),
        (lambda: oracles.oracle_for(Mine(1, 2)), TypeError, r"Fix: +@oracles\.oracle_for\(Mine\)"),
        (
            lambda: oracles.oracle_for(Mine, name="Linear")(adapt),
            ValueError,
            r"'Linear' is taken by oracles\.references\.",
        ),
    ],
)
def test_bad_decorations_are_refused_at_once(decorate, error, output):
    with pytest.raises(error, match=output):
        decorate()


def test_a_strategy_of_something_else_is_refused():
    @conformance(st.just(manual_layer(manual_bp.Tanh())))
    def test(search):
        search()

    with pytest.raises(TypeError, match=r"drew Rule.*expected an oracles\.Case\.\nFix: "):
        test.pytestmark[0].args[1][0]()


def test_without_references_finite_differences_judge():
    def cases(slope):
        subject = manual(lambda z: (z * z, z), lambda z, delta: {"z": slope * z * delta})
        return st.just(oracles.Case(subject, {"z": real(2, 3)}))

    assert Search(cases(2), "cotangents_agree", "float64", "square", options=FEW)().points == 24
    with pytest.raises(Disagreement, match="finite difference"):
        Search(cases(3), "cotangents_agree", "float64", "cube", options=FEW)()


class Normalized:
    """A layer normalization of a course: its parameters exist only if it is affine."""

    factor = 1.0

    def __init__(self, shape, eps, affine):
        self.axes, self.eps, self.affine = tuple(range(-len(shape), 0)), eps, affine
        if affine:
            self.gamma, self.beta = np.ones(shape), np.zeros(shape)

    def forward(self, z):
        centred = z - z.mean(self.axes, keepdims=True)
        self.scale = np.sqrt((centred**2).mean(self.axes, keepdims=True) + self.eps)
        self.normalized = centred / self.scale
        return self.normalized * self.gamma + self.beta if self.affine else self.normalized

    def backward(self, delta):
        if self.affine:
            rows = tuple(range(delta.ndim - len(self.axes)))
            self.dgamma, self.dbeta = (delta * self.normalized).sum(rows), delta.sum(rows)
            delta = delta * self.gamma
        inner = delta - delta.mean(self.axes, keepdims=True)
        projection = (delta * self.normalized).mean(self.axes, keepdims=True)
        return self.factor * (inner - self.normalized * projection) / self.scale


class NormalizedWrong(Normalized):
    def __init__(self, shape, eps, affine):
        super().__init__(shape, eps, affine)
        self.factor = 1.0 if affine else 1.01  # wrong only where the parameters vanish


def as_stateful(kind):
    return lambda norm: oracles.stateful(lambda: kind(norm.shape, norm.eps, norm.affine), params=("gamma", "beta"))


class InTheContract:
    """The same in the contract of manual_bp.protocol: ``None`` for the gradients of parameters that it lacks."""

    def __init__(self, shape, eps, affine):
        self.arguments = shape, eps, affine

    def forward(self, params, z):
        norm = Normalized(*self.arguments)
        for name, value in params.items():
            setattr(norm, name, value)
        return norm.forward(z), norm

    def backward(self, norm, delta):
        dz = norm.backward(delta)
        return dz, {"gamma": getattr(norm, "dgamma", None), "beta": getattr(norm, "dbeta", None)}


def test_parameters_may_vanish_in_a_configuration():
    for options in ({"adapt": as_stateful(Normalized)}, {}):
        subject = Normalized if options else InTheContract
        search = decorated(subject, like=manual_bp.LayerNorm, **options)
        assert result_at(search).points
        assert result_at(search, "primal_agrees-float64").points
    wrong = decorated(NormalizedWrong, like=manual_bp.LayerNorm, adapt=as_stateful(NormalizedWrong))
    with pytest.raises(Disagreement) as excinfo:
        result_at(wrong)
    assert list(excinfo.value.result.setting.primals) == ["z"]


@pytest.mark.parametrize("error", [oracles.InvalidInput("no such shape"), NotImplementedError("affine=False")])
def test_what_is_no_verdict_is_told_as_such(error):
    class Refuses(Normalized):
        def forward(self, z):
            if not self.affine:
                raise error
            return super().forward(z)

    search = replace(
        decorated(Refuses, like=manual_bp.LayerNorm, adapt=as_stateful(Refuses))["cotangents_agree-float64"],
        options=FEW,
    )
    raised = search.attempt()
    assert isinstance(raised, type(error))
    assert "self-consistency" not in search.tally.verdicts
