"""Find directions in z that change attributes of the music; measure side effects.

Example:
  python -m experiments.attributes --run_dir=runs/mel_2bar

The vector of an attribute (note density, syncopation, ...) is the mean z of the training rows in
the top quartile of the attribute minus that of the rows in the bottom quartile. The vectors are
stored in the run folder for `experiments.generate --mode=attribute`. Then each is added to and
subtracted from --num samples from the prior (the fitted one, where the model has it), and the table
shows by what percentage each attribute of the decoded rows changes, with standard errors:
attribute_matrix.json and .png. All rows are decoded with the same random numbers. Tokens are
sampled (--temperature=1), because greedy decoding with a small model gives too few notes for
percentages to mean much.

Attributes are correlated in music, and so are their vectors: syncopated rows have fewer notes.
With --match=note_density the quartiles of the other attributes are computed within strata of
equal density, so that their vectors change it little; rows for which that attribute is undefined
are left out and counted.

Reference: Roberts et al. 2018, section "Attribute Vector Arithmetic"; its table has 256 samples.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from data_pipeline import cli
from data_pipeline.cli import option
from data_pipeline.progress_bar import progress_bar
from data_pipeline.reporting.charts import percent_heatmaps_png
from experiments.cli import compile_cache
from experiments.cli.json_files import write_json
from experiments.cli.run_data import open_run_data
from experiments.cli.run_options import (
    LARGEST_SEED,
    DataOptions,
    PriorOptions,
    check_ranges,
    choose_prior,
    name_prior,
    open_model,
    output_folder,
)
from musicvae_jax import data
from musicvae_jax.config import InputError
from musicvae_jax.latent import attributes
from musicvae_jax.latent.attributes import Vectors
from musicvae_jax.latent.batches import MAX_BATCH
from musicvae_jax.latent.musicvae import MusicVAE

MATRIX = "attribute_matrix"
SIGNS = {"subtracted": -1.0, "added": 1.0}
# The table fits this many columns; a change takes at least `_CELL` of them.
_COLUMNS, _CELL = 100, 16


@dataclasses.dataclass(frozen=True)
class Options(PriorOptions, DataOptions):
    """What to measure."""

    rows: int = option(50_000, help="Number of training rows, evenly spaced; 0: all.")
    num: int = option(256, help="Samples from the prior for the table.")
    temperature: float = option(1.0, help="Sampling temperature; 0 takes the best token.")
    seed: int = option(0, help="Random seed for sampling.")
    match: str | None = option(
        None, help="Attribute that the vectors of the others should leave unchanged."
    )
    output: str | None = option(None, help="Folder to write into. Default: the run folder.")

    def __post_init__(self) -> None:
        """Check every field that needs neither model nor data."""
        check_ranges(
            self,
            rows=(0, math.inf),
            num=(2, math.inf),
            temperature=(0, math.inf),
            seed=(0, LARGEST_SEED),
        )


class Matrix(NamedTuple):
    """Change of attributes when vectors are subtracted or added.

    Attributes:
      names: the A attributes.
      before: attribute to its mean over the unchanged samples.
      percent: by sign, [A, A]; row: the vector applied, column: the attribute measured.
      error: likewise, standard errors of `percent`.
    """

    names: list[str]
    before: dict[str, float]
    percent: dict[str, np.ndarray]
    error: dict[str, np.ndarray]


def encode_rows(vae: MusicVAE, rows: np.ndarray) -> np.ndarray:
    """Encode rows and show progress; mu [N, Z] float32."""
    parts = []
    with progress_bar(total=len(rows), desc="encoding", unit=" rows") as bar:
        for start in range(0, len(rows), MAX_BATCH):
            parts.append(np.asarray(vae.encode(np.asarray(rows[start : start + MAX_BATCH])).mu))
            bar.update(len(parts[-1]))
    return np.concatenate(parts)


def find_vectors(vae: MusicVAE, step: int, rows: np.ndarray, match: str | None = None) -> Vectors:
    """Compute the vector of each attribute that differs among the rows.

    Args:
      vae: the model.
      step: step of its checkpoint.
      rows: training rows [N, *task.row_shape].
      match: attribute to keep equal between the quartiles of the others, or None.

    Raises:
      InputError: no attribute differs.
    """
    values = attributes.measure(rows, vae.task)
    mu = encode_rows(vae, rows)
    found: dict[str, np.ndarray] = {}
    missing, cuts = {}, {}
    for name, value in values.items():
        matched = None if match is None or name == match else values[match]
        try:
            found |= attributes.vectors(mu, {name: value}, matched)
            cuts[name] = np.nanquantile(value, [0.25, 0.75]).tolist()
        except InputError as error:
            missing[name] = str(error).removeprefix(f"attribute: {name}: ")
    if not found:
        raise InputError(f"data_dir: no attribute differs among {len(rows)} training rows")
    about = {"rows": len(rows), "match": match, "quarters": cuts, "missing": missing}
    if match is not None:
        about["rows_without_match"] = int(np.isnan(values[match]).sum())
    return Vectors(vae.task.name, step, found, about)


def change_matrix(vae: MusicVAE, vectors: Vectors, options: Options) -> Matrix:
    """Decode samples from the prior with each vector added and subtracted, and compare.

    All are decoded with the same random numbers, so that differences are due to the vector.
    """
    z_key, token_key = jax.random.split(jax.random.key(options.seed))
    z = vae.draw(options.num, z_key, options.prior)
    names = list(vectors.vectors)

    def measured(points: np.ndarray) -> dict[str, np.ndarray]:
        tokens = vae.decode(points, token_key, options.temperature)
        return attributes.measure(tokens, vae.task)

    before = measured(z)
    percent = {sign: np.full((len(names), len(names)), np.nan) for sign in SIGNS}
    error = {sign: np.full((len(names), len(names)), np.nan) for sign in SIGNS}
    pairs = [(sign, row) for sign in SIGNS for row in range(len(names))]
    for sign, row in progress_bar(pairs, desc="decoding", unit="vector"):
        after = measured(z + SIGNS[sign] * vectors.vectors[names[row]])
        for column, name in enumerate(names):
            change = attributes.percent_change(before[name], after[name], options.num // 10)
            percent[sign][row, column], error[sign][row, column] = change
    means = {name: float(np.nanmean(before[name])) for name in names}
    return Matrix(names, means, percent, error)


def largest_on_diagonal(percent: np.ndarray) -> list[bool]:
    """Return for each row whether its diagonal element has the largest absolute value."""
    sizes = np.nan_to_num(np.abs(percent), nan=-1.0)
    return [bool(row[n] >= 0 and row[n] == row.max()) for n, row in enumerate(sizes)]


def table(matrix: Matrix, options: Options) -> str:
    """Format both matrices; a star marks the largest change of each row."""
    source = name_prior(str(options.prior))
    lines = [f"{options.num} samples from {source}, temperature {options.temperature:g}"]
    for sign in SIGNS:
        rows = {}
        for row, name in enumerate(matrix.names):
            sizes = np.abs(matrix.percent[sign][row])
            best = int(np.nanargmax(sizes)) if np.isfinite(sizes).any() else -1
            rows[name] = [
                f"{_cell(matrix.percent[sign][row, c], matrix.error[sign][row, c])}"
                f"{'*' if c == best else ' '}"
                for c in range(len(matrix.names))
            ]
        lines += _blocks(f"vector {sign}", matrix.names, rows)
        hits = largest_on_diagonal(matrix.percent[sign])
        lines.append(f"largest change on the diagonal in {sum(hits)} of {len(hits)} rows")
    means = [f"{matrix.before[name]:.3f} " for name in matrix.names]
    lines += _blocks("", matrix.names, {"mean before": means})
    lines.append("per cent of the mean before, ± standard error; * largest change of its row;")
    lines.append('"-": the mean before is 0, or fewer than a tenth of the rows have such notes')
    return "\n".join(lines)


def _blocks(title: str, names: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
    """Format rows of a cell per name; what is too wide for a terminal continues below."""
    first = max(len("vector subtracted"), *map(len, (title, *rows, *names))) + 1
    # A name takes two lines: its last word below the others.
    heads = [name.rpartition("_")[::2] for name in names]
    width = max(_CELL, *(len(line) + 2 for lines in heads for line in lines))
    at_once = max(1, (_COLUMNS - first) // width)
    found = []
    for start in range(0, len(names), at_once):
        part = slice(start, start + at_once)
        above, below = (
            "".join(f"{line:>{width - 1}} " for line in lines)
            for lines in zip(*heads[part], strict=True)
        )
        found += ["", *([" " * first + above] if above.strip() else []), f"{title:{first}}{below}"]
        for label, cells in rows.items():
            shown = "".join(f"{cell:>{width}}" for cell in cells[part])
            found.append(f"{label:{first}}{shown}")
    return [line.rstrip() for line in found]


def _cell(percent: float, error: float) -> str:
    """Format one change; "-" if it is undefined."""
    return f"{percent:+.1f} ± {error:.1f}" if np.isfinite(percent) else "-"


def write(folder: pathlib.Path, matrix: Matrix, vectors: Vectors, options: Options) -> None:
    """Write the matrix into the run folder, as JSON and as a picture."""
    record: dict[str, Any] = {
        "task": vectors.task,
        "step": vectors.step,
        "training_rows": vectors.about["rows"],
        "match": vectors.about["match"],
        "num": options.num,
        "temperature": options.temperature,
        "seed": options.seed,
        "prior": options.prior,
        "attributes": matrix.names,
        "before": matrix.before,
    }
    for sign in SIGNS:
        record[sign] = {
            "percent": matrix.percent[sign].tolist(),
            "standard_error": matrix.error[sign].tolist(),
        }
    write_json(folder / f"{MATRIX}.json", record)
    percent_heatmaps_png(
        folder / f"{MATRIX}.png",
        {f"vector {sign}": matrix.percent[sign] for sign in SIGNS},
        matrix.names,
        matrix.names,
        row_label="vector applied",
        column_label="attribute measured",
    )


def run(options: Options) -> str:
    """Compute vectors and table, store both in the run folder, and return the table.

    Raises:
      InputError: there is no such model or checkpoint, the store is of another task or has no
        training rows, or the output cannot be written.
    """
    folder = output_folder(options)
    vae = open_model(options)
    options = dataclasses.replace(options, prior=choose_prior(options, vae))
    store = open_run_data(options.run_dir, options.data_dir, vae.task, options.allow_changed_data)
    rows = store.splits["train"]
    if not len(rows):
        raise InputError(f"data_dir: {store.path} has no training rows")
    if options.match is not None:
        attributes.check_name(options.match, vae.task, "match")
    chosen = np.asarray(rows[data.spread_rows(len(rows), options.rows)])
    found = f"{len(chosen):,} of {len(rows):,} training rows"
    print(f"{vae.task.name}, step {vae.step:,}: {found}", flush=True)
    vectors = find_vectors(vae, vae.step, chosen, options.match)
    for name, reason in vectors.about["missing"].items():
        print(f"no vector of {name}: {reason}")
    if vectors.about.get("rows_without_match"):
        left_out = vectors.about["rows_without_match"]
        print(f"match: {left_out:,} rows for which {options.match} is undefined are left out")
    folder.mkdir(parents=True, exist_ok=True)
    path = attributes.save_vectors(folder, vectors)
    matrix = change_matrix(vae, vectors, options)
    write(folder, matrix, vectors, options)
    return f"{table(matrix, options)}\n\nvectors: {path}, table: {folder / MATRIX}.json and .png"


def main(options: Options) -> None:
    """Measure and print the table."""
    compile_cache.switch_on()
    print(run(options))


if __name__ == "__main__":
    cli.run(main, Options)
