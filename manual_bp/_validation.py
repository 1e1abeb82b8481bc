"""Argument checks: errors name the argument, what is expected and what is given. Right arguments cost one comparison.

`owner` is the layer, loss or optimizer that checks; `method` and `name` say which argument, as in "Linear.forward:
params['W']". Arrays of dtype object pass, so that the same code runs on exact numbers and on enclosures.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import isfinite
from numbers import Integral, Real

import numpy as np
from numpy import ndarray
from numpy.typing import DTypeLike

from .protocol import Array, Arrays, DType, Number, Params

OBJECT = np.dtype(object)
REALS = frozenset(map(np.dtype, (np.float16, np.float32, np.float64, np.longdouble)))
FLOATS = REALS | {OBJECT}
BFLOAT16 = "bfloat16"  # of the package ml_dtypes, which is known by its name and is not imported here
NO_NAMES: frozenset[str] = frozenset()  # the parameter names of a layer without parameters


def is_float(dtype: DType) -> bool:
    """Return whether a dtype is a floating one, bfloat16 included, or of objects."""
    return dtype in FLOATS or (dtype.itemsize == 2 and dtype.name == BFLOAT16)


def require_shape(
    owner: object, method: str, name: str, x: Array, shape: tuple[int, ...], like: Array, of: str
) -> None:
    """Refuse x unless it has this shape and the dtype of the array `like`, whose name is `of`."""
    if (type(x) is ndarray or _is_objects(x)) and x.shape == shape and x.dtype == like.dtype:
        return
    _refuse_non_array(owner, method, name, x)
    if x.dtype != like.dtype:
        raise TypeError(f"{_at(owner, method, name)}: expected dtype {like.dtype}, that of {of}, got {x.dtype}")
    raise ValueError(f"{_at(owner, method, name)}: expected shape {shape}, got {x.shape}")


def require_affine(
    owner: object, method: str, z: Array, columns: int, params: Params, shapes: dict[str, tuple[int, ...]]
) -> None:
    """Refuse z unless a float array (N, columns), and params unless of these shapes and of z's dtype."""
    if not (type(z) is ndarray or _is_objects(z)) or z.ndim != 2 or z.shape[1] != columns or not is_float(z.dtype):
        _refuse_non_float(owner, method, "z", z)
        raise ValueError(f"{_at(owner, method, 'z')}: expected shape (N, {columns}), got {z.shape}")
    require_params(owner, method, params, shapes, z)


def require_params(owner: object, method: str, params: Params, shapes: dict[str, tuple[int, ...]], z: Array) -> None:
    """Refuse params unless of these names, shapes and of z's dtype."""
    if type(params) is not dict or params.keys() != shapes.keys():
        require_names(owner, method, "params", params, shapes.keys())
    dtype = z.dtype
    for name, shape in shapes.items():
        x = params[name]
        if not (type(x) is ndarray and x.shape == shape and x.dtype is dtype):
            require_shape(owner, method, f"params[{name!r}]", x, shape, z, "z")


def require_rows(owner: object, method: str, name: str, x: Array) -> None:
    """Refuse x unless it is a float array of shape (N, n) with n >= 1."""
    if (type(x) is ndarray or _is_objects(x)) and x.ndim == 2 and x.shape[1] and is_float(x.dtype):
        return
    _refuse_non_float(owner, method, name, x)
    raise ValueError(f"{_at(owner, method, name)}: expected shape (N, n) with n >= 1, got {x.shape}")


def require_sequence(owner: object, method: str, name: str, x: Array, columns: int) -> None:
    """Refuse x unless it is a float array of shape (N, T, columns)."""
    if (type(x) is ndarray or _is_objects(x)) and x.ndim == 3 and x.shape[2] == columns and is_float(x.dtype):
        return
    _refuse_non_float(owner, method, name, x)
    raise ValueError(f"{_at(owner, method, name)}: expected shape (N, T, {columns}), got {x.shape}")


def require_extents(owner: object, method: str, name: str, x: Array, shape: tuple[int, ...]) -> None:
    """Refuse x unless each of its extents is that of this shape, or 1."""
    _refuse_non_array(owner, method, name, x)
    if x.ndim != len(shape) or any(extent not in (1, full) for extent, full in zip(x.shape, shape, strict=True)):
        raise ValueError(f"{_at(owner, method, name)}: expected shape {shape}, any extent 1, got {x.shape}")


