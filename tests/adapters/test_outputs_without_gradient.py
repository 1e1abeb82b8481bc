"""None, integers, marked, detached and auxiliary outputs: compared as values, and never asked for a cotangent."""

import json
import subprocess
import sys
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import oracles
from oracles.search import run_search
from oracles.strategies import real, rows

Attention = namedtuple("Attention", "out lse")
AGREES = oracles.Verdict.AGREES


def point(dtype=np.float64):
    return {"x": np.random.default_rng(0).standard_normal((3, 4)).astype(dtype)}


def refusal(subject, against, **options):
    with pytest.raises(oracles.Disagreement) as caught:
        oracles.check(subject, point(), against, **options)
    return caught.value


def refused(subject, against, **options):
    return {f.quantity for f in refusal(subject, against, **options).result.findings if f.refuses}


def lse_of(x):
    return np.log(np.exp(x).sum(-1))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def torch_pair(x):
    return x.softmax(-1), x.logsumexp(-1).detach()


REFERENCE = [oracles.torch_autograd(torch_pair)]


class Softmax(torch.autograd.Function):
    """Returns the output and the logarithm of its denominator, which carries no gradient, as kernels do."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(output[0])

    @staticmethod
    def forward(x):
        return x.softmax(-1), x.logsumexp(-1)

    @staticmethod
    def backward(ctx, d, d_lse):
        assert d_lse is None or not d_lse.any()
        (o,) = ctx.saved_tensors
        return o * (d - (o * d).sum(-1, keepdim=True))


class WrongValue(Softmax):
    @staticmethod
    def forward(x):
        return x.softmax(-1), x.logsumexp(-1) + 1


class WrongGradient(Softmax):
    @staticmethod
    def backward(ctx, d, d_lse):
        (o,) = ctx.saved_tensors
        return o * d


class OtherDelta(Softmax):
    @staticmethod
    def backward(ctx, d, d_lse):
        (o,) = ctx.saved_tensors
        return o * d_lse[:, None]


class AllMarked(Softmax):
    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(*output)


class DroppedGradient(Softmax):
    """Marks the output that carries the gradient, and not the other."""

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.mark_non_differentiable(output[0])
        ctx.save_for_backward(output[0])

    @staticmethod
    def backward(ctx, d, d_lse):
        (o,) = ctx.saved_tensors
        return 0 * o


class TestMarkedByTorch:
    def test_a_right_function_agrees(self):
        result = oracles.check(oracles.torch_function(Softmax), point(), REFERENCE)
        assert result.verdict is AGREES
        assert {*result.judged} == {"output[0]", "output[1]", "x"}
        assert any("output[1]" in note for note in result.notes)

    def test_a_reference_that_has_the_gradient_is_no_refusal_and_is_named(self):
        """The function claims no gradient there; that is no claim of a wrong one."""
        reference = oracles.torch_autograd(lambda x: (x.softmax(-1), x.logsumexp(-1)))
        result = oracles.check(oracles.torch_function(Softmax), point(), [reference])
        assert result.verdict is AGREES
        assert result.not_claimed == ("output[1]",)

    def test_a_reference_without_the_output(self):
        result = oracles.check(
            oracles.torch_function(Softmax), point(), [oracles.torch_autograd(lambda x: x.softmax(-1))]
        )
        assert result.verdict is AGREES
        assert {*result.judged} == {"output[0]", "x"}
        assert any("output[1]" in note for note in result.notes)

    def test_without_a_reference(self):
        result = oracles.check(oracles.torch_function(Softmax), point())
        assert result.verdict is AGREES
        assert "x" in result.judged

    @pytest.mark.parametrize(
        ("function", "wrong"),
        [(WrongValue, {"output[1]"}), (WrongGradient, {"x"}), (OtherDelta, {"x"}), (DroppedGradient, {"x"})],
    )
    def test_wrong_functions_are_refused(self, function, wrong):
        assert refused(oracles.torch_function(function), REFERENCE) == wrong

    @pytest.mark.parametrize("function", [WrongGradient, OtherDelta])
    def test_wrong_gradients_are_refused_against_every_reference(self, function):
        subject = oracles.torch_function(function)
        both = oracles.torch_autograd(lambda x: (x.softmax(-1), x.logsumexp(-1)))
        for against in ([both], [oracles.torch_autograd(lambda x: x.softmax(-1))], []):
            assert refused(subject, against) == {"x"}

    @pytest.mark.parametrize("against", [REFERENCE, []])
    def test_nothing_is_credited_where_all_is_marked(self, against):
        result = oracles.check(oracles.torch_function(AllMarked), point(), against)
        assert result.verdict is oracles.Verdict.VACUOUS
        assert result.not_claimed == ("x",)


class CrossEntropy(torch.autograd.Function):
    """Returns (loss, None), as a fused loss does whose second output was not asked for."""

    @staticmethod
    def forward(ctx, x, wanted=False):
        ctx.save_for_backward(x.softmax(-1))
        return x.logsumexp(-1), (x.argmax(-1) if wanted else None)

    @staticmethod
    def backward(ctx, d, d_other):
        (p,) = ctx.saved_tensors
        return p * d[:, None], None


class CrossEntropyOfMean(CrossEntropy):
    @staticmethod
    def backward(ctx, d, d_other):
        (p,) = ctx.saved_tensors
        return p * d.mean(), None


class WrongIndices(CrossEntropy):
    @staticmethod
    def forward(ctx, x, wanted=False):
        ctx.save_for_backward(x.softmax(-1))
        return x.logsumexp(-1), x.argmin(-1)


@pytest.mark.parametrize("reference", [lambda x: x.logsumexp(-1), lambda x: (x.logsumexp(-1), None)])
def test_none_is_no_output(reference):
    against = [oracles.torch_autograd(reference)]
    result = oracles.check(oracles.torch_function(CrossEntropy), point(), against)
    assert result.verdict is AGREES
    assert {*result.judged} == {"output[0]", "x"}
    assert refused(oracles.torch_function(CrossEntropyOfMean), against) == {"x"}


def test_integers_of_a_function():
    against = [oracles.torch_autograd(lambda x: (x.logsumexp(-1), x.argmax(-1)))]
    wanted = {"wanted": True}
    assert oracles.check(oracles.torch_function(CrossEntropy, options=wanted), point(), against).verdict is AGREES
    assert refused(oracles.torch_function(CrossEntropyOfMean, options=wanted), against) == {"x"}
    assert refused(oracles.torch_function(WrongIndices, options=wanted), against) == {"output[1]"}


class Module(torch.nn.Module):
    def forward(self, x):
        o = x.softmax(-1)
        return {"out": o, "top": o.argmax(-1), "lse": x.logsumexp(-1).detach(), "extra": None}


class DetachedModule(Module):
    """Detaches what the reference differentiates."""

    def forward(self, x):
        y = super().forward(x)
        return {**y, "out": y["out"] + (y["out"].sum() - y["out"].sum().detach()).detach(), "both": x.exp().detach()}


def module_reference(x):
    o = x.softmax(-1)
    return {"lse": x.logsumexp(-1).detach(), "out": o, "top": o.argmax(-1)}


def test_outputs_of_a_module():
    against = [oracles.torch_autograd(module_reference)]
    result = oracles.check(oracles.torch_module(Module), point(), against)
    assert result.verdict is AGREES
    assert {*result.judged} == {'output["lse"]', 'output["out"]', 'output["top"]', "x"}
    both = [oracles.torch_autograd(lambda x: module_reference(x) | {"both": x.exp()})]
    assert refused(oracles.torch_module(DetachedModule), both) == {"x"}


# Hand-written pairs: what is wrong with (the outputs, the gradient) of x.
def forward(x):
    return {"out": softmax(x), "lse": lse_of(x), "top": x.argmax(-1), "none": None}, softmax(x)


def backward(o, delta):
    d = delta["out"]
    return {"x": o * (d - (o * d).sum(-1, keepdims=True))}


PAIRS = {
    "a wrong value that carries no gradient": (
        lambda x: (lambda y, c: ({**y, "lse": y["lse"] + 1}, c))(*forward(x)), backward, 'output["lse"]'
    ),
    "wrong indices": (
        lambda x: (lambda y, c: ({**y, "top": y["top"] * 0}, c))(*forward(x)), backward, 'output["top"]'
    ),
    "a wrong gradient": (forward, lambda o, d: {"x": o * d["out"]}, "x"),
    "the cotangent of another output": (forward, lambda o, d: {"x": o * d["lse"][:, None]}, "x"),
    "a wrong value": (
        lambda x: (lambda y, c: ({**y, "out": 2 * y["out"]}, c))(*forward(x)), backward, 'output["out"]'
    ),
}  # fmt: skip
PAIR_REFERENCE = [oracles.torch_autograd(module_reference)]


class TestPairs:
    def test_a_right_pair_agrees(self):
        result = oracles.check(oracles.manual(forward, backward), point(), PAIR_REFERENCE)
        assert result.verdict is AGREES
        assert {*result.judged} == {'output["lse"]', 'output["out"]', 'output["top"]', "x"}

    @pytest.mark.parametrize("bug", PAIRS)
    def test_wrong_pairs_are_refused(self, bug):
        wrong_forward, wrong_backward, quantity = PAIRS[bug]
        assert quantity in refused(oracles.manual(wrong_forward, wrong_backward), PAIR_REFERENCE)

    def test_backward_gets_zeros_and_none(self):
        seen = []

        def record(o, delta):
            seen.append(delta)
            return backward(o, delta)

        oracles.check(oracles.manual(forward, record), point(), PAIR_REFERENCE)
        assert all({*delta} == {"out", "lse", "top", "none"} for delta in seen)
        assert all(delta["none"] is None and not delta["lse"].any() and not delta["top"].any() for delta in seen)
        assert any(delta["out"].any() for delta in seen)

    @pytest.mark.parametrize("seed", range(3))
    def test_a_class_with_such_outputs(self, seed):
        class Layer:
            factor = 1.0

            def forward(self, x):
                y, self.cache = forward(x)
                return y

            def backward(self, delta):
                return self.factor * backward(self.cache, delta)["x"]

        class Doubled(Layer):
            factor = 2.0

        assert oracles.check(oracles.stateful(Layer), point(), PAIR_REFERENCE, seed=seed).verdict is AGREES
        assert refused(oracles.stateful(Doubled), PAIR_REFERENCE, seed=seed) == {"x"}

    def test_namedtuples_have_fields(self):
        def forward_of(x):
            return Attention(softmax(x), lse_of(x)), softmax(x)

        def backward_of(o, d):
            return {"x": o * (d.out - (o * d.out).sum(-1, keepdims=True))}

        subject = oracles.manual(forward_of, backward_of)
        of_fields = oracles.torch_autograd(lambda x: Attention(*torch_pair(x)))
        of_keys = oracles.torch_autograd(lambda x: dict(zip(("out", "lse"), torch_pair(x), strict=True)))
        for reference in (of_fields, of_keys, *REFERENCE):
            result = oracles.check(subject, point(), [reference])
            assert result.verdict is AGREES
            assert {*result.judged} == {"output.out", "output.lse", "x"}
            assert not any(f.is_cotangent for f in result.findings if f.quantity == "output.lse")
        wrong = oracles.manual(forward_of, lambda o, d: {"x": o * d.out})
        assert refused(wrong, [of_fields]) == {"x"}

    def test_a_layer_of_manual_bp_with_a_dict(self):
        class Layer:
            def init(self, rng, dtype):
                return {}

            def forward(self, params, z):
                return {"y": 2 * z, "rank": z.argsort(-1)}, None

            def backward(self, cache, delta):
                return 2 * delta["y"], {}

        against = [oracles.torch_autograd(lambda z: {"y": 2 * z, "rank": z.argsort(-1)})]
        result = oracles.check(oracles.manual_layer(Layer()), {"z": np.arange(6.0).reshape(2, 3)}, against)
        assert result.verdict is AGREES


def with_aux(x):
    return (softmax(x), {"lse": lse_of(x), "count": 4}), softmax(x)


def of_aux(o, d):
    return {"x": o * (d - (o * d).sum(-1, keepdims=True))}


def torch_aux(x):
    return x.softmax(-1), {"lse": x.logsumexp(-1), "count": 4}


def jax_aux(x):
    return jax.nn.softmax(x), {"lse": jax.nn.logsumexp(x, -1), "count": 4}


AUXILIARY = {
    "torch": oracles.torch_autograd(torch_aux, has_aux=True),
    "jax": oracles.jax_vjp(jax_aux, has_aux=True),
    "jax through XLA": oracles.jax_vjp(jax_aux, has_aux=True, through="xla"),
}


class TestAuxiliary:
    @pytest.mark.parametrize("reference", AUXILIARY)
    def test_a_pair(self, reference):
        against = [AUXILIARY[reference]]
        result = oracles.check(oracles.manual(with_aux, of_aux, has_aux=True), point(), against)
        assert result.verdict is AGREES
        assert {*result.judged} == {"output", 'aux["lse"]', 'aux["count"]', "x"}
        wrong = oracles.manual(with_aux, lambda o, d: {"x": o * d}, has_aux=True)
        assert refused(wrong, against) == {"x"}

        def other(x):
            (y, aux), cache = with_aux(x)
            return (y, {**aux, "lse": 2 * aux["lse"]}), cache

        found = refusal(oracles.manual(other, of_aux, has_aux=True), against)
        assert {f.quantity for f in found.result.findings if f.refuses} == {'aux["lse"]'}
        assert "WRONG in aux" in str(found)

    @pytest.mark.parametrize("against", [[oracles.torch_autograd(lambda x: x.softmax(-1))], []])
    def test_a_reference_without_it(self, against):
        result = oracles.check(oracles.manual(with_aux, of_aux, has_aux=True), point(), against)
        assert result.verdict is AGREES
        assert refused(oracles.manual(with_aux, lambda o, d: {"x": o * d}, has_aux=True), against) == {"x"}

    def test_a_function_of_jax(self):
        @jax.custom_vjp
        def f(x):
            return jax_aux(x)

        def fwd(x):
            return jax_aux(x), jax.nn.softmax(x)

        def bwd(o, d):
            return (o * (d[0] - (o * d[0]).sum(-1, keepdims=True)),)

        f.defvjp(fwd, bwd)
        against = [AUXILIARY["jax"]]
        assert oracles.check(oracles.jax_function(f, has_aux=True), point(), against).verdict is AGREES
        assert oracles.check(oracles.jax_function(jax_aux, has_aux=True), point(), against).verdict is AGREES
        f.defvjp(fwd, lambda o, d: (o * d[0],))
        assert refused(oracles.jax_function(f, has_aux=True), against) == {"x"}
        f.defvjp(fwd, lambda o, d: (o * (d[0] - (o * d[0]).sum(-1, keepdims=True)) + d[1]["lse"].sum() + 1,))
        assert refused(oracles.jax_function(f, has_aux=True), against) == {"x"}

    def test_value_and_grad(self):
        def loss(x):
            return ((x * x).sum(), {"mean": x.mean(), "rows": len(x)}), 2 * x

        against = [oracles.torch_autograd(lambda x: ((x * x).sum(), {"mean": x.mean(), "rows": 3}), has_aux=True)]
        assert oracles.check(oracles.value_and_grad(loss, has_aux=True), point(), against).verdict is AGREES
        wrong = oracles.value_and_grad(lambda x: (loss(x)[0], x), has_aux=True)
        assert refused(wrong, against) == {"x"}

        def other(x):
            return ((x * x).sum(), {"mean": x.sum(), "rows": len(x)}), 2 * x

        assert refused(oracles.value_and_grad(other, has_aux=True), against) == {'aux["mean"]'}

    def test_what_is_no_pair_is_invalid(self):
        for subject, against in [
            (oracles.manual(lambda x: (x, x), lambda c, d: {"x": d}, has_aux=True), []),
            (oracles.value_and_grad(lambda x: (x.sum(), x), has_aux=True), []),
        ]:
            with pytest.raises(oracles.InvalidInput, match="has_aux"):
                oracles.check(subject, point(), against)


def test_integers_of_a_custom_vjp():
    @jax.custom_vjp
    def top(x):
        return x.max(-1), x.argmax(-1)

    def bwd(i, d):
        assert d[1].dtype == jax.dtypes.float0  # as JAX passes it
        return (jnp.zeros((*i.shape, 4), d[0].dtype).at[jnp.arange(len(i)), i].set(d[0]),)

    top.defvjp(lambda x: (top(x), x.argmax(-1)), bwd)
    against = [oracles.jax_vjp(lambda x: (x.max(-1), x.argmax(-1)))]
    assert oracles.check(oracles.jax_function(top), point(), against).verdict is AGREES
    top.defvjp(lambda x: (top(x), x.argmin(-1)), bwd)
    assert refused(oracles.jax_function(top), against) == {"x"}


def two(x):
    return {"loss": (x * x).sum(), "wrong": 3 * x.sum(0)}, x


def of_two(x, d):
    return {"x": 2 * x * d["loss"] + d["wrong"]}


TWO = [oracles.torch_autograd(lambda x: {"loss": (x * x).sum(), "wrong": 2 * x.sum(0)})]


class TestSelection:
    @pytest.mark.parametrize("outputs", ["loss", ["loss"], 0, [0], 'output["loss"]'])
    def test_the_other_outputs_are_not_judged(self, outputs):
        subject = oracles.manual(two, of_two)
        assert 'output["wrong"]' in refused(subject, TWO)
        result = oracles.check(subject, point(), TWO, outputs=outputs)
        assert result.verdict is AGREES
        assert {*result.judged} == {'output["loss"]', "x"}
        assert oracles.check(subject, point(), outputs=outputs).verdict is AGREES

    def test_what_is_selected_is_judged(self):
        assert 'output["wrong"]' in refused(oracles.manual(two, of_two), TWO, outputs="wrong")
        wrong = oracles.manual(two, lambda x, d: {"x": x * d["loss"] + 3 * d["wrong"]})
        assert refused(wrong, TWO, outputs="loss") == {"x"}
        assert refused(wrong, [], outputs="loss") == {"x"}

    def test_a_reference_may_return_the_selected_ones_alone(self):
        against = [oracles.torch_autograd(lambda x: (x * x).sum())]
        assert oracles.check(oracles.manual(two, of_two), point(), against, outputs="loss").verdict is AGREES
        with pytest.raises(oracles.InvalidInput, match="wrong"):
            oracles.check(oracles.manual(two, of_two), point(), against)

    @pytest.mark.parametrize("outputs", ["los", 5, [], ["loss", "nothing"]])
    def test_unknown_names_are_invalid(self, outputs):
        with pytest.raises(oracles.InvalidInput, match="loss"):
            oracles.check(oracles.manual(two, of_two), point(), TWO, outputs=outputs)

    def test_tuples_by_position(self):
        subject = oracles.manual(lambda x: ((x.sum(), 3 * x), x), lambda x, d: {"x": d[0] + 0 * x})
        against = [oracles.torch_autograd(lambda x: (x.sum(), 2 * x))]
        result = oracles.check(subject, point(), against, outputs=0)
        assert result.verdict is AGREES
        assert {*result.judged} == {"output[0]", "x"}
        assert "output[1]" in refused(subject, against, outputs=1)

    def test_delta_in_the_structure_of_the_output(self):
        right = oracles.manual(two, lambda x, d: {"x": 2 * x * d["loss"] + 3 * d["wrong"]})
        against = [oracles.torch_autograd(lambda x: {"loss": (x * x).sum(), "wrong": 3 * x.sum(0)})]
        result = oracles.check(right, point(), against, delta={"loss": np.array(2.0), "wrong": np.arange(4.0)})
        assert result.verdict is AGREES
        assert [np.shape(d) for d in result.setting.delta] == [(), (4,)]
        assert oracles.check(right, point(), against, delta={"loss": np.array(2.0), "wrong": None}).verdict is AGREES
        selected = oracles.check(right, point(), against, delta={"loss": np.array(2.0)}, outputs="loss")
        assert float(selected.setting.delta[0]) == 2.0
        for delta in ({"loss": np.array(2.0)}, {"loss": np.array(2.0), "wrong": np.arange(4.0), "other": np.ones(1)}):
            with pytest.raises(oracles.InvalidInput):
                oracles.check(right, point(), against, delta=delta)

    def test_dicts_with_other_names_are_invalid(self):
        against = [oracles.torch_autograd(lambda x: {"loss": (x * x).sum(), "other": 3 * x.sum(0)})]
        with pytest.raises(oracles.InvalidInput, match="wrong") as caught:
            oracles.check(oracles.manual(two, of_two), point(), against)
        assert "other" in str(caught.value)
        in_order = [oracles.torch_autograd(lambda x: ((x * x).sum(), 3 * x.sum(0)))]
        with pytest.raises(oracles.InvalidInput):  # which is which?
            oracles.check(oracles.manual(two, of_two), point(), in_order)


def test_a_wrong_second_output_that_the_reference_differentiates_is_refused():
    """That an output has no gradient is the reference's word: a pair that ignores its cotangent is wrong."""
    subject = oracles.manual(lambda x: ((softmax(x), lse_of(x)), softmax(x)), lambda o, d: of_aux(o, d[0]))
    differentiated = oracles.torch_autograd(lambda x: (x.softmax(-1), x.logsumexp(-1)))
    assert refused(subject, [differentiated]) == {"x"}
    assert oracles.check(subject, point(), REFERENCE).verdict is AGREES


