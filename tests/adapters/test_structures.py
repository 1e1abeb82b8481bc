"""Trees of arrays: in every kind of tree and every adapter, right subjects agree, wrong ones are refused by leaf."""

import json
import subprocess
import sys
from collections import namedtuple
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from trees import ADAPTERS, BUGS, FORMS, Affine, Fields, Plain, as_pair, fits, jax_reference, point, torch_reference

import oracles
from oracles.__main__ import main
from oracles.search import run_search
from oracles.strategies import real, rows
from oracles.structure import flatten, flattened, mapped, nested

AGREES = oracles.Verdict.AGREES
COMBINATIONS = [(adapter, kind) for adapter in ADAPTERS for kind in FORMS if fits(adapter, kind)]
REFERENCES = {"torch": torch_reference, "jax": jax_reference}


def refused(subject, primals, against, **options):
    """Return the refusal of a wrong subject."""
    with pytest.raises(oracles.Disagreement) as caught:
        oracles.check(subject, primals, against, **options)
    return caught.value


def names_refused(refusal):
    return {f.quantity for f in refusal.result.findings if f.refuses}


@pytest.mark.parametrize(("adapter", "kind"), COMBINATIONS)
def test_right_subjects_agree_in_every_leaf(adapter, kind):
    form = FORMS[kind]
    result = oracles.check(ADAPTERS[adapter](form), point(form), [torch_reference(form)])
    assert result.verdict is AGREES
    assert {*form.names, "z", "output"} == {*result.judged}
    assert not result.not_claimed


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_wrong_leaves_are_named(adapter, bug):
    form = FORMS["dict"]
    change, wrong = BUGS[bug]
    refusal = refused(ADAPTERS[adapter](form, change), point(form), [torch_reference(form)])
    assert names_refused(refusal) == {form.names[i] for i in wrong}
    assert refusal.result.worst.quantity in str(refusal)


@pytest.mark.parametrize("kind", FORMS)
def test_wrong_leaves_are_named_in_every_kind_of_tree(kind):
    form = FORMS[kind]
    change, wrong = BUGS["swapped leaves of equal shape"]
    for oracle in [REFERENCES[n](form) for n in REFERENCES if n == "torch" or kind != "dataclass"]:
        refusal = refused(as_pair(form, change), point(form), [oracle])
        assert names_refused(refusal) == {form.names[i] for i in wrong}


@pytest.mark.parametrize("kind", FORMS)
def test_jax_and_no_reference_judge_trees(kind):
    form = FORMS[kind]
    for against in ([jax_reference(form)], [jax_reference(form), torch_reference(form)], []):
        assert oracles.check(as_pair(form), point(form), against).verdict is AGREES
    change, wrong = BUGS["a doubled leaf"]
    assert names_refused(refused(as_pair(form, change), point(form), [])) == {form.names[i] for i in wrong}


def test_the_tree_keeps_its_types():
    seen = []

    def forward(p, z):
        seen.append((type(p), type(p.b[0]), type(p.W)))
        return z * p.W, (p, z)

    def backward(cache, delta):
        p, z = cache
        return {"p": Fields(delta * z, None, [None, {}]), "z": delta * p.W}

    ragged = [[1, 2], [3.0], {"unused": np.ones(2)}]
    primals = {"p": Fields(np.ones(2), None, ragged), "z": np.arange(2.0)}
    subject = oracles.manual(forward, lambda c, d: backward(c, d) | {"p": Fields(d * c[1], None, None)})
    result = oracles.check(subject, primals, [oracles.torch_autograd(lambda p, z: z * p.W)])
    assert seen[0] == (Fields, np.ndarray, np.ndarray)
    assert {"p.W", "p.b[0]", "p.b[1]", 'p.b[2]["unused"]'} <= {*result.setting.primals}
    assert result.not_claimed == ("p.b[1]", 'p.b[2]["unused"]')  # p.b[0] holds integers


@pytest.mark.parametrize("adapter", ["manual", "manual in torch", "manual with a tuple", "jax_function"])
@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda g: {"W": g["W"], "g": g["g"]}, 'params["b"]'),
        (lambda g: {**g, "c": g["b"]}, 'params["c"]'),
        (lambda g: g["b"], "params"),
        (lambda g: [g["W"], g["b"]], "params"),
    ],
)
def test_a_missing_or_further_leaf_is_invalid(adapter, change, path):
    form = FORMS["dict"]
    broken = form._replace(make=lambda *parts: change(form.make(*parts)))
    with pytest.raises(oracles.InvalidInput) as caught:
        oracles.check(ADAPTERS[adapter](broken), point(form), [torch_reference(form)])
    assert path in str(caught.value)
    assert "Fix:" in str(caught.value)


def test_gradients_in_another_kind_of_tree():
    """A namedtuple is read by its fields, a tuple by position, numbers are arrays without an axis."""
    Other = namedtuple("Other", "b W g")
    form = FORMS["namedtuple"]
    for make in (lambda W, g, b: Other(b, W, g), lambda W, g, b: (W, g, b), lambda W, g, b: {"b": b, "g": g, "W": W}):
        assert oracles.check(as_pair(form._replace(make=make)), point(form), [torch_reference(form)]).verdict is AGREES
    numbers = {"xs": [np.array(2.0), np.array(3.0)]}
    reference = oracles.torch_autograd(lambda xs: xs[0] * xs[1])
    for backward in (
        lambda xs, d: [d * xs[1], d * xs[0]],
        lambda xs, d: {"xs": [float(d * xs[1]), float(d * xs[0])]},  # numbers of Python
    ):
        product = oracles.manual(lambda xs: (xs[0] * xs[1], xs), backward)
        assert oracles.check(product, numbers, [reference]).verdict is AGREES
    wrong = oracles.manual(lambda xs: (xs[0] * xs[1], xs), lambda xs, d: {"xs": [float(d * xs[0]), float(d * xs[1])]})
    with pytest.raises(oracles.Disagreement):
        oracles.check(wrong, numbers, [reference])


@pytest.mark.parametrize("adapter", ["manual", "jax_function"])
def test_integers_in_a_tree_have_no_gradient(adapter):
    """They may be left out, be None, or what JAX passes for them."""

    def value(p):
        return p["a"][p["ids"]] * 2.0

    def gradient(p, d, scale=2.0):
        if adapter == "jax_function":
            return {"a": jnp.zeros(3, d.dtype).at[p["ids"]].add(scale * d), "ids": None}
        da = np.zeros(3)
        np.add.at(da, p["ids"], scale * d)
        return {"a": da}

    def adapted(scale):
        if adapter == "manual":
            return oracles.manual(lambda p: (value(p), p), lambda p, d: {"p": gradient(p, d, scale)})
        f = jax.custom_vjp(value)
        f.defvjp(lambda p: (value(p), p), lambda p, d: (gradient(p, d, scale),))
        return oracles.jax_function(f)

    primals = {"p": {"a": np.arange(3.0), "ids": np.array([0, 2, 2])}}
    against = [oracles.torch_autograd(value), oracles.jax_vjp(value)]
    assert oracles.check(adapted(2.0), primals, against).verdict is AGREES
    assert names_refused(refused(adapted(1.0), primals, against)) == {'p["a"]'}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_trees_in_coarser_dtypes(dtype):
    form = FORMS["nested"]
    at = {n: mapped(lambda a: a.astype(dtype), tree) for n, tree in point(form).items()}
    assert not oracles.check(as_pair(form), at, [torch_reference(form)]).refuses
    change, wrong = BUGS["a doubled leaf"]
    assert {form.names[i] for i in wrong} == names_refused(refused(as_pair(form, change), at, [torch_reference(form)]))


def test_none_in_a_tree_claims_no_gradient():
    form = FORMS["dict"]
    silent = form._replace(make=lambda W, g, b: {"W": W, "g": None, "b": b})
    result = oracles.check(as_pair(silent), point(form), [torch_reference(form)])
    assert result.not_claimed == ('params["g"]',)


def test_the_one_primal_may_be_the_gradient_itself():
    def forward(p):
        return p["a"] * p["b"], p

    primals = {"p": {"a": np.arange(3.0), "b": np.arange(3.0) + 1}}
    reference = [oracles.torch_autograd(lambda p: p["a"] * p["b"])]
    whole = oracles.manual(forward, lambda p, d: {"a": d * p["b"], "b": d * p["a"]})
    named = oracles.manual(forward, lambda p, d: {"p": {"a": d * p["b"], "b": d * p["a"]}})
    by_leaf = oracles.manual(forward, lambda p, d: {'p["a"]': d * p["b"], 'p["b"]': d * p["a"]})
    for subject in (whole, named, by_leaf):
        assert oracles.check(subject, primals, reference).verdict is AGREES
    swapped = oracles.manual(forward, lambda p, d: {"a": d * p["a"], "b": d * p["b"]})
    assert names_refused(refused(swapped, primals, reference)) == {'p["a"]', 'p["b"]'}


def test_value_and_grad_in_the_structure_of_its_argument():
    def loss(params, z):
        r = z @ params["W"] + params["b"]
        return 0.5 * (r * r).sum(), {"W": z.T @ r, "b": r.sum(0)}

    def swapped(params, z):
        value, g = loss(params, z)
        return value, {"W": g["W"], "b": g["W"][0]}

    rng = np.random.default_rng(0)
    primals = {"params": {"W": rng.standard_normal((2, 2)), "b": rng.standard_normal(2)}}
    primals["z"] = rng.standard_normal((3, 2))
    against = [oracles.torch_autograd(lambda params, z: 0.5 * ((z @ params["W"] + params["b"]) ** 2).sum())]
    for wrt in (None, "params"):
        result = oracles.check(oracles.value_and_grad(loss, wrt), primals, against)
        assert result.verdict is AGREES
        assert result.not_claimed == ("z",)
        refusal = refused(oracles.value_and_grad(swapped, wrt), primals, against)
        assert names_refused(refusal) == {'params["b"]'}


class Concatenation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale, *xs):
        ctx.sizes, ctx.scale = [len(x) for x in xs], scale
        return torch.cat(xs) * scale

    @staticmethod
    def backward(ctx, delta):
        return (None, *(delta * ctx.scale).split(ctx.sizes))


class ConcatenationReversed(Concatenation):
    @staticmethod
    def backward(ctx, delta):
        return (None, *reversed((delta * ctx.scale).split(ctx.sizes)))


def test_variadic_functions_of_torch():
    primals = {"xs": [np.arange(2.0), np.arange(2.0) + 5]}
    against = [oracles.torch_autograd(lambda xs: 2 * torch.cat(xs))]
    variadic = [oracles.torch_autograd(lambda *xs: 2 * torch.cat(xs))]
    options = {"scale": 2.0}
    for oracle in (against, variadic):
        subject = oracles.torch_function(Concatenation, options=options)
        assert oracles.check(subject, primals, oracle).verdict is AGREES
        refusal = refused(oracles.torch_function(ConcatenationReversed, options=options), primals, oracle)
        assert names_refused(refusal) == {"xs[0]", "xs[1]"}


def test_a_function_of_torch_takes_no_other_tree():
    with pytest.raises(oracles.InvalidInput, match="params"):
        oracles.check(oracles.torch_function(Affine), point(FORMS["dict"]))