def require_ranked(owner: object, method: str, name: str, x: Array) -> None:
    """Refuse x unless it is a float array of rank 1 or more."""
    if (type(x) is ndarray or _is_objects(x)) and x.ndim and is_float(x.dtype):
        return
    _refuse_non_float(owner, method, name, x)
    raise ValueError(f"{_at(owner, method, name)}: expected rank 1 or more, got shape ()")


def require_channels(owner: object, method: str, name: str, x: Array, channels: int) -> None:
    """Refuse x unless it is a float array (N, channels, …)."""
    if (type(x) is ndarray or _is_objects(x)) and x.ndim > 1 and x.shape[1] == channels and is_float(x.dtype):
        return
    _refuse_non_float(owner, method, name, x)
    raise ValueError(f"{_at(owner, method, name)}: expected shape (N, {channels}, …), got {x.shape}")


def require_images(owner: object, method: str, name: str, x: Array, channels: int | None = None) -> None:
    """Refuse x unless it is a float array (N, channels, H, W), of any number of channels if that is None."""
    is_image = (type(x) is ndarray or _is_objects(x)) and x.ndim == 4 and is_float(x.dtype)
    if is_image and min(x.shape[1:]) > 0 and channels in (None, x.shape[1]):
        return
    _refuse_non_float(owner, method, name, x)
    expected = f"(N, {channels or 'C'}, H, W), where only N may be 0"
    raise ValueError(f"{_at(owner, method, name)}: expected shape {expected}, got {x.shape}")


def require_trailing(owner: object, method: str, name: str, x: Array, axes: tuple[int, ...]) -> None:
    """Refuse x unless it is a float array (…, *axes) with at least one axis before those."""
    is_floating = (type(x) is ndarray or _is_objects(x)) and is_float(x.dtype)
    if is_floating and x.ndim > len(axes) and x.shape[-len(axes) :] == axes:
        return
    _refuse_non_float(owner, method, name, x)
    expected = ", ".join(map(str, axes))
    raise ValueError(f"{_at(owner, method, name)}: expected shape (N, …, {expected}), got {x.shape}")


def require_parts(owner: object, method: str, name: str, arrays: Arrays, names: tuple[str, ...]) -> tuple[Arrays, ...]:
    """Return the inputs or outputs as a tuple; refuse them unless there are as many as names."""
    parts = arrays if isinstance(arrays, tuple) else (arrays,)
    if len(parts) == len(names):
        return parts
    actual = f"a tuple of {len(parts)}" if isinstance(arrays, tuple) else type(arrays).__name__
    expected = f"a tuple ({', '.join(names)})" if len(names) > 1 else f"one array, {names[0]}"
    raise TypeError(f"{_at(owner, method, name)}: expected {expected}, got {actual}")


def require_axis(owner: object, method: str, name: str, x: Array, axis: int) -> None:
    """Refuse x unless it is a float array that has this axis, with extent 1 or more."""
    if (type(x) is ndarray or _is_objects(x)) and -x.ndim <= axis < x.ndim and x.shape[axis] and is_float(x.dtype):
        return
    _refuse_non_float(owner, method, name, x)
    raise ValueError(f"{_at(owner, method, name)}: expected an axis {axis} of extent 1 or more, got shape {x.shape}")


def require_row_axis(owner: object, method: str, name: str, x: Array, axis: int) -> None:
    """Refuse x unless it is a float array (N, n) with n >= 1, and the axis is that of its columns."""
    require_rows(owner, method, name, x)
    if axis not in (1, -1):
        raise ValueError(f"{_at(owner, method, name)}: expected axis 1 or -1 for the jacobian of rows, got {axis}")


def require_halves(owner: object, method: str, name: str, x: Array) -> None:
    """Refuse x unless it is a float array of rank 1 or more whose last axis has even length."""
    require_axis(owner, method, name, x, -1)
    if x.shape[-1] % 2:
        raise ValueError(f"{_at(owner, method, name)}: expected a last axis of even length, got shape {x.shape}")


def require_names(owner: object, method: str, name: str, params: object, names: Iterable[str]) -> None:
    """Refuse params unless it maps exactly these names; `names` is a set."""
    if type(params) is dict and params.keys() == names:
        return
    if not isinstance(params, Mapping):
        raise TypeError(f"{_at(owner, method, name)}: expected a dict of arrays, got {type(params).__name__}")
    expected = set(names)
    if missing := sorted(expected - params.keys()):
        raise ValueError(f"{_at(owner, method, name)}: expected {sorted(expected)}, got none of {missing}")
    if unknown := sorted(map(repr, params.keys() - expected)):
        raise ValueError(f"{_at(owner, method, name)}: expected {sorted(expected)}, got also {', '.join(unknown)}")


