"""Manifest and tables → the dataset card (`README.md`) and the files beside it.

The card's two configs are what `datasets.load_dataset` reads. Each carries the zoo's
content digest as its `description`: `datasets` caches a local folder under its name and
the card's configs, not under file contents, so a rebuilt zoo would otherwise give its old
rows in silence. With the tables' schemas the head also states every column's type and each
split's number of rows (`dataset_info`), against which `datasets` checks what it reads.

The same zoo gives the same card, whatever the order of the manifest's keys.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets.format.paths import SPLITS

LICENSE = "cc-by-4.0"
CONFIGS = ("models", "snapshots")
# What the Hub lets one search for: predicting a network's properties from its weights.
TASKS = ("tabular-regression", "graph-ml", "other")
TAGS = ("weightzoo", "model zoo", "weight space learning", "neural network weights")
# Pictures by file name under `pictures/`, and what they show.
PICTURES = {
    "accuracy.png": "Histogram of the models' test accuracy",
    "trajectories.png": "Test accuracy of the models over training",
}
MOST_LEVELS = 12  # of one axis in the card; the tables have them all


def load_lines(zoo: str) -> str:
    """The three lines that load a zoo from the folder above it, or from the Hub."""
    return (
        "from datasets import load_dataset\n"
        f'models = load_dataset("{zoo}", split="train").with_format("numpy")\n'
        'print(models["weights"][:].shape, models["test_accuracy"][:].mean())\n'
    )


def render(
    manifest: Mapping[str, Any],
    models: pa.Table,
    *,
    name: str | None = None,
    schemas: Mapping[str, pa.Schema] | None = None,
    pictures: Sequence[str] = (),
) -> str:
    """The card as Markdown with its YAML head.

    `name` is the id it is published under, where that is not the zoo's own; `schemas` are
    those of the Parquet tables by config; `pictures` names the files there are.
    """
    zoo, counts = name or manifest["zoo"], manifest["counts"]
    parts = [
        _head(manifest, zoo, schemas),
        f"# {zoo}\n",
        _lead(manifest),
        _load(manifest, zoo),
        "## What a row is\n\nA row of `models` is one trained network: its weights as one flat float32 vector"
        + (" (`weights`)" if manifest["inline_weights"] else " (in `weights/`)")
        + ", every factor of its training as a typed column, the keys of its random streams, and its metrics on "
        "training, validation and test images. A row of `snapshots` is the same network at one step. "
        "`manifest.json` says where each tensor lies in the vector (`layouts`).\n",
        _axes(manifest),
        _counts(manifest, models),
        _pictures(pictures),
        "## Splits\n\nModels that share an initialization (`init_group`) are never in two splits: paired models are "
        f"near-twins, and a random split would leak. There are {counts['init_groups']:,} such groups; "
        "resample whole groups for intervals.\n",
        _made(manifest),
        "## Limits\n\nSmall networks on small data, trained for comparison and not for use. "
        "They may carry the biases of their source data. "
        f"Metrics are on the source's own test images. {_diverged(counts)}".rstrip()
        + "\n",
        _licence(manifest, zoo),
    ]
    return "\n".join(part for part in parts if part)


def digest(manifest: Mapping[str, Any], config: str) -> str:
    """What tells two zoos of one name apart: digests of the weights and of the config's rows."""
    found = manifest["digests"]
    return f"sha256:{found['weights'][:32]}{found[config + '_rows'][:32]}"


def license_of(manifest: Mapping[str, Any]) -> str:
    """The licence that the recipe names, or ours."""
    return str(manifest["identity"]["document"].get("license") or LICENSE)


def splits_of(manifest: Mapping[str, Any]) -> list[str]:
    """The splits that have models, in their one order."""
    return [s for s in SPLITS if s in manifest["counts"]["models"]]


# ── the head ──


def _head(manifest: Mapping[str, Any], zoo: str, schemas: Mapping[str, pa.Schema] | None) -> str:
    n_models = sum(manifest["counts"]["models"].values())
    lines = ["---", f"license: {_text(license_of(manifest))}", f"pretty_name: {_text(zoo.split('/')[-1])}"]
    lines += ["task_categories:", *(f"- {task}" for task in TASKS)]
    lines += ["tags:", *(f"- {tag}" for tag in TAGS)]
    if sources := sorted({s["id"] for s in manifest["sources"] if "/" in s["id"]}):
        lines += ["source_datasets:", *(f"- {_text(source)}" for source in sources)]
    lines += ["size_categories:", f"- {_size(n_models)}", "configs:"]
    for config in CONFIGS:
        lines += [f"- config_name: {config}"]
        if config == "models":
            lines += ["  default: true"]
        lines += [f'  description: "{digest(manifest, config)}"', "  data_files:"]
        for split in splits_of(manifest):
            lines += [f"  - split: {split}", f"    path: data/{config}/{split}-*.parquet"]
    if schemas is not None:
        lines += ["dataset_info:"]
        for config in CONFIGS:
            lines += _info(manifest, config, schemas[config])
    return "\n".join([*lines, "---", ""])


