"""Progress on standard error: a bar on a terminal, a line every ten seconds elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import tqdm

# Between two updates, and before the first one.
TERMINAL_SECONDS, LOG_SECONDS = 0.2, 10.0


def progress_bar(iterable: Iterable[Any] | None = None, **settings: Any) -> tqdm.tqdm:
    """Return a tqdm bar that is cleared at its end; in a log file each update is a line.

    Args:
      iterable: what to loop over; None if the caller updates the bar.
      **settings: of tqdm, for example `total` and `desc`.
    """
    if sys.stderr.isatty():
        seconds = TERMINAL_SECONDS
    else:
        seconds = LOG_SECONDS
        settings["file"] = _Lines()
    return tqdm.tqdm(iterable, mininterval=seconds, delay=seconds, leave=False, **settings)


class _Lines:
    """Stream for tqdm that writes lines in place of carriage returns and padding."""

    def write(self, text: str) -> None:
        """Write the text as a line, unless it only clears one."""
        words = text.strip()
        if words:
            print(words, file=sys.stderr, flush=True)

    def flush(self) -> None:
        """Do nothing: each line is flushed."""
