"""Devices: on a second device that torch has here, a CuPy on NumPy arrays, and JAX's CPU.

The second device (`standin_device`) is the CPU's memory, but torch takes it for another device: tensors of both in one
operation raise, as on a GPU.
"""

import sys

import device_subjects
import ml_dtypes
import numpy as np
import pytest
import standin_cupy
import standin_device
import torch
from hypothesis import strategies as st
from standin_device import CALLS, DEVICE, on_cpu

import oracles
from oracles import Disagreement, InvalidInput, ReferenceFailed, Verdict
from oracles.backends.arrays import copied_to, shifted, tensor
from oracles.backends.devices import Placement, on_device, require_device
from oracles.decision.declared_gradients import may_declare_gradient
from oracles.rule import Runtime
from oracles.strategies import real, rows, widths

RNG = np.random.default_rng(3)
AT = {"z": RNG.standard_normal((4, 3)), "W": RNG.standard_normal((3, 2))}


def reference(z, W):
    return z @ W


TORCH = oracles.torch_autograd(reference)
JAX = oracles.jax_vjp(reference)


@pytest.fixture(autouse=True)
def device():
    return standin_device.install()


def dense(backward=device_subjects.backward, forward=device_subjects.forward, **options):
    return oracles.manual(forward, backward, **{"arrays": "torch", **options})


def refusal_of(subject, at=AT, against=(TORCH,), **options):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(subject, at, against, **options)
    return excinfo.value


class Dense(torch.autograd.Function):
    """z W, on whatever device its arguments are."""

    FACTOR, PLACE = 1, None

    @staticmethod
    def forward(ctx, z, W):
        ctx.save_for_backward(z, W)
        return z @ W

    @classmethod
    def backward(cls, ctx, delta):
        z, W = ctx.saved_tensors
        dz = delta @ W.T
        return (dz if cls.PLACE is None else dz.to(cls.PLACE)), cls.FACTOR * (z.T @ delta)


class WrongDense(Dense):
    FACTOR = 0.25


class ElsewhereDense(Dense):
    PLACE = "cpu"


class Module(torch.nn.Module):
    """z W with a custom Function inside, and a constant that moves with the module."""

    def __init__(self, function=Dense):
        super().__init__()
        self.W = torch.nn.Parameter(torch.zeros(3, 2))
        self.register_buffer("one", torch.ones(2))
        self.function = function

    def forward(self, z):
        return self.function.apply(z, self.W) * self.one


def subjects(kind, right):
    if kind == "manual":
        wrong = dense(lambda cache, d: {n: 0.25 * g for n, g in device_subjects.backward(cache, d).items()})
        return dense() if right else wrong
    if kind == "function":
        return oracles.torch_function(Dense if right else WrongDense)
    if kind == "module":
        return oracles.torch_module(lambda: Module(Dense if right else WrongDense))
    return oracles.stateful(Stateful if right else WrongStateful, params=("W",), arrays="torch")


class Stateful:
    """A class with a parameter, in torch without autograd."""

    FACTOR = 1

    def __init__(self):
        self.W = torch.zeros(3, 2)

    def forward(self, z):
        self.z = z
        return z @ self.W

    def backward(self, delta):
        self.dW = self.FACTOR * (self.z.T @ delta)
        return delta @ self.W.T


class WrongStateful(Stateful):
    FACTOR = 0.25


KINDS = ("manual", "function", "module", "stateful")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_right_subjects_agree_on_a_device(kind, dtype):
    at = {n: a.astype(dtype if dtype != "bfloat16" else ml_dtypes.bfloat16) for n, a in AT.items()}
    result = oracles.check(subjects(kind, True), at, [TORCH], device=DEVICE)
    assert result.verdict is Verdict.AGREES
    assert set(result.judged) == {"output", "z", "W"}
    assert all(type(a) is np.ndarray for a in result.setting.primals.values())
    # The reference and its perturbation are evaluated there too, in float64.
    assert torch.float64 in CALLS.dtypes
    assert getattr(torch, dtype) in CALLS.dtypes
    assert "mm" in CALLS.operations


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_subjects_are_refused_on_a_device_as_on_the_cpu(kind):
    there, here = (refusal_of(subjects(kind, False), device=device) for device in (DEVICE, "cpu"))
    assert there.verdict is here.verdict is Verdict.WRONG
    assert there.result.worst.quantity == here.result.worst.quantity
    assert 0.5 < there.result.worst.ratio / here.result.worst.ratio < 2
    assert there.diagnosis == here.diagnosis
    assert "0.25" in there.diagnosis