def test_variadic_and_keyword_arguments():
    def forward(z, *xs, **named):
        return z * sum(xs) + named["a"] * named["b"], (z, xs, named)

    def backward(cache, d):
        z, xs, named = cache
        return {"z": d * sum(xs), "xs": [d * z for _ in xs], "named": {"a": d * named["b"], "b": d * named["a"]}}

    def swapped(cache, d):
        result = backward(cache, d)
        result["named"] = {"a": result["named"]["b"], "b": result["named"]["a"]}
        return result

    primals = {"z": np.arange(3.0), "xs": [np.ones(3), np.arange(3.0)], "named": {"a": np.ones(3), "b": np.arange(3.0)}}
    against = [oracles.torch_autograd(lambda z, *xs, **named: z * sum(xs) + named["a"] * named["b"])]
    assert oracles.check(oracles.manual(forward, backward), primals, against).verdict is AGREES
    assert names_refused(refused(oracles.manual(forward, swapped), primals, against)) == {'named["a"]', 'named["b"]'}


def test_variadic_methods():
    class Net:
        def forward(self, z, *xs):
            self.cache = z, xs
            return z * sum(xs)

        def backward(self, delta):
            z, xs = self.cache
            return delta * sum(xs), [delta * z for _ in xs]

    class Wrong(Net):
        def backward(self, delta):
            dz, dxs = super().backward(delta)
            return dz, [dxs[0], 2 * dxs[1]]

    class Module(torch.nn.Module):
        def forward(self, z, *xs):
            return z * sum(xs)

    primals = {"z": np.arange(3.0), "xs": [np.ones(3), np.arange(3.0)]}
    against = [oracles.torch_autograd(lambda z, xs: z * sum(xs))]
    for subject in (oracles.stateful(Net), oracles.torch_module(Module)):
        assert oracles.check(subject, primals, against).verdict is AGREES
    assert names_refused(refused(oracles.stateful(Wrong), primals, against)) == {"xs[1]"}


def test_variadic_custom_vjp():
    @jax.custom_vjp
    def total(z, *xs):
        return z * sum(xs)

    total.defvjp(lambda z, *xs: (z * sum(xs), (z, xs)), lambda r, d: (d * sum(r[1]), *(d * r[0] for _ in r[1])))
    primals = {"z": np.arange(3.0), "xs": [np.ones(3), np.arange(3.0)]}
    against = [oracles.jax_vjp(lambda z, xs: z * sum(xs))]
    assert oracles.check(oracles.jax_function(total), primals, against).verdict is AGREES
    total.defvjp(lambda z, *xs: (z * sum(xs), (z, xs)), lambda r, d: (d * sum(r[1]), d * r[0], d))
    assert names_refused(refused(oracles.jax_function(total), primals, against)) >= {"xs[1]"}


def test_static_arguments_stay_out():
    @partial(jax.custom_vjp, nondiff_argnums=(1,))
    def clip(params, slope):
        return params["a"] * slope

    clip.defvjp(lambda p, s: (p["a"] * s, None), lambda s, r, d: ({"a": d * s},))
    primals, against = {"params": {"a": np.ones(3)}}, [oracles.jax_vjp(lambda params: 0.5 * params["a"])]
    bound = oracles.jax_function(partial(clip, slope=0.5))
    assert oracles.check(bound, primals, against).verdict is AGREES
    with pytest.raises(oracles.InvalidInput, match="slope"):
        oracles.check(oracles.jax_function(clip), {**primals, "slope": np.float64(0.5)}, against)


def test_a_module_takes_a_tree_and_parameters():
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 1)

        def forward(self, xs):
            return self.linear(xs["x"])

    at = {"xs": {"x": np.ones((2, 3))}, "linear.weight": np.ones((1, 3)), "linear.bias": np.zeros(1)}
    against = [oracles.torch_autograd(lambda xs, **p: xs["x"] @ p["linear.weight"].T + p["linear.bias"])]
    assert oracles.check(oracles.torch_module(Sum), at, against).verdict is AGREES


def test_adapters_that_take_arrays_alone_say_so():
    subject = oracles.elementwise(np.tanh, lambda z: 1 - np.tanh(z) ** 2)
    with pytest.raises(oracles.InvalidInput, match="params"):
        oracles.check(subject, {"params": {"z": np.ones(2)}})


