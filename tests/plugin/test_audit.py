"""``pytest --oracles-audit`` in another project: what its comparisons let through, and that its results stay."""

import inspect
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from projects import ROOT, outcomes

from oracles.audit.comparisons import COMPARISONS, COMPOSITES
from oracles.audit.in_place import copied, redirect
from oracles.audit.mutants import MUTANTS, Entries, mutants
from oracles.audit.operands import is_same, operand_of, question
from oracles.audit.records import NO_COMPARISON, Findings, Line, weakness
from oracles.constants import AUDIT_ENTRIES

HEAD = """
import numpy as np
import pytest
from numpy.testing import assert_allclose

A = np.random.default_rng(0).standard_normal((4, 4))
"""
SUITE = {
    "conftest.py": "from numpy.testing import assert_allclose as of_conftest\n",
    "helper.py": """
import numpy as np


def same(a, b):
    assert np.allclose(a, b, rtol=0.3)


def decides(a, b):
    if np.allclose(a, b):
        return 1
    return 0
""",
    "test_theirs.py": HEAD
    + """
import unittest

import helper
from conftest import of_conftest


def test_loose():
    assert_allclose(A, A.copy(), rtol=0.1)


def test_tight():
    assert_allclose(A, A.copy(), rtol=1e-12)


def test_anything():
    of_conftest(A, A.copy(), atol=100)


def test_itself():
    assert_allclose(A, A)


def test_a_view():
    np.testing.assert_array_equal(A[1:], A[1:])


def test_without_arrays():
    assert 1 + 1 == 2


def test_helper():
    helper.same(A, A.copy())


def test_control_flow():
    assert helper.decides(A, A.copy()) == 1


def test_approx():
    assert A == pytest.approx(A.copy(), rel=0.1)
    assert 2.0 == pytest.approx(2.1, rel=0.1)
    assert [1.0, 2.0] == pytest.approx([1.0, 2.0])


def test_isclose():
    assert np.isclose(A, A + 1e-10, atol=100).all()


def test_almost():
    np.testing.assert_array_almost_equal(A, A.copy(), 0)
    np.testing.assert_almost_equal(A, A.copy(), decimal=12)


def test_nan():
    z = np.array([1.0, np.nan, 3.0])
    assert_allclose(z, z.copy(), equal_nan=True)
    assert np.allclose(z, z.copy(), equal_nan=True)


def test_integers():
    np.testing.assert_array_equal(np.arange(5), np.arange(5))
    assert np.allclose(np.arange(5), np.arange(5), atol=10)


def test_broadcast():
    assert_allclose(np.full((3, 2), 2.0), 2.0, rtol=1e-10)
    assert np.allclose(np.full((3, 2), 2.0), np.full(2, 2.0))


def test_empty():
    assert_allclose(np.zeros((0, 3)), np.zeros((0, 3)))


def test_expected_zero():
    assert_allclose(np.full(3, 1e-17), 0, atol=1e-15)


@pytest.mark.parametrize("rtol", [0.3, 1e-9])
def test_parametrised(rtol):
    assert_allclose(A, A.copy(), rtol=rtol)


class TestClass:
    def test_method(self):
        assert_allclose(A, A.copy(), rtol=0.3)


class TestCase(unittest.TestCase):
    def test_unittest(self):
        self.assertTrue(np.allclose(A, A.copy(), rtol=0.3))


def test_large():
    z = np.random.default_rng(0).standard_normal((300, 200))
    assert_allclose(z, z.copy(), rtol=0.06)


def test_fails():
    assert_allclose(A, A + 1)


def test_fails_too():
    assert np.allclose(A, A + 1)


@pytest.mark.xfail(strict=True)
def test_fails_as_expected():
    assert_allclose(A, -A)


@pytest.mark.skip
def test_skipped():
    pass
""",
}
WORST = [*MUTANTS]


def written(project, files):
    for name, text in files.items():
        project.write(name, text)


def audited(project, *options):
    """The process and the document of an audit."""
    process = project.pytest("--oracles-audit", "--oracles-audit-json=audit.json", *options)
    assert "INTERNALERROR" not in process.stdout + process.stderr, process.stdout
    document = json.loads((project.folder / "audit.json").read_text())
    assert document["faults"] == {}
    return process, document


def let_through(document, test):
    """The mutants that every call lets through in a test, by line."""
    lines = sorted(
        (line for line in document["lines"] if any(f"::{test}[" in f"{t}[" for t in line["tests"])),
        key=lambda x: x["line"],
    )
    return [{n for n, m in line["mutants"].items() if m["accepted"] == m["tried"]} for line in lines]


def reason(document, test):
    return {weak["test"].partition("::")[2]: weak["reason"] for weak in document["weak"]}.get(test)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    from projects import Project

    project = Project(tmp_path_factory.mktemp("audit"))
    written(project, SUITE)
    return audited(project, "-v")


LOOSE = {
    "test_loose": [{"× 1.05", "bfloat16"}],
    "test_tight": [set()],
    "test_anything": [{*MUTANTS}],
    "test_helper": [{"× 1.2", "× 1.05", "one entry off", "bfloat16"}],
    "test_control_flow": [],
    "test_approx": [{"× 1.05", "bfloat16"}, {"one entry off"}, set()],
    "test_isclose": [{*MUTANTS}],
    "test_almost": [{"× 1.2", "× 1.05", "one entry off", "bfloat16"}, set()],
    "test_nan": [set(), set()],
    "test_integers": [set(), {"zeros", "a constant", "sign flipped", "one row zero", "one entry off"}],
    "test_broadcast": [set(), set()],
    "test_a_view": [set()],
    "test_expected_zero": [set()],
    "TestClass::test_method": [{"× 1.2", "× 1.05", "one entry off", "bfloat16"}],
    "TestCase::test_unittest": [{"× 1.2", "× 1.05", "one entry off", "bfloat16"}],
    "test_large": [{"× 1.05", "bfloat16"}],
    "test_fails": [set()],
}


@pytest.mark.parametrize("test", LOOSE)
def test_mutants_that_a_comparison_lets_through(found, test):
    assert let_through(found[1], test) == LOOSE[test]


def test_tests_that_refuse_no_mutant(found):
    document = found[1]
    assert {weak["test"].partition("::")[2]: weak["reason"] for weak in document["weak"]} == {
        "test_anything": "lets every mutant through",
        "test_isclose": "lets every mutant through",
        "test_itself": "compares an array with itself",
        "test_empty": "compares nothing that a mutant could change",
        "test_without_arrays": "no comparison of it was seen",
        "test_control_flow": "no comparison of it was seen",
    }


def test_tolerances_are_in_units_of_rounding(found):
    by_test = {line["tests"][0].partition("::")[2]: line for line in found[1]["lines"]}
    assert by_test["test_loose"]["roundings"] == pytest.approx(0.1 * 2.0**53)
    assert by_test["test_tight"]["roundings"] == pytest.approx(1e-12 * 2.0**53)
    assert by_test["test_loose"]["dtypes"] == ["float64"]
    assert by_test["test_integers"]["roundings"] is None


def test_calls_of_one_line_are_counted_together(found):
    (line,) = [line for line in found[1]["lines"] if len(line["tests"]) == 2]
    assert (line["calls"], line["asked"], line["detecting"]) == (2, 2, 2)
    assert line["mutants"]["× 1.2"] == {"tried": 2, "accepted": 1}
    assert line["mutants"]["zeros"] == {"tried": 2, "accepted": 0}


def test_a_helper_is_named_next_to_the_line_of_the_test(found):
    (line,) = [line for line in found[1]["lines"] if line["through"]]
    assert line["file"] == "test_theirs.py"
    assert line["through"] == "helper.py:6"
    assert SUITE["test_theirs.py"].splitlines()[line["line"] - 1].strip() == "helper.same(A, A.copy())"


def test_the_summary_has_the_worst_first_and_fits(found):
    process, document = found
    section = process.stdout.partition(" audit of comparisons ")[2].partition("short test summary")[0]
    rows = re.findall(r"^(test_theirs\.py:\d+)  ", section, re.MULTILINE)
    loose = [line for line in document["lines"] if line["same"] or any(m["accepted"] for m in line["mutants"].values())]
    assert rows == [f"{line['file']}:{line['line']}" for line in loose]
    assert "every mutant" in section
    assert "× 1.2 1/2" in section
    assert "test_theirs.py::test_itself: compares an array with itself" in section
    assert max(map(len, section.splitlines()[1:-1])) <= 120


def _without_audit(text):
    """What pytest prints, without the audit, the options, times and addresses."""
    text = re.sub(r"=+ audit of comparisons =+\n.*?(?=\n=+ short test)", "", text, flags=re.DOTALL)
    return re.sub(r"\d+\.\d+s|0x[0-9a-f]+|^\n", "", text, flags=re.MULTILINE)


def test_results_messages_and_status_stay(project):
    written(project, SUITE)
    without, with_ = project.pytest("-ra"), project.pytest("-ra", "--oracles-audit")
    assert with_.returncode == without.returncode == 1
    assert outcomes(with_) == outcomes(without)
    assert outcomes(with_)["failed"] == 2
    assert _without_audit(with_.stdout) == _without_audit(without.stdout)
    assert "audit of comparisons" not in without.stdout


@pytest.mark.slow
def test_workers_are_merged(project, found):
    written(project, SUITE)
    process, document = audited(project, "-n", "2")
    assert process.returncode == 1
    assert outcomes(process) == outcomes(found[0])

    def counted(document):
        lines = sorted(document["lines"], key=lambda line: line["line"])
        return [{**line, "tests": sorted(line["tests"])} for line in lines], document["weak"], document["tests"]

    assert counted(document) == counted(found[1])


STATE = (
    HEAD
    + """
import random
import warnings


def state():
    return random.getstate()[1], np.random.get_state()[1].tolist(), np.geterr()


def test_states_stay():
    before, filters, copy = state(), list(warnings.filters), A.copy()
    assert_allclose(A, copy, atol=100)
    assert A == pytest.approx(copy)
    assert np.allclose(np.full(3, 3e38, np.float32), np.full(3, 3e38, np.float32))
    assert np.array_equal(A, copy)
    assert (before, filters) == (state(), list(warnings.filters))


def test_under_errstate():
    with np.errstate(all="raise"):
        assert_allclose(np.array([1e308, 1e-300]), np.array([1e308, 1e-300]))


def test_a_read_only_array():
    z = np.arange(4.0)
    z.flags.writeable = False
    assert_allclose(z, np.arange(4.0))


def test_warnings_that_python_has_shown_stay_shown():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for _ in range(3):
            warnings.warn("once")
            assert_allclose(A, A.copy(), atol=100)
    assert len(shown) == 1


class Odd:
    def __array__(self, dtype=None, copy=None):
        return np.ones(3)


def test_operands_of_other_types():
    assert_allclose(Odd(), np.ones(3))
    assert_allclose(np.ma.masked_array([1.0, 2.0]), [1.0, 2.0])
    assert np.array_equal(["a", "b"], ["a", "b"])
    assert {"a": 1.0} == pytest.approx({"a": 1.0})
    np.testing.assert_equal({"a": [1.0]}, {"a": [1.0]})
    assert np.allclose(np.array([1, 2], object), [1, 2])


def test_what_stands_in_the_place_of_a_function():
    import copy
    import inspect
    import pickle

    table = {np.allclose: 1}
    assert pickle.loads(pickle.dumps(np.allclose)) is np.allclose
    assert copy.deepcopy(np.allclose) is np.allclose
    assert np.allclose.__name__ == "allclose"
    assert list(inspect.signature(np.allclose).parameters)[:2] == ["a", "b"]
    assert "function allclose" in repr(np.allclose)

    class Mine(np.ndarray):
        def __array_function__(self, function, types, args, kwargs):
            return table[function]

    assert np.allclose(np.ones(2).view(Mine), 3) == 1


def test_a_dtype_of_unsigned_integers_and_of_halves():
    np.testing.assert_array_equal(np.arange(5, dtype=np.uint8), np.arange(5, dtype=np.uint8))
    assert_allclose(np.ones(3, np.float16), np.ones(3, np.float16))
    assert_allclose(np.array([1 + 2j, 3j]), np.array([1 + 2j, 3j]))


if hasattr(pytest, "Subtests"):  # pytest 9

    def test_subtests(subtests):
        for i in range(3):
            with subtests.test(i=i):
                assert_allclose(A + i, A + i, rtol=0.3)


@pytest.fixture
def compared():
    assert_allclose(A, A.copy(), rtol=0.4)


def test_in_a_fixture(compared):
    pass
"""
)


def test_nothing_of_the_run_changes(project):
    project.write("test_theirs.py", STATE)
    project.write("pytest.ini", "[pytest]\nfilterwarnings = error\n")
    process, document = audited(project)
    assert process.returncode == 0, process.stdout
    if hasattr(pytest, "Subtests"):  # pytest 9
        assert let_through(document, "test_subtests") == [{"× 1.05", "× 1.2", "one entry off", "bfloat16"}]
    assert len(let_through(document, "test_in_a_fixture")) == 1
    assert reason(document, "test_operands_of_other_types") is None


KEEPER = "import numpy as np\n\nKEPT = np.testing.assert_allclose, np.allclose\n"
USES = (
    HEAD
    + """
import copy
import functools
import inspect
import multiprocessing
import pickle
import types

from keeper import KEPT

IN_PLACE = [np.testing.assert_allclose, np.testing.assert_array_equal, np.testing.assert_equal, np.allclose, np.isclose]
IN_PLACE += [np.array_equal, pytest.approx]
APPROX = [pytest.approx(value) for value in (1.0, [1.0], {"a": 1.0}, np.ones(2))]


@pytest.mark.parametrize("function", IN_PLACE)
def test_a_function_is_pickled_by_its_name(function):
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy(function) is function


@pytest.mark.parametrize("approx", APPROX)
def test_what_is_expected_is_copied(approx):
    for again in (pickle.loads(pickle.dumps(approx)), copy.deepcopy(approx), copy.copy(approx)):
        assert type(again) is type(approx)
        assert repr(again) == repr(approx)
    assert vars(approx).keys() == {"expected", "abs", "rel", "nan_ok"}


def test_who_has_kept_a_function_has_the_same_one():
    assert KEPT == (np.testing.assert_allclose, np.allclose)
    assert KEPT[0] is np.testing.assert_allclose is assert_allclose
    KEPT[0](A, A.copy(), rtol=0.1)


def test_a_function_is_one_of_pythons_own():
    assert type(assert_allclose) is types.FunctionType
    assert list(inspect.signature(assert_allclose).parameters)[:4] == ["actual", "desired", "rtol", "atol"]
    assert inspect.getfullargspec(assert_allclose).args[:2] == ["actual", "desired"]
    assert inspect.getsource(assert_allclose).startswith("def assert_allclose")
    assert assert_allclose.__defaults__[0] == 1e-7
    assert {*vars(assert_allclose)} <= {"__wrapped__", "__signature__"}
    assert functools.wraps(assert_allclose)(lambda: 0).__name__ == "assert_allclose"


def test_a_wrong_call_has_the_same_message():
    for function in (assert_allclose, np.allclose):
        with pytest.raises(TypeError, match=r"missing \\d required positional argument") as caught:
            function()
        assert "audit" not in str(caught.value)
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        assert_allclose(A, A, other=1)


def test_a_type_with_functions_of_its_own_is_given_the_function():
    class Mine:
        def __array_function__(self, function, types, args, kwargs):
            return function is np.allclose

    assert np.allclose(Mine(), 3)


def test_a_process():
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(np.allclose, (1.0, 1.0))
        pool.apply(assert_allclose, (1.0, 1.0))
"""
)
USES_OF_TORCH = """
import copy
import inspect
import pickle

import jax
import numpy as np
import pytest
import torch
from torch import allclose
from torch.autograd import gradcheck
from torch.testing import assert_close

ONES = torch.ones(2), torch.ones(2)


@pytest.mark.parametrize("function", [torch.allclose, torch.equal, assert_close, gradcheck])
def test_a_function_is_pickled_by_its_name(function):
    assert pickle.loads(pickle.dumps(function)) is function
    assert copy.deepcopy(function) is function


def test_no_signature_of_what_is_built_in():
    with pytest.raises(ValueError, match="no signature"):
        inspect.signature(torch.allclose)
    with pytest.raises(TypeError):
        inspect.getsource(torch.equal)


def compared(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, 0.5, atol=0.25) and torch.equal(a, b) and allclose(a, b)


class Module(torch.nn.Module):
    def forward(self, a, b):
        if torch.allclose(a, b):
            return a.sin()
        return b


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_torchscript(tmp_path):
    script = torch.jit.script(compared)
    script.save(str(tmp_path / "script.pt"))
    for function in (script, torch.jit.load(str(tmp_path / "script.pt"))):
        assert function(*ONES)
        assert not function(torch.ones(2), torch.zeros(2))
    assert torch.equal(torch.jit.script(Module())(*ONES), ONES[0].sin())


@pytest.mark.filterwarnings("error")
def test_compiled():
    torch.compile(lambda a, b: (assert_close(a, b), np.allclose(a, b)), backend="eager")(*ONES)
    assert torch.equal(torch.compile(Module(), backend="eager")(*ONES), ONES[0].sin())
    assert torch.compile(compared, backend="eager")(*ONES)
    with pytest.raises(Exception, match="[Dd]ata"):
        torch.compile(Module(), backend="eager", fullgraph=True)(torch.zeros(3), torch.zeros(3))


@pytest.mark.filterwarnings("error", "ignore:.torch.jit")
def test_traced():
    assert torch.jit.trace(Module(), ONES)(*ONES).tolist() == ONES[0].sin().tolist()
    nodes = []

    def of_a_tracer(a, b):
        nodes.append(torch.allclose(a, b))
        return nodes[0]

    graph = torch.fx.symbolic_trace(of_a_tracer).graph
    assert [node.op for node in graph.nodes] == ["placeholder", "placeholder", "call_function", "output"]


def test_a_type_with_functions_of_its_own_is_given_the_function():
    table = {torch.allclose: 7}

    class Mine:
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            return table[function]

    assert torch.allclose(Mine(), torch.ones(2)) == 7


def test_jit_of_jax():
    with pytest.raises(jax.errors.TracerArrayConversionError):
        jax.jit(lambda z: np.allclose(z, z + 1))(np.ones(2))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("text", "passed"), [(USES, 16), (USES_OF_TORCH, 10)])
def test_who_uses_a_function_sees_no_difference(project, text, passed):
    """Pickled, copied, inspected, compiled, kept in a container: with the audit as without it."""
    if text is USES_OF_TORCH:
        pytest.importorskip("torch")
        pytest.importorskip("jax")
    (project.site / "keeper.py").write_text(KEEPER)
    project.write("test_theirs.py", text)
    without, with_ = project.pytest("-p", "keeper"), project.pytest("-p", "keeper", "--oracles-audit")
    assert with_.returncode == without.returncode == 0, without.stdout + with_.stdout
    assert outcomes(with_)["passed"] == outcomes(without)["passed"] == passed


FAULT = """
from oracles.audit import auditor


def fails(*args, **kwargs):
    raise ZeroDivisionError


auditor.question = fails
"""


def test_a_fault_of_the_audit_changes_nothing(project):
    project.write("conftest.py", FAULT)
    project.write("test_theirs.py", HEAD + "\n\ndef test_it():\n    assert_allclose(A, A.copy())\n")
    process = project.pytest("--oracles-audit")
    assert outcomes(process) == {"passed": 1}
    assert process.returncode == 0
    assert "1 comparisons could not be asked again; 1 times ZeroDivisionError" in process.stdout


def test_a_file_that_cannot_be_written_ends_the_run_at_its_begin(project):
    project.write("test_theirs.py", "def test_it():\n    pass\n")
    process = project.pytest("--oracles-audit-json=missing/audit.json")
    assert process.returncode == pytest.ExitCode.USAGE_ERROR
    assert "the folder of" in process.stderr


TORCH = """
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

Z = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, factor):
        ctx.factor = factor
        return z.clone()

    @staticmethod
    def backward(ctx, delta):
        return ctx.factor * delta, None


def test_loose_gradient():
    assert gradcheck(lambda z: z.exp() + 2, Z, rtol=0.1, atol=0)


def test_default_gradient():
    assert gradcheck(lambda z: z.exp() + 2, Z)
    assert torch.autograd.gradgradcheck(lambda z: z.exp(), Z)


def test_fast():
    assert torch.autograd.gradcheck(lambda z: z.exp(), Z, fast_mode=True, rtol=0.1, atol=0)


def test_what_a_wrong_gradient_gives():
    for factor, options, expected in [(1.05, {"rtol": 0.1, "atol": 0}, True), (1.2, {"rtol": 0.1, "atol": 0}, False),
                                      (0.0, {"rtol": 0.1, "atol": 0}, False), (1.05, {}, False)]:
        f = lambda z: Scaled.apply(z, factor).exp() + 2
        assert gradcheck(f, Z, raise_exception=False, **options) == expected


def test_values():
    assert_close(Z, Z.clone(), rtol=0.1, atol=0)
    assert_close(Z.float(), Z.float().clone())
    assert torch.allclose(Z, Z.detach().clone(), rtol=0.3)
    assert_close(Z.bfloat16(), Z.bfloat16() + 0)


def test_itself():
    assert_close(Z, Z)


def test_state():
    before = torch.get_rng_state()
    assert_close(Z.detach(), Z.detach().clone(), atol=100, rtol=0)
    assert torch.equal(before, torch.get_rng_state())
    assert Z.grad is None
"""


@pytest.mark.slow
def test_torch(project):
    pytest.importorskip("torch")
    project.write("test_theirs.py", TORCH)
    process, document = audited(project)
    assert process.returncode == 0, process.stdout
    factors = {"× 1.05", "bfloat16"}
    (loose,), (default, second), (fast,) = (
        let_through(document, f"test_{name}") for name in ("loose_gradient", "default_gradient", "fast")
    )
    # What the audit says of a gradient is what the test's own function says of a backward that is wrong so.
    assert loose & {"× 1.05", "× 1.2", "zeros"} == {"× 1.05"}
    assert not default & {"× 1.05", "× 1.2", "zeros"}
    assert not second & {"× 1.05", "× 1.2", "zeros"}
    assert fast & {"× 1.05", "× 1.2", "zeros"} == {"× 1.05"}
    values = let_through(document, "test_values")
    assert values[0] == factors
    assert values[1] == set()
    assert values[2] == {*factors, "× 1.2", "one entry off"}
    assert reason(document, "test_itself") == "compares an array with itself"
    assert reason(document, "test_state") is None


JAX = """
import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

Z = jnp.array([0.5, -1.0, 2.0])


@jax.custom_vjp
def scaled(z):
    return jnp.sin(z)


scaled.defvjp(lambda z: (jnp.sin(z), z), lambda z, delta: (1.05 * jnp.cos(z) * delta,))


def test_loose():
    check_grads(jnp.sin, (Z,), order=1, modes=["rev"], rtol=0.1, atol=0)


def test_tight():
    check_grads(jnp.sin, (Z,), order=1, modes=["rev"], rtol=1e-2, atol=1e-3)


def test_what_a_wrong_gradient_gives():
    check_grads(scaled, (Z,), order=1, modes=["rev"], rtol=0.1, atol=0)


def test_values():
    np.testing.assert_allclose(Z, Z + 0, rtol=0.1)