def test_nothing_runs_on_the_device_unless_it_is_named():
    assert oracles.check(dense(), AT, [TORCH]).verdict is Verdict.AGREES
    assert oracles.check(dense(), AT, [TORCH], device="cpu").verdict is Verdict.AGREES
    assert not CALLS.operations


def test_device_of_an_adapter_moves_the_subject_alone():
    def on_the_cpu(z, W):
        return z @ (W * torch.ones(3, 2, dtype=W.dtype))

    subject = dense(device=DEVICE)
    assert oracles.check(subject, AT, [oracles.torch_autograd(on_the_cpu)]).verdict is Verdict.AGREES
    assert CALLS.operations
    with pytest.raises(ReferenceFailed, match="same device"):
        oracles.check(subject, AT, [oracles.torch_autograd(on_the_cpu)], device=DEVICE)
    wrong = dense(lambda cache, d: {n: 2 * g for n, g in device_subjects.backward(cache, d).items()}, device=DEVICE)
    assert refusal_of(wrong).verdict is Verdict.WRONG


def test_device_of_the_primals_is_the_default():
    at = {"z": torch.from_numpy(AT["z"]).to(DEVICE), "W": AT["W"]}
    assert oracles.check(dense(), at, [TORCH]).verdict is Verdict.AGREES
    assert "mm" in CALLS.operations
    CALLS.reset()
    assert oracles.check(dense(), at, [TORCH], device="cpu").verdict is Verdict.AGREES
    assert "mm" not in CALLS.operations
    # A subject of NumPy's arrays gets these.
    pair = (lambda z, W: (z @ W, (z, W))), (lambda cache, d: {"z": d @ cache[1].T, "W": cache[0].T @ d})
    assert oracles.check(oracles.manual(*pair), at, [TORCH]).verdict is Verdict.AGREES


def test_other_oracles_judge_what_lies_on_a_device():
    assert oracles.check(dense(), AT, [JAX], device=DEVICE).verdict is Verdict.AGREES
    assert oracles.check(dense(), AT, device=DEVICE).verdict is Verdict.AGREES  # finite differences
    wrong = subjects("manual", False)
    for against in ([JAX], []):
        assert refusal_of(wrong, against=against, device=DEVICE).verdict is Verdict.WRONG


def refusals_of(make, reference_on, at):
    """The refusals of a subject here and on the device, by a reference with a constant that lies there."""
    return [
        refusal_of(make(), at, [oracles.torch_autograd(reference_on(device))], device=device)
        for device in ("cpu", DEVICE)
    ]


def test_diagnosis_edits_the_reference_on_its_device():
    def reference_on(device):
        one = torch.full((2,), 1.5, dtype=torch.float64).to(device)
        return lambda z, W: (z @ W).tanh() * one

    def forward(z, W):
        return (z @ W).tanh() * 1.5, (z, W)

    def backward(cache, delta):  # the derivative of tanh is forgotten
        z, W = cache
        return {"z": 1.5 * delta @ W.T, "W": 1.5 * z.T @ delta}

    here, there = refusals_of(lambda: dense(backward, forward), reference_on, AT)
    assert here.diagnosis
    assert there.diagnosis == here.diagnosis


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
        self.W = torch.nn.Parameter(torch.eye(3) + 0.5)
        self.register_buffer("one", torch.ones(3))
        self.is_wrong = is_wrong

    def forward(self, z):
        y = (z @ self.W).tanh() * self.one
        return Half.apply(y) if self.is_wrong else y


def test_diagnosis_names_the_layer_of_a_module_on_a_device():
    def reference_on(device):
        W = (torch.eye(3, dtype=torch.float64) + 0.5).to(device)
        return lambda z: ((z @ W).tanh() @ W).tanh()

    def make():
        return oracles.torch_module(lambda: torch.nn.Sequential(Layer(False), Layer(True)))

    here, there = refusals_of(make, reference_on, {"z": AT["z"]})
    assert "Layer" in here.diagnosis
    assert there.diagnosis == here.diagnosis


