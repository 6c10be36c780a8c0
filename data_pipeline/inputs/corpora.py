"""Named corpora: their sources, licences and citations."""

from __future__ import annotations

import dataclasses

from data_pipeline.inputs.download import Remote


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A named corpus and its terms of use.

    Attributes:
      name: value of `--corpus`.
      licence: as its maintainers state it.
      citation: what to cite.
      remote: the archive to download, or None for a corpus that a package ships.
      folders: folders of ABC files below the package's `corpus` folder.
      package: the Python package that ships them.
      extra: the extra of this project that installs the package.
    """

    name: str
    licence: str
    citation: str
    remote: Remote | None = None
    folders: tuple[str, ...] = ()
    package: str = ""
    extra: str = ""


_FOLK = Corpus(
    name="folk",
    folders=("airdsAirs", "essenFolksong", "oneills1850", "ryansMammoth"),
    package="music21",
    extra="demo",
    licence=(
        "essenFolksong: legal status unclear (many encoders), non-commercial distribution "
        "and use with music21 permitted; airdsAirs, oneills1850, ryansMammoth: tunes of "
        "1778 to 1903, no terms stated by the transcribers; music21 advises that some of "
        "its corpus may not be used commercially"
    ),
    citation=(
        "H. Schaffrath, ed. D. Huron, The Essen Folksong Collection, 1995 (ABC by "
        "S. Shlien); O'Neill's Music of Ireland, 1903; Ryan's Mammoth Collection, 1883 "
        "(ABC by R. Davies); J. Aird, Airs, 1778-1801 (ABC by J. Campin); "
        "M. S. Cuthbert and C. Ariza, music21, ISMIR 2010"
    ),
)


# The tunebooks among the folk tunes, without the collection for non-commercial use: what models
# that are published may be trained on.
_TUNEBOOKS = Corpus(
    name="tunebooks",
    folders=("airdsAirs", "oneills1850", "ryansMammoth"),
    package="music21",
    extra="demo",
    licence="tunes of 1778 to 1903; no terms stated by the transcribers",
    citation=(
        "O'Neill's Music of Ireland, 1903; Ryan's Mammoth Collection, 1883 (ABC by R. Davies); "
        "J. Aird, Airs, 1778-1801 (ABC by J. Campin); M. S. Cuthbert and C. Ariza, music21, "
        "ISMIR 2010"
    ),
)


def _lakh(name: str, file: str, size: int, sha256: str) -> Corpus:
    """Describe one archive of https://colinraffel.com/projects/lmd/."""
    return Corpus(
        name=name,
        licence="CC BY 4.0 (https://colinraffel.com/projects/lmd/)",
        citation=(
            "C. Raffel, Learning-Based Methods for Comparing Sequences, with Applications to "
            "Audio-to-MIDI Alignment and Matching, PhD thesis, Columbia University, 2016"
        ),
        remote=Remote(f"http://hog.ee.columbia.edu/craffel/lmd/{file}", file, size, sha256),
    )


# Lakh's page gives no checksums. Those of lmd_full and lmd_matched are the ones that two
# independent projects state (muspy, resolv-data); that of clean_midi stands in the second only.
_ALL = (
    _FOLK,
    _TUNEBOOKS,
    _lakh(
        "lakh_full",
        "lmd_full.tar.gz",
        1_768_163_879,
        "6fcfe2ac49ca08f3f214cec86ab138d4fc4dabcd7f27f491a838dae6db45a12b",
    ),
    _lakh(
        "lakh_matched",
        "lmd_matched.tar.gz",
        1_407_072_670,
        "621ff830aed771f469e5bfa13dc12a33c6ed69090adeda63d0b5c47783af0191",
    ),
    _lakh(
        "lakh_clean",
        "clean_midi.tar.gz",
        234_283_029,
        "de1bb64cbc0cf35545a05b5c3e786aa6890cfa144edffc4b827ff41bf8c33dc5",
    ),
    Corpus(
        name="groove",
        licence="CC BY 4.0 (https://magenta.tensorflow.org/datasets/groove)",
        citation=(
            "J. Gillick, A. Roberts, J. Engel, D. Eck and D. Bamman, Learning to Groove with "
            "Inverse Sequence Transformations, ICML 2019"
        ),
        # The checksum is its page's.
        remote=Remote(
            "https://storage.googleapis.com/magentadata/datasets/groove/groove-v1.0.0-midionly.zip",
            "groove-v1.0.0-midionly.zip",
            None,
            "651cbc524ffb891be1a3e46d89dc82a1cecb09a57c748c7b45b844c4841dcc1e",
        ),
    ),
    Corpus(
        name="pop909",
        licence="MIT (https://github.com/music-x-lab/POP909-Dataset)",
        citation=(
            "Z. Wang, K. Chen, J. Jiang, Y. Zhang, M. Xu, S. Dai, X. Gu and G. Xia, POP909: A "
            "Pop-song Dataset for Music Arrangement Generation, ISMIR 2020"
        ),
        # A branch, packed when asked for: no checksum can be known before.
        remote=Remote(
            "https://codeload.github.com/music-x-lab/POP909-Dataset/zip/refs/heads/master",
            "POP909-Dataset.zip",
            None,
            None,
        ),
    ),
)
CORPORA = {corpus.name: corpus for corpus in _ALL}