def _info(manifest: Mapping[str, Any], config: str, schema: pa.Schema) -> list[str]:
    lines = [f"- config_name: {config}", "  features:"]
    for field in schema:
        lines += [f"  - name: {_text(field.name)}", *(f"    {line}" for line in _feature(field.type))]
    lines += ["  splits:"]
    sizes = {s: sum(e["bytes"] for e in manifest["files"] if e["path"].startswith(f"data/{config}/{s}-"))
             for s in splits_of(manifest)}  # fmt: skip
    for split, size in sizes.items():
        rows = manifest["counts"][config][split]
        lines += [f"  - name: {split}", f"    num_bytes: {size}", f"    num_examples: {rows}"]
    return [*lines, f"  download_size: {sum(sizes.values())}", f"  dataset_size: {sum(sizes.values())}"]


def _feature(kind: pa.DataType) -> list[str]:
    """An Arrow type as `datasets` writes it in a card."""
    if pa.types.is_fixed_size_list(kind):
        return [f"list: {_value(kind.value_type)}", f"length: {kind.list_size}"]
    if pa.types.is_list(kind):
        return [f"list: {_value(kind.value_type)}"]
    return [f"dtype: {_value(kind)}"]


def _value(kind: pa.DataType) -> str:
    return {"double": "float64", "float": "float32"}.get(str(kind), str(kind))


def _text(value: str) -> str:
    """A YAML scalar that reads back as this very string."""
    words = ("yes", "no", "on", "off", "true", "false", "null")  # YAML reads these as something else
    if re.fullmatch(r"[A-Za-z][\w./ -]*\w", value, re.ASCII) and value.lower() not in words:
        return value
    plain = set(string.ascii_letters + string.digits + " -_./")
    return '"' + "".join(c if c in plain else f"\\U{ord(c):08x}" for c in value) + '"'


def _size(n: int) -> str:
    names = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for bound, name in names.items() if n < bound), "1M<n<10M")


# ── the text ──


def _lead(manifest: Mapping[str, Any]) -> str:
    counts = manifest["counts"]
    n_models, n_snapshots = sum(counts["models"].values()), sum(counts["snapshots"].values())
    sources = ", ".join(_source(s["id"]) for s in manifest["sources"])
    return (
        f"{n_models:,} neural networks trained on {sources}, with {n_snapshots:,} snapshots of their weights: "
        f"{_layouts(manifest)}. Built by `weightzoo` from the recipe `grid.yaml`.\n"
    )


def _source(id: str) -> str:
    return f"[{id}](https://huggingface.co/datasets/{id})" if "/" in id else f"`{id}`"


def _load(manifest: Mapping[str, Any], zoo: str) -> str:
    lines = load_lines(zoo)
    if not manifest["inline_weights"]:
        lines = lines.replace('models["weights"][:].shape, ', "len(models), ")
    return (
        f"## Load\n\n```python\n{lines}```\n\n"
        f'`load_dataset("{zoo}", "snapshots")` gives one row per snapshot; its weights lie in `weights/` as '
        "safetensors, at `shard`, `tensor`, `row`. With `pip install weightzoo` they are one array in the order "
        "of that table, and single rows come over the network without the rest:\n\n"
        "```python\nfrom zoo_datasets import open_zoo\n"
        f'zoo = open_zoo("{zoo}")\nweights = zoo.weights[[0, 1, 2]]  # [3, n_params], float32\n```\n'
    )


def _layouts(manifest: Mapping[str, Any]) -> str:
    sizes = sorted(sum(size_of(e) for e in entries) for entries in manifest["layouts"].values())
    if len(sizes) == 1:
        return f"one layout of {sizes[0]:,} values"
    return f"{len(sizes)} layouts of {sizes[0]:,} to {sizes[-1]:,} values"


