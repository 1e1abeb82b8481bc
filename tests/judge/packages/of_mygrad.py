"""The backward passes of mygrad: operations on tensors, and those of networks."""

import jax.numpy as jnp
import mygrad as mg
import mygrad.nnet as nnet
import numpy as np
import torch

import oracles

from .rules import ABOVE_ONE, ANY, POSITIVE, SIGNED_UNIT, Package

# The classes that the losses take.
LABELS = np.array([1, 0, 3])
PAIR = ((3, 4), (3, 4))
F = torch.nn.functional


def subject(rule):
    """Return the Rule of a function of mygrad. A graph is gone after its backward, so that builds it again."""

    def forward(**primals):
        return evaluate(primals)[1].data.copy(), primals

    def evaluate(primals):
        # Of anything but floats mygrad makes constants, which have no gradient.
        if any(a.dtype.kind != "f" for a in primals.values()):
            raise TypeError("mygrad takes floats alone")
        tensors = {n: mg.tensor(a) for n, a in primals.items()}
        return tensors, rule.function(*tensors.values())

    def backward(primals, delta):
        tensors, y = evaluate(primals)
        y.backward(delta)
        return {n: np.zeros_like(t.data) if t.grad is None else np.array(t.grad) for n, t in tensors.items()}

    made = oracles.manual(forward, backward, name=f"mygrad {rule.name}")
    return oracles.declared(made, **rule.declares) if rule.declares else made


def elementwise():
    """Return the functions of each entry, and of two arrays."""
    domains = {
        ANY: "abs absolute arcsinh arctan cos cosh exp exp2 expm1 negative positive sin sinh sinc square tan tanh",
        POSITIVE: "log log10 log1p log2 reciprocal sqrt",
        SIGNED_UNIT: "arccos arcsin arctanh",
        ABOVE_ONE: "arccosh",
    }
    rules = [
        Package(name, getattr(mg, name), domains=(domain,), torch=getattr(torch, name))
        for domain, names in domains.items()
        for name in names.split()
    ]
    inverse = {"sec": torch.cos, "csc": torch.sin, "cot": torch.tan, "sech": torch.cosh, "csch": torch.sinh,
               "coth": torch.tanh}  # fmt: skip
    rules += [
        Package(n, getattr(mg, n), domains=(POSITIVE,), torch=lambda x, f=f: 1 / f(x)) for n, f in inverse.items()
    ]
    of_inverse = {"arcsec": torch.arccos, "arccsc": torch.arcsin, "arccoth": torch.arctanh}
    rules += [
        Package(n, getattr(mg, n), domains=(ABOVE_ONE,), torch=lambda x, f=f: f(1 / x)) for n, f in of_inverse.items()
    ]
    rules += [
        Package("arccsch", mg.arccsch, domains=(POSITIVE,), torch=lambda x: torch.arcsinh(1 / x)),
        Package("arccot", mg.arccot, domains=(POSITIVE,), torch=lambda x: torch.arctan(1 / x)),
        Package("cbrt", mg.cbrt, domains=(POSITIVE,), torch=lambda x: x.pow(1 / 3)),
    ]
    names = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "logaddexp", "logaddexp2", "arctan2")
    rules += [Package(n, getattr(mg, n), PAIR, torch=getattr(torch, n)) for n in names]
    rules.append(Package("power", mg.power, PAIR, (POSITIVE, ANY), torch=torch.pow))
    rules.append(Package("multiply, broadcast", mg.multiply, ((3, 4), (4,)), torch=torch.multiply))
    return rules


