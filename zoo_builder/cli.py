"""`python -m zoo_builder`: plan, build, status, verify.

Nothing else of the builder prints: data to stdout, progress and errors to stderr. Exit codes: 0
done, 1 failed or found damage, 2 a mistake in the call or the recipe, 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo_datasets.core import command
from zoo_datasets.errors import GridError, InterruptedBuildError, ZooError, ZooNotFoundError
from zoo_datasets.format.paths import ZooPaths

VERBS = ("build", "plan", "status", "verify")
log = logging.getLogger("zoo_builder")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    command.say_in_any_encoding()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments and arguments[0].startswith("-") and not {"-h", "--help", "--version"} & set(arguments):
        arguments.insert(0, "build")  # `python -m zoo_builder --grid G` builds
    options = _parser().parse_args(arguments)
    return command.run(
        lambda: options.run(options),
        _code_of,
        log=log,
        quiet=getattr(options, "quiet", False),
        stopped=_kept(options),
    )


def _kept(options: argparse.Namespace) -> str:
    """What an interrupt leaves behind."""
    if options.verb == "build" or getattr(options, "rebuild", False):
        return "What was committed is kept; the same command goes on from there"
    return "Nothing was written; the same command begins anew"


def _code_of(error: ZooError) -> int:
    if isinstance(error, GridError | ZooNotFoundError):
        return 2
    return 130 if isinstance(error, InterruptedBuildError) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo_builder",
        description="Train thousands of networks from a grid and seal them as a dataset.",
        epilog="`python -m zoo_builder --grid G` is short for `build --grid G`.",
    )
    command.add_version(parser, _no_kernels)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="{" + ",".join(VERBS) + "}")

    recipe = argparse.ArgumentParser(add_help=False)
    recipe.add_argument("--grid", required=True, metavar="FILE", help="the recipe, a YAML file")
    recipe.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", dest="changes",
                        help="change the recipe, like training.epochs=2; part of the recipe")  # fmt: skip
    recipe.add_argument("--limit", type=int, metavar="N", help="only the first N runs by plan order, a fair prefix")
    recipe.add_argument(
        "--engine", default="auto", help="native, torch_batched or torch_loop (default: chosen per cohort)"
    )
    recipe.add_argument("--device", default="cpu", help="cpu (default) or cuda; part of what is built")
    recipe.add_argument(
        "--data", metavar="DIR", help="folder of local copies of sources (default: $ZOO_DATA, else the Hub)"
    )
    recipe.add_argument("--out", metavar="DIR", help="the zoo's folder (default: its id under the working directory)")
    recipe.add_argument(
        "--workers", type=int, metavar="N", help="worker processes (default: one per core); 0: this process"
    )

    build = verbs.add_parser("build", parents=[recipe], help="build a zoo, or go on with one")
    build.add_argument(
        "--from", nargs="+", default=[], metavar="ZOO", dest="earlier", type=Path,
        help="folders of sealed zoos, like a shorter prefix: models that they have too are not trained again",
    )  # fmt: skip
    build.add_argument("--quiet", action="store_true", help="only warnings and the result")
    build.set_defaults(run=_build)
    plan = verbs.add_parser("plan", parents=[recipe], help="say what would be built, and what it would take")
    plan.set_defaults(run=_plan)
    status = verbs.add_parser("status", help="how far a zoo is")
    status.add_argument("path", metavar="ZOO", help="the zoo's folder")
    status.set_defaults(run=_status)
    verify = verbs.add_parser("verify", help="check a zoo, or rebuild one from its manifest and compare")
    verify.add_argument("path", metavar="ZOO", help="the zoo's folder; with --rebuild a folder under manifests/")
    verify.add_argument("--retrain", type=int, default=0, metavar="K", help="also retrain the cohorts of K models")
    verify.add_argument("--rebuild", action="store_true", help="build from grid.yaml and compare with manifest.json")
    verify.add_argument("--data", metavar="DIR", help="folder of local copies of sources")
    verify.add_argument("--workers", type=int, metavar="N", help="worker processes of a rebuild; 0: this process")
    verify.add_argument(
        "--out", metavar="DIR", help="where a rebuild goes (default: a temporary folder, removed once compared)"
    )
    verify.set_defaults(run=_verify)
    return parser


def _no_kernels() -> str | None:
    from zoo_datasets.networks import kernels

    return kernels.missing()


def _planned(options: argparse.Namespace) -> tuple[Any, Path]:
    from zoo_builder import grid, plan

    if options.workers is not None and options.workers < 0:
        raise GridError(f"--workers {options.workers}: 0 trains in this process, N ≥ 1 takes N workers.")
    recipe = grid.load(options.grid, options.changes, options.limit)
    planned = plan.plan(recipe, engine=options.engine, device=options.device, data=options.data)
    return planned, Path(options.out or recipe.zoo)


def _build(options: argparse.Namespace) -> int:
    from zoo_builder.build import build

    started = time.monotonic()
    planned, out = _planned(options)
    paths = build(planned, out, workers=options.workers, earlier_zoos=options.earlier)
    _summary(paths, time.monotonic() - started)
    return 0


def _summary(paths: ZooPaths, seconds: float) -> None:
    from zoo_datasets.format import card
    from zoo_datasets.format.manifest import Manifest

    manifest = Manifest.read(paths.root)
    counts, size = manifest.counts, command.size(manifest.files.size())
    command.say(f"{paths.root}: {counts.n_models:,} models, {counts.n_snapshots:,} snapshots, {size}, {seconds:.1f} s")
    print("  " + ", ".join(f"{s} {counts.models[s]:,}" for s in manifest.split_names), end="")
    print(f"; {counts.diverged:,} diverged" if counts.diverged else "")
    where = manifest.zoo if paths.root == Path(manifest.zoo) else str(paths.root)
    command.tell_loading(card.load_lines(manifest, where))
    print("\nLook at it:\n")
    command.say(f"    python -m zoo_datasets page {shlex.quote(where)} --open")


def _plan(options: argparse.Namespace) -> int:
    from zoo_builder import estimate

    planned, _ = _planned(options)
    for line in estimate.describe(planned, options.workers):
        command.say(line)
    return 0


def _status(options: argparse.Namespace) -> int:
    from zoo_builder import status

    for line in status.describe(ZooPaths(options.path)):
        command.say(line)
    return 0


def _verify(options: argparse.Namespace) -> int:
    from zoo_builder import verify

    if options.retrain < 0:
        raise GridError(f"--retrain {options.retrain}: a number of models is needed.")
    if options.rebuild and options.retrain:
        raise GridError(
            "--rebuild trains all models again, so that --retrain says nothing beside it. Drop one of them."
        )
    for name in ("out", "workers"):
        if not options.rebuild and getattr(options, name) is not None:
            raise GridError(f"--{name} is for --rebuild: without it nothing is built. Drop it, or add --rebuild.")
    if options.rebuild:
        report = verify.rebuild(Path(options.path), data=options.data, workers=options.workers, out=options.out)
    else:
        report = verify.verify(Path(options.path), retrain=options.retrain, data=options.data)
    return command.tell(report)