def size_of(entry: Mapping[str, Any]) -> int:
    """Number of values of a layout's entry."""
    size = 1
    for n in entry["shape"]:
        size *= n
    return size


def _axes(manifest: Mapping[str, Any]) -> str:
    if not manifest["axes"]:
        return "## What varies\n\nThe random streams only: every model has the same settings.\n"
    rows = []
    for name, levels in sorted(manifest["axes"].items()):
        text = "random sample" if levels == "sample" else ", ".join(f"`{v}`" for v in levels[:MOST_LEVELS])
        rows.append(f"| `{name}` | {text}{', …' if levels != 'sample' and len(levels) > MOST_LEVELS else ''} |\n")
    return "## What varies\n\n| axis | levels |\n|---|---|\n" + "".join(rows)


def _counts(manifest: Mapping[str, Any], models: pa.Table) -> str:
    rows = ["## Counts\n\n| split | models | snapshots | test accuracy (min, median, max) |\n|---|---:|---:|---|\n"]
    for split in splits_of(manifest):
        count = manifest["counts"]["models"][split]
        accuracy = sorted(models.filter(pc.equal(models["split"], split))["test_accuracy"].drop_null().to_pylist())
        shown = [accuracy[0], accuracy[len(accuracy) // 2], accuracy[-1]] if accuracy else []
        rows.append(
            f"| {split} | {count:,} | {manifest['counts']['snapshots'][split]:,} | "
            f"{', '.join(f'{a:.3f}' for a in shown) or 'none measured'} |\n"
        )
    return "".join(rows)


def _pictures(pictures: Sequence[str]) -> str:
    return "".join(f"![{text}](pictures/{file})\n\n" for file, text in PICTURES.items() if file in pictures)


def _made(manifest: Mapping[str, Any]) -> str:
    engines = "".join(f"* engine `{e['engine']}` ({e['version']}, {e['isa']})\n" for e in manifest["engines"])
    return (
        f"## How it was made\n\n{engines}\n"
        "`python -m zoo_builder --grid grid.yaml` builds it again; `python -m zoo_builder verify` checks it. "
        "Every random number comes from the keys in the tables; initial weights are the snapshots at step 0. "
        "`manifest.json` holds size and SHA-256 of every file.\n" + _lineage(manifest)
    )


def _lineage(manifest: Mapping[str, Any]) -> str:
    """Where models go on from another zoo's, and what of the optimizer lies beside the weights."""
    lines = [
        f"\nThe models start from snapshots of `{parent}`, whose split they keep: `parent_id`, `parent_step` and "
        "`parent_sha256` name them. It has to be there for a rebuild.\n"
        for parent in manifest["identity"].get("parents", {})
    ]
    if manifest.get("optimizer_state"):
        lines.append(
            "\nThe optimizer's state at each snapshot lies in `optimizer/`, in the row of its weights: tensors "
            "`<layout>.slot1` and `<layout>.slot2`.\n"
        )
    return "".join(lines)


def _diverged(counts: Mapping[str, Any]) -> str:
    n = counts["diverged"]
    return f"{n:,} models diverged; they are kept up to their last finite snapshot (`stop_reason`)." if n else ""


def _licence(manifest: Mapping[str, Any], zoo: str) -> str:
    key = re.sub(r"\W+", "-", zoo)
    return (
        f"## Licence and citation\n\n{license_of(manifest)}; the source data keep their own terms. See `CITATION.cff`, or\n\n"
        f"```bibtex\n@misc{{{key},\n  title        = {{{zoo}: a population of trained neural networks}},\n"
        f"  author       = {{weightzoo}},\n  howpublished = {{Hugging Face dataset {zoo}}},\n"
        f"  note         = {{content {digest(manifest, 'models')[:23]}}}\n}}\n```\n"
    )


def companions(zoo: str, license: str | None) -> dict[str, str]:
    """The small sealed files beside the data: what Git and the Hub expect of a dataset."""
    name = zoo.split("/")[-1]
    return {
        ".gitattributes": "".join(
            f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in ("parquet", "safetensors", "png")
        ),
        "LICENSE": f"{name} is released under {license or LICENSE} (https://spdx.org/licenses/).\n"
        "The data its networks were trained on keep their own terms.\n",
        "CITATION.cff": "cff-version: 1.2.0\nmessage: If you use this zoo, please cite it as below.\n"
        f'type: dataset\ntitle: "{zoo}: a population of trained neural networks"\nauthors:\n- name: weightzoo\n'
        f"license: {license or LICENSE}\n",
    }
