"""Folders of `bench` → benchmarks/results/leaderboard.md, one small table of all numbers, and pictures.

In:  folders that `python -m zoo_datasets bench … --out FOLDER` wrote. Their tables and what they chose are kept in
     benchmarks/results/bench/, by the name of the folder; the same name again replaces them.
Out: of all that are kept the page of tables, what docs/benchmark.md says of them, and in docs/pictures: R² and τ beside ceilings and controls
     (`leaderboard-scores.svg`), learned on one source and asked of another (`leaderboard-transfer.svg`), learned at one width and asked of
     others (`leaderboard-width.svg`), and over the number of networks (`leaderboard-curve.svg`), each where there are numbers for it. No
     number is typed.

    python benchmarks/leaderboard.py [FOLDER…] [--target test_accuracy]
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import benchmark_page
import numpy as np
import pages
import pyarrow as pa
import pyarrow.parquet as pq

from zoo_datasets.baselines.known import ORACLE, is_control, single
from zoo_datasets.core import figures, files
from zoo_datasets.ranking import WORDS

ROOT = Path(__file__).resolve().parents[1]
NEEDED, BESIDE = ("leaderboard.md", "leaderboard.parquet"), ("chosen.json", "tasks.json")
SHOWN = ("r2", "kendall")
MOST_WHOLE = 3  # readers of whole networks, in the picture of transfer
STYLES = ("-", "--", ":", "-.", (0, (1, 3)), (0, (5, 5)), (0, (3, 1, 1, 1)))  # of controls
HEAD = """# Leaderboard

Written by `python benchmarks/leaderboard.py` from the result files of `python -m zoo_datasets bench`; what the tasks,
controls and intervals are is in `docs/benchmark.md`.

"""


def main() -> None:
    """Write the page, the table and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--target", default="test_accuracy")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "pictures")
    parser.add_argument("--page", type=Path, default=pages.DOCS / "benchmark.md")
    options = parser.parse_args()
    keep(options.folders, options.out / "bench")
    folders = sorted(f.parent for f in options.out.glob("bench/*/leaderboard.parquet"))
    if not folders:
        raise SystemExit("No result is kept yet: name a folder that `bench --out` wrote.")
    read = [pq.read_table(f / "leaderboard.parquet") for f in folders]
    together = pa.concat_tables(read, promote_options="default")  # earlier ones have fewer columns
    lines = benchmark_page.once(together.to_pylist())
    page = HEAD + "\n".join((f / "leaderboard.md").read_text(encoding="utf-8") for f in folders)
    files.write_atomic(options.out / "leaderboard.md", page)
    rows = [r for r in lines if r["target"] == options.target and r["error"] is None]
    for name, draw in (("scores", scores), ("transfer", transfer), ("width", width), ("curve", curve)):
        figure = draw(rows)
        if figure is not None:
            save(figure, options.pictures / f"leaderboard-{name}.svg")
            print(f"{options.pictures / f'leaderboard-{name}.svg'}")
    pages.rewrite(options.page, "benchmark", "\n".join(benchmark_page.section(lines)) + "\n")


def keep(folders: Sequence[Path], under: Path) -> None:
    """Copy what is shown of each folder; nothing is replaced unless all of them can be."""
    named: dict[str, Path] = {}
    for folder in map(Path.resolve, folders):
        if missing := [name for name in NEEDED if not (folder / name).is_file()]:
            raise SystemExit(f"{folder} holds no {' and no '.join(missing)}: name a folder that `bench --out` wrote.")
        if named.setdefault(folder.name, folder) != folder:
            raise SystemExit(f"{named[folder.name]} and {folder} have one name, by which results are kept: rename one.")
    for name, folder in named.items():
        kept = under / name
        if kept.resolve() == folder:
            continue
        kept.mkdir(parents=True, exist_ok=True)
        for file in (*NEEDED, *BESIDE):
            (kept / file).unlink(missing_ok=True)
            if (folder / file).exists():
                shutil.copyfile(folder / file, kept / file)


