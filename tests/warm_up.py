"""Compile what all test processes need, once per machine, before they start.

Each of them would compile the MIDI reader and the LSTM kernel otherwise, ten seconds each.
"""

from __future__ import annotations

import threading

from data_pipeline.fast import rows
from musicvae_jax.models import native


def main() -> None:
    """Compile both at once: the kernel's compiler is a process of its own."""
    kernel = threading.Thread(target=native.load)
    kernel.start()
    rows.warm_up()
    kernel.join()


if __name__ == "__main__":
    main()
