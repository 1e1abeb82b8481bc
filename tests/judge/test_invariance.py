"""Properties on request: bits that depend on the batch, the place, the chunk or the call are refused."""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

import oracles
from oracles.decorators import conformance
from oracles.invariance import INVARIANCES
from oracles.rule import Runtime
from oracles.strategies import real, rows, widths
from oracles.verdict import SELF_CONSISTENCY, Verdict

ROWS, INPUTS, OUTPUTS = 12, 40, 5
POINTS = 40
RNG = np.random.default_rng(0)
Z, W = RNG.standard_normal((ROWS, INPUTS)), RNG.standard_normal((INPUTS, OUTPUTS))
PRODUCT = oracles.torch_autograd(torch.matmul)


def summed(terms, block):
    """Sum the last axis in blocks: the order of a sum depends on the block, and on nothing else."""
    parts = [terms[..., i : i + block] for i in range(0, terms.shape[-1], block)]
    total = np.zeros(terms.shape[:-1], terms.dtype)
    for part in parts:
        own = np.zeros_like(total)
        for i in range(part.shape[-1]):
            own = own + part[..., i]
        total = total + own
    return total


def product_in(forward_block, backward_block):
    """z @ W with sums in blocks of a size that depends on (row, number of rows)."""

    def by_rows(a, b, block):
        products = [summed(row[None, :] * b.T, block(i, len(a))) for i, row in enumerate(a)]
        return np.stack(products) if products else np.zeros((0, b.shape[1]), a.dtype)

    def forward(z, W):
        return by_rows(z, W, forward_block), (z, W)

    def backward(cache, delta):
        z, W = cache
        return {"z": by_rows(delta, W.T, backward_block), "W": (z.T @ delta).astype(W.dtype)}

    return oracles.manual(forward, backward)


def always(i, n):
    return 8


def for_few_rows(i, n):
    """As split-K does: few rows are split over more threads."""
    return 4 if n <= 2 else 8


def by_place(i, n):
    return 4 if i % 2 else 8


def by_remainder(i, n):
    """Rows beyond the last whole tile of 8 take another path."""
    return 4 if i >= n - n % 8 else 8


def judged(subject, names=INVARIANCES, *, z=Z, w=W, against=(PRODUCT,), batched=("z",), **named):
    return oracles.check(subject, {"z": z, "W": w}, against=list(against), properties=names, batched=batched, **named)


def refusal(*args, **named):
    with pytest.raises(oracles.Disagreement) as excinfo:
        judged(*args, **named)
    return excinfo.value


def not_invariant(refused):
    return {f.quantity for f in refused.result.findings if f.verdict is Verdict.NOT_INVARIANT}


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_sums_in_a_fixed_order_are_invariant(dtype):
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    result = judged(product_in(always, always), z=Z.astype(kind), w=W.astype(kind))
    assert result.verdict is Verdict.AGREES
    own = [f for f in result.findings if f.oracle == SELF_CONSISTENCY]
    assert {f.quantity for f in own} == {"output", "z", "W"}
    assert all(f.ratio == 0 for f in own)


