"""What JAX derives and NumPy evaluates is what XLA computes: every registered case, a few fixed shapes, many inputs.

The fast path shares NumPy with the subjects, so it is held against real XLA here.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed

from oracles import jax_vjp
from oracles.decision.judge import judge
from oracles.registry import entries
from oracles.strategies import point_at

INPUTS = 8


def drawn_cases(entry, count):
    """A few cases of an entry, always the same."""
    actual = []

    @hypothesis_seed(0)
    @settings(max_examples=count, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(entry.cases)
    def draw(case):
        actual.append(case)

    draw()
    return actual[:count]


@pytest.mark.deep
@pytest.mark.parametrize("entry", entries(), ids=lambda e: e.name)
def test_numpy_evaluates_what_xla_computes(entry):
    for case in drawn_cases(entry, 3):
        (fast,) = case.oracles(["jax"])
        compiled = jax_vjp(lambda case=case, **primals: case.jax(**primals, **case.options), through="xla", name="xla")
        for seed in range(1, INPUTS + 1):
            point = point_at(case.subject, case.primals, "float64", seed=seed)
            result = judge(compiled, point.primals, point.delta, [fast])
            assert result.findings
            assert not result.refuses, result