def test_a_reference_that_cannot_be_differentiated_is_still_one():
    """torch says nothing of functions that it cannot differentiate: a lone output without a graph is no answer."""
    subject = oracles.manual(lambda x: (np.sin(x), x), lambda x, d: {"x": d * np.cos(x)})
    with pytest.raises(oracles.ReferenceFailed, match="require grad"):
        oracles.check(subject, point(), [oracles.torch_autograd(lambda x: torch.sin(x).detach())])


@pytest.mark.parametrize("framework", ["torch", "jax"])
def test_reports_have_the_names(framework, tmp_path):
    reference = {
        "torch": oracles.torch_autograd(module_reference),
        "jax": oracles.jax_vjp(
            lambda x: {"out": jax.nn.softmax(x), "top": x.argmax(-1), "lse": jax.nn.logsumexp(x, -1)}
        ),
    }[framework]
    wrong_forward, wrong_backward, quantity = PAIRS["a wrong value"]
    found = refusal(oracles.manual(wrong_forward, wrong_backward), [reference])
    assert found.result.worst.quantity == quantity
    assert f"WRONG in {quantity}" in str(found)
    document = json.loads(found.to_json())
    assert document["entries"]["quantity"] == quantity
    assert quantity in {f["quantity"] for f in document["findings"]}
    file = tmp_path / "script.py"
    file.write_text(found.script())
    assert subprocess.run([sys.executable, file], capture_output=True, check=False).returncode == 1


