"""Manifest and tables → the dataset card (`README.md`) and the files beside it.

The card's two configs are what `datasets.load_dataset` reads. Each carries the zoo's
content digest as its `description`: `datasets` caches a local folder under its name and
the card's configs, not under file contents, so a rebuilt zoo would otherwise give its old
rows in silence. With the tables' schemas the head also states every column's type and each
split's number of rows (`dataset_info`), against which `datasets` checks what it reads.

The same zoo gives the same card, whatever the order of the manifest's keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from zoo_datasets.core import plain_text, yaml_text
from zoo_datasets.format import licenses
from zoo_datasets.format.manifest import CONFIGS, Levels, Manifest
from zoo_datasets.format.manifest_parts import PAGE, Counts

LICENSE = "cc-by-4.0"
# What the Hub lets one search for: predicting a network's properties from its weights.
TASKS = ("tabular-regression", "graph-ml", "other")
TAGS = ("weightzoo", "model zoo", "weight space learning", "neural network weights")
# Pictures by file name under `pictures/`, and what they show.
PICTURES = {
    "accuracy.png": "Histogram of the models' test accuracy",
    "trajectories.png": "Test accuracy of the models over training",
}
HUB_ID = r"[\w.-]+/[\w.-]+"  # any other id in a link could lead elsewhere
_WORD = re.compile(r"[A-Za-z][\w.+-]*", re.ASCII)
MOST_LEVELS = 12  # of one axis in the card; the tables have them all


def load_lines(manifest: Manifest, where: str) -> str:
    """The three lines that load a zoo from its folder or from the Hub: the first split that has models."""
    size = 'models["weights"][:].shape' if manifest.inline_weights else "len(models)"
    return (
        "from datasets import load_dataset\n"
        f'models = load_dataset({_literal(where)}, split="{manifest.split_names[0]}").with_format("numpy")\n'
        f'print({size}, models["test_accuracy"][:].mean())\n'
    )


def _literal(text: str) -> str:
    """A string of Python in double quotes, in which everything can be seen."""
    return plain_text.line(json.dumps(text, ensure_ascii=False))


def least_median_most(column: pa.ChunkedArray) -> list[float]:
    """Of the finite values; empty where there is none."""
    values = np.asarray(column.drop_null(), float)
    values = values[np.isfinite(values)]
    return [float(values.min()), float(np.median(values)), float(values.max())] if len(values) else []


def render(
    manifest: Manifest,
    models: pa.Table,
    *,
    name: str | None = None,
    schemas: Mapping[str, pa.Schema] | None = None,
    pictures: Sequence[str] = (),
    page: bool = False,
) -> str:
    """The card as Markdown with its YAML head.

    `name` is the id it is published under, where that is not the zoo's own; `schemas` are
    those of the Parquet tables by config; `pictures` names the files there are, and `page` says that `zoo.html` is.
    """
    zoo = name or manifest.zoo
    sections = [
        _head(manifest, zoo, schemas),
        f"# {plain_text.markdown(zoo)}\n",
        _lead(manifest),
        _load(manifest, zoo),
        "## What a row is\n\nA row of `models` is one trained network: its weights as one flat float32 vector"
        + (" (`weights`)" if manifest.inline_weights else " (in `weights/`)")
        + ", every factor of its training as a typed column, the keys of its random streams, and its metrics on "
        "training, validation and test images. A row of `snapshots` is the same network at one step. "
        "`manifest.json` says where each tensor lies in the vector (`layouts`).\n",
        _axes(manifest),
        _counts(manifest, models),
        _pictures(pictures),
        _page() if page else "",
        "## Splits\n\nModels that share an initialization (`init_group`) are never in two splits: paired models are "
        f"near-twins, and a random split would leak. {_groups(manifest.counts)} whole groups for intervals.\n",
        _made(manifest),
        "## Limits\n\nSmall networks on small data, trained for comparison and not for use. "
        "They may carry the biases of their source data. "
        f"Metrics are on the source's own test images. {_diverged(manifest.counts)}".rstrip()
        + "\n",
        _licence(manifest, zoo),
    ]
    return "\n".join(section for section in sections if section)


def digest(manifest: Manifest, config: str) -> str:
    """What tells two zoos of one name apart: digests of the weights and of the config's rows."""
    return f"sha256:{manifest.digest('weights')[:32]}{manifest.digest(f'{config}_rows')[:32]}"


def license_of(manifest: Manifest) -> str:
    """The licence that the recipe names, or ours."""
    return manifest.license or LICENSE


def license_id(manifest: Manifest) -> str:
    """Its identifier on the Hub, which refuses others; `other` where it has none."""
    return licenses.on_the_hub(license_of(manifest)) or "other"


def misleading(manifest: Manifest, schemas: Mapping[str, pa.Schema], text: str) -> str | None:
    """What in a card's head has `load_dataset` read something other than the zoo's tables; None where nothing does.

    The head is found as `datasets` finds it. Whatever else a card says is free.
    """
    from huggingface_hub import DatasetCard

    try:
        said = DatasetCard(text, ignore_metadata_errors=True).data.to_dict()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError):
        return "its head cannot be read"
    if said.get("configs") != [_config(manifest, config) for config in CONFIGS]:
        return "`configs` name other files than the zoo's tables"
    types = [_info(manifest, config, schemas[config]) for config in CONFIGS]
    return (
        None
        if said.get("dataset_info", types) == types
        else "`dataset_info` has other columns or counts than the zoo's tables"
    )


# ── the head ──


def _head(manifest: Manifest, zoo: str, schemas: Mapping[str, pa.Schema] | None) -> str:
    sources = sorted({s.id for s in manifest.sources if "/" in s.id})
    head = {
        "license": license_id(manifest),
        **({"license_name": _slug(license_of(manifest))} if license_id(manifest) == "other" else {}),
        "pretty_name": zoo.split("/")[-1],
        "task_categories": list(TASKS),
        "tags": list(TAGS),
        **({"source_datasets": sources} if sources else {}),
        "size_categories": [_size(manifest.counts.n_models)],
        "configs": [_config(manifest, config) for config in CONFIGS],
    }
    if schemas is not None:
        head["dataset_info"] = [_info(manifest, config, schemas[config]) for config in CONFIGS]
    return f"---\n{yaml_text.dump(head)}---\n"


def _slug(name: str) -> str:
    """A licence's own name as the Hub writes them; `unnamed` where nothing of it can be."""
    return re.sub(r"[^a-z0-9.]+", "-", name.casefold())[:96].strip("-.") or "unnamed"


def _config(manifest: Manifest, config: str) -> dict[str, Any]:
    return {
        "config_name": config,
        **({"default": True} if config == "models" else {}),
        "description": digest(manifest, config),
        "data_files": [{"split": s, "path": f"data/{config}/{s}-*.parquet"} for s in manifest.split_names],
    }


def _info(manifest: Manifest, config: str, schema: pa.Schema) -> dict[str, Any]:
    sizes = {split: sum(f.bytes for f in files) for split, files, _ in manifest.tables(config)}
    return {
        "config_name": config,
        "features": [{"name": field.name, **_feature(field.type)} for field in schema],
        "splits": [
            {"name": split, "num_bytes": sizes[split], "num_examples": rows}
            for split, _, rows in manifest.tables(config)
        ],
        "download_size": sum(sizes.values()),
        "dataset_size": sum(sizes.values()),
    }


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """An Arrow type as `datasets` writes it in a card."""
    if pa.types.is_fixed_size_list(kind):
        return {"list": _value(kind.value_type), "length": kind.list_size}
    return {"list": _value(kind.value_type)} if pa.types.is_list(kind) else {"dtype": _value(kind)}


def _value(kind: pa.DataType) -> str:
    return {"double": "float64", "float": "float32"}.get(str(kind), str(kind))


def _size(n: int) -> str:
    names = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}
    return next((name for bound, name in names.items() if n < bound), "1M<n<10M")


# ── the text ──


def _lead(manifest: Manifest) -> str:
    sources = ", ".join(_source(s.id) for s in manifest.sources)
    return (
        f"{manifest.counts.n_models:,} neural networks trained on {sources}, with {manifest.counts.n_snapshots:,} "
        f"snapshots of their weights: {_layouts(manifest)}. Built by `weightzoo` from the recipe `grid.yaml`.\n"
    )


def _source(id: str) -> str:
    return f"[{id}](https://huggingface.co/datasets/{id})" if re.fullmatch(HUB_ID, id) else plain_text.code(id)


def _load(manifest: Manifest, zoo: str) -> str:
    name = _literal(zoo)
    return (
        f"## Load\n\n```python\n{load_lines(manifest, zoo)}```\n\n"
        f'`load_dataset({name}, "snapshots")` gives one row per snapshot; its weights lie in `weights/` as '
        "safetensors, at `shard`, `tensor`, `row`. With `pip install weightzoo` they are one array in the order "
        "of that table, and single rows come over the network without the rest:\n\n"
        "```python\nfrom zoo_datasets import open_zoo\n"
        f"zoo = open_zoo({name})\nweights = zoo.weights[[0, 1, 2]]  # [3, n_params], float32\n```\n"
    )


def _layouts(manifest: Manifest) -> str:
    widths = manifest.widths
    values = " to ".join(f"{w:,}" for w in dict.fromkeys((widths[0], widths[-1]))) if widths else "no"
    return (
        f"{len(manifest.layouts)} layouts of {values} values" if len(widths) > 1 else f"one layout of {values} values"
    )


def levels_text(levels: Levels, shown: Callable[[object], str] = str) -> str:
    """The levels of an axis in a line, the first of many, each as `shown` writes it."""
    if levels == "sample":
        return "random sample"
    return ", ".join(map(shown, levels[:MOST_LEVELS])) + (", …" if len(levels) > MOST_LEVELS else "")


