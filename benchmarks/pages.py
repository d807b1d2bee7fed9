"""A section made from results → its place in a page, between two markers: numbers are generated, never typed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


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


def joined(names: Iterable[str]) -> str:
    """One name for zoos that were read as one population: owner/first+second."""
    first, *others = names
    return "+".join([first, *map(short, others)])


def short(name: str) -> str:
    """A zoo's name without its owner."""
    return name.split("/")[-1]


def pictures(zoo: str, shown: Mapping[str, str]) -> Iterator[str]:
    """Of the figures, by stem and what they show, those of a zoo that lie in docs/pictures/."""
    for stem, what in shown.items():
        path = f"pictures/{short(zoo)}-{stem}.png"
        if (DOCS / path).exists():
            yield f"![{short(zoo)}: {what}]({path})\n"