def test_whether_a_reference_declares_its_gradient_is_found_on_its_device():
    one = torch.ones(2, dtype=torch.float64).to(DEVICE)
    for function, declares in ((lambda z, W: z @ W * one, False), (lambda z, W: (z @ W).detach() * one + z @ W, True)):
        oracle = on_device(oracles.torch_autograd(function), DEVICE)
        assert may_declare_gradient(oracle, AT) is declares


# --- what a subject does on a device ---


def elsewhere(cache, delta):
    gradients = device_subjects.backward(cache, delta)
    return {**gradients, "z": on_cpu(gradients["z"])}


def in_numpy(cache, delta):
    gradients = device_subjects.backward(cache, delta)
    return {**gradients, "z": on_cpu(gradients["z"]).numpy()}


@pytest.mark.parametrize(
    "subject",
    [dense(elsewhere), dense(in_numpy), oracles.torch_function(ElsewhereDense)],
    ids=["manual", "an array of NumPy", "function"],
)
def test_cotangent_on_another_device_is_refused(subject):
    refusal = refusal_of(subject, device=DEVICE)
    assert refusal.verdict is Verdict.WRONG
    worst = refusal.result.worst
    assert worst.quantity == "z"
    assert "device cpu" in worst.evidence.reason
    assert DEVICE in worst.evidence.reason
    assert DEVICE in worst.evidence.fix
    # On the CPU it is right.
    if isinstance(subject.implementation, tuple):
        subject = dense(lambda cache, d: device_subjects.backward(cache, d))
    assert oracles.check(subject, AT, [TORCH], device="cpu").verdict is Verdict.AGREES


def test_output_on_another_device_is_refused():
    def forward(z, W):
        return on_cpu(z @ W), (z, W)

    refusal = refusal_of(dense(forward=forward), device=DEVICE)
    assert refusal.result.worst.quantity == "output"
    assert "device cpu" in refusal.result.worst.evidence.reason


def test_writes_into_arguments_on_a_device_are_reported():
    def writes_z(cache, delta):
        gradients = device_subjects.backward(cache, delta)
        cache[0].mul_(2)
        return gradients

    def writes_delta(cache, delta):
        gradients = device_subjects.backward(cache, delta)
        delta.mul_(2)
        return gradients

    def writes_own_copy(cache, delta):
        gradients = device_subjects.backward(cache, delta)
        delta.clone().mul_(2)
        return gradients

    assert "z was written into" in str(refusal_of(dense(writes_z), device=DEVICE))
    assert "delta[0] was written into" in str(refusal_of(dense(writes_delta), device=DEVICE))
    assert oracles.check(dense(writes_own_copy), AT, [TORCH], device=DEVICE).verdict is Verdict.AGREES


def test_strides_and_gaps_are_those_on_the_cpu():
    def read_in_order(cache, delta):
        """Takes any tensor for a contiguous one."""
        as_if = torch.as_strided(delta, delta.shape, (delta.shape[1], 1), delta.storage_offset())
        return device_subjects.backward(cache, as_if)

    refusal = refusal_of(dense(read_in_order), device=DEVICE)
    assert refusal.verdict is Verdict.WRONG
    assert "strides" in str(refusal)


@pytest.mark.parametrize(
    "lay",
    [
        lambda a: a,
        np.asfortranarray,
        lambda a: a[:, ::2],
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: np.lib.stride_tricks.as_strided(a, (4, 3), (0, 0)),
        lambda a: a[:0],
        lambda a: a.astype(ml_dtypes.bfloat16)[:, :2],
        lambda a: a.astype(np.int64)[:, 1:],
    ],
    ids=["plain", "Fortran", "sliced", "broadcast", "one number", "empty", "bfloat16", "integers"],
)
def test_tensors_on_a_device_have_the_strides_of_the_array(lay):
    array = lay(AT["z"].copy())
    array = array if array.flags.writeable else np.array(array) if array.size == 0 else array
    with Placement(DEVICE, Runtime.TORCH).call():
        moved = tensor(array)
    here = tensor(array)
    assert (str(moved.device), moved.dtype, moved.shape) == (DEVICE, here.dtype, here.shape)
    assert moved.stride() == here.stride()
    assert moved.storage_offset() == here.storage_offset()
    assert torch.equal(moved.cpu(), here)


