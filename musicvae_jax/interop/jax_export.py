"""Compiled functions of a model that run with JAX alone, on a CPU, a GPU or a TPU.

encode.jax  tokens [B, T] or [B, T, K] int32 -> mu, sigma [B, Z] float32
decode.jax  z [B, Z] float32, seed uint32, temperature float32 -> tokens int32
model.json  the configuration and these signatures

The parameters are inside, and B is free:

    from jax import export
    encode = export.deserialize(bytearray(open("encode.jax", "rb").read())).call
    mu, sigma = encode(tokens)
"""

from __future__ import annotations

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
from jax import export

from musicvae_jax.config import Config, InputError
from musicvae_jax.interop.new_folder import new_folder
from musicvae_jax.models.registry import Params, build_vae
from musicvae_jax.tasks import get_task

PLATFORMS = ("cpu", "cuda", "tpu")


def write(folder: pathlib.Path, config: Config, params: Params) -> None:
    """Write encode and decode of a model, completely or not at all.

    Args:
      folder: a path that does not exist yet, in a folder that does.
      config: the model's configuration; products are float32 in any case.
      params: parameters, float32.

    Raises:
      InputError: flatbuffers, which JAX needs to write such files, is not installed.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        raise InputError("format: jax needs flatbuffers: pip install 'musicvae-jax[jax_export]'")
    config = config.replace(dtype="float32", lstm_backend="xla")
    functions = exported(config, params)
    with new_folder(folder) as partial:
        for name, function in functions.items():
            (partial / f"{name}.jax").write_bytes(function.serialize())
        signatures = {
            name: {"inputs": list(map(str, f.in_avals)), "outputs": list(map(str, f.out_avals))}
            for name, f in functions.items()
        }
        about = {"platforms": PLATFORMS, "functions": signatures, "config": config.flat()}
        text = json.dumps(about, indent=1) + "\n"
        (partial / "model.json").write_text(text, encoding="utf-8")


def exported(config: Config, params: Params) -> dict[str, export.Exported]:
    """Lower encode and decode for every platform, with a symbolic batch size."""
    model, task = build_vae(config), get_task(config.task)
    (B,) = export.symbolic_shape("B")

    def encode(tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        posterior = model.encode(params, tokens)
        return posterior.mu, posterior.sigma

    def decode(z: jax.Array, seed: jax.Array, temperature: jax.Array) -> jax.Array:
        return model.generate(params, z, jax.random.key(seed), temperature)

    tokens = jax.ShapeDtypeStruct((B, *task.row_shape), jnp.int32)
    z = jax.ShapeDtypeStruct((B, config.model.z_size), jnp.float32)
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    temperature = jax.ShapeDtypeStruct((), jnp.float32)
    return {
        "encode": export.export(jax.jit(encode), platforms=PLATFORMS)(tokens),
        "decode": export.export(jax.jit(decode), platforms=PLATFORMS)(z, seed, temperature),
    }
