"""Code → docs/reference/: tables of settings and columns, and both command lines, as Markdown.

    python docs/generate.py            writes what has changed
    python docs/generate.py --check    says what would change, and ends with 1

Prose is written by hand, and what stands between two markers is the code's: `<!-- settings -->` … `<!-- /settings -->`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa

FOLDER = Path(__file__).resolve().parent / "reference"
RECEIPTS = FOLDER.parents[1] / "manifests"
WIDTH = "100"  # of help, in characters; argparse asks the environment


def settings_table() -> str:
    from zoo_builder.recipe import settings

    return settings.reference()


def column_tables() -> str:
    from zoo_datasets.format import schema

    sections = (
        ("`models`: one row a model", schema.MODEL_HEAD),
        ("`models`, after the settings", schema.MODEL_TAIL),
        ("`models` of zoos that start from another zoo", schema.LINEAGE),
        ("Metrics, in both tables", schema.METRICS),
        ("Metrics of zoos whose recipe asks for attacks by class, in both tables", schema.ATTACK),
        ("`snapshots`: one row a snapshot", (*schema.SNAPSHOT_HEAD, *schema.SNAPSHOT_TAIL)),
        ("`snapshots` of zoos that keep the optimizer's state", (schema.OPTIMIZER,)),
    )
    return "\n".join(f"### {title}\n\n{_columns(columns)}" for title, columns in sections)


def _columns(columns: Iterable[object]) -> str:
    from zoo_datasets.format import schema

    filled = {name for names in schema.FILLED.values() for name in names}
    rows = ["| column | type | holds |", "|---|---|---|"]
    for c in columns:
        assert isinstance(c, schema.Column)
        rows.append(f"| `{c.name}` | {_type(c.type)} | {c.doc}{'; never null' if c.name in filled else ''} |")
    return "\n".join(rows) + "\n"


def _type(kind: pa.DataType) -> str:
    names = {pa.string(): "text", pa.int64(): "int64", pa.float64(): "float64", pa.bool_(): "boolean"}
    return f"list of {_type(kind.value_type)}" if pa.types.is_list(kind) else names[kind]


def command_lines() -> str:
    import zoo_builder.cli
    import zoo_datasets.cli

    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = WIDTH
    try:
        parts = [_help(cli._parser(), "##") for cli in (zoo_builder.cli, zoo_datasets.cli)]
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return "\n".join(parts)


def _help(parser: argparse.ArgumentParser, level: str) -> str:
    text = f"{level} `{parser.prog}`\n\n```text\n{parser.format_help().strip()}\n```\n"
    return "\n".join([text, *(_help(p, "###") for p in _verbs(parser))])


def _verbs(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


def zoo_table() -> str:
    from zoo_datasets.format.manifest import Manifest

    rows = [
        "| zoo | networks | of them test | snapshots | weights each | size | learned | digest |",
        "|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for path in sorted(RECEIPTS.glob("*/*/manifest.json")):
        m = Manifest.read(path.parent)
        models, snapshots = (sum(m.counts.of(config).values()) for config in ("models", "snapshots"))
        widths = sorted({layout.n_params for layout in m.layouts.values()})
        each = f"{widths[0]:,}" if len(widths) == 1 else f"{widths[0]:,} to {widths[-1]:,}"
        sources = ", ".join(dict.fromkeys(s.id for s in m.sources))
        size = sum(f.bytes for f in m.files.values())
        rows.append(
            f"| `{m.zoo}` | {models:,} | {m.counts.of('models').get('test', 0):,} | {snapshots:,} | {each} | {size / 1e6:,.0f} MB | {sources} "
            f"| `{m.digests['weights'][:12]}` |"
        )
    return "\n".join(rows) + "\n"


# Page → the marker in it, and what stands there.
PAGES: dict[str, tuple[str, Callable[[], str]]] = {
    "settings.md": ("settings", settings_table),
    "columns.md": ("columns", column_tables),
    "commands.md": ("commands", command_lines),
    "zoos.md": ("zoos", zoo_table),
}


def page(name: str) -> str:
    """The page as the code would have it now."""
    marker, make = PAGES[name]
    begin, end = f"<!-- {marker} -->\n", f"<!-- /{marker} -->"
    before, _, rest = (FOLDER / name).read_text(encoding="utf-8").partition(begin)
    return f"{before}{begin}{make()}{end}{rest.partition(end)[2]}"


def main(arguments: list[str]) -> int:
    changed = [n for n in PAGES if page(n) != (FOLDER / n).read_text(encoding="utf-8")]
    for name in changed:
        print(f"docs/reference/{name}")
        if "--check" not in arguments:
            (FOLDER / name).write_text(page(name), encoding="utf-8")
    return 1 if changed and "--check" in arguments else 0


if __name__ == "__main__":
    sys.path.insert(0, str(FOLDER.parents[1]))
    sys.exit(main(sys.argv[1:]))
