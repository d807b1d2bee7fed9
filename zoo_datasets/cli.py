"""`python -m zoo_datasets`: analyze, audit, bench, check, download, export, import, list, monitor, page,
publish, scan, show.

The only place of the reader that prints: data to stdout, progress and errors to stderr.
Exit codes: 0 done; 2 a command line that cannot be taken, or a name under which there is nothing; 1 failed, or found damage or
leaks; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from zoo_datasets.analysis import ANALYSES, POOLED
from zoo_datasets.core import command, files, plain_text
from zoo_datasets.errors import ZooError, ZooNotFoundError
from zoo_datasets.exchange import FORMATS
from zoo_datasets.format import card
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.hub import lookup
from zoo_datasets.reading.columns import Columns
from zoo_datasets.reading.location import Location

log = logging.getLogger("zoo_datasets")
MOST_DEPTH = 3  # folders below the one listed in which a zoo may lie: owner/name, and one more


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    command.say_in_any_encoding()
    options = _parser().parse_args(list(sys.argv[1:] if argv is None else argv))
    return command.run(
        lambda: options.run(options),
        lambda error: 2 if isinstance(error, ZooNotFoundError) else 1,
        log=log,
        quiet=options.quiet,
        stopped="What came or went is kept; the same command goes on from there",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo_datasets",
        description="Look at zoos of trained networks, check, publish and fetch them.",
        epilog="A ZOO is a folder, or `owner/name` on the Hugging Face Hub.",
    )
    command.add_version(parser, _no_kernels)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{" + ",".join(VERBS) + "}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--quiet", action="store_true", help="only warnings and the result")
    for name, (help, arguments, run) in VERBS.items():
        verb = verbs.add_parser(name, parents=[common], help=help, description=help[0].upper() + help[1:] + ".")
        arguments(verb)
        verb.set_defaults(run=run)
    return parser


def _no_kernels() -> str | None:
    from zoo_datasets.networks import kernels

    return kernels.missing()


# ── analyze ──


def _analyze_arguments(verb: argparse.ArgumentParser) -> None:
    names = verb.add_subparsers(dest="analysis", required=True, metavar="{" + ",".join(ANALYSES) + "}")
    for name, help in ANALYSES.items():
        own = names.add_parser(name, help=help, description=help[0].upper() + help[1:])
        several: dict[str, str] = {"nargs": "+"} if name in POOLED else {}
        own.add_argument("path", metavar="ZOO", help="a folder, or owner/name on the Hub", **several)  # type: ignore[arg-type]
        own.add_argument(
            "--out", metavar="DIR", type=Path, help="where results go (default: analysis/<zoo>/<analysis>/ here)"
        )
        own.add_argument("--seed", type=command.seed, default=0, help="of every random choice (default: 0)")
        own.add_argument("--quiet", action="store_true", default=argparse.SUPPRESS, help="only warnings and the result")
        importlib.import_module(f"zoo_datasets.analysis.{name}.run").arguments(own)


def _analyze(options: argparse.Namespace) -> int:
    report = importlib.import_module(f"zoo_datasets.analysis.{options.analysis}.run").run(options)
    for path in report.written:
        command.say(path)
    return 0


# ── audit ──


def _audit_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("zoos", metavar="ZOO", nargs="+", help="folders, or owner/name on the Hub")
    verb.add_argument("--split", metavar="FILE", help="a split of `split_files` (default: the zoos' stored splits)")
    verb.add_argument(
        "--target", metavar="COLUMN", default="test_accuracy",
        help="what is predicted from the settings alone, as a baseline (default: test_accuracy)",
    )  # fmt: skip


def _audit(options: argparse.Namespace) -> int:
    from zoo_datasets import audit, split_files
    from zoo_datasets.zoo import once, open_zoo

    split = None if options.split is None else split_files.load_split(options.split)
    report = audit.audit(split, *once(map(open_zoo, options.zoos)), target=options.target)
    command.say(report)
    return 1 if report.leaks else 0


# ── bench ──


def _bench_arguments(verb: argparse.ArgumentParser) -> None:
    from zoo_datasets import benchmark

    benchmark.arguments(verb)


def _bench(options: argparse.Namespace) -> int:
    from zoo_datasets import benchmark

    return benchmark.run(options)


# ── check ──


def _check_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("path", metavar="PATH", help="the zoo's folder")


def _check(options: argparse.Namespace) -> int:
    from zoo_datasets.format import check

    root = Path(options.path)
    if not lookup.is_folder(root):
        raise ZooNotFoundError(f"No folder {root}. `check` reads a zoo on this machine; `download` fetches one.")
    return command.tell(check.check(root.resolve()))


# ── download ──


def _download_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("id", metavar="ID", help="owner/name on the Hub")
    verb.add_argument("dir", metavar="DIR", nargs="?", help="the folder it becomes (default: owner/name here)")
    verb.add_argument("--revision", metavar="REV", help="tag, branch or commit (default: main)")


def _download(options: argparse.Namespace) -> int:
    from zoo_datasets.hub.download import download

    name = options.id.removeprefix(lookup.REMOTE)
    folder, moved = download(name, Path(options.dir or name), options.revision)
    command.say(
        f"{folder}: {command.size(moved)} fetched, every file verified" if moved else f"{folder}: already there, whole"
    )
    return 0


# ── export, import ──


def _format_arguments(verb: argparse.ArgumentParser) -> None:
    known = "; ".join(f"{name}: {what}" for name, (what, _) in FORMATS.items())
    verb.add_argument("format", metavar="FORMAT", choices=sorted(FORMATS), help=known)


def _export_arguments(verb: argparse.ArgumentParser) -> None:
    _format_arguments(verb)
    verb.add_argument("zoo", metavar="ZOO", help="a folder, or owner/name on the Hub")
    verb.add_argument("--out", metavar="DIR", type=Path, required=True, help="the folder it becomes, new or empty")


def _export(options: argparse.Namespace) -> int:
    from zoo_datasets.zoo import open_zoo

    count = importlib.import_module(FORMATS[options.format][1]).write(open_zoo(options.zoo), options.out)
    command.say(f"{options.out}: {count:,} models")
    return 0


def _import_arguments(verb: argparse.ArgumentParser) -> None:
    _format_arguments(verb)
    verb.add_argument("dir", metavar="DIR", type=Path, help="the folder in that format")
    verb.add_argument("zoo", metavar="ZOO", type=Path, help="the folder of the zoo it becomes, new or empty")
    verb.add_argument("--name", metavar="ID", help="owner/name of the zoo (default: the last two parts of ZOO)")


def _import(options: argparse.Namespace) -> int:
    manifest = importlib.import_module(FORMATS[options.format][1]).read(options.dir, options.zoo, options.name)
    counts = manifest.counts
    command.say(f"{options.zoo}: {counts.n_models:,} models, {counts.n_snapshots:,} snapshots, sealed")
    return 0


# ── list ──


def _list_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "where", metavar="WHERE", nargs="?", default=".", help="a folder (default: here), or an owner on the Hub"
    )


def _list(options: argparse.Namespace) -> int:
    where = Path(options.where)
    if here := lookup.is_folder(where):
        rows = list(_rows_under(where))
    elif "/" not in options.where:
        from zoo_datasets.hub import listing

        rows = [(name, "", "", "", commit[:12]) for name, commit in listing.zoos_of(options.where)]
    else:
        raise ZooNotFoundError(f"No folder {where}; on the Hub name an owner, like `{options.where.split('/')[0]}`.")
    for row in rows:
        command.say("\t".join(map(plain_text.line, row)))
    if not rows:
        print(f"No zoos {'under' if here else 'of'} {options.where}.", file=sys.stderr)
    return 0


def _rows_under(folder: Path) -> Iterator[tuple[str, ...]]:
    """A row for each zoo; one that cannot be read is said, and the others are listed."""
    for depth in range(MOST_DEPTH + 1):
        for path in sorted(folder.glob("/".join([*["*"] * depth, "manifest.json"]))):
            if files.SCRATCH in str(path):
                continue
            try:
                yield _row(lookup.locate(path.parent))
            except ZooError as error:
                log.warning("%s", error)


def _row(location: Location) -> tuple[str, ...]:
    manifest = location.manifest
    if location.is_local and not any((location.root / f.path).exists() for f in manifest.files.under("data/")):
        return location.name, "a receipt: `python -m zoo_builder verify --rebuild` builds it", str(location.root)
    counts = f"{manifest.counts.n_models:,} models", f"{manifest.counts.n_snapshots:,} snapshots"
    return location.name, *counts, command.size(manifest.files.size()), str(location.root)


# ── monitor ──


def _monitor_arguments(verb: argparse.ArgumentParser) -> None:
    from zoo_datasets.analysis.trajectories import monitor

    monitor.arguments(verb)


def _monitor(options: argparse.Namespace) -> int:
    from zoo_datasets.analysis.trajectories import monitor

    report = monitor.run(options)
    for step in report.steps:
        command.say(str(step))
    command.say(str(report))
    return 0


# ── page ──


def _page_arguments(verb: argparse.ArgumentParser) -> None:
    from zoo_datasets.format.manifest_parts import PAGE

    verb.add_argument("zoo", metavar="ZOO", help="a folder, or owner/name on the Hub")
    verb.add_argument("--out", metavar="FILE", type=Path, default=Path(PAGE), help=f"the file (default: {PAGE} here)")
    verb.add_argument("--revision", metavar="REV", help="tag, branch or commit on the Hub (default: main)")
    verb.add_argument("--open", action="store_true", help="open it in the browser")


def _page(options: argparse.Namespace) -> int:
    from zoo_datasets.page import page
    from zoo_datasets.zoo import open_zoo

    size = page.write(open_zoo(options.zoo, options.revision), options.out, options.revision)
    command.say(f"{options.out}: {command.size(size)}, opens in any browser")
    if options.open:
        import webbrowser

        webbrowser.open(options.out.resolve().as_uri())
    return 0


# ── publish ──


def _publish_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("path", metavar="PATH", help="the folder of a sealed zoo")
    verb.add_argument("id", metavar="ID", help="owner/name on the Hub")
    verb.add_argument("--tag", metavar="TAG", help="name this release, like v1")
    verb.add_argument("--private", action="store_true", default=None, help="create the dataset for its owner alone")
    verb.add_argument("--replace", action="store_true", help="even where another zoo lies that no tag keeps")


def _publish(options: argparse.Namespace) -> int:
    from zoo_datasets.hub import publish
    from zoo_datasets.page import page

    done = publish.publish(
        Path(options.path), options.id, tag=options.tag, private=options.private, replace=options.replace, page=page.of
    )
    what = f"{len(done.uploaded)} files, {command.size(done.bytes)} uploaded" if done.uploaded else "nothing to upload"
    command.say(f"{options.id}: {what}; commit {done.commit[:12]}{f', tag {done.tag}' if done.tag else ''}")
    command.tell_loading(card.load_lines(Manifest.read(Path(options.path)), options.id))
    return 0


# ── scan ──


def _scan_arguments(verb: argparse.ArgumentParser) -> None:
    from zoo_datasets.analysis.backdoors import scan

    scan.arguments(verb)


def _scan(options: argparse.Namespace) -> int:
    from zoo_datasets.analysis.backdoors import scan

    return scan.tell(options)


# ── show ──


def _show_arguments(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("zoo", metavar="ZOO", help="a folder, or owner/name on the Hub")
    verb.add_argument("--revision", metavar="REV", help="tag, branch or commit on the Hub (default: main)")


def _show(options: argparse.Namespace) -> int:
    location = lookup.locate(options.zoo, options.revision)
    for line in describe(location):
        command.say(plain_text.line(line))
    return 0


def describe(location: Location) -> Iterator[str]:
    """A zoo in a few lines: counts, axes and levels, sizes, range of accuracy."""
    manifest, counts = location.manifest, location.manifest.counts
    size = command.size(manifest.files.size())
    yield f"{location.name}: {counts.n_models:,} models, {counts.n_snapshots:,} snapshots, {size}, in {location.root}"
    splits = ", ".join(f"{s} {counts.models[s]:,}" for s in manifest.split_names)
    yield f"splits: {splits}{f'; {counts.diverged:,} diverged' if counts.diverged else ''}"
    if widths := manifest.widths:
        shown = " to ".join(f"{n:,}" for n in dict.fromkeys((widths[0], widths[-1])))
        yield f"weights: {shown} values of {manifest.weights_dtype} each"
    sources = (f"{s.id} ({s.images.get('train', 0):,} training examples)" for s in manifest.sources)
    yield "sources: " + ", ".join(sources)
    for axis, levels in sorted(manifest.axes.items()):
        yield f"axis {axis}: {card.levels_text(levels)}"
    for parent in manifest.identity.parents or {}:
        yield f"models start from {parent}"
    if manifest.optimizer_state:
        yield "optimizer state: kept beside the weights"
    if accuracy := card.least_median_most(Columns(location, "models").column("test_accuracy")):
        least, median, most = accuracy
        yield f"test accuracy: {least:.3f} to {most:.3f}, median {median:.3f}"


# Each verb: what it does, its arguments, and the function that does it.
VERBS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]] = {
    "analyze": ("study a zoo: numbers, tables and pictures", _analyze_arguments, _analyze),
    "audit": ("look for leaks across the sides of a split, within and across zoos", _audit_arguments, _audit),
    "bench": ("foretell what networks do from their weights: baselines, controls, a table", _bench_arguments, _bench),
    "check": ("compare every byte of a zoo with its manifest", _check_arguments, _check),
    "download": ("fetch a zoo from the Hub as a folder, verified", _download_arguments, _download),
    "export": ("write a zoo in another's format", _export_arguments, _export),
    "import": ("read a folder in another's format into a sealed zoo", _import_arguments, _import),
    "list": ("list the zoos under a folder, or of an owner on the Hub", _list_arguments, _list),
    "monitor": ("say whether a model has changed enough to be tested again", _monitor_arguments, _monitor),
    "page": ("make one HTML file that shows a zoo: map of weights, settings, curves", _page_arguments, _page),
    "publish": ("put a sealed zoo on the Hub", _publish_arguments, _publish),
    "scan": ("say which networks look trojaned to a detector that was kept", _scan_arguments, _scan),
    "show": ("say what is in a zoo: counts, axes, sizes, accuracy", _show_arguments, _show),
}
