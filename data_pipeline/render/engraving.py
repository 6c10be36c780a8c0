"""Scores as pictures: MusicXML to SVG, with verovio."""

from __future__ import annotations

from typing import Any

from musicvae_jax.config import InputError


def engrave(text: str) -> str:
    """Engrave MusicXML as one SVG picture; equal scores give equal text.

    Raises:
      InputError: verovio is not installed.
    """
    toolkit = import_verovio().toolkit()
    toolkit.setOptions(
        {
            "adjustPageHeight": True,
            "breaks": "auto",
            "footer": "none",
            "header": "none",
            "pageHeight": 60000,
            "pageWidth": 2400,
            "scale": 40,
            "svgViewBox": True,
            "xmlIdSeed": 1,
        }
    )
    toolkit.loadData(text)
    return toolkit.renderToSVG(1)


def import_verovio() -> Any:
    """Import verovio, which the extra `score` installs.

    Raises:
      InputError: verovio is not installed.
    """
    try:
        import verovio
    except ImportError as error:
        raise InputError("scores as SVG need verovio: pip install 'musicvae-jax[score]'") from error
    return verovio
