"""Fixed points and solvers of ODEs: implicit and adjoint rules, converged and not."""

import numpy as np
import pytest

import oracles
from oracles import Disagreement, Verdict

torch = pytest.importorskip("torch")
RNG = np.random.default_rng(0)
POINT = {"W": 0.05 * RNG.standard_normal((3, 3)), "x": RNG.standard_normal(3)}
STATE = {"W": RNG.standard_normal((3, 3)), "x0": RNG.standard_normal(3)}


def fixed_point(rule="implicit", tolerance=1e-15, factor=1.0):
    """Return the rule of z = tanh(W z + x)."""

    def forward(W, x):
        z = np.zeros_like(x)
        for _ in range(40):
            z, before = np.tanh(W @ z + x), z
            if np.abs(z - before).max() <= tolerance:
                break
        return z, (W, x, z)

    def backward(cache, d):
        W, x, z = cache
        slope = 1 - np.tanh(W @ z + x) ** 2
        A = np.eye(len(z)) - slope[:, None] * W
        matrix = {"one step": np.eye(len(z)), "not transposed": A}.get(rule, A.T)
        u = np.linalg.solve(matrix, d) * slope
        return {"W": factor * np.outer(u, z), "x": factor * u}

    return oracles.manual(forward, backward)


def unrolled(W, x):
    z = torch.zeros_like(x)
    for _ in range(20):
        z = torch.tanh(W @ z + x)
    return z


def solved_by_newton(W, x):
    z = torch.zeros_like(x)
    for _ in range(8):
        a = torch.tanh(W @ z + x)
        z = z - torch.linalg.solve(torch.eye(len(x), dtype=x.dtype) - (1 - a**2)[:, None] * W, z - a)
    return z


@pytest.mark.parametrize("against", [[oracles.torch_autograd(unrolled)], []], ids=["torch", "alone"])
def test_fixed_point(against):
    assert oracles.check(fixed_point(), POINT, against).verdict is Verdict.AGREES


@pytest.mark.parametrize("rule", ["one step", "not transposed"])
def test_wrong_rule_of_a_fixed_point(rule):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(fixed_point(rule), POINT, [oracles.torch_autograd(unrolled)])
    assert excinfo.value.verdict is Verdict.WRONG


def solved(tolerance, factor=1.0):
    """Return the rule of u = cos(u) / 2 + z, by an iteration that contracts slowly."""

    def forward(z):
        u = z
        for _ in range(60):
            step = 0.5 * np.cos(u) + z - u
            u = u + step
            if np.abs(step).max() <= tolerance:
                break
        return u, u

    return oracles.manual(forward, lambda u, d: {"z": factor * d / (1 + 0.5 * np.sin(u))})


def newton(z):
    u = z
    for _ in range(7):
        u = u - (u - 0.5 * torch.cos(u) - z) / (1 + 0.5 * torch.sin(u))
    return u


NEWTON = [oracles.torch_autograd(newton)]
Z = {"z": np.random.default_rng(3).standard_normal((3, 2))}


def test_not_converged():
    """The error jumps where the number of steps changes; the report says so, and what to declare."""
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(solved(1e-5), Z, NEWTON)
    refused = excinfo.value
    assert refused.verdict is Verdict.UNSTABLE
    assert "not converged" in refused.diagnosis
    assert "solved_to" in refused.diagnosis
    assert oracles.check(solved(1e-16), Z, NEWTON).verdict is Verdict.AGREES


def test_solved_to():
    assert oracles.check(oracles.declared(solved(1e-5), solved_to=1e-5), Z, NEWTON).verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.declared(solved(1e-5, 1.01), solved_to=1e-5), Z, NEWTON)
    assert excinfo.value.verdict is Verdict.WRONG


@pytest.mark.parametrize("seed", range(6))
def test_solved_to_without_a_reference(seed):
    """Ball arithmetic and finite differences have the derivative of the stopped iteration, which converges later."""
    rng = np.random.default_rng(seed)
    point = {"W": 0.2 * rng.standard_normal((4, 4)), "x": rng.standard_normal(4)}

    def declared(factor):
        return oracles.declared(fixed_point(tolerance=1e-5, factor=factor), solved_to=1e-5)

    result = oracles.check(declared(1.0), point)
    assert result.verdict is Verdict.AGREES
    assert {"exact", "finite difference"} <= {f.oracle for f in result.findings}
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(declared(1.01), point)
    assert excinfo.value.verdict is Verdict.WRONG
    assert "exact" in {f.oracle for f in excinfo.value.result.findings if f.refuses}


