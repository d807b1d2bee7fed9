"""Manifest and tables → the dataset card (`README.md`) and the files beside it.

The card's two configs are what `datasets.load_dataset` reads. Each carries the zoo's
content digest as its `description`: `datasets` caches a local folder under its name and
the card's configs, not under file contents, so a rebuilt zoo would otherwise give its old
rows in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets import files

LICENSE = "cc-by-4.0"


def load_lines(zoo: str) -> str:
    """The three lines that load a zoo from the folder above it, or from the Hub."""
    return (
        "from datasets import load_dataset\n"
        f'models = load_dataset("{zoo}", split="train").with_format("numpy")\n'
        'print(models["weights"][:].shape, models["test_accuracy"][:].mean())\n'
    )


def render(manifest: Mapping[str, Any], models: pa.Table) -> str:
    """The card as Markdown with its YAML head. The same zoo gives the same card."""
    zoo, counts = manifest["zoo"], manifest["counts"]
    n_models, n_snapshots = sum(counts["models"].values()), sum(counts["snapshots"].values())
    sources = ", ".join(f"`{s['id']}`" for s in manifest["sources"])
    license = manifest["identity"]["document"].get("license") or LICENSE
    parts = [
        _head(manifest, n_models, license),
        f"# {zoo}\n",
        f"{n_models:,} neural networks trained on {sources}, with {n_snapshots:,} snapshots of their weights: "
        f"{_layouts(manifest)}. Built by `weightzoo` from the recipe `grid.yaml`.\n",
        f"## Load\n\n```python\n{load_lines(zoo)}```\n\n"
        f'`load_dataset("{zoo}", "snapshots")` gives one row per snapshot; its weights lie in `weights/` as '
        "safetensors, at `shard`, `tensor`, `row`.\n",
        "## What a row is\n\nA row of `models` is one trained network: its weights as one flat float32 vector"
        + (" (`weights`)" if manifest["inline_weights"] else " (in `weights/`)")
        + ", every factor of its training as a typed column, the keys of its random streams, and its metrics on "
        "training, validation and test images. A row of `snapshots` is the same network at one step. "
        "`manifest.json` says where each tensor lies in the vector (`layouts`).\n",
        _axes(manifest),
        _counts(manifest, models),
        "## Splits\n\nModels that share an initialization (`init_group`) are never in two splits: paired models are "
        "near-twins, and a random split would leak. Resample whole groups for intervals.\n",
        "## Limits\n\nSmall networks on small images, trained for comparison and not for use. "
        f"Metrics are on the source's own test images. {_diverged(counts)}\n",
        "## How it was made\n\n"
        + "".join(f"* engine `{e['engine']}` ({e['version']}, {e['isa']})\n" for e in manifest["engines"])
        + "\n`python -m zoo_builder --grid grid.yaml` builds it again; `python -m zoo_builder verify` checks it.\n",
        f"## Licence and citation\n\n{license}; the source data keep their own terms. See `CITATION.cff`.\n",
    ]
    return "\n".join(parts)


def _head(manifest: Mapping[str, Any], n_models: int, license: str) -> str:
    digest = manifest["digests"]
    lines = [
        "---", f"license: {license}", f"pretty_name: {manifest['zoo'].split('/')[-1]}", "tags:", "- model zoo",
        "- weight space learning", "- weightzoo", "size_categories:", f"- {_size(n_models)}", "configs:",
    ]  # fmt: skip
    for config in ("models", "snapshots"):
        lines += [f"- config_name: {config}"]
        if config == "models":
            lines += ["  default: true"]
        lines += [f'  description: "sha256:{digest["weights"][:32]}{digest[config + "_rows"][:32]}"', "  data_files:"]
        for split in _splits(manifest):
            lines += [f"  - split: {split}", f"    path: data/{config}/{split}-*.parquet"]
    return "\n".join([*lines, "---", ""])


def _splits(manifest: Mapping[str, Any]) -> list[str]:
    return [s for s in files.SPLITS if s in manifest["counts"]["models"]]


def _size(n: int) -> str:
    names = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for bound, name in names.items() if n < bound), "1M<n<10M")


def _layouts(manifest: Mapping[str, Any]) -> str:
    sizes = sorted(sum(_size_of(e) for e in entries) for entries in manifest["layouts"].values())
    if len(sizes) == 1:
        return f"one layout of {sizes[0]:,} values"
    return f"{len(sizes)} layouts of {sizes[0]:,} to {sizes[-1]:,} values"


def _size_of(entry: Mapping[str, Any]) -> int:
    size = 1
    for n in entry["shape"]:
        size *= n
    return size


def _axes(manifest: Mapping[str, Any]) -> str:
    if not manifest["axes"]:
        return "## What varies\n\nThe random streams only: every model has the same settings.\n"
    rows = []
    for name, levels in manifest["axes"].items():
        text = "random sample" if levels == "sample" else ", ".join(f"`{v}`" for v in levels[:12])
        rows.append(f"| `{name}` | {text}{', …' if levels != 'sample' and len(levels) > 12 else ''} |\n")
    return "## What varies\n\n| axis | levels |\n|---|---|\n" + "".join(rows)


def _counts(manifest: Mapping[str, Any], models: pa.Table) -> str:
    rows = ["## Counts\n\n| split | models | snapshots | test accuracy (min, median, max) |\n|---|---|---|---|\n"]
    for split in _splits(manifest):
        count = manifest["counts"]["models"][split]
        accuracy = models.filter(pc.equal(models["split"], split))["test_accuracy"].drop_null().to_numpy()
        low, middle, high = sorted(accuracy)[0], sorted(accuracy)[len(accuracy) // 2], sorted(accuracy)[-1]
        rows.append(
            f"| {split} | {count:,} | {manifest['counts']['snapshots'][split]:,} | "
            f"{low:.3f}, {middle:.3f}, {high:.3f} |\n"
        )
    return "".join(rows)


def _diverged(counts: Mapping[str, Any]) -> str:
    n = counts["diverged"]
    return f"{n:,} models diverged; they are kept up to their last finite snapshot (`stop_reason`)." if n else ""


def companions(zoo: str, license: str | None) -> dict[str, str]:
    """The small sealed files beside the data: what Git and the Hub expect of a dataset."""
    name = zoo.split("/")[-1]
    return {
        ".gitattributes": "*.parquet filter=lfs diff=lfs merge=lfs -text\n*.safetensors filter=lfs diff=lfs merge=lfs -text\n",
        "LICENSE": f"{name} is released under {license or LICENSE} (https://spdx.org/licenses/).\n"
        "The data its networks were trained on keep their own terms.\n",
        "CITATION.cff": "cff-version: 1.2.0\nmessage: If you use this zoo, please cite it as below.\n"
        f"type: dataset\ntitle: \"{zoo}: a population of trained neural networks\"\nauthors:\n- name: weightzoo\n"
        f"license: {license or LICENSE}\n",
    }
