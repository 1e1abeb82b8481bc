"""The vjp rules of autograd.numpy and autograd.scipy."""

import autograd
import autograd.numpy as anp
import autograd.numpy.fft as afft
import autograd.numpy.linalg as alinalg
import autograd.scipy.linalg as ascipy_linalg
import autograd.scipy.signal as asignal
import autograd.scipy.special as aspecial
import autograd.scipy.stats as astats
import jax
import jax.numpy as jnp
import jax.scipy.special as jspecial
import jax.scipy.stats as jstats
import numpy as np
import torch

import oracles

from .rules import ABOVE_ONE, ANY, POSITIVE, SIGNED_UNIT, UNIT, Package


def subject(rule):
    """Return the Rule of a function of autograd, by its public `make_vjp`."""

    def forward(**primals):
        vjp, y = autograd.make_vjp(lambda arrays: rule.function(*arrays))(tuple(primals.values()))
        return y, (vjp, tuple(primals))

    def backward(cache, delta):
        vjp, names = cache
        return {n: np.asarray(g) for n, g in zip(names, vjp(delta), strict=True)}

    made = oracles.manual(forward, backward, name=f"autograd {rule.name}")
    return oracles.declared(made, **rule.declares) if rule.declares else made


SQUARE = ((3, 3),)
PAIR = ((3, 4), (3, 4))


def unary():
    """Return the functions of each entry."""
    domains = {
        ANY: "abs absolute arcsinh arctan cos cosh deg2rad degrees exp exp2 expm1 fabs negative rad2deg radians sin "
        "sinh sinc square tan tanh sign floor ceil rint nan_to_num",
        POSITIVE: "log log10 log1p log2 reciprocal sqrt",
        SIGNED_UNIT: "arccos arcsin arctanh",
        ABOVE_ONE: "arccosh",
    }
    # What torch calls otherwise.
    names = {"fabs": "abs", "degrees": "rad2deg", "radians": "deg2rad", "rint": "round"}
    return [
        Package(name, getattr(anp, name), domains=(domain,), torch=getattr(torch, names.get(name, name)))
        for domain, each in domains.items()
        for name in each.split()
        if hasattr(anp, name)
    ]


def binary():
    """Return the functions of two arrays, entry by entry."""
    names = {
        "add": torch.add, "subtract": torch.subtract, "multiply": torch.multiply, "divide": torch.divide,
        "true_divide": torch.true_divide, "maximum": torch.maximum, "minimum": torch.minimum, "fmax": torch.fmax,
        "fmin": torch.fmin, "logaddexp": torch.logaddexp, "logaddexp2": torch.logaddexp2, "arctan2": torch.arctan2,
        "hypot": torch.hypot,
    }  # fmt: skip
    rules = [Package(n, getattr(anp, n), PAIR, torch=f) for n, f in names.items() if hasattr(anp, n)]
    rules += [
        Package("power", anp.power, PAIR, (POSITIVE, ANY), torch=torch.pow),
        Package("mod", anp.mod, PAIR, (ANY, POSITIVE), torch=torch.remainder),
        Package("remainder", anp.remainder, PAIR, (ANY, POSITIVE), torch=torch.remainder),
        Package("multiply, broadcast", anp.multiply, ((3, 4), (4,)), torch=torch.multiply),
        Package(
            "where", lambda x, y: anp.where(x > y, x * y, y), PAIR, torch=lambda x, y: torch.where(x > y, x * y, y)
        ),
    ]
    return rules


def products():
    """Return products of matrices and vectors."""
    T = torch
    return [
        Package("dot", anp.dot, ((3, 4), (4, 2)), torch=T.matmul),
        Package("dot of vectors", anp.dot, ((4,), (4,)), torch=T.dot),
        Package("dot of 3 and 2 axes", anp.dot, ((2, 3, 4), (4, 2)), torch=T.matmul),
        Package("matmul", anp.matmul, ((2, 3, 4), (4, 2)), torch=T.matmul),
        Package("inner", anp.inner, ((3, 4), (2, 4)), torch=T.inner),
        Package("outer", anp.outer, ((3,), (4,)), torch=T.outer),
        Package("tensordot", lambda x, y: anp.tensordot(x, y, 2), ((2, 3, 4), (3, 4, 2)),
                torch=lambda x, y: T.tensordot(x, y, 2)),
        Package("kron", anp.kron, ((2, 3), (3, 2)), torch=T.kron),
        Package("cross", anp.cross, ((4, 3), (4, 3)), torch=lambda x, y: T.linalg.cross(x, y)),
        Package("einsum", lambda x, y: anp.einsum("ij,jk->ki", x, y), ((3, 4), (4, 2)),
                torch=lambda x, y: T.einsum("ij,jk->ki", x, y)),
        Package("einsum, a trace", lambda x: anp.einsum("ii->", x), SQUARE, jax=lambda x: jnp.einsum("ii->", x)),
        Package("convolve", asignal.convolve, ((6,), (3,)), jax=jnp.convolve),
        Package("convolve, valid", lambda x, y: asignal.convolve(x, y, mode="valid"), ((6,), (3,)),
                jax=lambda x, y: jnp.convolve(x, y, mode="valid")),
    ]  # fmt: skip


