"""What layers of sequences refuse, and in what words."""

import re

import numpy as np
import pytest
from test_manual_recurrent import drawn

import manual_bp as m


def refuses(error, message, call, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)):
        call(*args, **kwargs)


def test_recurrent_layers_refuse():
    refuses(ValueError, "LSTM: n_in: expected a positive integer, got 0", m.LSTM, 0, 1)
    refuses(TypeError, "GRU: n_hidden: expected a positive integer, got 1.5", m.GRU, 1, 1.5)
    refuses(ValueError, "LSTM: n_layers: expected a positive integer, got 0", m.LSTM, 1, 1, 0)
    refuses(TypeError, "LSTM: bidirectional: expected True or False, got 2", m.LSTM, 1, 1, bidirectional=2)
    refuses(ValueError, "expects 3 columns but layer 0", m.Sequential, m.LSTM(2, 3, bidirectional=True), m.Linear(3, 1))
    layer = m.LSTM(2, 3, lengths=True)
    params, (z, h, c), _ = drawn(layer, 4, 5)
    lengths = np.array([5, 0, 1, 2])
    f = layer.forward
    refuses(TypeError, "LSTM.forward: z: expected a tuple (z, h, c, lengths), got a tuple of 3", f, params, (z, h, c))
    refuses(
        ValueError,
        "LSTM.forward: z: expected shape (N, T, 2), got (4, 2, 5)",
        f,
        params,
        (z.swapaxes(1, 2), h, c, lengths),
    )
    refuses(
        ValueError,
        "LSTM.forward: h: expected shape (4, 1, 3), got (1, 4, 3)",
        f,
        params,
        (z, h.swapaxes(0, 1), c, lengths),
    )
    refuses(
        TypeError,
        "LSTM.forward: c: expected dtype float64, that of z",
        f,
        params,
        (z, h, c.astype(np.float32), lengths),
    )
    refuses(
        ValueError,
        "LSTM.forward: lengths: expected 0 … 5, the entry at [1] is 6",
        f,
        params,
        (z, h, c, np.array([1, 6, 1, 1])),
    )
    refuses(ValueError, "LSTM.forward: lengths: expected shape (4,), got (3,)", f, params, (z, h, c, lengths[:3]))
    refuses(
        TypeError, "LSTM.forward: lengths: expected integers, got dtype float64", f, params, (z, h, c, lengths * 1.0)
    )
    refuses(
        ValueError,
        "LSTM.forward: params: '0.b' missing",
        f,
        {n: p for n, p in params.items() if n != "0.b"},
        (z, h, c, lengths),
    )
    refuses(
        ValueError,
        "LSTM.forward: params['0.U']: expected shape (3, 12)",
        f,
        params | {"0.U": params["0.W"]},
        (z, h, c, lengths),
    )
    (y, h, c), cache = f(params, (z, h, c, lengths))
    refuses(TypeError, "LSTM.backward: delta: expected a tuple (y, h, c), got ndarray", layer.backward, cache, y)
    refuses(ValueError, "LSTM.backward: delta of h: expected shape (4, 1, 3)", layer.backward, cache, (y, y, c))
    refuses(ValueError, "LSTM.backward: delta of y: expected shape (4, 5, 3)", layer.backward, cache, (h, h, c))
