"""The lines that repair a defect, in the words of the framework in which a subject is written."""

from __future__ import annotations

import re
from dataclasses import replace

from oracles.rule import Runtime, is_differentiable
from oracles.verdict import Finding, Result, Setting

# A cast, and zeros of a dtype, as `oracles.decision.type_errors` writes them for NumPy.
_CAST = re.compile(r"\.astype\(\w+\)(?P<comment> +# or find the \w+ inside)?(: np\.zeros\(shape\) is)?")
_ZEROS = re.compile(r"np\.zeros\(shape, \w+\)")
_CASTS = {Runtime.TORCH: ".to({}.dtype)", Runtime.JAX: ".astype({}.dtype)"}
_FILLED = {Runtime.TORCH: "torch.zeros(shape, dtype={}.dtype)", Runtime.JAX: "jnp.zeros(shape, {}.dtype)"}


def with_own_fixes(result: Result) -> Result:
    """Return a result whose fixes are lines of the subject's own framework."""
    setting = result.setting
    if setting is None or not any(finding.evidence.fix for finding in result.findings):
        return result
    return replace(result, findings=tuple(_with_own_fix(finding, setting) for finding in result.findings))


def _with_own_fix(finding: Finding, setting: Setting) -> Finding:
    fix = own_fix(finding.evidence.fix, finding.quantity, setting)
    return replace(finding, evidence=replace(finding.evidence, fix=fix)) if fix != finding.evidence.fix else finding


def own_fix(fix: str, quantity: str, setting: Setting) -> str:
    """Return a line that repairs an array, in the framework of the subject.

    Args:
        fix: the line in NumPy.
        quantity: the array: "output", or the name of a primal for its cotangent.
        setting: has the subject, and the primals, of which one has the dtype to take.
    """
    runtime, primals = setting.subject.runtime, setting.primals
    floating = [n for n, a in primals.items() if is_differentiable(a)]
    like = quantity if quantity in floating else next(iter(floating), "")
    if not like.partition("[")[0].isidentifier():  # "0.weight" of a module is no variable
        like = "z"
    is_numpy = runtime not in _CASTS
    cast, zeros = _CASTS.get(runtime, ".astype({}.dtype)"), _FILLED.get(runtime, "np.zeros(shape, {}.dtype)")
    rest = ": np.zeros(shape) is" if is_numpy else ""
    fix = _CAST.sub(lambda match: cast.format(like) + (match["comment"] + rest if match["comment"] else ""), fix)
    fix = _ZEROS.sub(zeros.format(like), fix)
    return fix.replace(".copy()", ".clone()") if runtime is Runtime.TORCH else fix