def torch_tuple(x):
    return x.softmax(-1), x.argmax(-1)


def jax_tuple(x):
    return jax.nn.softmax(x), x.argmax(-1)


def only_softmax(x):
    return {"p": x.softmax(-1)}


SCRIPTS = {
    "torch": oracles.torch_autograd(torch_tuple),
    "jax": oracles.jax_vjp(jax_tuple),
    "a dict of one": oracles.torch_autograd(only_softmax),
}


@pytest.mark.parametrize("reference", SCRIPTS)
def test_scripts_of_plain_tuples_run(reference, tmp_path):
    if reference == "a dict of one":
        wrong = oracles.manual(lambda x: (softmax(x), softmax(x)), lambda o, d: {"x": o * d})
    else:
        wrong = oracles.manual(lambda x: ((softmax(x), x.argmax(-1)), softmax(x)), lambda o, d: {"x": o * d[0]})
    found = refusal(wrong, [SCRIPTS[reference]])
    file = tmp_path / "script.py"
    file.write_text(found.script())
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "entries differ" in done.stdout


class TestSearch:
    def cases(self, backward):
        @st.composite
        def drawn(draw):
            n = draw(rows())
            pair = oracles.manual(lambda x: (Attention(softmax(x), lse_of(x)), softmax(x)), backward)
            return oracles.Case(pair, {"x": real(n, 3)}, torch=lambda x: Attention(*torch_pair(x)))

        return drawn()

    def test_right_subjects_agree(self):
        def right(o, d):
            assert not np.any(d.lse)
            return of_aux(o, d.out)

        run_search(self.cases(right), "cotangents_agree", "float64", max_examples=8, seed=0)

    def test_wrong_subjects_are_found(self):
        with pytest.raises(oracles.Disagreement) as caught:
            run_search(self.cases(lambda o, d: {"x": o * d.out}), "cotangents_agree", "float64", max_examples=8, seed=0)
        assert caught.value.result.worst.quantity == "x"

    def test_wrong_values_are_named(self):
        def shifted(x):
            return Attention(softmax(x), lse_of(x) + 1), softmax(x)

        @st.composite
        def drawn(draw):
            pair = oracles.manual(shifted, lambda o, d: of_aux(o, d.out))
            return oracles.Case(pair, {"x": real(draw(rows()), 3)}, torch=lambda x: Attention(*torch_pair(x)))

        with pytest.raises(oracles.Disagreement) as caught:
            run_search(drawn(), "primal_agrees", "float64", max_examples=8, seed=0)
        assert caught.value.result.worst.quantity == "output.lse"


