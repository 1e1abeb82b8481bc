import os
import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from subjects import REFERENCE, SILU, edited

import oracles
from oracles.untrusted.remote import Sandbox
from oracles.untrusted.sandbox import Protection, landlock_version
from oracles.untrusted.schema import require_valid

SILU_OF_TORCH = "torch:torch.nn.functional.silu"
CASES = [{"shapes": "z=n,3", "extents": {"n": [1, 5]}, "dtypes": ["float64", "float32"], "points": 2}]


def judged(source, sandbox, subject="forward,backward", reference=SILU_OF_TORCH, cases=CASES, **options):
    options = {"seed": 0, "diagnosis": False, **options}
    return oracles.judge_untrusted(subject, reference, cases, source=source, sandbox=sandbox, **options)


@pytest.mark.parametrize("seed", range(5))
def test_a_right_subject_passes(sandbox, seed):
    result = judged(SILU, sandbox, seed=seed)
    assert (result.status, result.verdict) == ("PASSED", "agrees"), result.reason
    assert result.passed
    assert len(result.points) == 4
    assert {point["dtype"] for point in result.points} == {"float64", "float32"}
    require_valid(result.document(), "judgement", "")


SLOPE = "delta * (a + z * a * (1 - a))"
STATUSES = {
    "wrong numbers": ("a + z * a * (1 - a)", "a + z * a", "WRONG_NUMERICS"),
    "zeros": ("delta * (a", "0 * delta * (a", "WRONG_NUMERICS"),
    "NaN": ("delta * (a", "np.nan * delta * (a", "WRONG_NUMERICS"),
    "no gradient": ('return {"z"', 'return {} if True else {"z"', "WRONG_NUMERICS"),
    "a wrong forward": ("return z * a, (z, a)", "return z * a + 1, (z, a)", "WRONG_NUMERICS"),
    "its argument overwritten": ("z, a = cache", "z, a = cache; delta *= 2; delta /= 2", "PASSED"),
    "its argument spoiled": ("    a = 1", "    z += 1; z -= 1; z[0] = 3; a = 1", "WRONG_NUMERICS"),
    "a transposed gradient": (SLOPE, f"({SLOPE}).T", "WRONG_SHAPE"),
    "a sum": (SLOPE, f"({SLOPE}).sum(0)", "WRONG_SHAPE"),
    "another dtype": (SLOPE, f"({SLOPE}).astype(np.float16)", "WRONG_DTYPE"),
    "text": (SLOPE, "'0'", "WRONG_DTYPE"),
    "objects": (SLOPE, f"({SLOPE}).astype(object)", "WRONG_DTYPE"),
    "a wrong output": ("return z * a,", "return (z * a).sum(),", "WRONG_SHAPE"),
    "an exception": ("z, a = cache", "z, a = cache; raise KeyError('z')", "RUNTIME_ERROR"),
    "a syntax error": ("z, a = cache", "z, a =", "RUNTIME_ERROR"),
    "no such name": ("def backward", "def backwards", "RUNTIME_ERROR"),
    "a crash": ("z, a = cache", "import ctypes; ctypes.string_at(0); z, a = cache", "RUNTIME_ERROR"),
    "SystemExit": ("z, a = cache", "raise SystemExit(0)", "RUNTIME_ERROR"),
    "the end of the process": ("z, a = cache", "import os; os._exit(0)", "CHEATS"),
    "its end at import": ("import numpy as np", "import os; os._exit(0)", "CHEATS"),
    "random numbers": ("(1 - a))}", "(1 - a)) + (np.random.rand() > 0.5)}", "NOT_DETERMINISTIC WRONG_NUMERICS"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATUSES)
def test_the_status_of_a_wrong_subject(sandbox, name):
    old, new, expected = STATUSES[name]
    result = judged(edited(old, new), sandbox)
    assert result.status in expected.split(), (result.status, result.reason)
    assert judged(SILU, sandbox, cases=[{"shapes": "z=2,3", "points": 1}]).passed  # the next one is judged as ever


def test_an_endless_call_is_a_timeout(sandbox):
    result = judged(edited("z, a = cache", "\n    while True: pass"), sandbox, seconds=0.5)
    assert (result.status, result.verdict) == ("TIMEOUT", "")


def test_right_for_the_first_calls_only(sandbox):
    counting = edited("z, a = cache", "calls.append(1); z, a = cache; a = a if len(calls) < 14 else 0 * a")
    result = judged("calls = []\n" + counting, sandbox, cases=[{"shapes": "z=2,3", "points": 2}])
    assert result.status in ("NOT_DETERMINISTIC", "WRONG_NUMERICS"), result.reason


def test_what_it_computed_in_this_process_only(sandbox):
    """The answers to earlier calls, kept by their arguments: a new process has none of them."""
    kept = edited("z, a = cache", "z, a = cache; seen.append(1); a = a if len(seen) > 1 else 0 * a")
    result = judged("seen = [1]\n" + kept, sandbox, cases=[{"shapes": "z=2,3", "points": 1}])
    assert result.passed
    kept = edited("    a = 1", "    seen.append(1); a = (len(seen) != 9) / (1 + np.exp(-z)) if 1 else 1")
    result = judged("seen = []\n" + kept, sandbox, cases=[{"shapes": "z=2,3", "points": 2}])
    assert result.status != "PASSED"


def test_without_the_reference_nothing_is_judged(sandbox, tmp_path):
    path = tmp_path / "reference.py"
    path.write_text("import torch\ndef f(z):\n    raise ValueError('no')\n")
    result = judged(SILU, sandbox, reference=f"torch:{path}:f")
    assert result.status == "NOT_JUDGED"
    assert "ReferenceFailed" in result.reason


def test_the_framework_of_a_reference_is_the_one_that_its_file_imports(sandbox, tmp_path):
    path = tmp_path / "reference.py"
    path.write_text("import jax\ndef f(z):\n    return jax.nn.silu(z)\n")
    result = judged(SILU, sandbox, reference=f"{path}:f")
    assert result.status == "PASSED", result.reason


def test_a_missing_gradient_may_be_left_out(sandbox, tmp_path):
    source = """
def forward(z, g):
    return z * g, (z, g)

def backward(cache, delta):
    return {"z": delta * cache[1]}
"""
    (tmp_path / "reference.py").write_text("import torch\ndef mul(z, g):\n    return z * g\n")
    case = {"shapes": "z=4,3 g=4,3", "points": 1}
    reference = f"torch:{tmp_path / 'reference.py'}:mul"
    assert judged(source, sandbox, reference=reference, cases=[case]).status == "WRONG_NUMERICS"
    assert judged(source, sandbox, reference=reference, cases=[{**case, "wrt": ["z"]}]).passed


def test_primals_from_a_file(sandbox, tmp_path):
    np.savez(tmp_path / "point.npz", z=np.array([[0.5, -2.0]], np.float32))
    result = judged(SILU, sandbox, cases=str(tmp_path / "point.npz"))
    assert (result.status, result.points[0]["shapes"]) == ("PASSED", {"z": [1, 2]})


def test_the_same_seed_draws_the_same_points(sandbox):
    cases = [{"shapes": "z=n,3", "extents": {"n": [1, 60]}, "points": 4}]
    first, again, other = (judged(SILU, sandbox, cases=cases, seed=seed).points for seed in (5, 5, 6))
    assert [point["shapes"] for point in first] == [point["shapes"] for point in again]
    assert [point["shapes"] for point in first] != [point["shapes"] for point in other]


LINUX = pytest.mark.skipif(not landlock_version(), reason="needs Landlock")
# What a subject tries at its import; it raises where that works.
REACHES = {
    "the reference": "open({reference!r}).read()",
    "other processes": "open('/proc/1/environ', 'rb').read()",
    "its own memory": "open('/proc/self/mem', 'rb').read(0)",
    "a file of the user": "open({other!r}).read()",
    "writing next to the reference": "open({folder!r} + '/new', 'w')",
    "the mode of the reference": "__import__('os').chmod({reference!r}, 0)",
    "the network": "__import__('socket').create_connection(('127.0.0.1', {port}), 1)",
    "a program": "if __import__('subprocess').run(['/bin/cat', {reference!r}]).returncode: raise OSError",
}
TRYING = """
try:
    {}
except OSError:
    pass
else:
    raise RuntimeError("reached")
"""


@LINUX
@pytest.mark.parametrize("name", REACHES)
def test_a_subject_reaches_nothing_of_the_judge(sandbox, tmp_path, name):
    import socket

    reference, other = tmp_path / "reference.py", tmp_path / "other.txt"
    reference.write_text(REFERENCE)
    other.write_text("other")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        tried = REACHES[name].format(reference=str(reference), folder=str(tmp_path), other=str(other), port=port)
        source = f"{TRYING.format(tried)}{SILU}"
        result = judged(source, sandbox, reference=f"torch:{reference}:silu", cases=[{"shapes": "z=2,3", "points": 1}])
    assert result.status == "PASSED", result.reason
    assert set(result.protections) == {str(each) for each in Protection}
    assert oct(reference.stat().st_mode & 0o777) != "0o0"


def scaled(factor):
    """Return the subject factor · silu(z)."""
    return edited("return z * a,", f"return {factor} * z * a,").replace("delta * (a", f"{factor} * delta * (a")


REFERENCES = {
    "in one file": {"reference.py": "import torch\ndef silu(z):\n    return FACTOR * z * torch.sigmoid(z)\n"},
    "with a neighbour": {
        "reference.py": "import torch\nfrom util import k\ndef silu(z):\n    return k * z * torch.sigmoid(z)\n",
        "util.py": "k = FACTOR\n",
    },
}


@pytest.mark.parametrize("path", ["absolute", "relative"])
@pytest.mark.parametrize("files", REFERENCES)
def test_references_of_equal_names_in_two_folders_are_two(sandbox, tmp_path, monkeypatch, files, path):
    for factor in (1, 2):
        folder = tmp_path / str(factor)
        folder.mkdir()
        for name, text in REFERENCES[files].items():
            (folder / name).write_text(text.replace("FACTOR", str(factor)))
            os.utime(folder / name, (1.7e9, 1.7e9))
    for factor in (1, 2, 1):
        folder = tmp_path / str(factor)
        monkeypatch.chdir(folder)
        reference = f"torch:{folder / 'reference.py' if path == 'absolute' else 'reference.py'}:silu"
        for subject in (1, 2):
            result = judged(scaled(subject), sandbox, reference=reference, cases=[{"shapes": "z=4,3", "points": 1}])
            assert result.status == ("PASSED" if subject == factor else "WRONG_NUMERICS")
    assert "util" not in sys.modules


def test_a_reference_is_imported_again_where_its_neighbour_has_changed(sandbox, tmp_path):
    for factor, status in ((1, "PASSED"), (2, "WRONG_NUMERICS"), (1, "PASSED")):
        for name, text in REFERENCES["with a neighbour"].items():
            (tmp_path / name).write_text(text.replace("FACTOR", str(factor)))
        reference = f"torch:{tmp_path / 'reference.py'}:silu"
        assert judged(SILU, sandbox, reference=reference, cases=[{"shapes": "z=4,3", "points": 1}]).status == status


SLOW = """
import time
slept, first = [], {}
def sleep():
    slept.append(time.sleep(0.5 if len(slept) < CALLS else 0))
"""


@pytest.mark.parametrize(
    ("calls", "wrong", "status"),
    [(8, 1.5, "TIMEOUT"), (8, 1.0, "TIMEOUT"), (2, 1.0, "PASSED"), (2, 1.5, "WRONG_NUMERICS")],
)
def test_a_subject_that_takes_the_time_of_the_judge_does_not_pass(sandbox, monkeypatch, calls, wrong, status):
    """It is wrong for all cotangents but the first of a point."""
    if status == "TIMEOUT":
        monkeypatch.setattr("oracles.untrusted.judging.CHECK_SECONDS", 2.0)
        monkeypatch.setattr("oracles.untrusted.judging.CALLS_OF_A_POINT", 1)
    factor = f"(1.0 if (first.setdefault(z.tobytes(), delta.copy()) == delta).all() else {wrong})"
    source = edited("    z, a = cache", "    sleep()\n    z, a = cache").replace("delta * (a", f"{factor} * delta * (a")
    source = SLOW.replace("CALLS", str(calls)) + source.replace("def forward(z):\n", "def forward(z):\n    sleep()\n")
    cases = [{"shapes": "z=4,3", "points": 1}]
    assert judged(source, sandbox, cases=cases, seconds=2.0).status == status


@pytest.mark.parametrize("kind", ["another factor", "no gradient", "no output", "another dtype", "as declared"])
def test_answers_that_are_asked_again_are_judged_as_the_case_says(sandbox, kind):
    output, gradient = {
        "another factor": ("y", '{"z": 3 * g}'),
        "no gradient": ("y", "{}"),
        "no output": ("()", '{"z": g}'),
        "another dtype": ("y", '{"z": g.astype(np.float32)}'),
        "as declared": ("y", '{"z": g * (1 + 2.0**-52)}'),
    }[kind]
    source = f"""
import numpy as np
calls = {{}}
def forward(z):
    k = calls[z.tobytes()] = calls.get(z.tobytes(), 0) + 1
    a = 1 / (1 + np.exp(-z))
    y = z * a
    return ({output} if k > 5 else y), (z, a, k)
def backward(cache, delta):
    z, a, k = cache
    g = 0.5 * delta * (a + z * a * (1 - a))
    return {gradient} if k > 5 else {{"z": g}}
"""
    cases = [{"shapes": "z=4,3", "points": 1, "declared": {"scale": {"z": 0.5}}}]
    result = judged(source, sandbox, cases=cases)
    assert result.status == ("PASSED" if kind == "as declared" else "NOT_DETERMINISTIC")


@LINUX
def test_a_subject_reads_nothing_in_the_folders_that_the_judge_imports_from(tmp_path, monkeypatch):
    (tmp_path / "other.txt").write_text("other")
    (tmp_path / "cases_of_the_user.py").write_text(REFERENCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    other = str(tmp_path / "other.txt")
    source = f"{TRYING.format(f'open({other!r}).read()')}{SILU}"
    cases = [{"shapes": "z=2,3", "points": 1}]
    with Sandbox() as fresh:
        assert judged(source, fresh, reference="torch:cases_of_the_user:silu", cases=cases).passed


@LINUX
def test_a_subject_imports_what_is_on_pythonpath_but_not_the_module_of_the_reference(tmp_path, monkeypatch):
    (tmp_path / "helper_of_silu.py").write_text("one = 1\n")
    (tmp_path / "reference_of_silu.py").write_text(REFERENCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    cases, reference = [{"shapes": "z=2,3", "points": 1}], "torch:reference_of_silu:silu"
    with Sandbox() as fresh:
        right = judged(f"from helper_of_silu import one\n{SILU}", fresh, reference=reference, cases=cases)
        cheats = judged(f"import reference_of_silu\n{SILU}", fresh, reference=reference, cases=cases)
    assert right.passed, right.reason
    assert (cheats.status, "reference_of_silu" in cheats.reason) == ("RUNTIME_ERROR", True)


@LINUX
def test_a_file_of_a_subject_may_import_its_neighbours_but_not_the_reference(sandbox, tmp_path):
    (tmp_path / "helper.py").write_text("import numpy as np\ndef sigmoid(z):\n    return 1 / (1 + np.exp(-z))\n")
    (tmp_path / "reference.py").write_text(REFERENCE)
    kernel = tmp_path / "kernel.py"
    reference, cases = f"torch:{tmp_path / 'reference.py'}:silu", [{"shapes": "z=2,3", "points": 1}]
    kernel.write_text("from helper import sigmoid\n" + edited("1 / (1 + np.exp(-z))", "sigmoid(z)"))
    subject = f"{kernel}:forward,backward"
    assert oracles.judge_untrusted(subject, reference, cases, sandbox=sandbox, diagnosis=False).passed
    kernel.write_text("import reference\n" + SILU)
    result = oracles.judge_untrusted(subject, reference, cases, sandbox=sandbox, diagnosis=False)
    assert (result.status, "reference" in result.reason) == ("RUNTIME_ERROR", True)


@LINUX
def test_what_is_left_in_the_background_ends_with_the_subject(sandbox, tmp_path):
    source = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n    os._exit(0)\n" + SILU
    assert judged(source, sandbox, cases=[{"shapes": "z=2,3", "points": 1}]).passed
    outer = next(iter(sandbox._templates.values())).process.pid
    assert [children(pid) for pid in children(outer)] == [[]]


def children(pid):
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


# A user namespace in which no other can be made, as in a container that forbids them.
WITHOUT_NAMESPACES = """
echo 0 > /proc/sys/user/max_user_namespaces || exit 77
exec {} {}
"""
JUDGE_TWO = """
import oracles, sys
sources = [open(name).read() for name in ("right.py", "leaves.py")]
with oracles.Sandbox() as sandbox:
    for source in sources:
        judged = oracles.judge_untrusted(
            "forward,backward", "torch:torch.nn.functional.silu", [{"shapes": "z=2,3", "points": 1}], source=source,
            sandbox=sandbox, diagnosis=False,
        )
        print(judged.status, *judged.protections)
    (template,) = sandbox._templates.values()
    print(open(f"/proc/{template.process.pid}/task/{template.process.pid}/children").read().split())
"""


@LINUX
def test_without_namespaces_files_and_limits_are_left(tmp_path):
    (tmp_path / "right.py").write_text(SILU)
    leaves = "import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(60)\n    os._exit(0)\n" + SILU
    (tmp_path / "leaves.py").write_text(leaves)
    (tmp_path / "two.py").write_text(JUDGE_TWO)
    script = WITHOUT_NAMESPACES.format(sys.executable, "two.py")
    env = {**os.environ, "PYTHONPATH": str(Path(oracles.__file__).parents[1])}
    try:
        command = ["unshare", "-U", "-r", "sh", "-c", script]
        run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if run.returncode == 77 or "unshare" in run.stderr:
        pytest.skip("needs user namespaces")
    assert run.stdout.splitlines() == ["PASSED files limits", "PASSED files limits", "[]"], run.stderr


@LINUX
def test_memory_and_disk_are_limited(sandbox):
    cases = [{"shapes": "z=2,3", "points": 1}]
    eats = edited("z, a = cache", "z, a = cache; bytearray(2**30)")
    result = judged(eats, sandbox, cases=cases, memory_mb=256)
    assert (result.status, "MemoryError" in result.reason) == ("RUNTIME_ERROR", True)
    fills = edited("z, a = cache", "z, a = cache; open('x', 'wb').write(bytes(2**28))")
    assert judged(fills, sandbox, cases=cases).status == "RUNTIME_ERROR"


def test_a_package_that_is_forbidden_cannot_be_imported(sandbox):
    source = "import torch\n" + SILU
    assert judged(source, sandbox, cases=[{"shapes": "z=2,3", "points": 1}]).passed
    result = judged(source, sandbox, forbid=["torch"])
    assert (result.status, "torch" in result.reason) == ("RUNTIME_ERROR", True)


FUNCTION = """
import torch

class Silu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z * torch.sigmoid(z)

    @staticmethod
    def backward(ctx, delta):
        (z,) = ctx.saved_tensors
        a = torch.sigmoid(z)
        return delta * (a + z * a * (1 - a))
"""
OWN_BACKWARD = {
    "grad": "return torch.autograd.grad(torch.nn.functional.silu(x), x, delta)[0]",
    "a tensor's backward": "torch.nn.functional.silu(x).backward(delta); return x.grad",
    "by another name": "g = getattr(torch.autograd, 'gr' + 'ad'); return g(torch.nn.functional.silu(x), x, delta)[0]",
    "forward mode": "return torch.func.jvp(torch.nn.functional.silu, (z,), (delta,))[1]",
}


@pytest.mark.parametrize("name", OWN_BACKWARD)
def test_torchs_own_derivatives_can_be_forbidden(sandbox, name):
    cases = [{"shapes": "z=2,3", "points": 1}]
    assert judged(FUNCTION, sandbox, "Silu", cases=cases, forbid=["torch.autograd"]).passed
    body = f"""
        with torch.enable_grad():
            x = z.detach().requires_grad_()
            {OWN_BACKWARD[name]}
"""
    source = edited("a = torch.sigmoid(z)\n        return delta * (a + z * a * (1 - a))", body, FUNCTION)
    assert judged(source, sandbox, "Silu", cases=cases, forbid=["torch.autograd"]).status == "CHEATS"
    assert judged(source, sandbox, "Silu", cases=cases).passed  # where it is not forbidden, it is right


INVALID = [
    ("seconds", {"seconds": 0}),
    ("seconds", {"seconds": "10"}),
    ("memory_mb", {"memory_mb": -5}),
    ("processes", {"processes": 0}),
    ("seed", {"seed": -1}),
    ("forbid", {"forbid": ["numpy"]}),
    ("forbid", {"forbid": [5]}),
    ("hidden", {"hidden": [5]}),
    ("cases", {"cases": [{"shapes": "z=k,3"}]}),
    ("cases", {"cases": {"cases": CASES}}),
    ("dtypes", {"cases": [{"shapes": "z=2", "dtypes": ["int32"]}]}),
    ("shapes", {"cases": [{"points": 3}]}),
    ("precision", {"cases": [{"shapes": "z=2,3", "precision": "foo"}]}),
    ("declared", {"cases": [{"shapes": "z=2,3", "declared": {"scales": {}}}]}),
    ("wrt", {"cases": [{"shapes": "z=2,3", "wrt": ["Z"]}]}),
    ("reference", {"reference": []}),
    ("reference", {"reference": 5}),
    ("subject", {"source": None}),
]


@pytest.mark.parametrize(("argument", "options"), INVALID)
def test_invalid_arguments_are_refused_by_name(sandbox, argument, options):
    options = {"source": SILU, **options}
    with pytest.raises(oracles.InvalidInput, match=argument):
        judged(options.pop("source"), sandbox, **options)


LASTING = """
import ctypes, os, platform
libc = ctypes.CDLL(None, use_errno=True)
keys, add, search, queue = {"x86_64": (250, 248, 10, 68), "aarch64": (219, 217, 10, 186)}[platform.machine()]
def found():
    key = libc.syscall(keys, 10, -3, b"user", b"left", 0), libc.syscall(keys, 10, -4, b"user", b"left", 0)
    names = os.listxattr(".") if hasattr(os, "listxattr") else []
    return any(k > 0 for k in key) or libc.syscall(queue, 4242, 0) >= 0 or bool(names) or os.stat(".").st_mode & 0o077
def leave():
    libc.syscall(add, b"user", b"left", b"x", 1, -3), libc.syscall(add, b"user", b"left", b"x", 1, -4)
    libc.syscall(queue, 4242, 0o1666)
    try:
        os.setxattr(".", "user.left", b"x")
    except OSError:
        pass
    os.chmod(".", 0o777)
if found():
    raise RuntimeError("an earlier subject has left something")
leave()
"""


@LINUX
@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="its system calls have other numbers")
def test_nothing_in_the_kernel_outlives_a_subject(sandbox):
    for _ in range(2):
        result = judged(LASTING + SILU, sandbox, cases=[{"shapes": "z=2,3", "points": 1}])
        assert result.passed, result.reason


@LINUX
@pytest.mark.parametrize("mode", [0, 0o400, 0o111])
def test_a_folder_that_a_subject_has_closed_is_open_to_the_next_one(sandbox, mode):
    for _ in range(2):
        result = judged(f"import os\nos.chmod('.', {mode})\n{SILU}", sandbox, cases=[{"shapes": "z=2,3", "points": 1}])
        assert result.passed, result.reason


@LINUX
def test_a_hidden_link_hides_what_it_leads_to_now(sandbox, tmp_path):
    kernel, link = tmp_path / "kernel.py", tmp_path / "outside" / "current"
    link.parent.mkdir()
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("answers")
    kernel.write_text(TRYING.format("[open(name).read() for name in NAMES]") + SILU)
    cases = [{"shapes": "z=2,3", "points": 1}]
    for target in ("a.txt", "b.txt"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / target)
        kernel.write_text(TRYING.format(f"open({str(tmp_path / target)!r}).read()") + SILU)
        result = oracles.judge_untrusted(
            f"{kernel}:forward,backward", SILU_OF_TORCH, cases, sandbox=sandbox, diagnosis=False, hidden=link
        )
        assert result.passed, result.reason


@LINUX
def test_a_subject_reads_no_neighbour_of_its_reference_and_no_primals(sandbox, tmp_path):
    for name, text in REFERENCES["with a neighbour"].items():
        (tmp_path / name).write_text(text.replace("FACTOR", "1"))
    np.savez(tmp_path / "point.npz", z=np.ones((2, 3)))
    kernel = tmp_path / "kernel.py"
    for name in ("util.py", "point.npz"):
        kernel.write_text(TRYING.format(f"open({str(tmp_path / name)!r}, 'rb').read()") + SILU)
        result = oracles.judge_untrusted(
            f"{kernel}:forward,backward", f"torch:{tmp_path / 'reference.py'}:silu",
            [{"primals": str(tmp_path / "point.npz")}], sandbox=sandbox, diagnosis=False,
        )  # fmt: skip
        assert result.passed, result.reason


def test_one_name_is_a_list_of_one(sandbox):
    uses_torch = SILU.replace("import numpy as np", "import numpy as np\nimport torch")
    assert judged(uses_torch, sandbox).passed
    assert not judged(uses_torch, sandbox, forbid="torch").passed


def test_outputs_in_a_structure(sandbox, tmp_path):
    reference = tmp_path / "reference.py"
    reference.write_text("import torch\ndef f(z):\n    return {'a': torch.sin(z), 'b': z.sum(1)}\n")
    source = """
import numpy as np
def forward(z):
    return {"a": np.sin(z), "NAME": z.sum(1)}, z
def backward(z, delta):
    return {"z": FACTOR * delta["a"] * np.cos(z) + delta["NAME"][:, None]}
"""
    for name, factor, status in (("b", 1, "PASSED"), ("b", 2, "WRONG_NUMERICS"), ("c", 1, "WRONG_SHAPE")):
        edit = source.replace("NAME", name).replace("FACTOR", str(factor))
        result = judged(edit, sandbox, reference=f"torch:{reference}:f", cases=[{"shapes": "z=2,3", "points": 1}])
        assert result.status == status, result.reason


def test_jobs_of_two_threads_share_a_sandbox(sandbox):
    with ThreadPoolExecutor(4) as pool:
        sources = [SILU, edited("a + z * a", "2 * a + z * a")] * 3
        results = list(pool.map(lambda source: judged(source, sandbox).status, sources))
    assert results == ["PASSED", "WRONG_NUMERICS"] * 3


def test_a_file_in_the_encoding_that_it_names(sandbox, tmp_path):
    for name, first, fits in (("named.py", "# coding: latin-1\n# é", True), ("unnamed.py", "# é", False)):
        (tmp_path / name).write_bytes((first + SILU).encode("latin-1"))
        subject = f"{tmp_path / name}:forward,backward"
        if fits:
            assert oracles.judge_untrusted(subject, SILU_OF_TORCH, CASES, sandbox=sandbox, diagnosis=False).passed
        else:
            with pytest.raises(oracles.InvalidInput, match=name):
                oracles.judge_untrusted(subject, SILU_OF_TORCH, CASES, sandbox=sandbox)


RANDOM_PIVOT = """
import numpy as np
def forward(z):
    e = np.exp(z - z.max(-1, keepdims=True) + np.random.random())
    return e / e.sum(-1, keepdims=True), e / e.sum(-1, keepdims=True)
def backward(y, delta):
    return {"z": FACTOR * y * (delta - (y * delta).sum(-1, keepdims=True))}
"""


@pytest.mark.parametrize("factor", ["1", "(1 + 0.5 * (np.random.random() < 0.2))"])
def test_other_rounding_at_each_call_passes_and_another_factor_does_not(sandbox, factor, tmp_path):
    """Equal calls differ in their last bits; of equal entries of a cotangent the gradient is zero up to rounding."""
    (tmp_path / "softmax.py").write_text("import torch\ndef softmax(z):\n    return torch.softmax(z, -1)\n")
    cases, reference = [{"shapes": "z=n,3", "extents": {"n": [1, 5]}}], f"torch:{tmp_path / 'softmax.py'}:softmax"
    source = RANDOM_PIVOT.replace("FACTOR", factor)
    results = [judged(source, sandbox, reference=reference, cases=cases, seed=seed) for seed in range(8)]
    passed = sum(result.passed for result in results)
    assert passed == 8 if factor == "1" else passed <= 2
