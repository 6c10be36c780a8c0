"""Where the training data of the published models comes from, and its licences."""

from __future__ import annotations

from typing import Any, NamedTuple

from musicvae_jax.config import InputError


class Source(NamedTuple):
    """One source of music.

    Attributes:
      licence: as its maintainers state it.
      place: repository, and the commit that was read.
      credit: whom to name.
    """

    licence: str
    place: str
    credit: str


SOURCES = {
    "blasphemer": Source(
        "BSD-3-Clause",
        "https://github.com/Catoptromancy/blasphemer, commit 6d93526dc315",
        "the Blasphemer project",
    ),
    "easyrpg_rtp": Source(
        "CC BY 4.0",
        "https://github.com/EasyRPG/RTP, commit 993d88cbc78c",
        "the EasyRPG project",
    ),
    "freedoom": Source(
        "BSD-3-Clause",
        "https://github.com/freedoom/freedoom, commit d14dbbee3b6f",
        "the Freedoom project",
    ),
    "freedoom_history": Source(
        "BSD-3-Clause",
        "earlier songs in the history of https://github.com/freedoom/freedoom, commit d14dbbee3b6f",
        "the Freedoom project",
    ),
    "groove": Source(
        "CC BY 4.0",
        "Groove MIDI Dataset 1.0.0, https://magenta.tensorflow.org/datasets/groove",
        "J. Gillick, A. Roberts, J. Engel, D. Eck and D. Bamman, Learning to Groove with Inverse "
        "Sequence Transformations, ICML 2019",
    ),
    "pop909": Source(
        "MIT",
        "https://github.com/music-x-lab/POP909-Dataset, commit d83e6edba687",
        "Z. Wang et al., POP909: A Pop-song Dataset for Music Arrangement Generation, ISMIR 2020",
    ),
    "tannerhelland": Source(
        "CC BY 4.0",
        "https://github.com/tannerhelland/free-music, commit f6bfe16f49fe",
        "Tanner Helland",
    ),
    "tunebooks": Source(
        "tunes of 1778 to 1903; their transcribers state no terms",
        "airdsAirs, oneills1850 and ryansMammoth of the package music21",
        "J. Campin (Aird's Airs), R. Davies (Ryan's Mammoth Collection), and the transcribers of "
        "O'Neill's Music of Ireland",
    ),
}


def source_of(entry: dict[str, Any]) -> Source:
    """Return the source of an entry of a store's `meta.json`.

    Raises:
      InputError: its licence is not known, so nothing trained on it can be published.
    """
    name = entry["name"]
    if name not in SOURCES:
        known = ", ".join(SOURCES)
        raise InputError(f"data_dir: the licence of {name!r} is not known here; known are: {known}")
    return SOURCES[name]