@pytest.mark.parametrize("name", ["output[1]", "output.eigenvectors"])
def test_conventions_have_names_and_positions(name):
    def eigh(A):
        result = np.linalg.eigh(A)
        return type(result)(result.eigenvalues, -result.eigenvectors), result

    def of_eigh(result, delta):
        w, V = result.eigenvalues, -result.eigenvectors
        gaps = w - w[:, None] + np.eye(len(w))
        inner = (1 - np.eye(len(w))) / gaps * (V.T @ delta.eigenvectors)
        return {"A": V @ (np.diag(delta.eigenvalues) + inner) @ V.T}

    A = np.random.default_rng(0).standard_normal((3, 3))
    subject = oracles.declared(oracles.manual(eigh, of_eigh), symmetric="A", gauge={name: "sign"})
    result = oracles.check(subject, {"A": A + A.T}, [oracles.torch_autograd(torch.linalg.eigh)])
    assert result.verdict is AGREES
    assert {*result.judged} == {"output.eigenvalues", "output.eigenvectors", "A"}
    turned = oracles.declared(
        oracles.manual(lambda x: (Attention(x.T, x[0]), x), lambda x, d: {"x": d.out.T + 0 * x}),
        layout={"output.out" if "." in name else "output[0]": "ij->ji"},
    )
    reference = oracles.torch_autograd(lambda x: Attention(x, x[0].detach()))
    assert oracles.check(turned, point(), [reference]).verdict is AGREES


