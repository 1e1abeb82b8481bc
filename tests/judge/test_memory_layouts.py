"""Arrays that begin one entry into their memory: how they are made, kept by copies, and passed on to torch."""

import ml_dtypes
import numpy as np
import pytest
import torch

from oracles.backends.arrays import copied, is_shifted, shifted, tensor
from oracles.evaluations import copies_of
from oracles.strategies import laid_out

DTYPES = (np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64, bool)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (0, 3)])
def test_a_shifted_array_stays_shifted_when_it_is_copied(shape, dtype):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    for each in (
        shifted(array),
        copied(shifted(array)),
        copies_of({"z": shifted(array)})["z"],
        laid_out(array, "offset"),
    ):
        assert each.dtype == array.dtype
        assert each.flags.c_contiguous
        assert np.array_equal(each.astype(float), array.astype(float))
        assert is_shifted(each) is bool(array.size)
    assert not is_shifted(array)
    assert not is_shifted(copied(array))
    assert not is_shifted(shifted(np.ones((3, 4)))[:, 1:])  # with gaps, it is laid out as its strides say


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_gets_the_offset_of_a_shifted_array(dtype):
    array = shifted(np.arange(12).reshape(3, 4).astype(dtype))
    result = tensor(array)
    assert result.storage_offset() == 1
    assert result.data_ptr() % 16
    assert result.stride() == (4, 1)
    assert torch.equal(result.double(), torch.from_numpy(array.astype(float)))
    result[0, 0] = 1
    assert array[0, 0] == 1  # the memory is shared


def test_a_slice_of_the_callers_own_is_passed_with_its_offset():
    whole = np.arange(8.0)
    assert tensor(whole[5:]).storage_offset() == 5
    assert tensor(whole[5:]).tolist() == [5.0, 6.0, 7.0]
