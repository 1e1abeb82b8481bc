"""torch's own derivative of a function is the subject: wrong ones are refused, right ones agree, in every dtype."""

import ml_dtypes
import numpy as np
import pytest

import oracles
from oracles import Disagreement, InvalidInput, Verdict

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(3)
ROWS = {"z": RNG.standard_normal((3, 4))}
TIES = {"z": np.array([[1.0, 1.0, -2.0], [0.5, 3.0, 3.0]])}
WITH_ZEROS = {"z": np.array([[2.0, 0.0, 3.0, -1.0], [0.0, 0.0, 2.0, 5.0]])}


def in_dtype(primals, dtype):
    return {n: a.astype(dtype) for n, a in primals.items()}


def verdict_of(f, primals, reference=None):
    against = [oracles.torch_autograd(reference)] if reference else []
    return oracles.check(oracles.torch_differentiated(f), primals, against).verdict


class WrongFactor(torch.autograd.Function):
    """A custom Function inside f, whose backward forgets a factor."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z**3

    @staticmethod
    def backward(ctx, delta):
        return delta * ctx.saved_tensors[0] ** 2


class WrongInHalf(torch.autograd.Function):
    """Right in float32 and float64; in bfloat16 a term is left out."""

    @staticmethod
    def forward(ctx, z):
        y = torch.softmax(z, -1)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, delta):
        (y,) = ctx.saved_tensors
        centre = 0 if y.dtype == torch.bfloat16 else (y * delta).sum(-1, keepdim=True)
        return y * (delta - centre)


class AllTies(torch.autograd.Function):
    """A maximum that gives every tied entry the whole cotangent."""

    @staticmethod
    def forward(ctx, z):
        y = z.amax(-1)
        ctx.save_for_backward(z, y)
        return y

    @staticmethod
    def backward(ctx, delta):
        z, y = ctx.saved_tensors
        return delta[..., None] * (z == y[..., None])


class DividingProduct(torch.autograd.Function):
    """A cumulative product whose backward divides by its input: NaN at zeros."""

    @staticmethod
    def forward(ctx, z):
        y = torch.cumprod(z, -1)
        ctx.save_for_backward(z, y)
        return y

    @staticmethod
    def backward(ctx, delta):
        z, y = ctx.saved_tensors
        return (delta * y).flip(-1).cumsum(-1).flip(-1) / z


def one_alone(z, w):
    """A product that is detached where z alone requires grad."""
    return z * w if w.requires_grad else z.detach() * w + 0 * z


def written_in_place(z):
    with torch.no_grad():
        z.mul_(2)
    return z * z


WRONG = {
    "detach": (lambda z: z * z.detach(), ROWS, lambda z: z * z),
    "custom Function": (WrongFactor.apply, ROWS, lambda z: z**3),
    "clone without a graph": (lambda z: z + torch.tensor(z.tolist(), dtype=z.dtype), ROWS, lambda z: 2 * z),
    "where with NaN behind": (
        lambda z: torch.where(z > 0, z.sqrt(), torch.zeros_like(z)), ROWS,
        lambda z: z.clamp(min=0.25).sqrt() * (z > 0) if z.min() > 0.25 else torch.where(z > 0, z, 1.0).sqrt() * (z > 0),
    ),
    "in place": (written_in_place, ROWS, lambda z: 4 * z * z),
    "cumprod at zeros": (DividingProduct.apply, WITH_ZEROS, lambda z: torch.cumprod(z, -1)),
    "a rounding that stops the gradient": (lambda z: z.round() + 0 * z, ROWS, lambda z: z),
    "no_grad in a branch": (
        lambda z: z.sum() + torch.no_grad()(lambda: (z * z).sum())(), ROWS, lambda z: z.sum() + (z * z).sum()
    ),
    "one gradient alone": (one_alone, {"z": ROWS["z"], "w": ROWS["z"] + 1}, lambda z, w: z * w),
}  # fmt: skip


@pytest.mark.parametrize("bug", WRONG)
def test_wrong_derivatives_are_refused(bug):
    f, primals, reference = WRONG[bug]
    with pytest.raises(Disagreement) as refused:
        oracles.check(oracles.torch_differentiated(f), primals, [oracles.torch_autograd(reference)])
    assert refused.value.verdict is Verdict.WRONG


def test_wrong_in_one_dtype_alone():
    def reference(z):
        return torch.softmax(z, -1)

    assert verdict_of(WrongInHalf.apply, in_dtype(ROWS, np.float32), reference) is Verdict.AGREES
    with pytest.raises(Disagreement):
        verdict_of(WrongInHalf.apply, in_dtype(ROWS, ml_dtypes.bfloat16), reference)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, ml_dtypes.bfloat16, np.float16])
def test_ties_of_a_maximum(dtype):
    """bfloat16 has many ties: any weights that sum to one are right, a whole cotangent for each is not."""
    primals = in_dtype(TIES, dtype)
    for f in (lambda z: z.amax(-1), lambda z: z.max(-1)[0]):
        assert verdict_of(f, primals, lambda z: z.amax(-1)) in (Verdict.AGREES, Verdict.KINK)
    with pytest.raises(Disagreement):
        verdict_of(AllTies.apply, primals, lambda z: z.amax(-1))


RIGHT = {
    "tanh": (torch.tanh, ROWS),
    "softmax": (lambda z: torch.softmax(z, -1), ROWS),
    "cumprod at zeros": (lambda z: torch.cumprod(z, -1), WITH_ZEROS),
    "prod at zeros": (lambda z: z.prod(-1), WITH_ZEROS),
    "layer_norm": (lambda z: F.layer_norm(z, (4,)), ROWS),
    "logsumexp": (lambda z: torch.logsumexp(z, -1), ROWS),
    "where": (lambda z: torch.where(z > 0, z * z, z), ROWS),
    "an unused primal": (lambda z, w: z * z + 0 * z, {"z": ROWS["z"], "w": ROWS["z"] + 1}),
    "several outputs": (lambda z: (z.sin(), {"norm": z.norm()}), ROWS),
    "a tree": (lambda params: (params["a"] @ params["b"][0]).tanh(), {"params": {"a": ROWS["z"], "b": [ROWS["z"].T]}}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_derivatives_agree(name):
    f, primals = RIGHT[name]
    assert verdict_of(f, primals) is Verdict.AGREES


@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("name", ["tanh", "softmax", "cumprod at zeros", "layer_norm"])
def test_lower_dtypes_agree_with_float64(name, dtype):
    f, primals = RIGHT[name]
    assert verdict_of(f, in_dtype(primals, dtype), f) is Verdict.AGREES


def test_jax_judges_torch():
    pytest.importorskip("jax")
    from oracles.lazy_modules import jnp

    subject = oracles.torch_differentiated(torch.cumprod, options={"dim": 1})
    assert oracles.check(subject, {"input": WITH_ZEROS["z"]}, [oracles.jax_vjp(lambda input: jnp.cumprod(input, 1))])


def test_a_gradient_that_torch_knows_to_be_zero():
    """torch returns a tensor without memory for it."""
    for dtype in (np.float64, ml_dtypes.bfloat16):
        assert verdict_of(torch.sgn, in_dtype(ROWS, dtype), torch.sgn)


def test_differences_stay_in_the_domain():
    """torch raises RuntimeError outside of it."""
    target = torch.tensor([1.0, 0.0], dtype=torch.float64)
    primals = {"p": np.array([0.5, 0.01])}
    assert verdict_of(lambda p: F.binary_cross_entropy(p, target), primals) is Verdict.AGREES


def test_differences_know_nothing_where_the_value_is_nan():
    """digamma has a pole at −5: its value there is NaN, and no difference across it is a derivative."""
    rule = oracles.finite_difference(oracles.torch_differentiated(torch.digamma))
    _, pullback = rule(z=np.array([-5.0]))
    assert pullback(np.ones(1))["z"].radius[0] == np.inf


def test_no_function():
    with pytest.raises(InvalidInput):
        oracles.torch_differentiated(3)