def test_isolated_subjects_keep_the_names():
    subject = oracles.isolated(oracles.manual(forward, backward))
    result = oracles.check(subject, point(), PAIR_REFERENCE)
    assert result.verdict is AGREES
    assert {*result.judged} == {'output["lse"]', 'output["out"]', 'output["top"]', "x"}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_coarser_dtypes(dtype):
    assert not oracles.check(oracles.manual(forward, backward), point(dtype), PAIR_REFERENCE).refuses


def jax_pair(x):
    return jax.nn.softmax(x), jax.nn.logsumexp(x, -1)


def stopped_pair(x):
    o, lse = jax_pair(x)
    return o, jax.lax.stop_gradient(lse)


STOPPED = {
    "numpy": [oracles.jax_vjp(stopped_pair)],
    "xla": [oracles.jax_vjp(stopped_pair, through="xla")],
    "jit": [oracles.jax_vjp(jax.jit(stopped_pair))],
}


@pytest.mark.parametrize("against", STOPPED.values(), ids=STOPPED)
class TestStopGradient:
    """What `jax.lax.stop_gradient` detaches carries no gradient, as what torch detaches does."""

    def test_right_subjects_agree(self, against):
        ignores = oracles.manual(lambda x: ((softmax(x), lse_of(x)), softmax(x)), lambda o, d: of_aux(o, d[0]))
        uses = oracles.manual(
            lambda x: ((softmax(x), lse_of(x)), softmax(x)),
            lambda o, d: {"x": of_aux(o, d[0])["x"] + o * d[1][:, None]},
        )
        for subject in (ignores, uses, oracles.jax_function(stopped_pair), oracles.jax_function(jax_pair)):
            result = oracles.check(subject, point(), against)
            assert result.verdict is AGREES
            assert {*result.judged} == {"output[0]", "output[1]", "x"}
            assert any("output[1]" in note for note in result.notes)

    def test_wrong_subjects_are_refused(self, against):
        def other(x):
            return (softmax(x), 2 * lse_of(x)), softmax(x)

        def twice(x):
            o, lse = stopped_pair(x)
            return o, 2 * lse

        backward = oracles.manual(lambda x: ((softmax(x), lse_of(x)), softmax(x)), lambda o, d: {"x": o * d[0]})
        assert refused(backward, against) == {"x"}
        assert refused(oracles.manual(other, lambda o, d: of_aux(o, d[0])), against) == {"output[1]"}
        assert refused(oracles.jax_function(twice), against) == {"output[1]"}
        detached = oracles.jax_function(lambda x: (jax.lax.stop_gradient(jax_pair(x)[0]) + 0 * x, jax_pair(x)[1]))
        assert refused(detached, against) == {"x"}


