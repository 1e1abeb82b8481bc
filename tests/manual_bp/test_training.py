"""fit and minibatches: reproducible, and every way to stop."""

import numpy as np
import pytest

from manual_bp import SGD, HalfSquaredError, Linear, Sequential, SoftmaxCrossEntropy, Tanh, fit, minibatches

NETWORK = Sequential(Linear(2, 8), Tanh(), Linear(8, 2))


def xor(rows=64):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, 2))
    return x, (x[:, 0] * x[:, 1] > 0).astype(int)


def run(**options):
    x, target = xor()
    params = NETWORK.init(np.random.default_rng(1))
    options = {"epochs": 5, **options}
    return fit(NETWORK, SoftmaxCrossEntropy(), params, x, target, SGD(options.pop("rate", 0.5)), **options)


def test_minibatches_take_every_row_once():
    batches = list(minibatches(10, 4, np.random.default_rng(0)))
    assert [len(b) for b in batches] == [4, 4, 2]
    assert sorted(np.concatenate(batches)) == list(range(10))
    for one, other in zip(batches, minibatches(10, 4, np.random.default_rng(0)), strict=True):
        np.testing.assert_array_equal(one, other)
    assert list(minibatches(0, 4, np.random.default_rng(0))) == []
    with pytest.raises(ValueError, match="batch_size"):
        minibatches(10, 0, np.random.default_rng(0))


def test_loss_falls_and_the_given_params_stay():
    x, target = xor()
    params = NETWORK.init(np.random.default_rng(1))
    before = {name: value.copy() for name, value in params.items()}
    result = fit(NETWORK, SoftmaxCrossEntropy(), params, x, target, SGD(0.5), epochs=200)
    assert (result.stopped, result.epochs, len(result.losses)) == ("finished", 200, 200)
    assert result.losses[-1] < result.losses[0] / 4
    for name in params:
        np.testing.assert_array_equal(params[name], before[name])


def test_minibatches_are_reproducible():
    one, other = (run(batch_size=10, rng=np.random.default_rng(7), epochs=20) for _ in range(2))
    assert one.losses == other.losses
    for name in one.params:
        np.testing.assert_array_equal(one.params[name], other.params[name])
    assert one.losses[-1] < one.losses[0]
    assert run(batch_size=10, rng=np.random.default_rng(8)).losses != one.losses[:5]


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_of_an_epoch_is_that_of_its_rows(reduction):
    """With a rate too small to move a weight, two batches add up to the whole, exactly in integers."""
    layer, x, target = Linear(1, 1), np.arange(8.0)[:, None], np.zeros((8, 1))
    params = {"W": np.ones((1, 1)), "b": np.zeros((1, 1))}
    loss = HalfSquaredError(reduction)
    result = fit(layer, loss, params, x, target, SGD(1e-30), epochs=1, batch_size=4, rng=np.random.default_rng(0))
    assert result.losses == (float(loss.forward(x, target)[0]),)


def test_patience_keeps_the_best_epoch():
    progress = []
    x, target = xor(16)
    result = run(
        epochs=50, rate=30.0, patience=3, validation=(x, target), callback=lambda p: progress.append(p) and None
    )
    best = min(progress, key=lambda p: p.validation_loss)
    assert result.stopped == "patience"
    assert result.epochs == best.epoch + 3 == len(result.validation_losses) == len(progress)
    assert result.params is best.params
    assert run(patience=2, min_improvement=100.0).epochs == 3


def test_callback_stops():
    progress = []
    result = run(callback=lambda p: progress.append((p.epoch, p.epochs, p.validation_loss)) or p.epoch == 2)
    assert (result.stopped, result.epochs) == ("callback", 2)
    assert progress == [(1, 5, None), (2, 5, None)]


def test_divergence_stops_with_finite_params():
    """A quadratic under far too long a step: the loss grows geometrically until it overflows."""
    layer, x = Linear(2, 1), xor()[0]
    params = layer.init(np.random.default_rng(1))
    result = fit(layer, HalfSquaredError(), params, x, x[:, :1].copy(), SGD(1e3), epochs=1000)
    assert result.stopped == "diverged"
    assert 0 < result.epochs == len(result.losses) < 1000
    assert np.isfinite(result.losses).all()
    assert all(np.isfinite(value).all() for value in result.params.values())


def test_interruption_keeps_what_there_is():
    def interrupt(progress):
        if progress.epoch == 3:
            raise KeyboardInterrupt

    result = run(callback=interrupt)
    assert (result.stopped, result.epochs) == ("interrupted", 3)
    np.testing.assert_array_equal(result.params["0.W"], run(epochs=3).params["0.W"])


@pytest.mark.parametrize(
    ("error", "message", "options"),
    [
        (ValueError, "fit: epochs", {"epochs": 0}),
        (TypeError, "fit: rng", {"batch_size": 4}),
        (ValueError, "fit: batch_size", {"batch_size": 0, "rng": np.random.default_rng(0)}),
        (ValueError, "fit: patience", {"patience": 0}),
        (ValueError, "fit: min_improvement", {"min_improvement": -1.0}),
    ],
)
def test_fit_refuses(error, message, options):
    with pytest.raises(error, match=message):
        run(**options)


def test_fit_refuses_rows_that_do_not_match():
    x, target = xor()
    for rows in (0, 3):
        with pytest.raises(ValueError, match=r"expected .* row"):
            fit(NETWORK, SoftmaxCrossEntropy(), {}, x[:rows], target[: rows and 4], SGD(1.0), epochs=1)
