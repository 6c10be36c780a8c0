"""Compare a model's samples and reconstructions with held-out rows.

python -m experiments.analyze --run_dir=runs/mel_2bar --num=1000

Writes analysis.json and analysis.html (one page with all pictures) into the run folder, or below
--output, and prints a summary. Every measure is a distance between distributions, with an
interval, next to the same distance between two halves of the real rows.
"""

from __future__ import annotations

import dataclasses

from data_pipeline import cli
from experiments.analysis import page as analysis_page
from experiments.analysis.inputs import Options, gather, look_at_latents
from experiments.analysis.report import as_json, table
from experiments.cli import compile_cache
from experiments.cli.run_options import choose_prior, open_model, output_folder
from musicvae_jax.analysis import comparison, families, sets, structure
from musicvae_jax.storage import run_folder

# Mean distances within a set, as shares of the events that two rows or bars do not share.
VARIETY = {
    "two rows": structure.mean_row_distance,
    "two bars of a row": structure.mean_bar_distance,
}


def analyze(options: Options) -> str:
    """Analyse a model, write both files, and return the summary.

    Raises:
      InputError: there is no such model, checkpoint or data, or the output cannot be written.
    """
    folder = output_folder(options)
    vae = open_model(options, "note starts")
    options = dataclasses.replace(options, prior=choose_prior(options, vae))
    material = gather(vae, options)
    known = families.know(material.train, vae.task)
    analysis = sets.analyse(material.real, material.others, known, vae.task, options.seed)
    latents = look_at_latents(vae, material, analysis, options.seed)
    rows = {sets.REAL: material.real, **material.others}
    about = {
        "task": vae.task.name,
        "checkpoint": options.model or options.checkpoint,
        "split": options.split,
        "samples": options.num,
        "prior": options.prior,
        "held_out_rows": len(material.real.tokens),
        "train_rows": len(material.train),
        "temperature": options.temperature,
        "seed": options.seed,
        "rows_per_side": analysis.rows_per_side,
        "draws": comparison.DRAWS,
        "variety": {
            label: {name: mean(part.tokens, vae.task) for name, part in rows.items()}
            for label, mean in VARIETY.items()
        },
    }
    summary = table(about, analysis, latents)
    folder.mkdir(parents=True, exist_ok=True)
    page = analysis_page.html(about, material, analysis, latents, summary)
    run_folder.write_text(folder / "analysis.json", as_json(about, analysis, latents))
    run_folder.write_text(folder / "analysis.html", page)
    return f"{summary}\n\n{folder / 'analysis.json'}\n{folder / 'analysis.html'}"


def main(options: Options) -> None:
    """Analyse and print the summary."""
    compile_cache.switch_on()
    print(analyze(options))


if __name__ == "__main__":
    cli.run(main, Options)