@pytest.mark.parametrize("seed", range(6))
def test_solved_to_with_a_reference_is_as_sharp_as_declared(seed):
    """The derivative at the solution is known then; enclosures of another one neither refuse it nor overrule it."""
    rng = np.random.default_rng(seed)
    point = {"W": 0.2 * rng.standard_normal((4, 4)), "x": rng.standard_normal(4)}
    against = [oracles.torch_autograd(solved_by_newton)]

    def declared(factor):
        return oracles.declared(fixed_point(tolerance=1e-5, factor=factor), solved_to=1e-5)

    assert oracles.check(declared(1.0), point, against).verdict is Verdict.AGREES
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(declared(1.0005), point, against)
    assert excinfo.value.verdict is Verdict.WRONG


def test_smooth_small_error_is_wrong():
    """An error of a formula is small and smooth too, and jumps nowhere."""
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(solved(1e-16, 1 + 1e-5), Z, NEWTON)
    assert excinfo.value.verdict is Verdict.WRONG


def test_time_limit():
    """One second is not enough for a slow solver, and the verdict says so."""

    def slow(z):
        u = z
        for _ in range(2000):
            u = 0.5 * np.cos(u) + z
        return u, u

    subject = oracles.manual(slow, lambda u, d: {"z": 1.01 * d / (1 + 0.5 * np.sin(u))})
    with pytest.raises((Disagreement, oracles.Inconclusive)):
        oracles.check(subject, Z, NEWTON, seconds=1)


STEPS, H = 3, 0.1


def slope_back(W, x, g):
    s = g * (1 - np.tanh(W @ x) ** 2)
    return np.outer(s, x), W.T @ s