def shapes():
    """Return what changes shapes and orders, and sums along an axis."""
    T = torch
    return [
        Package("reshape", lambda x: anp.reshape(x, (2, 6)), torch=lambda x: x.reshape(2, 6)),
        Package("ravel", anp.ravel, torch=T.ravel),
        Package("transpose", lambda x: anp.transpose(x, (2, 0, 1)), ((2, 3, 4),), torch=lambda x: x.permute(2, 0, 1)),
        Package("swapaxes", lambda x: anp.swapaxes(x, 0, 2), ((2, 3, 4),), torch=lambda x: x.swapaxes(0, 2)),
        Package("moveaxis", lambda x: anp.moveaxis(x, 0, 2), ((2, 3, 4),), torch=lambda x: x.moveaxis(0, 2)),
        Package("rollaxis", lambda x: anp.rollaxis(x, 2), ((2, 3, 4),), torch=lambda x: x.permute(2, 0, 1)),
        Package("roll", lambda x: anp.roll(x, 2, 1), torch=lambda x: T.roll(x, 2, 1)),
        Package("repeat", lambda x: anp.repeat(x, 3, 1), torch=lambda x: x.repeat_interleave(3, 1)),
        Package("tile", lambda x: anp.tile(x, (2, 3)), torch=lambda x: x.tile(2, 3)),
        Package("fliplr", anp.fliplr, torch=T.fliplr),
        Package("flipud", anp.flipud, torch=T.flipud),
        Package("rot90", anp.rot90, torch=T.rot90),
        Package("squeeze", anp.squeeze, ((3, 1, 4),), torch=T.squeeze),
        Package("expand_dims", lambda x: anp.expand_dims(x, 1), torch=lambda x: x[:, None]),
        Package("concatenate", lambda x, y: anp.concatenate((x, y), 1), ((3, 4), (3, 2)),
                torch=lambda x, y: T.cat((x, y), 1)),
        Package("vstack", lambda x, y: anp.vstack((x, y)), ((3, 4), (2, 4)), torch=lambda x, y: T.vstack((x, y))),
        Package("hstack", lambda x, y: anp.hstack((x, y)), ((3, 4), (3, 2)), torch=lambda x, y: T.hstack((x, y))),
        Package("stack", lambda x, y: anp.stack((x, y), 1), PAIR, torch=lambda x, y: T.stack((x, y), 1)),
        Package("split", lambda x: anp.split(x, 2, 1)[1], torch=lambda x: x.split(2, 1)[1]),
        Package("array_split", lambda x: anp.array_split(x, 3, 1)[0], torch=lambda x: x.tensor_split(3, 1)[0]),
        Package("index", lambda x: x[anp.array([0, 0, 2]), 1:], torch=lambda x: x[[0, 0, 2], 1:]),
        Package("diag of a vector", anp.diag, ((4,),), torch=T.diag),
        Package("diag of a matrix", lambda x: anp.diag(x, 1), torch=lambda x: T.diag(x, 1)),
        Package("diagonal", lambda x: anp.diagonal(x, 0, -1, -2), torch=lambda x: x.diagonal()),
        Package("tril", anp.tril, torch=T.tril),
        Package("triu", anp.triu, torch=T.triu),
        Package("trace", anp.trace, torch=lambda x: x.diagonal().sum()),
        Package("pad", lambda x: anp.pad(x, ((1, 2), (0, 1)), "constant"),
                torch=lambda x: T.nn.functional.pad(x, (0, 1, 1, 2))),
        Package("broadcast_to", lambda x: anp.broadcast_to(x, (2, 3, 4)), torch=lambda x: x.expand(2, 3, 4)),
        Package("clip", lambda x: anp.clip(x, -0.5, 0.7), torch=lambda x: x.clip(-0.5, 0.7)),
        Package("diff", lambda x: anp.diff(x, axis=1), torch=lambda x: T.diff(x, dim=1)),
        Package("diff of order 2", lambda x: anp.diff(x, 2, 0), torch=lambda x: T.diff(x, n=2, dim=0)),
        Package("gradient", lambda x: anp.gradient(x, axis=1), torch=lambda x: T.gradient(x, dim=1)[0]),
        Package("cumsum", lambda x: anp.cumsum(x, 1), torch=lambda x: x.cumsum(1)),
        Package("sort", anp.sort, ((5,),), torch=lambda x: x.sort().values),
        Package("partition", lambda x: anp.partition(x, 2)[2], ((5,),), torch=lambda x: x.sort().values[2]),
        Package("sum", anp.sum, torch=T.sum),
        Package("sum along an axis", lambda x: anp.sum(x, 1, keepdims=True), torch=lambda x: x.sum(1, keepdim=True)),
        Package("mean", lambda x: anp.mean(x, 0), torch=lambda x: x.mean(0)),
        Package("prod", lambda x: anp.prod(x, 1), torch=lambda x: x.prod(1)),
        Package("var", lambda x: anp.var(x, 1), torch=lambda x: x.var(1, correction=0)),
        Package("std", lambda x: anp.std(x, 1, ddof=1), torch=lambda x: x.std(1)),
        Package("max", lambda x: anp.max(x, 1), torch=lambda x: x.amax(1)),
        Package("min", lambda x: anp.min(x, 0, keepdims=True), torch=lambda x: x.amin(0, keepdim=True)),
        Package("linspace", lambda x, y: anp.linspace(x, y, 5), ((), ()), jax=lambda x, y: jnp.linspace(x, y, 5)),
    ]  # fmt: skip


