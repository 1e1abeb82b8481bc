"""Call patterns of objects: what an object keeps from earlier calls must not change its results."""

import dense_classes as classes
import numpy as np
import pytest
from dense_classes import AT, TORCH

import oracles
from oracles import Disagreement, Verdict, stateful

WB = ("W", "b")


class FirstCacheKept(classes.Attributes):
    """Backward reads the cache of the first forward."""

    def forward(self, z):
        y = np.tanh(z @ self.W + self.b)
        if not hasattr(self, "z"):
            self.z, self.y = z, y
        return y.copy()


class CachesOfAClass(classes.Attributes):
    """Every object shares one list of caches, and the oldest is taken off."""

    caches = []  # noqa: RUF012

    def forward(self, z):
        y = np.tanh(z @ self.W + self.b)
        self.caches.append((z, y))
        return y.copy()

    def backward(self, delta):
        self.z, self.y = self.caches.pop(0)
        return super().backward(delta)


class SlopeInPlace(classes.Attributes):
    """Backward turns its saved output into the slope, in place: the second backward starts from that."""

    def pulled(self, delta):
        self.y *= -self.y
        self.y += 1
        e = delta * self.y
        return e @ self.W.T, self.z.T @ e, e.sum(0, keepdims=True)


class AccumulatesInput(classes.Attributes):
    """The gradient of the input is added up as well."""

    total = 0.0

    def backward(self, delta):
        self.total = self.total + super().backward(delta)
        return self.total


class FlushForgets(classes.Accumulating):
    """flush clears the weights' gradient, and not the bias's."""

    def zero_grad(self):
        self.dW = np.zeros((4, 2))
        self.db = getattr(self, "db", np.zeros((1, 2)))


class HalfTheSecond(classes.Accumulating):
    """A running mean where a sum or a replacement belongs."""

    def backward(self, delta):
        dz, dW, db = self.pulled(delta)
        self.dW, self.db = self.dW / 2 + dW, self.db / 2 + db
        return dz


class KeepsState(classes.Attributes):
    """A recurrent state that survives into the next forward."""

    state = 0.0

    def forward(self, z):
        y = super().forward(z) + 0.1 * self.state
        self.state = y[:1].copy()
        return y


class MutatesOutput(classes.Attributes):
    """The next forward overwrites the array that forward returned."""

    def forward(self, z):
        y = super().forward(z)
        if not hasattr(self, "out"):
            self.out = np.empty_like(y)
        self.out[...] = y
        return self.out


class DeltaKept(classes.Attributes):
    """Backward adds this delta to the last one, which it saved."""

    last = 0.0

    def backward(self, delta):
        gradients = super().backward(delta + self.last)
        self.last = 0.25 * delta
        return gradients


class WritesDelta(classes.Attributes):
    def backward(self, delta):
        delta *= 1 - self.y**2
        self.dW, self.db = self.z.T @ delta, delta.sum(0, keepdims=True)
        return delta @ self.W.T


class MaskOfTheFirst(classes.Attributes):
    """A scale is computed once and used for all later inputs."""

    def forward(self, z):
        self.scale = getattr(self, "scale", np.abs(z).max())
        return super().forward(z) * self.scale / self.scale

    def pulled(self, delta):
        return super().pulled(delta * (1 + np.abs(self.z).max() - self.scale))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (FirstCacheKept, "forward twice, then backward gives another answer"),
        (SlopeInPlace, "backward twice gives another answer"),
        (AccumulatesInput, "backward twice gives another answer"),
        (HalfTheSecond, "backward twice gives another answer"),
        (DeltaKept, "backward twice gives another answer"),
        (KeepsState, "forward twice, then backward gives another answer"),
        (MaskOfTheFirst, "forward twice, then backward gives another answer"),
        (WritesDelta, "delta[0] was written into"),
        (CachesOfAClass, None),
    ],
)
@pytest.mark.parametrize("against", [[TORCH], pytest.param([], marks=pytest.mark.slow)], ids=["torch", "no reference"])
def test_state_of_earlier_calls_is_refused(make, message, against):
    CachesOfAClass.caches.clear()
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(stateful(make, params=WB), AT, against)
    assert excinfo.value.verdict is Verdict.WRONG
    assert message is None or message in " ".join(f.evidence.reason for f in excinfo.value.result.findings)


def test_a_flush_that_forgets_is_refused():
    with pytest.raises(Disagreement, match="second step") as excinfo:
        oracles.check(stateful(FlushForgets, params=WB, flush="zero_grad"), AT, against=[TORCH])
    assert excinfo.value.result.worst.quantity == "b"
    assert oracles.check(stateful(FlushForgets, params=WB), AT, against=[TORCH]).verdict is Verdict.AGREES


@pytest.mark.parametrize(("make", "accumulates"), [(classes.Accumulating, False), (classes.Attributes, True)])
def test_accumulation_declared_wrongly_is_refused(make, accumulates):
    with pytest.raises(Disagreement, match="backward twice"):
        oracles.check(stateful(make, params=WB, accumulates=accumulates), AT, against=[TORCH])


def test_objects_for_one_use():
    """State that only a fresh object has is no bug if the object serves one forward and backward."""
    subject = stateful(FirstCacheKept, params=WB, reusable=False)
    assert oracles.check(subject, AT, against=[TORCH]).verdict is Verdict.AGREES
    assert not subject.call_patterns


def test_an_output_buffer_may_be_reused():
    assert oracles.check(stateful(MutatesOutput, params=WB), AT, against=[TORCH]).verdict is Verdict.AGREES


def test_a_shared_array_is_a_note():
    class Identity:
        def forward(self, z):
            return z

        def backward(self, delta):
            return delta

    result = oracles.check(stateful(Identity), {"z": AT["z"]}, against=[oracles.torch_autograd(lambda z: z.clone())])
    assert result.verdict is Verdict.AGREES
    assert all(part in str(result) for part in ("output", "shares memory", "z"))
    assert "return dz.copy()" in str(result)