"""


@pytest.mark.slow
def test_jax(project):
    pytest.importorskip("jax")
    project.write("test_theirs.py", JAX)
    process, document = audited(project)
    assert process.returncode == 0, process.stdout
    (loose,), (tight,), (values,) = (let_through(document, f"test_{n}") for n in ("loose", "tight", "values"))
    assert {"× 1.05", "× 1.2"} & loose == {"× 1.05"}
    assert not {"× 1.05", "× 1.2", "zeros"} & tight
    assert values == {"× 1.05"}  # the others are exact in bfloat16


def test_without_the_option_nothing_is_replaced(project):
    project.write("test_theirs.py", "import numpy\nimport sys\n\ndef test_it():\n"
                  "    assert not any(name.startswith('oracles.audit') for name in sys.modules)\n"
                  "    assert not hasattr(numpy.allclose, '_is_audited')\n")  # fmt: skip
    assert project.pytest().returncode == 0


BASE = 10


def made():
    base = BASE

    def every_kind(a, /, b=2, *rest, c, d=4, **others):
        return base, a, b, rest, c, d, others

    def by_name(a, b=2, *, c=3):
        return base, a, b, c

    def nothing():
        return base

    return every_kind, by_name, nothing


CALLS = [
    (0, (1,), {"c": 3}),
    (0, (1, 5, 6, 7), {"c": 3, "d": 5, "e": 6}),
    (0, (), {"c": 3}),  # a is missing
    (0, (1,), {}),  # c is missing
    (1, (1,), {}),
    (1, (1, 5), {"c": 7}),
    (1, (), {"b": 1, "a": 3}),
    (1, (1, 2, 3), {}),  # too many
    (1, (1,), {"e": 1}),  # no such name
    (2, (), {}),
]


def result(function, args, kwargs):
    try:
        return function(*args, **kwargs)
    except TypeError as error:
        return str(error)


@pytest.mark.parametrize(("which", "args", "kwargs"), CALLS)
def test_a_function_with_other_code_takes_the_same_calls_and_gets_its_own_code_back(which, args, kwargs):
    function, untouched, seen = made()[which], made()[which], []
    code, original, names = function.__code__, copied(function), {*globals()}
    expected = result(untouched, args, kwargs)

    def call(*args, **kwargs):
        seen.append(1)
        return original(*args, **kwargs)

    undo = redirect(function, call)
    assert function.__code__ is not code
    assert result(function, args, kwargs) == expected
    assert seen
    assert inspect.signature(function) == inspect.signature(untouched)
    assert inspect.getsource(function) == inspect.getsource(untouched)
    undo()
    assert function.__code__ is code
    assert vars(function) == {}
    assert {*globals()} == names
    seen.clear()
    assert result(function, args, kwargs) == expected
    assert seen == []


def entries(values, kind="f"):
    values = np.asarray(values, float)
    square = values.ndim == 2 and values.shape[0] == values.shape[1]
    rows = np.arange(values.size) // (values.size // values.shape[0])
    return Entries(values.ravel(), rows, values.T.ravel() if square else None, float(np.abs(values).max()), kind)


def test_each_mutant_differs_and_those_of_rounding_are_left_out():
    z = np.array([[1.1, 2.3], [-0.7, 0.9]])
    made = dict(mutants(entries(z), 2.0**-53))
    assert [*made] == [*MUTANTS]
    assert all(np.any(mutant != z.ravel()) for mutant in made.values())
    assert made["transposed"].tolist() == z.T.ravel().tolist()
    symmetric = z + z.T
    symmetric[0, 1] *= 1 + 2.0**-52
    assert "transposed" not in dict(mutants(entries(symmetric), 2.0**-53))
    assert "bfloat16" not in dict(mutants(entries(np.array([[1.0, 2.0], [0.5, -3.0]])), 2.0**-53))
    assert [*dict(mutants(entries(np.zeros(3)), 2.0**-53))] == ["a constant", "one entry off"]


def test_a_value_that_gets_better_is_no_mutant():
    values = np.array([1 + 1e-10, 1 - 1e-10, 1 + 2e-10])
    known = entries(values)._replace(expected=np.ones(3))
    assert {"bfloat16", "a constant"} <= {*dict(mutants(entries(values), 2.0**-53))}
    assert not {"bfloat16", "a constant"} & {*dict(mutants(known, 2.0**-53))}
    assert {"× 1.05", "zeros"} <= {*dict(mutants(known, 2.0**-53))}
    assert "× 1.05" not in dict(mutants(entries([0.96, 0.96])._replace(expected=np.ones(2)), 2.0**-53))


def test_a_sample_has_the_largest_entry_and_is_broadcast():
    z = np.ones((100, 200))
    z[77, 123] = 50.0
    asked = question(z, np.ones(200))
    assert asked.entries.values.size <= AUDIT_ENTRIES + 1
    assert asked.entries.values.max() == 50
    assert asked.expected.shape == asked.entries.values.shape == asked.to_actual(asked.entries.values).shape


def test_operands_are_not_changed_by_mutants():
    z = np.arange(4.0)
    asked = question(z, z.copy())
    for _, mutant in mutants(asked.entries, asked.rounding):
        asked.to_actual(mutant)[...] = -1
    assert z.tolist() == [0, 1, 2, 3]
    assert operand_of("text") is None
    assert not is_same(z, z.copy())
    assert is_same(z, z)
    assert not is_same(np.pi, np.pi)


def test_a_test_is_weak_only_if_all_is_known_of_it():
    line = Line("test.py", 1, "name", "")
    asked, other, skipped = Findings(calls=1, asked=1), Findings(calls=1, other=1), Findings(calls=1)
    assert weakness({line: asked})
    assert weakness({line: other}) == ""
    assert weakness({line: skipped}) == ""
    assert weakness({line: asked, line._replace(line=2): skipped}) == ""
    assert weakness({line: Findings(calls=1, asked=1, detecting=1)}) == ""


def test_the_page_shows_what_is_printed(project):
    page = (ROOT / "docs" / "verify_your_own" / "audit_your_tests.md").read_text(encoding="utf-8")
    code = re.search(r"<!-- file: test_layer.py -->\n```python\n(.*?)```", page, re.DOTALL)[1]
    shown = re.search(r"<!-- audit-output -->\n```text\n(.*?)```", page, re.DOTALL)[1]
    project.write("test_layer.py", code)
    process = project.pytest("--oracles-audit", "-q")
    assert process.returncode == 0, process.stdout
    printed = process.stdout.partition(" audit of comparisons ")[2].partition("\n")[2].rpartition("4 passed")[0]
    assert [re.sub(r"\d\S*", "#", line).split() for line in printed.strip().splitlines()] == [
        re.sub(r"\d\S*", "#", line).split() for line in shown.strip().splitlines()
    ]


def test_the_page_names_every_mutant_and_function():
    page = (ROOT / "docs" / "verify_your_own" / "audit_your_tests.md").read_text(encoding="utf-8")
    table = page.split("| mutant |")[1].split("\n\n")[0]
    assert [name for name in MUTANTS if name not in table] == []
    table = page.split("| comparison |")[1].split("\n\n")[0]
    assert [of.name for of in (*COMPARISONS, *COMPOSITES) if of.name not in table] == []


@pytest.mark.slow
def test_our_own_suite_lets_no_mutant_through(tmp_path):
    """Of manual_bp's tests, those that compare arrays by themselves rather than by the judge."""
    names = ("derivation", "optimizers", "conv", "embedding", "training")
    files = [str(ROOT / "tests" / "manual_bp" / f"test_{name}.py") for name in names]
    path = tmp_path / "audit.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--oracles-audit-json={path}", *files]
    process = subprocess.run(command, capture_output=True, encoding="utf-8", cwd=ROOT)
    assert process.returncode == 0, process.stdout
    document = json.loads(path.read_text())
    assert sum(line["asked"] for line in document["lines"]) >= 100
    assert [line for line in document["lines"] if any(m["accepted"] for m in line["mutants"].values())] == []
    reasons = {weak["reason"] for weak in document["weak"]}
    assert reasons <= {NO_COMPARISON, "compares nothing that a mutant could change"}  # a gradient that is all NaN