def arrays():
    """Return sums, products, and what changes shapes."""
    T = torch
    return [
        Package("matmul", mg.matmul, ((2, 3, 4), (4, 2)), torch=T.matmul),
        Package("multi_matmul", lambda x, y, z: mg.multi_matmul([x, y, z]), ((3, 4), (4, 2), (2, 3)),
                torch=lambda x, y, z: x @ y @ z),
        Package("einsum", lambda x, y: mg.einsum("ij,jk->ki", x, y), ((3, 4), (4, 2)),
                torch=lambda x, y: T.einsum("ij,jk->ki", x, y)),
        Package("einsum, a trace", lambda x: mg.einsum("ii->", x), ((3, 3),), jax=lambda x: jnp.einsum("ii->", x)),
        Package("add_sequence", lambda x, y, z: mg.add_sequence(x, y, z), (*PAIR, (4,)),
                torch=lambda x, y, z: x + y + z),
        Package("multiply_sequence", lambda x, y, z: mg.multiply_sequence(x, y, z), (*PAIR, (4,)),
                torch=lambda x, y, z: x * y * z),
        Package("sum", lambda x: mg.sum(x, 1, keepdims=True), torch=lambda x: x.sum(1, keepdim=True)),
        Package("mean", lambda x: mg.mean(x, 0), torch=lambda x: x.mean(0)),
        Package("prod", lambda x: mg.prod(x, 1), torch=lambda x: x.prod(1)),
        Package("cumsum", lambda x: mg.cumsum(x, 1), torch=lambda x: x.cumsum(1)),
        Package("cumprod", lambda x: mg.cumprod(x, 1), torch=lambda x: x.cumprod(1)),
        Package("var", lambda x: mg.var(x, 1), torch=lambda x: x.var(1, correction=0)),
        Package("std", lambda x: mg.std(x, 1, ddof=1), torch=lambda x: x.std(1)),
        Package("max", lambda x: mg.max(x, 1), torch=lambda x: x.amax(1)),
        Package("min", lambda x: mg.min(x, 0), torch=lambda x: x.amin(0)),
        Package("norm", lambda x: mg.linalg.norm(x, axis=1), torch=lambda x: T.linalg.norm(x, dim=1)),
        Package("norm 3", lambda x: mg.linalg.norm(x, 3, axis=1), torch=lambda x: T.linalg.vector_norm(x, 3, 1)),
        Package("clip", lambda x: mg.clip(x, -0.5, 0.7), torch=lambda x: x.clip(-0.5, 0.7)),
        Package("where", lambda x, y: mg.where(x.data > y.data, x * y, y), PAIR,
                torch=lambda x, y: T.where(x > y, x * y, y)),
        Package("index", lambda x: x[np.array([0, 0, 2]), 1:], torch=lambda x: x[[0, 0, 2], 1:]),
        Package("reshape", lambda x: mg.reshape(x, (2, 6)), torch=lambda x: x.reshape(2, 6)),
        Package("ravel", mg.ravel, torch=T.ravel),
        Package("squeeze", mg.squeeze, ((3, 1, 4),), torch=T.squeeze),
        Package("expand_dims", lambda x: mg.expand_dims(x, 1), torch=lambda x: x[:, None]),
        Package("transpose", lambda x: mg.transpose(x, (2, 0, 1)), ((2, 3, 4),), torch=lambda x: x.permute(2, 0, 1)),
        Package("swapaxes", lambda x: mg.swapaxes(x, 0, 2), ((2, 3, 4),), torch=lambda x: x.swapaxes(0, 2)),
        Package("moveaxis", lambda x: mg.moveaxis(x, 0, 2), ((2, 3, 4),), torch=lambda x: x.moveaxis(0, 2)),
        Package("roll", lambda x: mg.roll(x, 2, 1), torch=lambda x: T.roll(x, 2, 1)),
        Package("repeat", lambda x: mg.repeat(x, 3, 1), torch=lambda x: x.repeat_interleave(3, 1)),
        Package("broadcast_to", lambda x: mg.broadcast_to(x, (2, 3, 4)), torch=lambda x: x.expand(2, 3, 4)),
        Package("concatenate", lambda x, y: mg.concatenate((x, y), 1), ((3, 4), (3, 2)),
                torch=lambda x, y: T.cat((x, y), 1)),
        Package("stack", lambda x, y: mg.stack((x, y), 1), PAIR, torch=lambda x, y: T.stack((x, y), 1)),
    ]  # fmt: skip


def networks():
    """Return activations, layers and losses."""
    A, L, loss = nnet.activations, nnet.layers, nnet.losses
    activations = {
        "sigmoid": (A.sigmoid, torch.sigmoid), "relu": (A.relu, torch.relu), "nnet tanh": (A.tanh, torch.tanh),
        "softmax": (A.softmax, lambda x: x.softmax(-1)),
        "logsoftmax": (A.logsoftmax, lambda x: x.log_softmax(-1)), "selu": (A.selu, F.selu),
        "elu": (lambda x: A.elu(x, 0.7), lambda x: F.elu(x, 0.7)), "glu": (A.glu, lambda x: F.glu(x)),
        "leaky_relu": (lambda x: A.leaky_relu(x, 0.1), lambda x: F.leaky_relu(x, 0.1)),
        "hard_tanh": (A.hard_tanh, F.hardtanh), "soft_sign": (A.soft_sign, F.softsign),
    }  # fmt: skip
    rules = [Package(n, f, torch=g) for n, (f, g) in activations.items()]

    def hinge(x):
        rows = torch.arange(len(LABELS))
        margins = (x - x[rows, LABELS][:, None] + 1).clip(min=0)
        keep = torch.ones_like(margins)
        keep[rows, LABELS] = 0
        return (margins * keep).sum() / len(x)

    def labels():
        return torch.tensor(LABELS)

    rules += [
        Package("softmax_crossentropy", lambda x: loss.softmax_crossentropy(x, LABELS),
                torch=lambda x: F.cross_entropy(x, labels())),
        Package("negative_log_likelihood", lambda x: loss.negative_log_likelihood(x, LABELS),
                torch=lambda x: F.nll_loss(x, labels())),
        Package("focal_loss", lambda x: loss.softmax_focal_loss(x, LABELS, alpha=0.8, gamma=2.0),
                torch=lambda x: focal(x.softmax(-1)[torch.arange(3), labels()])),
        Package("multiclass_hinge", lambda x: loss.multiclass_hinge(x, LABELS), torch=hinge),
        Package("margin_ranking_loss", lambda x, y: loss.margin_ranking_loss(x, y, 1, 0.3), PAIR,
                torch=lambda x, y: (0.3 - (x - y)).clip(min=0).mean()),
        Package("conv_nd", lambda x, y: L.conv_nd(x, y, stride=1, padding=1), ((2, 3, 5, 5), (4, 3, 3, 3)),
                torch=lambda x, y: F.conv2d(x, y, padding=1)),
        Package("conv_nd in strides", lambda x, y: L.conv_nd(x, y, stride=2), ((2, 3, 5), (4, 3, 3)),
                torch=lambda x, y: F.conv1d(x, y, stride=2)),
        Package("max_pool", lambda x: L.max_pool(x, (2, 2), 2), ((2, 4, 4),), torch=lambda x: F.max_pool2d(x, 2)),
        Package("batchnorm", lambda x, y, z: L.batchnorm(x, gamma=y, beta=z, eps=1e-5), ((5, 3), (3,), (3,)),
                torch=lambda x, y, z: F.batch_norm(x, None, None, y, z, training=True)),
    ]  # fmt: skip
    return rules


def focal(p):
    return -0.8 * (1 - p) ** 2 * p.log()


RULES = [*elementwise(), *arrays(), *networks()]
