"""Compile functions over arrays to machine code, once per machine.

The compiled form lies beside the source, or in the user's cache folder where that is not
writable, so that worker processes load it in milliseconds. The folder can be named with
the environment variable NUMBA_CACHE_DIR. A cached form is dropped when its own file changes,
not when another does: let a compiled function call only compiled functions of its file, and
take numbers from other files only if they never change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numba
import numpy as np

Int: TypeAlias = "int | np.integer[Any]"  # an int64 of compiled code
Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Compile a function at its first call.

    Overflow and division follow the hardware, as in C; floating-point operations keep
    their order, so that results equal NumPy's bit by bit.
    """
    machine_code: Any
    try:
        machine_code = numba.njit(function, cache=True, error_model="numpy", nogil=True)
    except RuntimeError:  # no writable folder: this process compiles for itself
        machine_code = numba.njit(function, error_model="numpy", nogil=True)
    return machine_code
