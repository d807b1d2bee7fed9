"""Somebody's text → text that is only shown: on a terminal, in a line, in Markdown.

Names, levels and messages of a zoo come from strangers. A terminal obeys escape sequences in
them, a line break makes two lines of one, a direction override turns the rest around, and a
card is Markdown with HTML. What cannot be seen is written as Python writes it: `\\x1b`, `\\u202e`.
"""

from __future__ import annotations

import re

MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+!|~&$])")


def line(value: object) -> str:
    """The value as one line in which everything can be seen."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))


def lines(value: object) -> str:
    """The same, with our own line breaks and tabs kept."""
    return "".join(c if c in "\n\t" or c.isprintable() else line(c) for c in str(value))


def markdown(value: object) -> str:
    """The value as running text of Markdown: no markup, no HTML, no link."""
    return MARKUP.sub(r"\\\1", line(value))


def code(value: object) -> str:
    """The value as a span of code, in a table too."""
    text = (
        line(value).replace("|", "\\|") or " "
    )  # two ticks with nothing between open a span that takes in what follows
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{ticks}{text}{ticks}" if len(ticks) == 1 else f"{ticks} {text} {ticks}"