def at_home(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the split by init group, asked of the zoo that was learned from."""
    return [r for r in rows if r["split"] == "iid" and "/from=" not in r["task"]]


def scores(rows: Sequence[dict[str, Any]]) -> Any:
    """Zoos × metrics: a dot and its bounds for each baseline, controls gray, the ceiling a line."""
    home = at_home(rows)
    most = {z: max(r["n_train"] for r in home if r["zoo"] == z) for z in dict.fromkeys(r["zoo"] for r in home)}
    home = [r for r in home if r["n_train"] == most[r["zoo"]]]
    if not home:
        return None
    figure, axes = figures.figure_of(11, 1 + 3.6 * len(most), columns=2, rows=len(most))
    for i, zoo in enumerate(most):
        for j, metric in enumerate(SHOWN):
            ax = axes[i, j]
            own = [r for r in home if r["zoo"] == zoo and r["metric"] == metric and np.isfinite(r["value"])]
            bars = sorted((r for r in own if r["baseline"] != ORACLE), key=lambda r: r["value"])
            for place, r in enumerate(bars):
                color = figures.GREY if is_control(r["baseline"]) else figures.BLUE
                ax.plot(r["value"], place, "o", color=color)
                if r["low"] is not None and np.isfinite(r["low"]):
                    ax.plot([r["low"], r["high"]], [place, place], color=color)
            for r in own:
                if r["baseline"] == ORACLE:
                    ax.axvline(r["value"], color=figures.VERMILION, linestyle="--", label="ceiling")
            ax.set_yticks(range(len(bars)), [r["baseline"] for r in bars])
            ax.set_xlabel(f"{WORDS[metric]}, {zoo}")
            ax.set_xlim(max(-0.5, min((r["value"] for r in bars), default=0.0) - 0.02), 1.01)
    return figure


def transfer(rows: Sequence[dict[str, Any]]) -> Any:
    """Learned on × asked of: τ of the recipe, of images, of the statistics that are best at home, and of whole readers."""
    zoos = list(dict.fromkeys(r["zoo"] for r in rows if "/from=" in r["task"] and "-fresh-" not in r["task"]))
    iid = [r for r in rows if r["split"] == "iid" and r["metric"] == "kendall" and r["baseline"] != ORACLE]
    if len(zoos) < 2 or not any("/from=" in r["task"] for r in iid):
        return None
    home = [r for r in at_home(iid) if r["zoo"] in zoos and np.isfinite(r["value"])]
    mean = {
        n: np.mean([r["value"] for r in home if r["baseline"] == n]) for n in dict.fromkeys(r["baseline"] for r in home)
    }
    shown = [
        max(of, key=mean.__getitem__)
        for k in ("recipe", benchmark_page.SHOWN, "statistics")
        if (of := _of_kind(k, mean))
    ]
    whole = sorted(_of_kind("whole networks", mean), key=lambda n: -mean[n])
    best = {single(n): n for n in reversed(whole)}  # each once: one seed, or the mean of several
    shown += list(best.values())[::-1][:MOST_WHOLE]
    columns = min(3, len(shown))
    figure, axes = figures.figure_of(
        3.6 * columns, 3.4 * -(-len(shown) // columns), columns=columns, rows=-(-len(shown) // columns)
    )
    iid.sort(key=lambda r: r["n_train"])  # of several, the last is of most networks
    for ax in axes.ravel()[len(shown) :]:
        ax.axis("off")
    for name, ax in zip(shown, axes.ravel(), strict=False):
        values = np.full((len(zoos), len(zoos)), np.nan)
        for r in (r for r in iid if r["baseline"] == name):
            # None: networks that were built since, or levels of another zoo; no column is theirs.
            asked = next(
                (z for z in zoos if re.match(rf"{re.escape(z)}/[^/]+(/from={re.escape(r['zoo'])})?@", r["task"])), None
            )
            if asked is not None:
                values[zoos.index(r["zoo"]), zoos.index(asked)] = r["value"]
        ax.grid(visible=False)
        ax.imshow(values, vmin=0, vmax=1, cmap="Blues")
        for (a, b), v in np.ndenumerate(values):
            said, dark = ("–", False) if np.isnan(v) else (f"{v:.2f}", v > 0.6)
            ax.text(b, a, said, ha="center", va="center", color="white" if dark else figures.INK)
        short = [re.sub(r".*/", "", z).split("-")[0] for z in zoos]
        ax.set_xticks(range(len(zoos)), short)
        ax.set_yticks(range(len(zoos)), short)
        ax.set_title(f"{WORDS['kendall']} of {name}: on (rows), of (columns)", fontsize=9)
    return figure


def _of_kind(kind: str, names: Iterable[str]) -> list[str]:
    return [n for n in names if benchmark_page.KINDS[kind](n)]


def width(rows: Sequence[dict[str, Any]]) -> Any:
    """Width of the networks asked → τ, a panel for each other setting, a line for the best at home of each kind."""
    asked: dict[str, dict[str, list[tuple[int, dict[str, Any]]]]] = {}
    home = at_home(rows)
    names: dict[str, list[str]] = {}
    for zoo in dict.fromkeys(r["zoo"] for r in home):
        own = [r for r in home if r["zoo"] == zoo and r["metric"] == "r2"]
        kinds = (benchmark_page.KINDS[k] for k in ("recipe", "statistics", "whole networks"))
        names[zoo] = [
            max(of, key=lambda r: r["value"])["baseline"] for k in kinds if (of := [r for r in own if k(r["baseline"])])
        ]
    for r in rows:
        level = re.fullmatch(rf"([^@]*)/{r['target']}/from={re.escape(r['zoo'])}/([^@]*)@\d+", r["task"])
        told = dict(pair.split("=", 1) for pair in level[2].split(",")) if level else {}
        # Of several zoos that are learned from, the one whose networks are those of the widths.
        if not level or "width" not in told or r["metric"] != "kendall" or not level[1].startswith(r["zoo"]):
            continue
        if r["baseline"] in names.get(r["zoo"], ()):
            other = ", ".join(f"{k} {v}" for k, v in told.items() if k != "width")
            asked.setdefault(other, {}).setdefault(r["baseline"], []).append((int(told["width"]), r))
    if not asked:
        return None
    figure, axes = figures.figure_of(5.5 * len(asked), 4.5, columns=len(asked))
    for j, (other, lines) in enumerate(sorted(asked.items())):
        for k, (name, found) in enumerate(lines.items()):
            found.sort(key=lambda pair: pair[0])
            at, values = [w for w, _ in found], [r["value"] for _, r in found]
            color = figures.GREY if is_control(name) else figures.COLORS[k]
            axes[0, j].plot(at, values, "o-", color=color, label=name)
            axes[0, j].vlines(at, [r["low"] for _, r in found], [r["high"] for _, r in found], color=color)
        axes[0, j].set_xscale("log", base=2)
        axes[0, j].set_xlabel(f"width of the networks asked{', ' if other else ''}{other}")
        axes[0, j].set_ylabel(WORDS["kendall"])
    axes[0, 0].legend(fontsize=8, frameon=False)
    return figure


def curve(rows: Sequence[dict[str, Any]]) -> Any:
    """Training networks → R² and τ, a line for each baseline of the first zoo that has several numbers."""
    home = [r for r in at_home(rows) if r["baseline"] != ORACLE]
    zoo = next(
        (z for z in dict.fromkeys(r["zoo"] for r in home) if len({r["n_train"] for r in home if r["zoo"] == z}) > 1),
        None,
    )
    if zoo is None:
        return None
    figure, axes = figures.figure_of(12, 4.8, columns=2)
    names = [n for n in dict.fromkeys(r["baseline"] for r in home if r["zoo"] == zoo) if n == single(n)]
    controls = [n for n in names if is_control(n)]
    weights = [n for n in names if n not in controls]
    colors = [c for c in figures.COLORS if c != figures.GREY]
    for j, metric in enumerate(SHOWN):
        ax = axes[0, j]
        own = [r for r in home if r["zoo"] == zoo and r["metric"] == metric]
        for name in [*weights, *controls]:
            points = sorted((r["n_train"], r["value"]) for r in own if r["baseline"] == name)
            if name in controls:
                how = {"color": figures.GREY, "linestyle": STYLES[controls.index(name) % len(STYLES)]}
            else:
                turn, place = divmod(weights.index(name), len(colors))
                how = {"color": colors[place], "marker": "os"[turn % 2]}
            ax.plot(*zip(*points, strict=True), label=name, **how)
        ax.set_xscale("log")
        counts = sorted({r["n_train"] for r in own})
        ax.set_xticks(counts, [f"{n:,}" for n in counts])
        ax.minorticks_off()
        ax.set_xlabel(f"training networks of {zoo}")
        ax.set_ylabel(WORDS[metric])
        ax.set_ylim(-0.05, 1.01)
    axes[0, 1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def save(figure: Any, path: Path) -> None:
    """As SVG: the same numbers, the same bytes."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": path.stem}), files.atomic(path) as out:
        figure.savefig(out, format="svg", bbox_inches="tight", metadata={"Date": None})


if __name__ == "__main__":
    main()
