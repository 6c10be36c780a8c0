"""Full disks: recognising the errors, and suppressing what libraries print about them."""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import re
import sys
from collections.abc import Iterator

from musicvae_jax.config import InputError

# What a full disk, a used-up quota and a limit of file sizes answer.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DiskFullError(InputError):
    """There is no space left for a checkpoint; those there were are still there."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error says that a disk is full, or a quota or limit of sizes used up."""
    if isinstance(error, OSError):
        return error.errno in _FULL
    # TensorStore's errors have the number in their text.
    number = re.search(r"os_error_code='(\d+)'|OS error (\d+)", str(error))
    return number is not None and int(number[1] or number[2]) in _FULL


@contextlib.contextmanager
def held_stderr() -> Iterator[None]:
    """Hold back what orbax and TensorStore's threads print, and drop it if the disk was full.

    They print pages, one for each file, of the error that is raised as well.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(_is_no_error)
    held = io.StringIO()
    try:
        with contextlib.redirect_stderr(held):
            yield
    except DiskFullError:
        held = io.StringIO()
        raise
    finally:
        sys.stderr.write(held.getvalue())
        for logger in loggers:
            logger.removeFilter(_is_no_error)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR
