"""Fields of a configuration have the type that they declare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from musicvae_jax.config import InputError, config_from_json
from musicvae_jax.tasks import TASKS

CONFIG = TASKS["mel_2bar"].config


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("train_steps", 10.5, "a whole number"),
        ("train_steps", True, "a whole number"),
        ("remat", (0,), "True or False"),
        ("remat", 1, "True or False"),
        ("beta", "0.2", "a number"),
        ("dtype", 32, "text"),
        ("encoder_sizes", 8, "a tuple of whole numbers"),
        ("encoder_sizes", (8.5,), "a tuple of whole numbers"),
    ],
)
def test_a_value_of_another_type_is_refused(name: str, value: Any, right: str) -> None:
    with pytest.raises(InputError, match=f"{name}: .* has the wrong type, it must be {right}"):
        CONFIG.replace(**{name: value})


def test_numbers_of_numpy_and_whole_numbers_for_numbers_pass() -> None:
    changed = CONFIG.replace(train_steps=np.int64(7), beta=1, learning_rate=np.float32(0.5))
    assert (changed.run.train_steps, changed.train.beta) == (7, 1)
    assert config_from_json(changed.to_json()) == changed
