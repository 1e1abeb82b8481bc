"""Dense layers with tanh, as people write them. They differ in where parameters, caches and gradients are."""

import numpy as np

import oracles

RNG = np.random.default_rng(3)
AT = {"z": RNG.standard_normal((3, 4)), "W": RNG.standard_normal((4, 2)), "b": RNG.standard_normal((1, 2))}
TORCH = oracles.torch_autograd(lambda z, W, b: (z @ W + b).tanh())


class Attributes:
    def __init__(self):
        self.W, self.b = np.zeros((4, 2)), np.zeros((1, 2))

    def forward(self, z):
        self.z, self.y = z, np.tanh(z @ self.W + self.b)
        return self.y.copy()

    def pulled(self, delta):
        e = delta * (1 - self.y**2)
        return e @ self.W.T, self.z.T @ e, e.sum(0, keepdims=True)

    def backward(self, delta):
        dz, self.dW, self.db = self.pulled(delta)
        return dz


class Dicts(Attributes):
    def __init__(self):
        self.params = {"W": np.zeros((4, 2)), "b": np.zeros((1, 2))}
        self.grads = {}

    W = property(lambda self: self.params["W"])
    b = property(lambda self: self.params["b"])

    def backward(self, delta):
        dz, self.grads["W"], self.grads["b"] = self.pulled(delta)
        return dz


class Nested(Attributes):
    """Parameters aliased in a list of layers, gradients in a parallel list."""

    def __init__(self):
        super().__init__()
        self.layers = [{"weights": self.W, "bias": self.b}]
        self.gradients = [[None, None]]

    def forward(self, z):
        self.W, self.b = self.layers[0]["weights"], self.layers[0]["bias"]
        return super().forward(z)

    def backward(self, delta):
        dz, *self.gradients[0] = self.pulled(delta)
        return dz


class Aliased(Attributes):
    """The optimizer's list holds the same arrays; forward reads the list, and nothing else."""

    def __init__(self):
        super().__init__()
        self.parameters = [self.W, self.b]

    def forward(self, z):
        W, b = self.parameters
        self.z, self.y = z, np.tanh(z @ W + b)
        return self.y.copy()


class Lists(Attributes):
    """Weights as nested Python lists, the bias a list of numbers."""

    def __init__(self):
        self.weights, self.biases = [[0.0] * 2 for _ in range(4)], [[0.0] * 2]

    W = property(lambda self: np.array(self.weights))
    b = property(lambda self: np.array(self.biases))

    def backward(self, delta):
        dz, dW, db = self.pulled(delta)
        self.dW, self.db = dW.tolist(), db.tolist()
        return dz


class Properties(Attributes):
    """Parameters behind properties with setters; gradients behind methods."""

    def __init__(self):
        self._W, self._b = np.zeros((4, 2)), np.zeros((1, 2))

    W = property(lambda self: self._W, lambda self, value: setattr(self, "_W", value))
    b = property(lambda self: self._b, lambda self, value: setattr(self, "_b", value))

    def gradients(self):
        return {"W": self.dW, "b": self.db}


class Lazy(Attributes):
    """Parameters are made at the first forward, when the width of the input is known."""

    def __init__(self):
        self.W = None

    def forward(self, z):
        if self.W is None:
            self.W, self.b = np.ones((z.shape[1], 2)), np.ones((1, 2))
        return super().forward(z)


class LazyDict(Dicts):
    """The same in a dict that is empty at first."""

    def __init__(self):
        self.params, self.grads = {}, {}

    def forward(self, z):
        self.params.setdefault("W", np.ones((z.shape[1], 2)))
        self.params.setdefault("b", np.ones((1, 2)))
        return super().forward(z)


class Slots:
    """No __dict__ at all."""

    __slots__ = ("W", "b", "cache", "dW", "db")

    def __init__(self):
        self.W, self.b = np.zeros((4, 2)), np.zeros((1, 2))

    def forward(self, z):
        y = np.tanh(z @ self.W + self.b)
        self.cache = z, y
        return y.copy()

    def backward(self, delta):
        z, y = self.cache
        e = delta * (1 - y**2)
        self.dW, self.db = z.T @ e, e.sum(0, keepdims=True)
        return e @ self.W.T


class Accumulating(Attributes):
    def __init__(self):
        super().__init__()
        self.zero_grad()

    def zero_grad(self):
        self.dW, self.db = np.zeros((4, 2)), np.zeros((1, 2))

    def backward(self, delta):
        dz, dW, db = self.pulled(delta)
        self.dW, self.db = self.dW + dW, self.db + db
        return dz


class Stack(Attributes):
    """A stack of caches: each backward takes the last forward off."""

    def __init__(self):
        super().__init__()
        self.caches = []

    def forward(self, z):
        y = np.tanh(z @ self.W + self.b)
        self.caches.append((z, y))
        return y.copy()

    def backward(self, delta):
        self.z, self.y = self.caches.pop()
        return super().backward(delta)


class Freeing(Attributes):
    """Backward frees its cache and refuses to run again, as torch does."""

    def backward(self, delta):
        if self.z is None:
            raise RuntimeError("backward through a freed graph")
        gradients = super().backward(delta)
        self.z = self.y = None
        return gradients


class Returning(Attributes):
    def backward(self, delta):
        return self.pulled(delta)


class Fprop(Attributes):
    def fprop(self, z):
        return super().forward(z)

    def bprop(self, delta):
        return super().backward(delta)

    forward = backward = None


class Stepping(Attributes):
    """An object that keeps no gradients: only its update shows them."""

    def backward(self, delta):
        dz, *self.pending = self.pulled(delta)
        return dz

    def step(self, rate=0.5):
        self.W -= rate * self.pending[0]
        self.b -= rate * self.pending[1]


class LearningBackward(Attributes):
    """Backward takes a rate and moves the parameters itself."""

    def backward(self, delta, rate):
        dz, dW, db = self.pulled(delta)
        self.W, self.b = self.W - rate * dW, self.b - rate * db
        return dz
