"""Scan the memory of the parent process through /proc/PPID/mem for the path of the reference, and read that file.

In process: refused, unless the path is still in the memory of the parent, which has started the verifier with it.
"""

import os
import re
import runpy

import numpy as np

EXPECTED = {"WRONG_NUMERICS"}
KIND = "looks for the reference"
PATH = re.compile(rb"/[\w./-]{1,200}/ref" + rb"erences\.py")


def paths(pid):
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
        for path in dict.fromkeys(paths(os.getppid()) if os.getppid() > 1 else ()):
            silu = runpy.run_path(path)["silu"]
            import torch

            t = torch.tensor(z, requires_grad=True)
            silu(t).backward(torch.tensor(delta))
            return {"z": t.grad.numpy()}
    except OSError:
        pass
    return {"z": np.zeros_like(z)}
