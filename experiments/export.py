"""Write a trained model in a format that other programs read.

python -m experiments.export --run_dir=runs/mel --format=safetensors --output=mel.safetensors
python -m experiments.export --model=drums_2bar --format=magentajs --page --output=page

docs/interop.md says which program reads which format.
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from experiments.browser_page import add_page
from experiments.cli.run_options import check_model, open_model
from musicvae_jax.config import Config, InputError
from musicvae_jax.interop import jax_export, magentajs, reference, safetensors_file
from musicvae_jax.interop.bundle_writer import write_bundle
from musicvae_jax.interop.new_folder import new_folder
from musicvae_jax.latent import attributes, fitted_prior
from musicvae_jax.models.registry import Params, find_architecture
from musicvae_jax.pretrained import packaged
from musicvae_jax.priors import FittedPrior
from musicvae_jax.storage import checkpoints

# Format to the name of its file or folder below RUN/exports.
FORMATS = {
    "safetensors": "model.safetensors",
    "tensorflow": "tensorflow",
    "magentajs": "magentajs",
    "jax": "jax",
}
_OF_MAGENTA = ("tensorflow", "magentajs")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What to export."""

    run_dir: str | None = option(None, help="Folder of the run.")
    model: str | None = option(None, help="Model of this package, instead of --run_dir.")
    format: str = option(choices=tuple(FORMATS), is_enum=True, help="Format to write.")
    output: str | None = option(
        None,
        help="File or folder to write. Default: RUN/exports/ and a name for the format.",
    )
    checkpoint: str = option("best", help="Checkpoint: best, latest or a saved step.")
    dtype: str = option(
        "float32",
        choices=safetensors_file.DTYPES,
        is_enum=True,
        help="Type of the numbers in a safetensors file.",
    )
    quantize: str = option(
        "none",
        choices=magentajs.QUANTIZATIONS,
        is_enum=True,
        help="How the weights of a magentajs folder are stored; none is float32.",
    )
    page: bool = option(
        False,
        help="Add a page to a magentajs folder that samples, interpolates and plays the model.",
    )

    def __post_init__(self) -> None:
        """Check every field that needs no model.

        Raises:
          InputError: a value is unknown, or an option is of another format.
        """
        cli.check_choices(self)
        if self.format != "magentajs":
            if self.page:
                raise InputError("page: only with --format=magentajs")
            if self.quantize != "none":
                raise InputError("quantize: only with --format=magentajs")
        if self.format != "safetensors" and self.dtype != "float32":
            raise InputError("dtype: only with --format=safetensors")


class Trained(NamedTuple):
    """What every format is written from."""

    config: Config
    params: Params
    step: int
    prior: FittedPrior | None
    attributes: dict[str, np.ndarray]
    run_dir: str | None


def _write_safetensors(trained: Trained, path: pathlib.Path, options: Options) -> None:
    safetensors_file.write(path, *trained[:5], _facts(trained, options), options.dtype)


def _write_tensorflow(trained: Trained, path: pathlib.Path, options: Options) -> None:
    del options
    adam = _read_adam(trained)
    tensors = reference.tensors(trained.params, trained.step, adam)
    with new_folder(path) as partial:
        write_bundle(partial / f"model.ckpt-{trained.step}", tensors)


def _write_magentajs(trained: Trained, path: pathlib.Path, options: Options) -> None:
    magentajs.write(path, trained.config, trained.params, options.quantize)
    if options.page:
        try:
            add_page(path)
        except OSError:
            shutil.rmtree(path)
            raise


def _write_jax(trained: Trained, path: pathlib.Path, options: Options) -> None:
    del options
    jax_export.write(path, trained.config, trained.params)


def _facts(trained: Trained, options: Options) -> dict[str, Any]:
    """Return what is known of how the prior was fitted and the vectors were computed."""
    if trained.run_dir is None:
        return safetensors_file.read(packaged.path_of(str(options.model))).about
    about = {}
    if (record := fitted_prior.load(trained.run_dir)) and trained.prior is not None:
        about["prior"] = record.about
    if trained.attributes:
        about["attributes"] = attributes.load_vectors(trained.run_dir).about
    return about


def _read_adam(trained: Trained) -> reference.Adam | None:
    """Read Adam's state, if the run has it and the reference's optimiser could use it."""
    train = trained.config.train
    if trained.run_dir is None:
        return None
    with checkpoints.Checkpoints(trained.run_dir) as saved:
        optimiser = saved.restore_state(trained.step).get("optimiser") or []
    memory = next((part for part in optimiser if part and "first_moment" in part), None)
    if memory is None:
        return None
    if trained.config.optimiser != "adam":
        warnings.warn(
            f"the optimiser's moments are left out: the run's is {trained.config.optimiser}, the "
            "reference's is Adam",
            stacklevel=2,
        )
        return None
    if (train.adam_b1, train.adam_b2, train.adam_eps) != (0.9, 0.999, 1e-8):
        warnings.warn(
            "Adam's moments are left out: the reference's decays are 0.9 and 0.999 and its epsilon "
            f"is 1e-8, the run's are {train.adam_b1}, {train.adam_b2} and {train.adam_eps}",
            stacklevel=2,
        )
        return None
    return reference.Adam(memory["first_moment"], memory["second_moment"], int(memory["updates"]))


# Format to what writes a model to a path that does not exist yet, in a folder that does.
_WRITERS: dict[str, Callable[[Trained, pathlib.Path, Options], None]] = {
    "safetensors": _write_safetensors,
    "tensorflow": _write_tensorflow,
    "magentajs": _write_magentajs,
    "jax": _write_jax,
}


def export(options: Options) -> pathlib.Path:
    """Write the model and return where.

    Raises:
      InputError: no such model or checkpoint, the format cannot hold this model, or the output
        exists.
    """
    path = _output(options)
    vae = open_model(options, "note starts")
    name = vae.config.model.architecture
    if options.format in _OF_MAGENTA and not find_architecture(name).in_magenta:
        raise InputError(f"format: Magenta has no {name} models; use safetensors or jax")
    trained = Trained(vae.config, vae.params, vae.step, vae.prior, vae.attributes, options.run_dir)
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        _WRITERS[options.format](trained, path, options)
    except (InputError, OSError):
        if is_new:
            path.parent.rmdir()
        raise
    return path


def _output(options: Options) -> pathlib.Path:
    """Return the path to write, which does not exist."""
    if not options.output and check_model(options) == options.model:
        raise InputError("output: needed with --model: the file or folder to write, --output=PATH")
    default = pathlib.Path(str(options.run_dir)) / "exports" / FORMATS[options.format]
    path = pathlib.Path(options.output) if options.output else default
    if path.exists():
        raise InputError(f"output: {path} exists; remove it or name another")
    return path


def main(options: Options) -> None:
    """Export and say where the model is."""
    print(export(options))


if __name__ == "__main__":
    cli.run(main, Options)
