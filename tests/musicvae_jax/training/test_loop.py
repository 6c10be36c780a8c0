"""When the training loop saves."""

from __future__ import annotations

import pathlib

import pytest

from musicvae_jax import data
from musicvae_jax.tasks import get_task
from musicvae_jax.training import loop
from tests.support.listener import Listener
from tests.support.synthetic_store import write_store


@pytest.mark.slow
def test_a_validation_saves_only_when_it_is_the_best_or_a_checkpoint_is_due(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = {"train": 16, "validation": 4, "test": 0}
    store = data.open_store(write_store(tmp_path / "store", "mel_2bar", counts))
    config = get_task("mel_2bar").config.replace(
        encoder_sizes=(4,),
        decoder_sizes=(4,),
        z_size=2,
        batch_size=4,
        dtype="float32",
        train_steps=13,
        log_every=100,
        eval_every=2,
        save_every=10,
    )
    losses = iter([5.0, 6.0, 4.0, 4.0, 4.5, float("nan"), 7.0])
    monkeypatch.setattr(loop.Validation, "__call__", lambda *_: {"loss": next(losses)})
    heard = Listener()
    loop.fit(config, store, str(tmp_path / "run"), heard)
    assert [found["step"] for found in heard.validations] == [2, 4, 6, 8, 10, 12, 13]
    # The best so far at 2 and 6, due at 10, the last step at 13.
    assert heard.saves == [2, 6, 10, 13]