def linear_algebra():
    """Return functions of matrices."""

    def matrix(rng):
        return {"x": rng.standard_normal((3, 3)) + 3 * np.eye(3)}

    def positive_definite(rng):
        x = rng.standard_normal((3, 3))
        return {"x": x @ x.T + np.eye(3)}

    def system(rng):
        return matrix(rng) | {"y": rng.standard_normal((3, 2))}

    symmetric = {"symmetric": "x"}
    T = torch
    return [
        Package("det", alinalg.det, make=matrix, torch=T.linalg.det),
        Package("slogdet", lambda x: alinalg.slogdet(x)[1], make=matrix, torch=lambda x: T.linalg.slogdet(x)[1]),
        Package("inv", alinalg.inv, make=matrix, torch=T.linalg.inv),
        Package("pinv", alinalg.pinv, ((4, 3),), torch=T.linalg.pinv),
        Package("solve", alinalg.solve, make=system, torch=T.linalg.solve),
        Package("norm", alinalg.norm, torch=lambda x: T.linalg.norm(x)),
        Package("norm of rows", lambda x: alinalg.norm(x, axis=1), torch=lambda x: T.linalg.norm(x, dim=1)),
        Package("norm 3", lambda x: alinalg.norm(x, 3, 1), torch=lambda x: T.linalg.vector_norm(x, 3, 1)),
        Package("nuclear norm", lambda x: alinalg.norm(x, "nuc"), torch=lambda x: T.linalg.matrix_norm(x, "nuc")),
        Package("eigenvalues", lambda x: alinalg.eigh(x)[0], make=positive_definite, declares=symmetric,
                torch=lambda x: T.linalg.eigvalsh(x)),
        Package("cholesky", alinalg.cholesky, make=positive_definite, declares=symmetric, torch=T.linalg.cholesky),
        Package("singular values", lambda x: alinalg.svd(x, full_matrices=False)[1], torch=T.linalg.svdvals),
        Package("sqrtm", ascipy_linalg.sqrtm, make=positive_definite),
        Package("solve_triangular", lambda x, y: ascipy_linalg.solve_triangular(x, y, lower=True), make=system,
                torch=lambda x, y: T.linalg.solve_triangular(x.tril(), y, upper=False)),
    ]  # fmt: skip


def transforms():
    """Return Fourier transforms of real arrays: autograd's convention of complex numbers is JAX's."""
    F = torch.fft
    of_complex = {"conjugate": True, "accuracy": "normwise"}
    return [
        Package("fft", afft.fft, ((3, 6),), torch=F.fft, declares=of_complex),
        Package("ifft", afft.ifft, ((3, 6),), torch=F.ifft, declares=of_complex),
        Package("fft2", afft.fft2, ((3, 6),), torch=F.fft2, declares=of_complex),
        Package("rfft", afft.rfft, ((3, 6),), torch=F.rfft, declares=of_complex),
        Package("rfft2", afft.rfft2, ((4, 6),), torch=F.rfft2, declares=of_complex),
        Package("fftshift", afft.fftshift, ((3, 6),), torch=F.fftshift),
        Package("power spectrum", lambda x: anp.abs(afft.fft(x)) ** 2, ((3, 6),), torch=lambda x: F.fft(x).abs() ** 2,
                declares={"accuracy": "normwise"}),
    ]  # fmt: skip


