"""Tables of benchmarks as text and as Markdown: the first line has the heads."""

from __future__ import annotations


def as_text(lines: list[list[str]], names: int = 2) -> str:
    """Align the cells of a table: the first `names` columns to the left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = (
        "  ".join(
            f"{c:{w}}" if n < names else f"{c:>{w}}"
            for n, (c, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in lines
    )
    return "\n".join(row.rstrip() for row in rows)


def as_markdown(lines: list[list[str]], names: int = 2) -> str:
    """Write a table in Markdown; all but the first `names` columns are aligned right."""
    rule = ["---"] * names + ["---:"] * (len(lines[0]) - names)
    return "\n".join(f"| {' | '.join(row)} |" for row in [lines[0], rule, *lines[1:]])
