"""Raise what test runners take for "skipped", and what the judge raises where it knows nothing.

In process: refused as an error; a pytest run skips the test.
"""

import sys
import unittest

EXPECTED = {"RUNTIME_ERROR", "CHEATS"}
KIND = "ends the process, or forges a report"


def forward(z):
    for module, name in (("oracles.rule", "ReferenceFailed"), ("oracles.rule", "InternalError")):
        if error := getattr(sys.modules.get(module), name, None):
            raise error("nothing is known about the subject")
    raise unittest.SkipTest("not on this machine")


def backward(z, delta):
    return {"z": delta}
