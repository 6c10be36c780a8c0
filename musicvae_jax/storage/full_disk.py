"""Detection of full-disk errors, and suppression of what libraries log about them."""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import sys
from collections.abc import Iterator

from musicvae_jax.config import InputError

# Error numbers of a full disk, an exceeded quota and an exceeded file-size limit.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(InputError):
    """There is no space left for a checkpoint; existing checkpoints are kept."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error means a full disk, or an exceeded quota or file-size limit."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    # TensorStore's errors contain the number in their message.
    number = re.search(r"os_error_code='(\d+)'|OS error (\d+)", str(error))
    return number is not None and int(number[1] or number[2]) in _FULL


@contextlib.contextmanager
def unlogged_errors() -> Iterator[None]:
    """Keep libraries from logging errors, which they also raise; of a full disk, one per file.

    After a full disk TensorStore's threads still report their writes to an event loop that the
    first error has closed. What Python prints about that is left out, too, until the process ends.
    """
    before, hook = logging.root.manager.disable, sys.unraisablehook

    def print_others(unraisable: sys.UnraisableHookArgs) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    logging.disable(logging.ERROR)
    sys.unraisablehook = print_others
    is_full = False
    try:
        yield
    except DiskFullError:
        is_full = True
        raise
    finally:
        logging.disable(before)
        if not is_full:
            sys.unraisablehook = hook