def runge_kutta(fault=""):
    """Return the rule of x' = tanh(W x) by the classical Runge-Kutta method, with its discrete adjoint."""

    def stages(W, x):
        k1 = np.tanh(W @ x)
        k2 = np.tanh(W @ (x + H / 2 * k1))
        k3 = np.tanh(W @ (x + H / 2 * k2))
        return k1, k2, k3, np.tanh(W @ (x + H * k3))

    def forward(W, x0):
        states = [x0]
        for _ in range(STEPS):
            k1, k2, k3, k4 = stages(W, states[-1])
            states.append(states[-1] + H / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
        return states[-1], (W, states)

    def backward(cache, d):
        W, states = cache
        dW, adjoint = np.zeros_like(W), d
        for i in reversed(range(STEPS)):
            x = states[i + 1] if fault == "end of the step" else states[i]
            k1, k2, k3, _ = stages(W, x)
            weight = H / 6 if fault == "weight" else H / 3
            W4, x4 = slope_back(W, x + H * k3, H / 6 * adjoint)
            W3, x3 = slope_back(W, x + H / 2 * k2, weight * adjoint + H * x4)
            W2, x2 = slope_back(W, x + H / 2 * k1, weight * adjoint + H / 2 * x3)
            W1, x1 = slope_back(W, x, H / 6 * adjoint + H / 2 * x2)
            dW, adjoint = dW + W1 + W2 + W3 + W4, adjoint + x1 + x2 + x3 + x4
        return {"W": dW, "x0": adjoint}

    return oracles.manual(forward, backward)


def torch_runge_kutta(W, x0):
    x = x0
    for _ in range(STEPS):
        k1 = torch.tanh(W @ x)
        k2 = torch.tanh(W @ (x + H / 2 * k1))
        k3 = torch.tanh(W @ (x + H / 2 * k2))
        x = x + H / 6 * (k1 + 2 * k2 + 2 * k3 + torch.tanh(W @ (x + H * k3)))
    return x


def implicit_euler(fault=""):
    """Return the rule of x1 = x0 + h tanh(W x1), solved by Newton's method."""

    def jacobian(W, x):
        return np.eye(len(x)) - H * (1 - np.tanh(W @ x) ** 2)[:, None] * W

    def forward(W, x0):
        x = x0
        for _ in range(6):
            x = x - np.linalg.solve(jacobian(W, x), x - x0 - H * np.tanh(W @ x))
        return x, (W, x0, x)

    def backward(cache, d):
        W, x0, x1 = cache
        x = x0 if fault == "start of the step" else x1
        adjoint = np.linalg.solve(jacobian(W, x).T, d)
        return {"W": np.outer(H * (1 - np.tanh(W @ x) ** 2) * adjoint, x), "x0": adjoint}

    return oracles.manual(forward, backward)


def torch_implicit_euler(W, x0):
    x = x0
    for _ in range(20):
        x = x0 + H * torch.tanh(W @ x)
    return x


ODES = {"runge_kutta": (runge_kutta, torch_runge_kutta), "implicit_euler": (implicit_euler, torch_implicit_euler)}


@pytest.mark.parametrize("name", ODES)
def test_discrete_adjoint(name):
    make, reference = ODES[name]
    assert oracles.check(make(), STATE, [oracles.torch_autograd(reference)]).verdict is Verdict.AGREES
    assert oracles.check(make(), STATE).verdict is Verdict.AGREES


@pytest.mark.parametrize(
    ("name", "fault"),
    [("runge_kutta", "end of the step"), ("runge_kutta", "weight"), ("implicit_euler", "start of the step")],
)
def test_wrong_adjoint(name, fault):
    make, reference = ODES[name]
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(make(fault), STATE, [oracles.torch_autograd(reference)])
    assert excinfo.value.verdict is Verdict.WRONG


COST = {"C": np.random.default_rng(5).random((4, 3))}
MARGINS, MILD = (np.full(4, 0.25), np.array([0.3, 0.3, 0.4])), 0.5


def sinkhorn(tolerance, fault=""):
    """Return the rule of the plan of entropic optimal transport, by Sinkhorn's iteration and an implicit derivative."""

    def forward(C):
        K, v = np.exp(-C / MILD), np.ones(3)
        for _ in range(60):
            u = MARGINS[0] / (K @ v)
            v, before = MARGINS[1] / (K.T @ u), v
            if np.abs(v / before - 1).max() <= tolerance:
                break
        P = u[:, None] * K * v
        return P, P

    def backward(P, d):
        # The potentials w move so that both margins stay; one of them is free, and fixed at 0.
        M = np.block([[np.diag(P.sum(1)), P], [P.T, np.diag(P.sum(0))]])[:-1, :-1]
        w = np.append(np.linalg.solve(M, np.append((P * d).sum(1), (P * d).sum(0))[:-1]), 0)
        w *= fault != "stopped through the iteration"
        g = P * (w[:4, None] + w[4:] - d)
        return {"C": g * {"a factor missing": MILD, "slightly too large": 1 + 1e-6}.get(fault, 1.0) / MILD}

    return oracles.manual(forward, backward)


def torch_sinkhorn(C):
    a, b = (torch.as_tensor(margin, dtype=C.dtype) for margin in MARGINS)
    K, v = torch.exp(-C / MILD), torch.ones_like(b)
    for _ in range(30):
        u = a / (K @ v)
        v = b / (K.T @ u)
    return u[:, None] * K * v


SINKHORN = [oracles.torch_autograd(torch_sinkhorn)]


def test_sinkhorn():
    subject = oracles.declared(sinkhorn(1e-10), solved_to=1e-10)
    assert oracles.check(subject, COST, SINKHORN).verdict is Verdict.AGREES
    assert oracles.check(sinkhorn(1e-16), COST, SINKHORN).verdict is Verdict.AGREES


def test_undeclared_sinkhorn():
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(sinkhorn(1e-10), COST, SINKHORN)
    assert excinfo.value.verdict is Verdict.UNSTABLE
    assert "solved_to" in excinfo.value.diagnosis


@pytest.mark.parametrize("fault", ["stopped through the iteration", "a factor missing", "slightly too large"])
def test_wrong_sinkhorn(fault):
    with pytest.raises(Disagreement) as excinfo:
        oracles.check(oracles.declared(sinkhorn(1e-10, fault), solved_to=1e-10), COST, SINKHORN)
    assert excinfo.value.verdict is Verdict.WRONG
