"""The LSTM recurrence by a kernel for CPUs, compiled on first use where a C++ compiler is found.

    lstm_kernel.cc   all steps of a layer in one call, forward and backward (XLA's typed FFI)
    load             compiles it into the user's cache folder, once per processor model and version
    forward,         what `lstm.py` calls in place of its loops
    backward

XLA runs a step as several small kernels and joins its threads after each. Here a thread runs all
steps of its rows, and gates and cell state are computed while the product is in registers:
docs/speed.md has the times. Without a compiler, or where the kernel does not apply, the loops of
`lstm.py` run; results differ by rounding. It applies on x86-64 with AVX2 or AVX-512, one device,
and units that are a multiple of the vector length (16 with AVX-512, otherwise 8). Its arrays are
float32; for bfloat16 it rounds what it multiplies.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import shutil
import subprocess
import tempfile

import jax
import jax.numpy as jnp

from musicvae_jax.config import Config, InputError
from musicvae_jax.models.products import multiplies_bfloat16_fast, rounded

SOURCE = pathlib.Path(__file__).with_name("lstm_kernel.cc")
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-w")
FORWARD, BACKWARD = "musicvae_lstm_forward", "musicvae_lstm_backward"
# The compiler takes some seconds; longer than this, something is wrong with it.
LONGEST_SECONDS = 300


@functools.cache
def load() -> int:
    """Load the kernel, compile it before if necessary; return its vector length, 0 without one."""
    path = _compiled() if lanes() else None
    if path is None:
        return 0
    try:
        library = ctypes.CDLL(str(path))
    except OSError:
        return 0
    for name in (FORWARD, BACKWARD):
        capsule = jax.ffi.pycapsule(getattr(library, name))
        jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    return int(library.musicvae_lstm_lanes())


def lanes() -> int:
    """Return the vector length that the kernel has on this machine, 0 if it cannot be had.

    It does not compile the kernel, so a compiler that fails is not noticed.
    """
    instructions = set(_processor().split())
    if not {"avx2", "fma"} <= instructions or not (_path().is_file() or _compiler()):
        return 0
    return 16 if "avx512f" in instructions else 8


def fits(units: int) -> bool:
    """Tell whether the kernel, which must be loaded, runs layers of this size."""
    return units % load() == 0


def uses_native(config: Config) -> bool:
    """Tell whether this process runs the LSTMs of a model by the kernel.

    "auto" takes it on a CPU that is one device: XLA cannot divide a call of it. In bfloat16, "auto"
    leaves processors that multiply bfloat16 fast to XLA's loop.

    Raises:
      InputError: it is asked for and cannot run here.
    """
    backend = config.run.lstm_backend
    if backend not in ("auto", "native"):
        return False
    if backend == "auto":
        on_one_cpu = jax.default_backend() == "cpu" and jax.device_count() == 1
        return on_one_cpu and suits(config.train.dtype) and load() > 0
    instead = "lstm_backend=xla runs everywhere"
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        raise InputError(
            f"lstm_backend: native runs on one CPU device (--cpu_devices=1), JAX has "
            f"{jax.device_count()} of kind {jax.devices()[0].device_kind}; {instead}"
        )
    if not load():
        raise InputError(
            "lstm_backend: native needs a C++ compiler (g++ or clang++) and an x86-64 processor "
            f"with AVX2; {instead}"
        )
    return True


def suits(dtype: str) -> bool:
    """Tell whether "auto" takes the kernel for products of this type ("auto", "bfloat16", ...)."""
    return dtype != "bfloat16" or not multiplies_bfloat16_fast()


def _compiled() -> pathlib.Path | None:
    """Return the compiled kernel, or None if it cannot be compiled."""
    path, compiler = _path(), _compiler()
    if path.is_file():
        return path
    if compiler is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = pathlib.Path(folder) / path.name
            include = f"-I{jax.ffi.include_dir()}"
            command = [compiler, *FLAGS, "-shared", "-fPIC", include, str(SOURCE), "-o", str(built)]
            subprocess.run(command, check=True, capture_output=True, timeout=LONGEST_SECONDS)
            os.replace(built, path)  # at once: several processes may compile it
    except (OSError, subprocess.SubprocessError):
        return None
    return path


def _path() -> pathlib.Path:
    """Return where the kernel of this version and processor is, once compiled."""
    what = (
        "\0".join([*FLAGS, importlib.metadata.version("jaxlib"), _processor()]).encode()
        + SOURCE.read_bytes()
    )
    return _folder() / f"lstm-{hashlib.sha256(what).hexdigest()[:16]}.so"


def _compiler() -> str | None:
    """Return the first C++ compiler found."""
    return next(filter(None, map(shutil.which, ("g++", "clang++"))), None)


def _folder() -> pathlib.Path:
    """Return the folder of JAX's compiled programs if one is set, or the user's cache."""
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(root) / "musicvae_jax"


def _processor() -> str:
    """Return the processor's instruction sets, which `-march=native` depends on."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in lines if line.startswith("flags")), "")


