"""A section made from results → its place in a page, between two markers: numbers are generated, never typed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path


def rewrite(page: Path, name: str, section: str) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- /name -->`."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    before, rest = page.read_text().split(begin)
    page.write_text(before + begin + section + end + rest.split(end)[1])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of Markdown, an empty one last."""
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    yield from ("| " + " | ".join(row) + " |" for row in rows)
    yield ""