def test_code_that_reads_beyond_a_strided_tensor_stays_in_memory_and_finds_nan():
    for dtype in (torch.float64, torch.bfloat16):
        moved = copied_to("cpu", torch.arange(3, dtype=dtype).expand(4, 3))
        assert moved.stride() == (0, 1)
        read = moved.as_strided((12,), (1,))
        assert torch.equal(read[:3], torch.arange(3, dtype=dtype))
        assert bool(read[3:].isnan().all())
    offset = tensor(shifted(AT["z"]))
    moved = copied_to("cpu", offset)
    assert moved.storage_offset() == offset.storage_offset() == 1
    assert torch.equal(moved, offset)


# --- synchronisation, errors of kernels ---


def test_streams_are_synchronised_before_results_are_read():
    subject = dense(device_subjects.backward_in_another_stream)
    assert oracles.check(subject, AT, [TORCH], device=DEVICE).verdict is Verdict.AGREES


def test_without_synchronisation_that_subject_would_be_wrong(monkeypatch):
    monkeypatch.setattr("oracles.backends.devices.synchronize", lambda device, runtime: None)
    subject = dense(device_subjects.backward_in_another_stream)
    assert refusal_of(subject, device=DEVICE).verdict is Verdict.WRONG


def test_every_call_is_synchronised():
    rule = on_device(dense(), DEVICE)
    _, pullback = rule(**AT)
    forward = CALLS.synchronised
    assert forward >= 1
    pullback(RNG.standard_normal((4, 2)))
    assert CALLS.synchronised > forward
    perturbed = on_device(TORCH, DEVICE)
    CALLS.reset()
    perturbed(**AT)
    assert CALLS.synchronised >= 1


@pytest.mark.parametrize("where", ["forward", "pullback"])
def test_error_of_a_kernel_belongs_to_the_call_that_launched_it(where):
    def launch():
        CALLS.pending = "CUDA error: invalid configuration argument"

    def forward(z, W):
        if where == "forward":
            launch()
        return device_subjects.forward(z, W)

    def backward(cache, delta):
        launch()
        return device_subjects.backward(cache, delta)

    refusal = refusal_of(dense(backward, forward), device=DEVICE)
    worst = refusal.result.worst
    assert worst.quantity == "the call"
    assert worst.evidence.reason.startswith(f"the {where} raised RuntimeError: CUDA error: invalid configuration")
    assert not worst.evidence.fix


def test_lost_device_is_a_finding_that_says_how_to_go_on():
    refusal = refusal_of(dense(device_subjects.backward_with_illegal_access), device=DEVICE)
    worst = refusal.result.worst
    assert (worst.verdict, worst.quantity) == (Verdict.WRONG, "the call")
    assert "the pullback raised DeviceLost" in worst.evidence.reason
    assert "illegal memory access" in worst.evidence.reason
    assert "isolate=True" in worst.evidence.fix
    assert isinstance(refusal.__cause__, oracles.DeviceLost)


@pytest.mark.slow
def test_isolated_subject_that_loses_its_device_is_a_finding_and_the_run_goes_on():
    for _ in range(2):
        refusal = refusal_of(dense(device_subjects.backward_with_illegal_access), device=DEVICE, isolate=True)
        assert refusal.verdict is Verdict.WRONG
        assert "DeviceLost" in refusal.result.worst.evidence.reason
        assert "isolate" not in refusal.result.worst.evidence.fix
        assert oracles.check(dense(), AT, [TORCH], device=DEVICE, isolate=True).verdict is Verdict.AGREES
    assert not CALLS.lost


@pytest.mark.slow
def test_process_of_an_isolated_subject_serves_again_until_its_device_is_lost():
    rule = oracles.isolated(dense(device_subjects.backward_with_process, device=DEVICE))

    def process_of(delta):
        _, pullback = rule(**AT)
        return float(pullback(delta)["z"][0, 0])

    delta = np.ones((4, 2))
    assert process_of(delta) == process_of(delta)
    # Two evaluations at a time have a process each.
    (_, first), (_, second) = rule(**AT), rule(**AT)
    assert float(first(delta)["z"][0, 0]) != float(second(delta)["z"][0, 0])
    lost = oracles.isolated(dense(device_subjects.backward_with_illegal_access, device=DEVICE))
    for _ in range(2):
        y, pullback = lost(**AT)
        assert y.shape == (4, 2)
        with pytest.raises(oracles.DeviceLost):
            pullback(delta)