def forward(
    gate_inputs: jax.Array | None,
    constant: jax.Array,
    kernel: jax.Array,
    c0: jax.Array,
    h0: jax.Array,
    *,
    num_steps: int,
    keep_active: bool,
    keep_sequence: bool,
    bfloat16: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Run N recurrences over T steps; all arrays are float32.

    Args:
      gate_inputs: [N, T, B, 4H] or None.
      constant: [N, B, 4H] or [N, 1, 4H], added at every step.
      kernel: [N, H, 4H], the recurrent rows.
      c0: [N, B, H], cell state before the first step.
      h0: [N, B, H], output before the first step.
      num_steps: T.
      keep_active: whether activations and c of every step are kept, for the gradient.
      keep_sequence: whether h of every step is kept.
      bfloat16: whether the operands of the products, kernel and h, are rounded to bfloat16.

    Returns:
      Gates after their nonlinearities [N, T, B, 4H] (of no use without `keep_active`), c and h
      [N, T, B, H]. Steps that are not kept: only step t % 2 of the last two.
    """
    N, B, H = h0.shape
    steps_c = num_steps if keep_active else min(num_steps, 2)
    steps_h = num_steps if keep_sequence or keep_active else min(num_steps, 2)
    has_inputs = gate_inputs is not None
    active = (N, num_steps, B, 4 * H) if has_inputs or keep_active else (N, 1)
    shapes = (active, (N, steps_c, B, H), (N, steps_h, B, H))
    call = jax.ffi.ffi_call(
        FORWARD,
        [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
        vmap_method="broadcast_all",
        input_output_aliases={0: 0} if has_inputs else None,
    )
    x = gate_inputs if has_inputs else jnp.zeros((N, 1), jnp.float32)
    if bfloat16:
        kernel, h0 = rounded(kernel), rounded(h0)
    about = {"steps": num_steps, "has_inputs": has_inputs, "keep_active": keep_active}
    gates, c, h = call(x, constant, kernel, c0, h0, **about, bfloat16=bfloat16)
    return gates, c, h


def backward(
    active: jax.Array,
    c: jax.Array,
    c0: jax.Array,
    kernel: jax.Array,
    grad: jax.Array,
    *,
    each_step: bool,
    bfloat16: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Return the gradients of gate inputs, their sum over the steps, c0 and h0.

    Args:
      active: [N, T, B, 4H] of `forward`.
      c: [N, T, B, H] of `forward`.
      c0: [N, B, H].
      kernel: [N, H, 4H].
      grad: of h of every step, [N, T, B, H], or of the last h, [N, B, H].
      each_step: which of the two.
      bfloat16: whether the operands of the products, kernel and gradients of the gates, are rounded
        to bfloat16.
    """
    N, B, H = c0.shape
    shapes = (active.shape, (N, B, 4 * H), c0.shape, c0.shape)
    call = jax.ffi.ffi_call(
        BACKWARD,
        [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
        vmap_method="broadcast_all",
        input_output_aliases={0: 0},
    )
    kernel = rounded(kernel) if bfloat16 else kernel
    about = {"each_step": each_step, "bfloat16": bfloat16}
    gates, constant, dc, dh = call(active, c, c0, kernel, grad, **about)
    return gates, constant, dc, dh
