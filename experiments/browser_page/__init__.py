"""The page that plays a model exported for the browser, and its scripts.

`vendor/magentamusic.js` is `dist/magentamusic.js` of the npm package @magenta/music 1.23.1,
unchanged; `vendor/LICENSES.txt` has its licence and those of the packages inside it.
"""

from __future__ import annotations

import pathlib
import shutil

FILES = ("index.html", "page.js", "vendor/magentamusic.js", "vendor/LICENSES.txt")


def add_page(folder: pathlib.Path) -> None:
    """Copy the page and its scripts into the folder of an exported model."""
    source = pathlib.Path(__file__).parent
    (folder / "vendor").mkdir()
    for name in FILES:
        shutil.copyfile(source / name, folder / name)