def require_count(owner: object, method: str, name: str, value: Number) -> None:
    """Refuse anything but a positive integer."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{_at(owner, method, name)}: expected a positive integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{_at(owner, method, name)}: expected a positive integer, got {value}")


def require_integer(owner: object, method: str, name: str, value: Number) -> None:
    """Refuse anything but an integer."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Integral):
        raise TypeError(f"{_at(owner, method, name)}: expected an integer, got {value!r}")


def require_nonnegative(owner: object, method: str, name: str, value: Number) -> None:
    """Refuse anything but a finite real number of 0 or more."""
    require_real(owner, method, name, value)
    if value < 0:
        raise ValueError(f"{_at(owner, method, name)}: expected 0 or more, got {value}")


def require_positive(owner: object, method: str, name: str, value: Number) -> None:
    """Refuse anything but a finite real number above 0."""
    require_real(owner, method, name, value)
    if value <= 0:
        raise ValueError(f"{_at(owner, method, name)}: expected a positive number, got {value}")


def require_fraction(owner: object, method: str, name: str, value: Number, *, or_one: bool = False) -> None:
    """Refuse anything but a real number in [0, 1), or in [0, 1]."""
    require_real(owner, method, name, value)
    if not (0 <= value < 1 or (or_one and value == 1)):
        raise ValueError(f"{_at(owner, method, name)}: expected 0 <= {name} {'<=' if or_one else '<'} 1, got {value}")


def require_real(owner: object, method: str, name: str, value: Number) -> None:
    """Refuse anything but a finite real number."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise TypeError(f"{_at(owner, method, name)}: expected a real number, got {value!r}")
    if not isfinite(value):
        raise ValueError(f"{_at(owner, method, name)}: expected a finite number, got {value}")


def require_flag(owner: object, name: str, value: object) -> None:
    """Refuse a field that is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{_at(owner, '', name)}: expected True or False, got {value!r}")


def require_indices(owner: object, method: str, name: str, x: Array, below: int) -> None:
    """Refuse x unless it is an integer array with entries 0 … below − 1, and name the first other one."""
    _refuse_non_array(owner, method, name, x)
    if x.dtype.kind not in "iu":
        raise TypeError(f"{_at(owner, method, name)}: expected integers, got dtype {x.dtype}")
    if x.size and not (x.min() >= 0 and x.max() < below):
        location = tuple(map(int, np.argwhere((x < 0) | (x >= below))[0]))
        where = f" at {list(location)}" if location else ""
        raise ValueError(f"{_at(owner, method, name)}: expected 0 … {below - 1}, got {x[location]}{where}")


def real_dtype(owner: object, dtype: DTypeLike) -> DType:
    """Return the dtype of the parameters that `init` draws: float16, bfloat16, float32, float64, longdouble."""
    result = np.dtype(dtype)
    if result not in REALS and result.name != BFLOAT16:
        raise TypeError(f"{_at(owner, 'init', 'dtype')}: expected a real floating dtype, got {result}")
    return result


def _is_objects(x: object) -> bool:
    """Return whether x is an object array, or of a subclass, which may define ufuncs of its numbers."""
    return isinstance(x, ndarray) and x.dtype == OBJECT


def _at(owner: object, method: str, name: str) -> str:
    """Return the name of an argument: "Linear.forward: z", "Linear: n_in" for a field, "fit: epochs" for a function."""
    names = [] if owner is None else [type(owner).__name__]
    return f"{'.'.join([*names, method] if method else names)}: {name}"


def _refuse_non_array(owner: object, method: str, name: str, x: object) -> None:
    if type(x) is not ndarray and not _is_objects(x):
        raise TypeError(f"{_at(owner, method, name)}: expected a numpy.ndarray, got {type(x).__name__}")


def _refuse_non_float(owner: object, method: str, name: str, x: Array) -> None:
    _refuse_non_array(owner, method, name, x)
    if not is_float(x.dtype):
        raise TypeError(f"{_at(owner, method, name)}: expected a floating dtype in native byte order, got {x.dtype!r}")


def require_divisible(owner: object, groups: int, **channels: int) -> None:
    """Refuse groups that do not divide the number of channels."""
    for name, count in channels.items():
        if count % groups:
            raise ValueError(f"{_at(owner, '', 'groups')}: expected a divisor of {name} = {count}, got {groups}")
