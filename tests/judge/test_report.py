"""A refusal reads like a bug report, is JSON, and writes itself as a stand-alone file; failing examples are kept."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from planted_bugs.planting import BUGS

import oracles
from oracles import Disagreement
from oracles.search import Tally, run_search
from oracles.strategies import real

RNG = np.random.default_rng(6)
POINT = {"z": RNG.standard_normal((3, 4)), "W": RNG.standard_normal((4, 2)), "b": RNG.standard_normal((1, 2))}


def affine(z, W, b):
    return z @ W + b


def affine_in_jax(z, W, b):
    return jnp.dot(z, W) + b  # noqa: F821


affine_in_jax.__globals__["jnp"] = __import__("jax.numpy").numpy


def forgets_to_sum(cache, delta):
    z, W = cache
    return {"z": delta @ W.T, "W": z.T @ delta, "b": delta[:1] * 1.0}


def refused(against, backward=forgets_to_sum, dtype="float64"):
    subject = oracles.manual(lambda z, W, b: (z @ W + b, (z, W)), backward, name="my dense layer")
    with pytest.raises(Disagreement) as error:
        oracles.check(subject, {n: a.astype(dtype) for n, a in POINT.items()}, against=against)
    return error.value


TORCH, JAX = oracles.torch_autograd(affine), oracles.jax_vjp(affine_in_jax)
UNWRITABLE = oracles.torch_autograd(lambda z, W, b: z @ W + b)


def test_the_text_names_layer_place_values_oracles_and_defect():
    text = str(refused([TORCH, JAX]))
    assert len(text.splitlines()) <= 25
    assert max(map(len, text.splitlines())) <= 100
    for part in ("my dense layer", "WRONG", "the cotangent of b", "b[0, ", "torch", "jax", "rounding allows"):
        assert part in text
    for part in ("diagnosis: ", "accepted: ", "at: z float64[3, 4]", "reproduce"):
        assert part in text
    assert "no pattern found" not in text


def test_what_is_named_is_what_was_planted():
    def mean(cache, delta):
        return {**forgets_to_sum(cache, delta), "b": delta.mean(0, keepdims=True)}

    def transposed_sign(cache, delta):
        return {**forgets_to_sum(cache, delta), "b": -delta.sum(0, keepdims=True)}

    assert "1/N" in refused([TORCH], mean).diagnosis
    assert "-1" in refused([TORCH], transposed_sign).diagnosis.replace("−", "-")


def test_json_has_everything_exactly():
    error = refused([TORCH, JAX])
    document = json.loads(error.to_json())
    assert document["verdict"] == "wrong"
    assert document["diagnosis"] == error.diagnosis
    assert {f["oracle"] for f in document["findings"]} >= {"torch", "jax"}
    z = document["primals"]["z"]
    back = np.array([float.fromhex(v) for v in z["values"]], z["dtype"]).reshape(z["shape"])
    assert back.tobytes() == POINT["z"].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(
    ("against", "needs"),
    [
        ([TORCH], "import torch"),
        ([JAX], "import jax"),
        ([UNWRITABLE], "recorded"),
    ],
    ids=["torch", "jax", "recorded"],
)
def test_the_script_stands_alone_and_shows_it(against, needs, dtype, tmp_path):
    script = refused(against, dtype=dtype).script()
    assert needs in script
    assert "oracles" not in script.replace("oracles: ", "").split('"""', 2)[2]
    assert "hypothesis" not in script.lower().split('"""', 2)[2]
    file = tmp_path / "shows.py"
    file.write_text(script)
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stderr
    assert "entries differ by more than rounding allows" in done.stdout


@pytest.mark.slow
def test_a_script_of_tuples_and_integers(tmp_path):
    def split(z, rows):
        return z[rows], torch.sin(z)

    subject = oracles.manual(
        lambda z, rows: ((z[rows], np.sin(z)), (z, rows)), lambda c, d: {"z": np.cos(c[0]) * d[1]}, name="half of it"
    )
    with pytest.raises(Disagreement) as error:
        oracles.check(subject, {"z": POINT["z"], "rows": np.array([2, 0])}, against=[oracles.torch_autograd(split)])
    file = tmp_path / "shows.py"
    file.write_text(error.value.script())
    done = subprocess.run([sys.executable, str(file)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1, done.stderr


def test_a_failing_example_is_stored_and_replayed_first(tmp_path):
    bug = next(bug for bug in BUGS if bug.name == "square_weight_not_transposed")
    settings.register_profile("stored", database=DirectoryBasedExampleDatabase(tmp_path), max_examples=200)
    before = settings.get_current_profile_name()
    settings.load_profile("stored")
    counts = []
    try:
        for _ in range(2):
            tally, points = Tally(), []
            with pytest.raises(Disagreement):
                run_search(
                    bug.planted(), bug.refused_by, "float64", label="stored", tally=tally,
                    tick=lambda points=points: points.append(1),
                )  # fmt: skip
            counts.append(len(points))
    finally:
        settings.load_profile(before)
    assert any(tmp_path.rglob("*"))
    assert counts[1] < counts[0]  # the second run starts from what the first has found


def overwriting(cache, delta):
    delta *= 2
    return {"z": delta.copy()}


def squaring(cache, delta):
    return {"z": 2 * delta + 1e-3 * delta**2}


@pytest.mark.parametrize(
    ("backward", "law"), [(overwriting, "nothing_mutated_or_aliased"), (squaring, "pullback_is_linear")]
)
def test_a_broken_law_names_its_point_as_it_was_drawn(backward, law):
    subject = oracles.manual(lambda z: (2 * z, None), backward)
    cases = st.just(oracles.Case(subject, {"z": real(1, 2)}, torch=lambda z: 2 * z))
    with pytest.raises(oracles.Disagreement) as refused:
        run_search(cases, law, "float64", max_examples=4, seed=0)
    assert "at: z float64[1, 2]; judged in float64" in str(refused.value)
    assert "delta = [array('float64', (1, 2), ['0x1.0000000000000p+0', '-0x1.0000000000000p+0'])]" in (
        refused.value.script()
    )
