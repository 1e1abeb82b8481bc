"""What `import manual_bp` costs and drags in."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def output(code, **environment):
    """Run code in a fresh process which, like any user's, may keep its bytecode."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | environment
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, check=True, capture_output=True, text=True)
    return run.stdout


def test_import_loads_numpy_alone(tmp_path):
    heavy = "torch jax hypothesis oracles scipy zipfile tempfile"
    code = f"import sys, manual_bp; print([m for m in {heavy.split()} if m in sys.modules])"
    assert output(code, PYTHONPYCACHEPREFIX=str(tmp_path)) == "[]\n"


def test_import_loads_few_modules_besides_numpy(tmp_path):
    """Counted, not timed: the time of an import depends on the machine."""
    code = "import sys, numpy; before = {*sys.modules}; import manual_bp; print(*({*sys.modules} - before))"
    others = [m for m in output(code, PYTHONPYCACHEPREFIX=str(tmp_path)).split() if not m.startswith("manual_bp")]
    assert len(others) <= 8, others  # dataclasses, numpy.typing and what they import