def special_functions():
    """Return functions of autograd.scipy.special; those of parameters are differentiated by their last argument."""
    S, J = aspecial, jspecial
    two = ((3, 4), (3, 4))

    def of(function, *parameters):
        return lambda x: function(*parameters, x)

    return [
        Package("erf", S.erf, torch=torch.erf),
        Package("erfc", S.erfc, torch=torch.erfc),
        Package("erfinv", S.erfinv, domains=(SIGNED_UNIT,), torch=torch.erfinv),
        Package("erfcinv", S.erfcinv, domains=(UNIT,)),
        Package("logit", S.logit, domains=(UNIT,), torch=torch.logit),
        Package("expit", S.expit, torch=torch.sigmoid),
        Package("logsumexp", lambda x: S.logsumexp(x, axis=1), torch=lambda x: x.logsumexp(1)),
        Package("gamma", S.gamma, domains=(POSITIVE,), jax=lambda x: jnp.exp(J.gammaln(x))),
        Package("gammaln", S.gammaln, domains=(POSITIVE,), torch=torch.lgamma),
        Package("rgamma", S.rgamma, domains=(POSITIVE,), jax=lambda x: jnp.exp(-J.gammaln(x))),
        Package("psi", S.psi, domains=(POSITIVE,), torch=torch.digamma),
        Package("digamma", S.digamma, domains=(POSITIVE,), torch=torch.digamma),
        Package("polygamma", of(S.polygamma, 1), domains=(POSITIVE,), torch=lambda x: torch.polygamma(1, x)),
        Package("multigammaln", lambda x: S.multigammaln(x + 2, 3), ((),), (POSITIVE,),
                torch=lambda x: torch.mvlgamma(x + 2, 3)),
        Package("beta", S.beta, two, (POSITIVE,),
                torch=lambda x, y: (torch.lgamma(x) + torch.lgamma(y) - torch.lgamma(x + y)).exp()),
        Package("betaln", S.betaln, two, (POSITIVE,),
                torch=lambda x, y: torch.lgamma(x) + torch.lgamma(y) - torch.lgamma(x + y)),
        Package("betainc", of(S.betainc, 2.0, 3.0), domains=(UNIT,), jax=of(J.betainc, 2.0, 3.0)),
        Package("gammainc", of(S.gammainc, 2.0), domains=(POSITIVE,), jax=of(J.gammainc, 2.0)),
        Package("gammaincc", of(S.gammaincc, 2.0), domains=(POSITIVE,), jax=of(J.gammaincc, 2.0)),
        Package("j0", S.j0),
        Package("j1", S.j1),
        Package("jn", of(S.jn, 2)),
        Package("y0", S.y0, domains=(POSITIVE,)),
        Package("y1", S.y1, domains=(POSITIVE,)),
        Package("yn", of(S.yn, 2), domains=(POSITIVE,)),
        Package("i0", S.i0, torch=torch.special.i0),
        Package("i1", S.i1, torch=torch.special.i1),
        Package("iv", of(S.iv, 2.0), domains=(POSITIVE,)),
        Package("ive", of(S.ive, 2.0), domains=(POSITIVE,)),
    ]  # fmt: skip


