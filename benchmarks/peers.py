"""The tools that the sensitivity benchmark compares: whether each refuses a gradient with one planted error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import jax
import numpy as np
import torch
from jax.test_util import check_grads

from oracles.decision.judge import judge
from oracles.registry import Case
from oracles.rule import Array, Cotangents, Delta, Output, Rule, as_tuple, is_differentiable
from oracles.signatures import call_by_name
from oracles.strategies import Point
from oracles.verdict import Result

OURS, PEERS = "this project", ("slow", "fast", "check_grads", "close")
Refuses = Callable[[float], bool]


def planted(rule: Rule, name: str, index: tuple[int, ...], error: float) -> Rule:
    """Return the rule with a relative error in one entry of one cotangent."""

    def evaluate(**primals: Array) -> tuple[Output, Callable[[Delta], Cotangents]]:
        y, pullback = rule(**primals)

        def wrong_pullback(delta: Delta) -> Cotangents:
            cotangents = dict(pullback(delta))
            g = np.array(cotangents[name])
            g[index] = np.float64(g[index]) * (1 + error)
            return {**cotangents, name: g}

        return y, wrong_pullback

    return replace(rule, evaluate=evaluate)


def by_judge(case: Case, point: Point, name: str, index: tuple[int, ...]) -> Callable[[float], Result]:
    """Return a function from an error to this project's result."""
    oracles = case.oracles()

    @cache
    def says(error: float) -> Result:
        subject = planted(case.subject, name, index, error)
        return judge(subject, point.primals, point.delta, oracles, kinks=case.kinks)

    return says


class HandWritten(torch.autograd.Function):
    """An autograd.Function, so that gradcheck can judge a hand-written backward."""

    @staticmethod
    def forward(ctx: Any, rule: Rule, names: tuple[str, ...], fixed: Mapping[str, Array], *leaves: Any) -> Any:
        """Evaluate the rule and store its pullback."""
        arrays = dict(zip(names, (leaf.detach().numpy() for leaf in leaves), strict=True))
        y, ctx.pullback = rule(**arrays, **fixed)
        ctx.names, ctx.several = names, isinstance(y, tuple)
        outputs = tuple(torch.from_numpy(np.array(part)) for part in as_tuple(y))
        ctx.mark_non_differentiable(*(part for part in outputs if not part.is_floating_point()))
        return outputs if ctx.several else outputs[0]

    @staticmethod
    def backward(ctx: Any, *delta: Any) -> Any:
        """Return the gradients of the leaves, after None for the arguments that are not tensors."""
        parts = tuple(part.contiguous().numpy() for part in delta)
        cotangents = ctx.pullback(parts if ctx.several else parts[0])
        return None, None, None, *(torch.from_numpy(np.asarray(cotangents[name])) for name in ctx.names)


def by_gradcheck(fast: bool) -> Callable[..., Refuses | None]:
    def at(case: Case, point: Point, name: str, index: tuple[int, ...]) -> Refuses | None:
        if point.dtype != "float64":
            return None
        names, fixed = _claimed(case, point)
        leaves = [torch.tensor(np.array(point.primals[n]), requires_grad=True) for n in names]

        def refuses(error: float) -> bool:
            rule = planted(case.subject, name, index, error)
            return not torch.autograd.gradcheck(
                lambda *leaves: HandWritten.apply(rule, names, fixed, *leaves),
                leaves,
                fast_mode=fast,
                raise_exception=False,
            )

        return refuses

    return at


def by_check_grads(case: Case, point: Point, name: str, index: tuple[int, ...]) -> Refuses | None:
    names, fixed = _claimed(case, point)
    (oracle,) = case.oracles(["jax"])
    reference = oracle.reference
    assert reference is not None
    which = names.index(name)

    def primal(*leaves: Any) -> Any:
        return call_by_name(reference, {**dict(zip(names, leaves, strict=True)), **fixed})

    def refuses(error: float) -> bool:
        def bwd(leaves: tuple[Any, ...], delta: Any) -> tuple[Any, ...]:
            cotangents = list(jax.vjp(primal, *leaves)[1](delta))
            cotangents[which] = jax.numpy.asarray(cotangents[which]).at[index].multiply(1 + error)
            return tuple(cotangents)

        f = jax.custom_vjp(primal)
        f.defvjp(lambda *leaves: (primal(*leaves), leaves), bwd)
        with jax.enable_x64(True):
            leaves = tuple(jax.numpy.asarray(np.array(point.primals[n])) for n in names)
            try:
                check_grads(f, leaves, order=1, modes=["rev"])
            except AssertionError:
                return True
        return False

    return refuses


def by_assert_close(case: Case, point: Point, name: str, index: tuple[int, ...]) -> Refuses | None:
    (oracle,) = case.oracles(["torch"])
    expected = oracle(**point.primals)[1](point.delta)

    def refuses(error: float) -> bool:
        actual = planted(case.subject, name, index, error)(**point.primals)[1](point.delta)
        try:
            for n, g in actual.items():
                torch.testing.assert_close(torch.tensor(np.array(g)), torch.tensor(np.array(expected[n])))
        except AssertionError:
            return True
        return False

    return refuses


BY: Mapping[str, Callable[..., Refuses | None]] = {
    "slow": by_gradcheck(fast=False),
    "fast": by_gradcheck(fast=True),
    "check_grads": by_check_grads,
    "close": by_assert_close,
}


def _claimed(case: Case, point: Point) -> tuple[tuple[str, ...], dict[str, Array]]:
    """Return the primals that the subject has a cotangent for, and the others as they are."""
    claimed = case.subject(**point.primals)[1](point.delta)
    names = tuple(n for n in point.primals if n in claimed and is_differentiable(point.primals[n]))
    return names, {n: np.array(a) for n, a in point.primals.items() if n not in names}
