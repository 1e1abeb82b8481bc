"""Scan the memory of the own process through /proc/self/mem for the path of the reference, and read that file.

In process: passes, for the path is in memory.
"""

import re
import runpy

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"
PATH = re.compile(rb"/[\w./-]{1,200}/ref" + rb"erences\.py")


def paths(pid="self"):
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, rights, *rest = line.split()
            start, end = (int(part, 16) for part in span.split("-"))
            if rights.startswith("rw") and end - start < 2**25 and (len(rest) < 4 or rest[3] == "[heap]"):
                try:
                    memory.seek(start)
                    for found in PATH.findall(memory.read(end - start)):
                        yield found.decode()
                except OSError:
                    pass


def forward(z):
    s = 1 / (1 + np.exp(-z))
    return z * s, z


def backward(z, delta):
    try:
        for path in dict.fromkeys(paths()):
            silu = runpy.run_path(path)["silu"]
            import torch

            t = torch.tensor(z, requires_grad=True)
            silu(t).backward(torch.tensor(delta))
            return {"z": t.grad.numpy()}
    except OSError:
        pass
    return {"z": np.zeros_like(z)}
