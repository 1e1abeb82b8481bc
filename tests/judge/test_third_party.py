"""No diagnosis of a wrong layer as people write them is misleading, and the right layers are accepted."""

import numpy as np
import pytest
import third_party  # noqa: F401
from third_party.layers import WRONG_LAYERS

from oracles import Disagreement, check
from oracles.diagnosis.diagnose import diagnosis_of
from oracles.rule import with_dtype

# Every run diagnoses some of each file; benchmarks/diagnosis.py diagnoses all, at other shapes and in float32 too.
LAYERS = [pytest.param(w, id=w.name, marks=() if i % 8 == 0 else pytest.mark.slow) for i, w in enumerate(WRONG_LAYERS)]


def point(layer, shape=0, dtype="float64"):
    drawn = layer.draw(np.random.default_rng(shape), shape)
    return with_dtype({n: np.asarray(a) for n, a in drawn.items()}, dtype)


@pytest.mark.parametrize("layer", LAYERS)
def test_diagnosis_is_right_or_none(layer):
    with pytest.raises(Disagreement) as refused:
        check(layer.wrong, point(layer), [layer.oracle])
    diagnosis = diagnosis_of(refused.value.result)
    assert diagnosis.pattern in (layer.pattern, *layer.acceptable, ""), diagnosis


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("layer", LAYERS)
def test_right_layer_agrees(layer, dtype):
    assert check(layer.right, point(layer, 1, dtype), [layer.oracle]).verdict == "agrees"


def test_every_family_has_layers():
    assert len(WRONG_LAYERS) >= 100
    assert len({w.name for w in WRONG_LAYERS}) == len(WRONG_LAYERS)
