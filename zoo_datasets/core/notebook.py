"""What an object says of itself → a small table of HTML for a notebook.

Names and levels come from strangers: everything is escaped, and shown in a line.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from zoo_datasets.core import plain_text

MOST_ROWS = 20
MOST_CELL = 200  # characters


def text(value: object) -> str:
    """A value as text of HTML: of one line, not endless, no markup."""
    shown = plain_text.line(value)
    return html.escape(shown if len(shown) <= MOST_CELL else f"{shown[:MOST_CELL]}…")


def table(title: str, head: Sequence[object], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """A titled table; of many rows the first, and how many there are."""
    rows = list(rows)
    cells = "".join(
        "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in rows[:MOST_ROWS]
    )  # fmt: skip
    more = f"{MOST_ROWS} of {len(rows):,} rows. " if len(rows) > MOST_ROWS else ""
    heads = "<thead><tr>" + "".join(f"<th>{text(h)}</th>" for h in head) + "</tr></thead>" if head else ""
    foot = f"<p>{more}{text(note)}</p>" if more or note else ""
    return f"<div><p><b>{text(title)}</b></p><table>{heads}<tbody>{cells}</tbody></table>{foot}</div>"
