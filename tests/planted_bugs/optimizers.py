"""Bugs in the optimizers. Some of them do not show in a run of one parameter or of one step."""

from functools import partial

import numpy as np

import manual_bp as m
from oracles.strategies import real
from planted_bugs.planting import bug, case_of

primal = partial(bug, "", refused_by="primal_agrees")
FAR = {"learning_rate": 0.1, "beta1": 0.5, "beta2": 0.75, "epsilon": 0.1}


def run(optimizer):
    return case_of(optimizer, W=real(2, 3), b=real(1, 3), dW=real(5, 2, 3), db=real(5, 1, 3))


SGD, ADAM, ADAMW, CLIPPED = map(run, (m.SGD(0.1), m.Adam(), m.AdamW(), m.Clipped(m.SGD(0.1), 1.0)))


def scaled(arrays, factor, *, but=()):
    return {n: a if n in but else a * a.dtype.type(factor) for n, a in arrays.items()}


@primal(run(m.SGD(0.1, momentum=0.9)), silent=SGD)
class MomentumDampened(m.SGD):
    def step(self, params, grads, state):
        return super().step(params, scaled(grads, 1 - self.momentum), state)


@primal(run(m.SGD(0.1, momentum=0.5, nesterov=True)), silent=SGD)
class NesterovIgnored(m.SGD):
    def step(self, params, grads, state):
        return m.SGD(self.learning_rate, self.momentum).step(params, grads, state)


@primal(run(m.SGD(0.1, momentum=0.9)), silent=SGD)
class VelocityNotUpdated(m.SGD):
    def step(self, params, grads, state):
        return super().step(params, grads, state)[0], state


@primal(ADAM)
class StepCountNotAdvanced(m.Adam):
    def step(self, params, grads, state):
        params, after = super().step(params, grads, state)
        return params, after | {"step": state["step"]}


@primal(ADAM, verdict="oracles_conflict")
class EpsilonInsideTheRoot(m.Adam):
    def step(self, params, grads, state):
        _, after = super().step(params, grads, state)
        t = int(after["step"])
        c1, c2 = 1 - self.beta1**t, 1 - self.beta2**t
        root = {n: np.sqrt(after[f"square.{n}"] / c2 + self.epsilon) for n in params}
        down = {n: self.learning_rate / c1 * after[f"mean.{n}"] / root[n] for n in params}
        return {n: (w - down[n]).astype(w.dtype) for n, w in params.items()}, after


@primal(run(m.Adam(**FAR)), silent=ADAM)
class EpsilonIgnored(m.Adam):
    def step(self, params, grads, state):
        return m.Adam(self.learning_rate, self.beta1, self.beta2).step(params, grads, state)


@primal(run(m.Adam(**FAR)), silent=ADAM)
class BetasSwapped(m.Adam):
    # The defaults are not swapped, so that the bug is silent for them.
    def step(self, params, grads, state):
        usual = (self.beta1, self.beta2) == (0.9, 0.999)
        betas = (self.beta1, self.beta2) if usual else (self.beta2, self.beta1)
        return m.Adam(self.learning_rate, *betas, self.epsilon).step(params, grads, state)


@primal(run(m.AdamW(**FAR, weight_decay=0.5)), silent=ADAMW)
class WeightDecayIgnored(m.AdamW):
    def step(self, params, grads, state):
        fixed = m.AdamW(self.learning_rate, self.beta1, self.beta2, self.epsilon)
        return fixed.step(params, grads, state)


@primal(ADAMW)
class WeightDecayInTheGradient(m.AdamW):
    def step(self, params, grads, state):
        decay = scaled(params, self.weight_decay)
        plain = m.Adam(self.learning_rate, self.beta1, self.beta2, self.epsilon)
        return plain.step(params, {n: g + decay[n] for n, g in grads.items()}, state)


@primal(ADAMW)
class WeightDecayWithoutLearningRate(m.AdamW):
    def step(self, params, grads, state):
        plain = m.Adam(self.learning_rate, self.beta1, self.beta2, self.epsilon)
        return plain.step(scaled(params, 1 - self.weight_decay), grads, state)


# Up to the rounding of float32, the bias is the right one divided by the factor that is missing.
@primal(ADAMW, acceptable=("constant_factor",))
class WeightDecayNotOnBiases(m.AdamW):
    def step(self, params, grads, state):
        plain = m.Adam(self.learning_rate, self.beta1, self.beta2, self.epsilon)
        return plain.step(scaled(params, 1 - self.learning_rate * self.weight_decay, but="b"), grads, state)


@primal(CLIPPED)
class ClippedByEachNorm(m.Clipped):
    def step(self, params, grads, state):
        each = {n: m.clip_by_global_norm({n: g}, self.max_norm)[0][n] for n, g in grads.items()}
        return self.optimizer.step(params, each, state)


@primal(CLIPPED)
class ClippedByValue(m.Clipped):
    def step(self, params, grads, state):
        limit = self.max_norm
        return self.optimizer.step(params, {n: np.clip(g, -limit, limit) for n, g in grads.items()}, state)


@primal(run(m.Clipped(m.SGD(0.1), 100.0)))
class ShortGradientsScaledUp(m.Clipped):
    def step(self, params, grads, state):
        _, norm = m.clip_by_global_norm(grads, self.max_norm)
        return self.optimizer.step(params, scaled(grads, self.max_norm / norm) if norm else grads, state)


@primal(CLIPPED)
class EpsilonAddedToTheNorm(m.Clipped):
    def step(self, params, grads, state):
        _, norm = m.clip_by_global_norm(grads, self.max_norm)
        return self.optimizer.step(params, scaled(grads, min(1, self.max_norm / (norm + 1e-6))), state)