def test_fork_is_refused_where_a_copy_cannot_use_the_device(monkeypatch):
    monkeypatch.setattr("oracles.adapters.child_process._cuda_in_use", lambda: True)
    with pytest.raises(InvalidInput, match="start='spawn'"):
        oracles.isolated(dense(device=DEVICE), start="fork")


# --- names of devices ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:x", "'cuda', or 'cuda:1'|got 'cuda:x'"),
        ("", "got ''"),
        (0, "got '0'"),
        ("quantum", "no device 'quantum'"),
        ("meta", "have no values"),
    ],
)
def test_names_that_are_no_device(name, message):
    with pytest.raises(InvalidInput, match=f"(?s)device: .*({message}).*Fix"):
        oracles.check(dense(), AT, [TORCH], device=name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_missing_cuda_is_named():
    for subject, against in ((dense(), [TORCH]), (dense(), [JAX]), (oracles.torch_module(Module), [])):
        with pytest.raises(InvalidInput, match=r"(?s)device: torch has no device 'cuda'.*Fix"):
            oracles.check(subject, AT, against, device="cuda")
    with pytest.raises(InvalidInput, match=r"(?s)device: torch has no device 'cuda'.*Fix"):
        oracles.check(dense(device="cuda"), AT, [TORCH])
    with pytest.raises(InvalidInput, match=r"(?s)device: JAX has no device 'cuda'.*Fix"):
        oracles.check(oracles.jax_function(reference), AT, device="cuda")


def test_numpy_subjects_take_no_device():
    subject = oracles.manual(lambda z, W: (z @ W, (z, W)), lambda c, d: {"z": d @ c[1].T, "W": c[0].T @ d})
    with pytest.raises(InvalidInput, match=r"(?s)device: .* NumPy .*Fix"):
        oracles.check(subject, AT, [TORCH], device=DEVICE)
    assert oracles.check(subject, AT, [TORCH], device="cpu").verdict is Verdict.AGREES


def test_primals_on_no_or_on_several_devices():
    with pytest.raises(InvalidInput, match="no values"):
        oracles.check(dense(), {**AT, "z": torch.empty(4, 3, device="meta")}, [TORCH])
    cupy = standin_cupy.make()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cupy)
        at = {"z": torch.from_numpy(AT["z"]).to(DEVICE), "W": cupy.asarray(AT["W"])}
        with pytest.raises(InvalidInput, match=f"(?s)z on {DEVICE}, W on cuda:0.*Fix"):
            oracles.check(dense(), at, [TORCH])


def test_names_get_their_number():
    assert require_device("cpu", Runtime.TORCH) == require_device("cpu", Runtime.JAX) == "cpu"
    assert require_device(standin_device.NAME, Runtime.TORCH) == DEVICE
    assert require_device(torch.device(DEVICE), Runtime.TORCH) == DEVICE


# --- JAX and CuPy ---


def test_jax_function_on_a_device():
    assert oracles.check(oracles.jax_function(reference), AT, [TORCH], device="cpu").verdict is Verdict.AGREES
    assert oracles.check(oracles.jax_function(reference, device="cpu"), AT, [TORCH]).verdict is Verdict.AGREES


@pytest.fixture
def cupy(monkeypatch):
    module = standin_cupy.make(devices=2)
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def cupy_dense(backward=None, **options):
    own = backward or (lambda cache, delta: {"z": delta @ cache[1].T, "W": cache[0].T @ delta})
    return oracles.manual(lambda z, W: (z @ W, (z, W)), own, arrays="cupy", **options)


def test_right_cupy_pair_agrees(cupy):
    assert oracles.check(cupy_dense(), AT, [TORCH]).verdict is Verdict.AGREES
    assert cupy.cuda.Device.synchronised > 2
    assert cupy.cuda.Device.entered > 2
    single = {n: a.astype(np.float32) for n, a in AT.items()}
    assert oracles.check(cupy_dense(), single, [JAX]).verdict is Verdict.AGREES
    assert oracles.check(cupy_dense(), {n: cupy.asarray(a) for n, a in AT.items()}, [TORCH]).verdict is Verdict.AGREES
    tanh = oracles.elementwise(cupy.tanh, lambda y: 1 - y * y, of="output", arrays="cupy")
    assert oracles.check(tanh, {"z": AT["z"]}, [oracles.torch_autograd(torch.tanh)]).verdict is Verdict.AGREES


