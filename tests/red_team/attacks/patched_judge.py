"""Replace the functions of the judge: oracles.check and every module of oracles.decision that is loaded.

In process: refused by the naive verifier; passes where oracles.check is looked up at the call.
"""

import sys

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "patches the verifier"

if oracles := sys.modules.get("oracles"):
    oracles.check = oracles.judge_untrusted = lambda *_, **__: None
for name, module in list(sys.modules.items()):
    if name.startswith(("oracles.decision", "oracles.untrusted", "oracles.point", "oracles.verdict")):
        for function in [n for n, value in vars(module).items() if callable(value) and n.startswith("judge")]:
            setattr(module, function, lambda *_, **__: [])


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    return {"z": np.zeros_like(z)}