def test_what_replaces_an_evaluation_is_not_lost():
    """A rule that a user has changed is judged as changed, or not at all."""
    form = FORMS["dict"]
    rule = as_pair(form)
    with pytest.raises(oracles.InvalidInput, match="params"):
        oracles.check(replace(rule, evaluate=lambda **p: rule.evaluate(**p)), point(form))


def test_conventions_and_isolation_take_leaves():
    form = FORMS["dict"]
    change, wrong = BUGS["a doubled leaf"]
    doubled = oracles.declared(as_pair(form, change), scale={form.names[2]: 2.0})
    assert oracles.check(doubled, point(form), [torch_reference(form)]).verdict is AGREES
    isolated = oracles.check(as_pair(form), point(form), [torch_reference(form)], isolate=True)
    assert isolated.verdict is AGREES
    refusal = refused(oracles.isolated(as_pair(form, change)), point(form), [torch_reference(form)])
    assert names_refused(refusal) == {form.names[i] for i in wrong}


@pytest.mark.parametrize("reference", REFERENCES)
def test_reports_have_the_leaves(reference, tmp_path):
    form = FORMS["nested"]
    change, _ = BUGS["a doubled leaf"]
    refusal = refused(as_pair(form, change), point(form), [REFERENCES[reference](form)])
    document = json.loads(refusal.to_json())
    assert {*document["primals"]} == {*form.names, "z"}
    assert document["entries"]["quantity"] == form.names[2]
    assert form.names[2] in refusal._repr_html_().replace("&#34;", '"').replace("&quot;", '"')
    file = tmp_path / "script.py"
    file.write_text(refusal.script())
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert form.names[2] in done.stdout


SUBJECTS = """
import numpy as np

rng = np.random.default_rng(0)
params = {"W": rng.standard_normal((2, 2)), "b": [rng.standard_normal(2)]}
primals = {"params": params, "z": rng.standard_normal((3, 2))}


def forward(params, z):
    return {"y": z @ params["W"] + params["b"][0], "top": z.argmax(-1)}, (params, z)


def backward(cache, delta):
    params, z = cache
    d = delta["y"]
    return {"params": {"W": z.T @ d, "b": [d.sum(0)]}, "z": d @ params["W"].T}


def wrong(cache, delta):
    return {**backward(cache, delta), "params": {"W": cache[1].T @ delta["y"], "b": [delta["y"].mean(0)]}}


def reference(params, z):
    return {"y": z @ params["W"] + params["b"][0], "top": z.argmax(-1)}
"""


class TestCommandLine:
    @pytest.fixture
    def run(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "tree_subjects.py").write_text(SUBJECTS)
        rng = np.random.default_rng(1)
        shapes = {'params["W"]': (2, 2), 'params["b"][0]': (2,), "z": (3, 2)}
        np.savez(tmp_path / "point.npz", **{n: rng.standard_normal(shape) for n, shape in shapes.items()})

        def run(*options):
            status = main(["check", *options, "--against", "torch:reference"])
            return status, capsys.readouterr().out

        yield run
        sys.modules.pop("tree_subjects", None)

    @pytest.mark.parametrize(
        "options",
        [
            (),
            ("--primals", "point.npz"),
            ("--shapes", 'params["W"]=2,2 params["b"][0]=2 z=3,2'),
            ("--dtype", "float32"),
            ("--outputs", "y"),
        ],
    )
    def test_trees_from_every_source(self, run, options):
        status, text = run("tree_subjects.py:forward,backward", *options)
        assert status == 0
        assert 'params["b"][0]' in text
        assert 'output["y"]' in text
        assert ('output["top"]' in text) == ("--outputs" not in options)
        status, text = run("tree_subjects.py:forward,wrong", *options)
        assert status == 1
        assert 'params["b"][0]' in text.partition("\n")[0]

    def test_a_written_script_runs(self, run, tmp_path):
        status, _ = run(
            "tree_subjects.py:forward,wrong", "--script", "out.py", "--json", "out.json", "--html", "out.html"
        )
        assert status == 1
        assert subprocess.run([sys.executable, "out.py"], cwd=tmp_path, check=False).returncode == 1
        assert 'params["b"][0]' in json.loads((tmp_path / "out.json").read_text())["results"][0]["primals"]