def test_wrong_cupy_pairs_are_refused(cupy):
    def right(cache, delta):
        z, W = cache
        return {"z": delta @ W.T, "W": z.T @ delta}

    def factor(cache, delta):
        return {**right(cache, delta), "W": right(cache, delta)["W"] * 1.5}

    def in_numpy(cache, delta):
        return {**right(cache, delta), "W": cupy.asnumpy(right(cache, delta)["W"])}

    def writes(cache, delta):
        result = right(cache, delta)
        delta *= 2
        return result

    assert "1.5" in refusal_of(cupy_dense(factor)).diagnosis
    refusal = refusal_of(cupy_dense(in_numpy))
    assert refusal.result.worst.quantity == "W"
    assert "device cpu" in refusal.result.worst.evidence.reason
    assert "cupy.asarray" in refusal.result.worst.evidence.fix
    assert "delta[0] was written into" in str(refusal_of(cupy_dense(writes)))


def test_cupy_devices_and_dtypes_that_do_not_exist(cupy):
    with pytest.raises(InvalidInput, match=r"(?s)CuPy has no device 'cuda:2'.*Fix"):
        oracles.check(cupy_dense(device="cuda:2"), AT, [TORCH])
    with pytest.raises(InvalidInput, match=r"(?s)'cuda', got 'cpu'.*Fix"):
        oracles.check(cupy_dense(device="cpu"), AT, [TORCH])
    with pytest.raises(InvalidInput, match="CuPy has no dtype bfloat16"):
        oracles.check(cupy_dense(), {n: a.astype(ml_dtypes.bfloat16) for n, a in AT.items()}, [TORCH])


def test_cupy_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(InvalidInput, match=r"(?s)CuPy is not installed.*Fix.*pip install"):
        oracles.check(cupy_dense(), AT, [TORCH])


# --- searches and the command line ---


@st.composite
def cases(draw, subject):
    n, m = draw(widths()), draw(widths())
    primals = {"z": real(draw(rows()), n), "W": real(n, m)}
    return oracles.Case(subject, primals, torch=reference, batched=("z",))


def searches(subject, **options):
    """The searches that the decorator makes, by name."""

    @oracles.conformance(cases(subject), max_examples=4, dtypes=("float32",), **options)
    def test(search):
        search()

    (mark,) = test.pytestmark
    return dict(zip(mark.kwargs["ids"], mark.args[1], strict=True))


def test_search_runs_on_a_device():
    found = searches(dense(), device=DEVICE)
    found["cotangents_agree-float32"]()
    assert {torch.float32, torch.float64} <= CALLS.dtypes
    with pytest.raises(Disagreement):
        searches(subjects("manual", False), device=DEVICE)["cotangents_agree-float32"]()
    CALLS.reset()
    searches(dense())["cotangents_agree-float32"]()
    assert not CALLS.operations


def test_case_on_a_device_has_subject_and_reference_there():
    case = oracles.Case(dense(), {"z": real(2, 3), "W": real(3, 2)}, torch=reference, jax=reference, device=DEVICE)
    assert case.subject.device == DEVICE
    assert {oracle.name: oracle.device for oracle in case.oracles()} == {"torch": DEVICE, "jax": None}


def test_command_line_takes_a_device(tmp_path, capsys):
    from oracles.__main__ import main

    folder = str(device_subjects.__file__).rpartition("device_subjects")[0]
    file = tmp_path / "dense.py"
    file.write_text(
        f"import sys\nsys.path.insert(0, {folder!r})\n"
        "import oracles\nfrom device_subjects import backward, forward\n"
        "subject = oracles.manual(forward, backward, arrays='torch')\n"
        "def reference(z, W):\n    return z @ W\n",
        encoding="utf-8",
    )
    command = ["check", f"{file}:subject", "--against", "torch:reference", "--shapes", "z=4,3 W=3,2"]
    CALLS.reset()
    assert main([*command, "--device", DEVICE]) == 0
    assert "agrees" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--device", "quantum"])
    assert stopped.value.code == 2
    assert "no device 'quantum'" in capsys.readouterr().err