@pytest.mark.parametrize(
    ("block", "name"),
    [(for_few_rows, "batch_invariant"), (by_place, "batch_invariant"), (by_remainder, "chunk_invariant")],
)
def test_an_order_of_sums_that_depends_on_the_batch_is_not_invariant(block, name):
    result = judged(product_in(block, always), names=())
    assert result.verdict is Verdict.AGREES  # accurate all the same
    refused = refusal(product_in(block, always), (name,))
    assert refused.verdict is Verdict.NOT_INVARIANT
    assert not_invariant(refused) == {"output"}
    refused = refusal(product_in(always, lambda i, n: block(i, n) // 4), (name,))
    assert not_invariant(refused) == {"z"}


def test_the_entry_is_one_of_the_whole_batch():
    def last_row(i, n):
        return 4 if i == n - 1 else 8

    evidence = refusal(product_in(last_row, always), ("batch_invariant",)).evidence
    whole = product_in(last_row, always)(z=Z, W=W)[0]
    (value,) = evidence.oracles.values()
    assert value == whole[evidence.index]
    assert evidence.subject != value
    count, size = evidence.refused
    assert 0 < count <= size


def test_a_batch_that_is_declared_by_mistake_is_wrong():
    centred = oracles.manual(lambda z: (z - z.mean(0), z), lambda z, d: {"z": d - d.mean(0)})
    reference = oracles.torch_autograd(lambda z: z - z.mean(0))
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(centred, {"z": Z}, against=[reference], properties=("batch_invariant",), batched=("z",))
    assert excinfo.value.verdict is Verdict.WRONG


def test_a_wrong_value_is_graver_than_other_bits():
    def backward(cache, delta):
        z, W = cache
        return {"z": 1.1 * delta @ W.T, "W": z.T @ delta}

    wrong = oracles.manual(product_in(for_few_rows, always).implementation[0], backward)
    refused = refusal(wrong, ("batch_invariant",))
    assert (refused.verdict, refused.result.worst.quantity) == (Verdict.WRONG, "z")
    assert "output" in not_invariant(refused)


def test_an_output_that_sums_over_rows_is_not_compared():
    """z has as many rows as columns, so that the shape of the output alone does not say whether it has rows."""
    z = RNG.standard_normal((6, 6))
    column_sums = oracles.manual(lambda z: (sum(z), z), lambda z, d: {"z": np.repeat(d[None], len(z), axis=0)})
    reference = oracles.torch_autograd(lambda z: z.sum(0))
    names = ("batch_invariant", "chunk_invariant")
    result = oracles.check(column_sums, {"z": z}, against=[reference], properties=names, batched=("z",))
    assert {f.quantity for f in result.findings if f.oracle == SELF_CONSISTENCY} == {"z"}
    assert result.verdict is Verdict.AGREES


def test_a_kernel_of_whole_tiles_is_compared_where_it_runs():
    def forward(z):
        if len(z) % 4:
            raise ValueError("rows must be a multiple of 4")
        return 2 * z, None

    tiles = oracles.manual(forward, lambda cache, d: {"z": 2 * d})
    reference = oracles.torch_autograd(lambda z: 2 * z)
    result = oracles.check(tiles, {"z": Z}, against=[reference], properties=("batch_invariant",), batched=("z",))
    assert result.verdict is Verdict.AGREES
    assert any("batch_invariant" in note and "multiple of 4" in note for note in result.notes)


def scattered(order_of, size=1.0):
    """A sum whose terms a library may add in any order."""

    def forward(z):
        terms = z[:, order_of(z.shape[1])]
        return size * summed(terms, terms.shape[1]), z

    rule = oracles.manual(forward, lambda z, d: {"z": np.repeat(d[:, None], z.shape[1], axis=1)})
    return replace(rule, runtime=Runtime.TORCH)  # whose calls may differ by rounding


def test_atomic_sums_are_accurate_and_not_deterministic():
    reference = oracles.torch_autograd(lambda z: z.sum(1))
    fixed, atomic = scattered(np.arange), scattered(np.random.default_rng(1).permutation)
    for subject in (fixed, atomic):
        assert oracles.check(subject, {"z": Z}, against=[reference]).verdict is Verdict.AGREES
    assert oracles.check(fixed, {"z": Z}, against=[reference], properties=("deterministic",)).verdict == "agrees"
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(atomic, {"z": Z}, against=[reference], properties=("deterministic",))
    assert excinfo.value.verdict is Verdict.NOT_INVARIANT
    assert not_invariant(excinfo.value) == {"output"}


@pytest.mark.parametrize(
    "named",
    [
        {"names": "deterministic"},
        {"names": ("batchinvariant",)},
        {"batched": ()},
        {"batched": "z"},
        {"batched": ("x",)},
        {"batched": ("z", "W")},
    ],
)
def test_unusable_arguments_are_refused_with_the_line_to_write(named):
    with pytest.raises(oracles.InvalidInput) as excinfo:
        judged(product_in(always, always), **{"names": ("batch_invariant",), **named})
    argument = "properties" if "names" in named else "batched"
    assert str(excinfo.value).startswith(f"check: {argument}:")
    assert "Fix:" in str(excinfo.value)
    assert f"{argument}=(" in str(excinfo.value)


def test_the_report_the_document_and_the_script_name_the_verdict():
    refused = refusal(product_in(for_few_rows, always), ("batch_invariant",))
    assert "NOT_INVARIANT in output" in str(refused)
    assert refused.document()["verdict"] == "not_invariant"
    compile(refused.script(), "script.py", "exec")


def products(block, batched):
    @st.composite
    def cases(draw):
        n_rows, n = draw(rows()), draw(widths())
        primals = {"z": real(n_rows, n), "W": real(n, 3)}
        return oracles.Case(product_in(block, always), primals, torch=torch.matmul, batched=batched)

    return cases()


def searches_of_products(block, batched=("z",)):
    @conformance(products(block, batched), dtypes=("float32",), max_examples=POINTS, properties=INVARIANCES)
    def test(search):
        pass

    (mark,) = test.pytestmark
    return dict(zip(mark.kwargs["ids"], mark.args[1], strict=True))


def test_a_search_judges_properties_on_request():
    right, wrong = searches_of_products(always), searches_of_products(for_few_rows)
    for name in INVARIANCES:
        assert right[f"{name}-float32"]().points == POINTS
    assert {f"{name}-float32" for name in INVARIANCES} < set(right)
    with pytest.raises(oracles.Disagreement) as excinfo:
        wrong["batch_invariant-float32"]()
    assert excinfo.value.verdict is Verdict.NOT_INVARIANT
    assert wrong["deterministic-float32"]().points == POINTS


def test_a_search_needs_cases_with_batched_primals():
    searches = searches_of_products(always, batched=())
    with pytest.raises(oracles.InvalidInput) as excinfo:
        searches["chunk_invariant-float32"]()
    assert "batched=" in str(excinfo.value)
    assert searches["deterministic-float32"]().points == POINTS
    with pytest.raises(oracles.InvalidInput):
        conformance(products(always, ()), properties=("same_bits",))


def test_a_dtype_that_depends_on_the_batch_is_wrong():
    def forward(z):
        return (z.astype(np.float32) if len(z) == 1 else z) * 1, None

    doubled = oracles.manual(forward, lambda cache, d: {"z": d.astype(np.float64)})
    with pytest.raises(oracles.Disagreement) as excinfo:
        oracles.check(
            doubled,
            {"z": Z},
            [oracles.torch_autograd(lambda z: z * 1)],
            properties=("batch_invariant",),
            batched=("z",),
        )
    assert (excinfo.value.verdict, excinfo.value.result.worst.quantity) == (Verdict.WRONG, "output")
    assert "float32" in excinfo.value.evidence.reason