class TestSearch:
    def cases(self, change):
        @st.composite
        def drawn(draw):
            n = draw(rows())
            form = FORMS["dict"]
            params = form.make(real(2, 2), real(2), real(2))
            torch_value = torch_reference(form).reference
            primals = {"params": params, "z": real(n, 2)}
            return oracles.Case(as_pair(form, change), primals, torch=torch_value, batched=("z",))

        return drawn()

    def searched(self, change, name):
        return run_search(self.cases(change), name, "float64", max_examples=8, seed=0)

    @pytest.mark.parametrize("name", ["cotangents_agree", "batch_is_a_sum", "layout_independent"])
    def test_right_subjects_agree(self, name):
        self.searched(lambda *g: g, name)

    def test_wrong_leaves_are_found(self):
        with pytest.raises(oracles.Disagreement) as caught:
            self.searched(BUGS["a transposed leaf"][0], "cotangents_agree")
        assert names_refused(caught.value) == {'params["W"]'}


def test_configuration_of_a_dataclass_is_part_of_its_structure():
    """Rules are kept by their trees: another slope is another function."""
    trees = [flattened({"p": Plain(np.ones(2), np.ones(2), np.ones(2), slope)})[0] for slope in (1.0, 1.0, 2.0)]
    assert trees[0] == trees[1] != trees[2]
    assert hash(trees[0]) == hash(trees[1])
    reference = oracles.torch_autograd(lambda p: p.slope * p.W)
    for slope in (1.0, 2.0):
        subject = oracles.manual(
            lambda p: (p.slope * p.W, p), lambda p, d: {"p": replace(p, W=d * p.slope, g=None, b=None)}
        )
        assert (
            oracles.check(subject, {"p": Plain(np.ones(2), np.ones(2), np.ones(2), slope)}, [reference]).verdict
            is AGREES
        )


@pytest.mark.parametrize("kind", ["dict", "registered"])
def test_isolated_functions_of_jax(kind):
    form = FORMS[kind]
    subject = oracles.isolated(ADAPTERS["jax_function"](form))
    assert oracles.check(subject, point(form), [torch_reference(form)]).verdict is AGREES


def test_ball_arithmetic_judges_trees():
    """Few numbers in a tree, and no reference: the exact derivative of the subject's own forward."""

    def forward(p):
        return {"product": p["a"] * p["b"], "sum": p["a"] + p["b"]}, p

    def backward(p, d):
        return {"a": d["product"] * p["b"] + d["sum"], "b": d["product"] * p["a"] + d["sum"]}

    primals = {"p": {"a": np.arange(1.0, 3.0), "b": np.arange(2.0, 4.0)}}
    result = oracles.check(oracles.manual(forward, backward), primals)
    assert {f.quantity for f in result.findings if f.oracle == "exact"} == {
        'output["product"]', 'output["sum"]', 'p["a"]', 'p["b"]'
    }  # fmt: skip
    assert result.verdict is AGREES
    wrong = oracles.manual(forward, lambda p, d: {"a": d["product"] * p["b"], "b": d["product"] * p["a"]})
    assert names_refused(refused(wrong, primals, [])) == {'p["a"]', 'p["b"]'}


def test_names_of_leaves_make_trees():
    primals = {"layers": [{"b": np.ones(1)}, {"b": np.zeros(2)}], "0.weight": np.ones(3), "z": np.ones(4)}
    _, leaves = flattened(primals)
    assert [*leaves] == ['layers[0]["b"]', 'layers[1]["b"]', "0.weight", "z"]
    again = nested(leaves)
    assert again["layers"][1]["b"] is primals["layers"][1]["b"]
    assert again["0.weight"] is primals["0.weight"]


class Pair:
    """A class that its user registers as a tree."""

    def __init__(self, a, b):
        self.a, self.b = a, b


def judged_as_pair(make):
    primals = {"p": make(np.arange(3.0), np.ones(3) + 1)}
    against = [oracles.torch_autograd(lambda p: p.a * p.b)]
    right = oracles.manual(lambda p: (p.a * p.b, p), lambda p, d: {"p": make(d * p.b, d * p.a)})
    assert oracles.check(right, primals, against).verdict is AGREES
    wrong = oracles.manual(lambda p: (p.a * p.b, p), lambda p, d: {"p": make(d * p.a, d * p.b)})
    return names_refused(refused(wrong, primals, against))


def test_classes_that_are_registered_with_jax():
    own = type("Own", (Pair,), {})
    jax.tree_util.register_pytree_node(own, lambda p: ((p.a, p.b), None), lambda _, parts: own(*parts))
    assert judged_as_pair(own) == {"p[0]", "p[1]"}
    keyed = type("Keyed", (Pair,), {})
    keys = jax.tree_util.GetAttrKey("a"), jax.tree_util.DictKey("b")
    jax.tree_util.register_pytree_with_keys(
        keyed, lambda p: (tuple(zip(keys, (p.a, p.b), strict=True)), None), lambda _, parts: keyed(*parts)
    )
    assert judged_as_pair(keyed) == {"p.a", 'p["b"]'}


def test_classes_that_are_registered_with_optree():
    optree = pytest.importorskip("optree")

    @optree.dataclasses.dataclass(namespace="of a user")
    class Data:
        a: np.ndarray
        b: np.ndarray
        label: int = optree.dataclasses.field(default=3, pytree_node=False)

    assert judged_as_pair(Data) == {"p.a", "p.b"}


KEYS = st.sampled_from(["W", "b", "0.weight", 'a "quoted" key', "x]", ""])
LEAVES = st.integers(0, 3).map(np.ones)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner | st.none(), max_size=3),
        st.tuples(inner, inner),
        st.builds(Fields, inner, st.none(), inner),
    ),
    max_leaves=6,
)


@given(TREES)
def test_a_tree_is_what_its_leaves_make(tree):
    structure, leaves = flatten(tree, "tree")
    assert len(leaves) == len({id(a) for a in leaves.values()})
    again, other = flatten(structure.rebuild(leaves), "tree")
    assert again == structure
    assert all(other[n] is leaves[n] for n in leaves)
    cotangents = structure.cotangents(structure.rebuild({n: 2 * a for n, a in leaves.items()}), "subject")
    assert {*cotangents} == {*leaves}


@given(
    st.dictionaries(st.sampled_from(["p", "0.weight"]), TREES.filter(lambda t: not isinstance(t, tuple)), max_size=2)
)
def test_names_are_read_back_as_trees(primals):
    plain = {n: mapped(lambda a: a, tree) for n, tree in primals.items()}
    names = {n: a for root, tree in plain.items() for n, a in flatten(tree, root)[1].items()}
    again = {n: a for root, tree in nested(names).items() for n, a in flatten(tree, root)[1].items()}
    assert {*again} >= {n for n in names if "." not in n}


def test_lists_of_numbers_are_one_array():
    trees, leaves = flattened({"z": [[1.0, 2.0], [3.0, 4.0]], "r": [[1.0], [2.0, 3.0]]})
    assert [*leaves] == ["z", "r[0]", "r[1]"]
    assert [root.is_leaf for root in trees.roots] == [True, False]


def test_registered_classes_need_no_import():
    code = "import sys, oracles.structure; print({'jax', 'torch', 'optree'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_jnp_arrays_and_tensors_are_leaves():
    with jax.enable_x64(True):
        primals = {"p": {"a": jnp.ones(2), "b": torch.ones(2, dtype=torch.float64)}}
    subject = oracles.manual(lambda p: (p["a"] * p["b"], p), lambda p, d: {"a": d * p["b"], "b": d * p["a"]})
    result = oracles.check(subject, primals, [oracles.torch_autograd(lambda p: p["a"] * p["b"])])
    assert {*result.setting.primals} == {'p["a"]', 'p["b"]'}
