"""A row that is used twice gets its gradient once: NumPy assigns, it does not add."""

import numpy as np

import oracles


def forward(ids, table):
    return table[ids], (ids, table)


def backward(cache, delta):
    ids, table = cache
    d = np.zeros_like(table)
    d[ids] += delta  # the bug: np.add.at(d, ids, delta)
    return {"table": d}


primals = {"ids": np.array([1, 3, 1, 0]), "table": np.random.default_rng(0).standard_normal((5, 3))}
subject = oracles.manual(forward, backward, name="embedding")
against = [oracles.torch_autograd(lambda ids, table: table[ids])]
oracles.check(subject, primals, against)
