"""Detection of full-disk errors, and suppression of what libraries print about them."""

from __future__ import annotations

import contextlib
import errno
import io
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
def buffered_stderr() -> Iterator[None]:
    """Buffer what orbax and TensorStore's threads print; discard it if the disk is full.

    They print long messages, one per file, about the error that is also raised.
    """
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    for logger in loggers:
        logger.addFilter(_is_no_error)
    buffer = io.StringIO()
    try:
        with contextlib.redirect_stderr(buffer):
            yield
    except DiskFullError:
        buffer = io.StringIO()
        raise
    finally:
        sys.stderr.write(buffer.getvalue())
        for logger in loggers:
            logger.removeFilter(_is_no_error)


def _is_no_error(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR
