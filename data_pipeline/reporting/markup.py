"""Self-contained HTML pages: style, tables, figures."""

from __future__ import annotations

import html
from collections.abc import Sequence

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; margin: 2em auto; max-width: 76em;
  padding: 0 1em; }
h1 { margin-bottom: 0.2em; } h2 { margin-top: 2em; border-bottom: 2px solid #d8dce2; }
h3 { margin: 1.2em 0 0.3em; font-size: 1em; }
table { border-collapse: collapse; } td, th { padding: 0.15em 0.9em 0.15em 0; text-align: right; }
td:first-child, th:first-child { text-align: left; }
th { font-weight: 600; border-bottom: 1px solid #d8dce2; }
.grid { display: flex; flex-wrap: wrap; align-items: flex-start; gap: 1.2em 2em; }
figure { margin: 0; }
figcaption { color: #555; font-size: 0.85em; } svg { max-width: 100%; height: auto; }
pre { overflow-x: auto; font-size: 12px; }
.good { color: #1a7f37; } .far { color: #b3541e; } .muted { color: #777; }
.warning { background: #fff4d6; padding: 0.4em 0.8em; border-left: 4px solid #e0a800; }
""".strip()


def document(title: str, body: str) -> str:
    """Write a whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escaped(title)}</title><style>{STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def figure(picture: str, caption: str) -> str:
    """Put a caption under a picture."""
    return f"<figure>{picture}<figcaption>{escaped(caption)}</figcaption></figure>"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; cells may hold markup."""
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def escaped(text: str) -> str:
    """Escape what a page would take for markup."""
    return html.escape(text)
