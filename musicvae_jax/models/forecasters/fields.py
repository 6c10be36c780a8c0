"""Configuration fields that only some models use, and what is checked of a forecaster."""

from __future__ import annotations

from musicvae_jax.config import Config, InputError

FORECASTER = (
    "conv_filters",
    "conv_width",
    "conv_pool",
    "attention_heads",
    "attention_size",
)
# Of LSTMs, and of decoders that read the tokens before each step.
RECURRENT = (
    "conductor_sizes",
    "sampling_schedule",
    "sampling_rate",
    "input_dropout",
    "lstm_backend",
    "remat",
    "optimiser",
)
STACKED = ("bar_sizes", "threshold")
DENSE = ("dropout", *STACKED)
VAE = (
    *DENSE,
    "z_size",
    "encoder_sizes",
    "conductor_sizes",
    "init",
    "beta",
    "beta_schedule",
    "beta_rate",
    "beta_steps",
    "beta_rise",
    "free_bits",
    "sampling_schedule",
    "sampling_rate",
    "input_dropout",
)


def check(config: Config) -> None:
    """Check that nothing is asked for that only a VAE has.

    Raises:
      InputError: a part of a VAE is frozen, its KL is watched, or its LSTM is to use cuDNN.
    """
    run, name = config.run, config.model.architecture
    watched = {"stop_metric": run.stop_patience > 0 and run.stop_metric}
    is_plateau = config.train.learning_rate_schedule == "plateau"
    watched["plateau_metric"] = is_plateau and config.train.plateau_metric
    for field, metric in watched.items():
        if metric == "kl_bits":
            raise InputError(f"{field}: {name} has no KL; use loss or accuracy")
    if config.train.freeze != "none":
        raise InputError(f"freeze: {name} has no {config.train.freeze}; use none")
    if run.lstm_backend == "cudnn":
        raise InputError(f"lstm_backend: {name} runs without cuDNN; use auto or xla")