def _axes(manifest: Manifest) -> str:
    if not manifest.axes:
        return "## What varies\n\nThe random streams only: every model has the same settings.\n"
    rows = [
        f"| {plain_text.code(name)} | {levels_text(levels, plain_text.code)} |\n"
        for name, levels in sorted(manifest.axes.items())
    ]
    return "## What varies\n\n| axis | levels |\n|---|---|\n" + "".join(rows)


def _counts(manifest: Manifest, models: pa.Table) -> str:
    rows = ["## Counts\n\n| split | models | snapshots | test accuracy (min, median, max) |\n|---|---:|---:|---|\n"]
    for split in manifest.split_names:
        shown = least_median_most(models.filter(pc.equal(models["split"], split))["test_accuracy"])
        rows.append(
            f"| {split} | {manifest.counts.models[split]:,} | {manifest.counts.snapshots[split]:,} | "
            f"{', '.join(f'{a:.3f}' for a in shown) or 'none measured'} |\n"
        )
    return "".join(rows)


def _pictures(pictures: Sequence[str]) -> str:
    return "".join(f"![{text}](pictures/{file})\n\n" for file, text in PICTURES.items() if file in pictures)


def _page() -> str:
    return (
        f"## Look at it\n\n[`{PAGE}`]({PAGE}) shows all of it: a map of the weights, settings and metrics with brushes, curves, "
        "filters, neighbors and twins of each network, and any selection as code. Download the file and open it in a browser: it needs no "
        "server and no network.\n"
    )


def _made(manifest: Manifest) -> str:
    engines = "".join(
        f"* engine {plain_text.code(e.engine)} ({', '.join(plain_text.markdown(v) for v in (e.version, e.isa) if v)})\n"
        for e in manifest.engines
    )
    return (
        f"## How it was made\n\n{engines}\n"
        "`python -m zoo_builder --grid grid.yaml` builds it again; `python -m zoo_builder verify` checks it. "
        "Every random number comes from the keys in the tables; initial weights are the snapshots at step 0. "
        "`manifest.json` holds size and SHA-256 of every file.\n" + _lineage(manifest)
    )


def _lineage(manifest: Manifest) -> str:
    """Where models go on from another zoo's, and what of the optimizer lies beside the weights."""
    lines = [
        f"\nThe models start from snapshots of {plain_text.code(parent)}, whose split they keep: `parent_id`, `parent_step` and "
        "`parent_sha256` name them. It has to be there for a rebuild.\n"
        for parent in manifest.identity.parents or {}
    ]
    if manifest.optimizer_state:
        lines.append(
            "\nThe optimizer's state at each snapshot lies in `optimizer/`, in the row of its weights: tensors "
            "`<layout>.slot1` and `<layout>.slot2`.\n"
        )
    return "".join(lines)


def _groups(counts: Counts) -> str:
    return "Resample" if counts.init_groups is None else f"There are {counts.init_groups:,} such groups; resample"


def _diverged(counts: Counts) -> str:
    n = counts.diverged
    return f"{n:,} models diverged; they are kept up to their last finite snapshot (`stop_reason`)." if n else ""


def _licence(manifest: Manifest, zoo: str) -> str:
    return (
        f"## Licence and citation\n\n{plain_text.markdown(license_of(manifest))}; the source data keep their own terms. See `CITATION.cff`, or\n\n"
        f"```bibtex\n{citation(manifest, zoo)}```\n"
    )


def citation(manifest: Manifest, zoo: str) -> str:
    """The zoo as an entry of BibTeX."""
    key = re.sub(r"\W+", "-", zoo)
    return (
        f"@misc{{{key},\n  title        = {{{zoo}: a population of trained neural networks}},\n"
        f"  author       = {{weightzoo}},\n  howpublished = {{Hugging Face dataset {zoo}}},\n"
        f"  note         = {{content {digest(manifest, 'models')[:23]}}}\n}}\n"
    )


def companions(zoo: str, license: str | None) -> dict[str, str]:
    """The small sealed files beside the data: what Git and the Hub expect of a dataset."""
    name, license = zoo.split("/")[-1], license or LICENSE
    if not _WORD.fullmatch(license):  # on a line of its own, where a name in plain words does not belong
        license = licenses.on_the_hub(license) or "other"
    return {
        ".gitattributes": "".join(
            f"*.{kind} filter=lfs diff=lfs merge=lfs -text\n" for kind in ("parquet", "safetensors", "png")
        ),
        "LICENSE": f"{name} is released under {license} (https://spdx.org/licenses/).\n"
        "The data its networks were trained on keep their own terms.\n",
        "CITATION.cff": "cff-version: 1.2.0\nmessage: If you use this zoo, please cite it as below.\n"
        f'type: dataset\ntitle: "{zoo}: a population of trained neural networks"\nauthors:\n- name: weightzoo\n'
        f"license: {license}\n",
    }
