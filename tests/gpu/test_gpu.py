"""What needs a GPU: subjects and references there, lost devices, the kernels of the examples, the benchmark of cost.

Everything that these tests rely on is tested on the CPU in tests/adapters/cases_of_devices.py.
"""

import json
import subprocess
import sys
from pathlib import Path

import gpu_subjects
import ml_dtypes
import numpy as np
import pytest
import torch
from torch.nn import functional as F

import oracles
from oracles import Disagreement, Verdict

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from test_kernels import REFUSED_IN, missing_for, verdicts_of  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and torch.cuda.is_available() is False"),
]

DTYPES = {"float64": np.float64, "float32": np.float32, "bfloat16": ml_dtypes.bfloat16}
DEVICE = "cuda"


def drawn(dtype="float64", **shapes):
    rng = np.random.default_rng(5)
    return {n: rng.standard_normal(shape).astype(DTYPES[dtype]) for n, shape in shapes.items()}


AT = drawn(z=(32, 16), W=(16, 8))
REFERENCE = oracles.torch_autograd(lambda z, W: z @ W)


def dense(backward=gpu_subjects.backward):
    return oracles.manual(gpu_subjects.forward, backward, arrays="torch")


def refusal_of(subject, at=AT, **options):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(subject, at, [REFERENCE], **{"device": DEVICE, **options})
    return excinfo.value


@pytest.mark.parametrize("dtype", DTYPES)
def test_right_and_wrong_pairs(dtype):
    at = drawn(dtype, z=(32, 16), W=(16, 8))
    torch.cuda.reset_peak_memory_stats()
    assert oracles.check(dense(), at, [REFERENCE], device=DEVICE).verdict is Verdict.AGREES
    assert torch.cuda.max_memory_allocated() > 0
    refusal = refusal_of(dense(gpu_subjects.backward_mean), at)
    assert (refusal.verdict, refusal.result.worst.quantity) == (Verdict.WRONG, "W")


# Operations of which CUDA has kernels of its own, fused ones among them.
MODULES = {
    "layer norm": (
        lambda: torch.nn.LayerNorm(12),
        {"z": (6, 12), "weight": (12,), "bias": (12,)},
        lambda z, weight, bias: F.layer_norm(z, (12,), weight, bias),
    ),
    "batch norm": (
        lambda: torch.nn.BatchNorm2d(3),
        {"z": (4, 3, 5, 5), "weight": (3,), "bias": (3,)},
        lambda z, weight, bias: F.batch_norm(z, None, None, weight, bias, training=True),
    ),
    "convolution": (
        lambda: torch.nn.Conv2d(3, 4, 3),
        {"z": (2, 3, 8, 8), "weight": (4, 3, 3, 3), "bias": (4,)},
        F.conv2d,
    ),
    "softmax": (lambda: torch.nn.Softmax(-1), {"z": (6, 12)}, lambda z: z.softmax(-1)),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", MODULES)
def test_torchs_own_modules(name, dtype):
    make, shapes, reference = MODULES[name]
    if name == "convolution":

        def reference(z, weight, bias):
            return F.conv2d(z, weight, bias)

    numerics = oracles.Numerics("float32", multiply="tf32") if (name, dtype) == ("convolution", "float32") else None
    at = drawn(dtype, **shapes)
    against = [oracles.torch_autograd(reference)]
    result = oracles.check(oracles.torch_module(make), at, against, device=DEVICE, numerics=numerics)
    assert result.verdict is Verdict.AGREES


def test_attention():
    def attention(q, k, v):
        return F.scaled_dot_product_attention(q, k, v)

    at = drawn("float32", q=(2, 4, 16, 8), k=(2, 4, 16, 8), v=(2, 4, 16, 8))
    subject = oracles.torch_autograd(attention, name="attention")
    assert oracles.check(subject, at, [oracles.torch_autograd(attention)], device=DEVICE).verdict is Verdict.AGREES


def test_device_of_the_primals_is_the_default():
    at = {n: torch.from_numpy(a).to(DEVICE) for n, a in AT.items()}
    assert oracles.check(dense(), at, [REFERENCE]).verdict is Verdict.AGREES


class Half(torch.autograd.Function):
    """z, and half of the gradient that z has."""

    @staticmethod
    def forward(ctx, z):
        return z.clone()

    @staticmethod
    def backward(ctx, delta):
        return delta / 2


class Layer(torch.nn.Module):
    """A layer with a weight; wrong where it halves the gradient."""

    def __init__(self, is_wrong):
        super().__init__()
        self.W = torch.nn.Parameter(torch.eye(16) + 0.5)
        self.is_wrong = is_wrong

    def forward(self, z):
        y = (z @ self.W).tanh()
        return Half.apply(y) if self.is_wrong else y


def test_diagnosis_names_the_layer_of_a_module_that_lies_there():
    W = torch.eye(16, dtype=torch.float64, device=DEVICE) + 0.5
    network = torch.nn.Sequential(Layer(False), Layer(True)).double().to(DEVICE)
    reference = oracles.torch_autograd(lambda z: ((z @ W).tanh() @ W).tanh())
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.torch_module(network), drawn(z=(8, 16)), [reference], device=DEVICE)
    assert "Layer" in excinfo.value.diagnosis


def test_streams_are_synchronised():
    result = oracles.check(dense(gpu_subjects.backward_in_another_stream), AT, [REFERENCE], device=DEVICE)
    assert result.verdict is Verdict.AGREES


def test_cotangent_on_the_cpu_is_refused():
    worst = refusal_of(dense(gpu_subjects.backward_on_cpu)).result.worst
    assert worst.quantity == "W"
    assert "device cpu, expected cuda:0" in worst.evidence.reason


@pytest.mark.parametrize(
    "backward", [gpu_subjects.backward_with_index_out_of_bounds, gpu_subjects.backward_with_illegal_access]
)
def test_lost_device_is_a_finding_under_isolation_and_the_run_goes_on(backward):
    if "illegal" in backward.__name__ and not hasattr(torch.cuda, "_compile_kernel"):
        pytest.skip("this torch cannot compile a kernel from a string")
    refusal = refusal_of(dense(backward), isolate=True)
    assert (refusal.verdict, refusal.result.worst.quantity) == (Verdict.WRONG, "the call")
    assert "DeviceLost" in refusal.result.worst.evidence.reason
    assert oracles.check(dense(), AT, [REFERENCE], device=DEVICE, isolate=True).verdict is Verdict.AGREES
    assert oracles.check(dense(), AT, [REFERENCE], device=DEVICE).verdict is Verdict.AGREES


@pytest.mark.parametrize("name", [name for name in REFUSED_IN if name.startswith("triton")])
def test_examples_of_kernels_on_the_gpu(name, tmp_path):
    if missing := missing_for(name):
        pytest.skip(missing)
    verdicts_of(name, tmp_path)


def test_cost_is_measured_on_the_gpu(tmp_path):
    file = tmp_path / "cost.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "cost.py"), "--device", DEVICE, "--json", str(file)]
    process = subprocess.run([*command, "--only", "norm 32×32"], capture_output=True, encoding="utf-8", cwd=ROOT)
    assert process.returncode == 0, process.stderr
    rows = json.loads(file.read_text(encoding="utf-8"))
    assert {row["device"] for row in rows} == {DEVICE}
    assert {row["verdict"].partition(",")[0] for row in rows} == {"agrees", "wrong"}