def distributions():
    """Return densities, distribution functions and their logarithms."""
    norm, three = astats.norm, ((3, 4), (3, 4), (3, 4))
    N, J, D = torch.distributions.Normal, jstats, torch.distributions
    loc_scale = (ANY, ANY, POSITIVE)
    ndtr, log_ndtr = torch.special.ndtr, torch.special.log_ndtr

    def at(x, m, s):
        return (x - m) / s

    def alpha(rng):
        x = rng.uniform(0.1, 1, 4)
        return {"x": x / x.sum(), "y": rng.uniform(0.5, 3, 4)}

    def mean_and_covariance(rng):
        a = rng.standard_normal((3, 3))
        return {"x": rng.standard_normal((2, 3)), "y": rng.standard_normal(3), "z": a @ a.T + np.eye(3)}

    def multivariate(x, y, z):
        return D.MultivariateNormal(y, z, validate_args=False).log_prob(x)

    def beta_logpdf(x, a, b):
        return (a - 1) * x.log() + (b - 1) * (-x).log1p() - (a.lgamma() + b.lgamma() - (a + b).lgamma())

    symmetric = {"symmetric": "z"}
    return [
        Package("norm.pdf", norm.pdf, three, loc_scale, torch=lambda x, m, s: N(m, s).log_prob(x).exp()),
        Package("norm.cdf", norm.cdf, three, loc_scale, torch=lambda x, m, s: ndtr(at(x, m, s))),
        Package("norm.sf", norm.sf, three, loc_scale, torch=lambda x, m, s: ndtr(-at(x, m, s))),
        Package("norm.logpdf", norm.logpdf, three, loc_scale, torch=lambda x, m, s: N(m, s).log_prob(x)),
        Package("norm.logcdf", norm.logcdf, three, loc_scale, torch=lambda x, m, s: log_ndtr(at(x, m, s))),
        Package("norm.logsf", norm.logsf, three, loc_scale, torch=lambda x, m, s: log_ndtr(-at(x, m, s))),
        Package("t.pdf", lambda x: astats.t.pdf(x, 3.0), jax=lambda x: J.t.pdf(x, 3.0)),
        Package("t.cdf", lambda x: astats.t.cdf(x, 3.0)),
        Package("t.logpdf", lambda x, m, s: astats.t.logpdf(x, 3.0, m, s), three, loc_scale,
                jax=lambda x, m, s: J.t.logpdf(x, 3.0, m, s)),
        Package("t.logcdf", lambda x: astats.t.logcdf(x, 3.0)),
        Package("beta.pdf", lambda x: astats.beta.pdf(x, 2.0, 3.0), domains=(UNIT,),
                jax=lambda x: J.beta.pdf(x, 2.0, 3.0)),
        Package("beta.cdf", lambda x: astats.beta.cdf(x, 2.0, 3.0), domains=(UNIT,),
                jax=lambda x: J.beta.cdf(x, 2.0, 3.0)),
        # JAX's own beta.logpdf is off by 2e-8 for parameters of 8 and more: of B(9.9, 6.9) mpmath says what SciPy does.
        Package("beta.logpdf", astats.beta.logpdf, three, (UNIT, POSITIVE, POSITIVE), torch=beta_logpdf),
        Package("gamma.pdf", lambda x: astats.gamma.pdf(x, 2.5), domains=(POSITIVE,),
                jax=lambda x: J.gamma.pdf(x, 2.5)),
        Package("gamma.cdf", lambda x: astats.gamma.cdf(x, 2.5), domains=(POSITIVE,),
                jax=lambda x: J.gamma.cdf(x, 2.5)),
        Package("gamma.logpdf", astats.gamma.logpdf, ((3, 4), (3, 4)), (POSITIVE,), jax=J.gamma.logpdf),
        Package("chi2.pdf", lambda x: astats.chi2.pdf(x, 5.0), domains=(POSITIVE,), jax=lambda x: J.chi2.pdf(x, 5.0)),
        Package("chi2.cdf", lambda x: astats.chi2.cdf(x, 5.0), domains=(POSITIVE,), jax=lambda x: J.chi2.cdf(x, 5.0)),
        Package("chi2.logpdf", lambda x: astats.chi2.logpdf(x, 5.0), domains=(POSITIVE,),
                jax=lambda x: J.chi2.logpdf(x, 5.0)),
        Package("poisson.logpmf", lambda m: astats.poisson.logpmf(np.arange(4), m), domains=(POSITIVE,),
                jax=lambda x: J.poisson.logpmf(np.arange(4), x)),
        Package("poisson.pmf", lambda m: astats.poisson.pmf(np.arange(4), m), domains=(POSITIVE,),
                jax=lambda x: J.poisson.pmf(np.arange(4), x)),
        Package("poisson.cdf", lambda m: astats.poisson.cdf(np.arange(4), m), domains=(POSITIVE,),
                jax=lambda x: jax.scipy.special.gammaincc(np.arange(4) + 1.0, x)),
        Package("dirichlet.logpdf", astats.dirichlet.logpdf, make=alpha, jax=J.dirichlet.logpdf),
        Package("dirichlet.pdf", astats.dirichlet.pdf, make=alpha, jax=J.dirichlet.pdf),
        Package("multivariate_normal.logpdf", astats.multivariate_normal.logpdf, make=mean_and_covariance,
                declares=symmetric, torch=multivariate),
        Package("multivariate_normal.pdf", astats.multivariate_normal.pdf, make=mean_and_covariance,
                declares=symmetric, torch=lambda x, y, z: multivariate(x, y, z).exp()),
    ]  # fmt: skip


RULES = [
    *unary(),
    *binary(),
    *products(),
    *shapes(),
    *linear_algebra(),
    *transforms(),
    *special_functions(),
    *distributions(),
]
