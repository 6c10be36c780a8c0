"""Self-contained HTML pages from jinja2 templates.

`base.html` has the one style of all pages, `macros.html` figures and tables. Everything that a
template shows is escaped; only figures are taken as SVG.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any

_FOLDER = pathlib.Path(__file__).parent / "templates"


def fill(template: str | os.PathLike[str], **values: Any) -> str:
    """Fill a template, which may extend `base.html` and import `macros.html`.

    Raises:
      jinja2.UndefinedError: the template names a value that is not given.
    """
    import jinja2

    path = pathlib.Path(template)
    environment = jinja2.Environment(
        autoescape=True,
        keep_trailing_newline=True,
        loader=jinja2.FileSystemLoader([path.parent, _FOLDER]),
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["thousands"] = "{:,}".format
    environment.filters["percent"] = "{:.1%}".format
    return environment.get_template(path.name).render(values)