def test_what_a_subject_detaches_counts_alone():
    """Without a reference nobody else says so; one that differentiates the output refuses, as for torch."""
    subject = oracles.jax_function(stopped_pair)
    assert oracles.check(subject, point()).verdict is AGREES
    assert refused(subject, [oracles.jax_vjp(jax_pair)]) == {"x"}


def test_what_jax_detaches_is_found_in_calls_and_not_in_parts():
    def of(f):
        rule = oracles.jax_vjp(f)
        return {**getattr(rule(**point())[0], "without", {})}

    assert of(lambda x: (x, jax.jit(jax.lax.stop_gradient)(x), x - jax.lax.stop_gradient(x))) == {1: "detached"}
    assert of(lambda x: (x, x.argmax(-1), (x > 0).astype(float))) == {2: "detached"}
    assert of(lambda x: (jax.lax.stop_gradient(x), 0 * jax.lax.stop_gradient(x))) == {}  # nothing else is left
    assert of(lambda x: (x, jnp.round(x), jax.lax.scan(lambda c, r: (c, c * r), 2.0, x[0])[1])) == {}


class TestSearchForJax(TestSearch):
    def cases(self, backward):
        @st.composite
        def drawn(draw):
            pair = oracles.manual(lambda x: (Attention(softmax(x), lse_of(x)), softmax(x)), backward)
            primals = {"x": real(draw(rows()), 3)}
            return oracles.Case(pair, primals, jax=lambda x: Attention(*stopped_pair(x)))

        return drawn()
