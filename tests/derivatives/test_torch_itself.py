"""What torch itself derives, twice and forwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import oracles
from oracles import Disagreement, Verdict

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")

POINT = {"z": np.random.default_rng(0).standard_normal((3, 4))}


def test_torchs_own_second_order_and_forward_mode_agree_with_jax() -> None:
    subject = oracles.torch_differentiated(lambda z: torch.softmax(z, 1))
    against = [oracles.jax_vjp(lambda z: jax.nn.softmax(z, axis=1))]
    result = oracles.check(subject, POINT, against, order=2, mode="both")
    assert result.verdict is Verdict.AGREES
    assert {"order 2: z", "order 2: delta", "jvp: J v", "jvp: z_dot"} <= {*result.judged}


def test_function_that_hides_a_factor_from_its_second_derivative_is_refused() -> None:
    def right_once(z: Any) -> Any:
        fixed = z.detach()
        return fixed**3 + 3 * fixed**2 * (z - fixed)

    against = [oracles.jax_vjp(lambda z: z**3)]
    subject = oracles.torch_differentiated(right_once)
    assert oracles.check(subject, POINT, against).verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as refusal:
        oracles.check(subject, POINT, against, order=2)
    assert refusal.value.verdict is Verdict.WRONG
