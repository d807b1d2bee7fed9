"""A manifest against itself and against its tables: what one says twice, and does not say alike.

In:  a `Manifest` that was read, and both tables.
Out: one sentence for each contradiction.

The manifest's own digest finds every change. Manifests written before there was one have only this: what
is said in one place alone (names of classes, mean and deviation of a source, the order of an axis' levels,
fingerprints) cannot be compared here.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import math
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from zoo_datasets.core import streams
from zoo_datasets.errors import FormatVersionError, IntegrityError
from zoo_datasets.format import contents, schema, splits
from zoo_datasets.format.manifest import Manifest
from zoo_datasets.format.manifest_parts import VALUE_BYTES, SourceRecord
from zoo_datasets.format.paths import SPLITS
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.sources.spec import SourceSpec

Tables = Mapping[str, pa.Table]

RULES = (*splits.RULES, "inherited")  # how a builder assigns models to splits
# Of means and errors, which another NumPy may add up in another order.
TOLERANCE = 1e-12


def contradictions(manifest: Manifest, tables: Tables) -> Iterator[str]:
    """What does not fit, a sentence each. Tables have all columns of the format, in their types."""
    for part in (_itself, _columns, _counts, _models, _between, _recipe, _sources, _axes, _fingerprints):
        yield from part(manifest, tables)


def _differ(what: str, said: Any, found: Any) -> Iterator[str]:
    if said != found:
        yield f"the manifest says {reprlib.repr(said)} of `{what}`, {reprlib.repr(found)} is found"


def _itself(manifest: Manifest, tables: Tables) -> Iterator[str]:
    """Digests in their form, names of files that are used, and the seal."""
    yield from _differ("digests", sorted(manifest.digests), sorted(("weights", "models_rows", "snapshots_rows")))
    digests = [*manifest.digests.items(), *(("sources", s.sha256) for s in manifest.sources)]
    for f in manifest.fingerprints:
        digests += [("fingerprints", d) for d in (f.init_sha256, f.examples_sha256, f.order_sha256)]
    yield from (f"{d!r} in the manifest's `{n}` is no SHA-256" for n, d in digests if not _is_digest(d))
    shards = set(tables["snapshots"]["shard"].to_pylist())
    yield from _differ("files under weights/", sorted(f.path for f in manifest.files.under("weights/")), sorted(shards))
    slots = bool(manifest.files.under("optimizer/"))
    yield from _differ("optimizer_state", bool(manifest.optimizer_state), slots)


def _columns(manifest: Manifest, tables: Tables) -> Iterator[str]:
    names = tables["models"].column_names
    lineage = [c.name for c in schema.LINEAGE]
    attack = [c.name for c in schema.ATTACK]
    there = {config: [n for n in attack if n in table.column_names] for config, table in tables.items()}
    if there["models"] != there["snapshots"] or there["models"] not in ([], attack):
        said = "; ".join(f"{config} has {', '.join(names) or 'none'}" for config, names in there.items())
        yield f"{', '.join(attack)} are in both tables or in none, and {said}"
        return
    attack = there["models"]
    own = {*schema.COLUMNS["models"], *lineage, *attack, "weights"}
    yield from _differ("factors", sorted(manifest.factors), sorted(n for n in names if n not in own))
    kept = [schema.OPTIMIZER.name] if manifest.optimizer_state else []
    wanted = {*schema.COLUMNS["snapshots"], *manifest.axes, *attack, *kept}
    yield from _differ("axes", sorted(wanted), sorted(tables["snapshots"].column_names))
    yield from _differ("inline_weights", manifest.inline_weights, "weights" in names)


def _counts(manifest: Manifest, tables: Tables) -> Iterator[str]:
    for config, table in tables.items():
        # A table is its files, one split after another, and each has the rows that the manifest says.
        if table["split"].to_pylist() != [s for s in SPLITS for _ in range(manifest.counts.of(config).get(s, 0))]:
            yield f"rows of {config} lie in files of another split than they say"
    models = tables["models"]
    found = {
        "init_groups": _distinct(models["init_group"]),
        "cohorts": _distinct(models["cohort_id"]),
        "diverged": len(models) - models["diverged_step"].null_count,
    }
    for name, number in found.items():
        if getattr(manifest.counts, name) is not None or manifest.recipe_sha256 is not None:
            yield from _differ(f"counts.{name}", getattr(manifest.counts, name), number)


def _models(manifest: Manifest, tables: Tables) -> Iterator[str]:
    """Networks and engines that models name, and those that the manifest has."""
    models = tables["models"].select(["architecture_id", "layout", "n_params"])
    for name, layout, width in sorted({tuple(r.values()) for r in models.to_pylist()}, key=str):
        if layout not in manifest.layouts or manifest.width(layout) != width:
            yield f"models have {width} weights in the layout {layout}, and the manifest has none such"
        if name is not None and (name not in manifest.architectures or manifest.architectures[name].layout != layout):
            yield f"models have the architecture {name} in the layout {layout}, and the manifest has none such"
    if manifest.recipe_sha256 is not None:
        yield from _differ("architectures", sorted(manifest.architectures), _values(models["architecture_id"]))
        yield from _differ("layouts", sorted(manifest.layouts), _values(models["layout"]))
        for name, own in manifest.layouts.items():
            yield from _differ(f"layouts.{name}", name, own.id)
    rows = tables["models"].select(["engine", "engine_version", "isa"]).to_pylist()
    used = {tuple(r.values()) for r in rows if r["engine"] is not None}
    engines = [(e.engine, e.version, e.isa) for e in manifest.engines]
    yield from _differ("engines", sorted(engines, key=str), sorted(used, key=str))


def _between(manifest: Manifest, tables: Tables) -> Iterator[str]:
    """Snapshots against the rows of their models: what both say, and the order in which they stand."""
    models, snapshots = tables["models"], tables["snapshots"]
    ids = models["model_id"].combine_chunks()
    place = np.asarray(pc.fill_null(pc.index_in(snapshots["model_id"].combine_chunks(), ids), -1), np.int64)
    if (place < 0).any():  # of no model: said elsewhere
        return
    owner = pa.array(place)
    for name, own in (("split", "split"), ("tensor", "layout"), *((axis, axis) for axis in manifest.axes)):
        if name in snapshots.column_names and own in models.column_names:
            differ = _unlike(snapshots[name].combine_chunks(), models[own].take(owner).combine_chunks())
            if len(differ):
                yield f"{len(differ):,} snapshots have another `{name}` than their model's `{own}`, such as those of {ids[place[differ[0]]]}"
    if (np.diff(place) < 0).any():
        yield "snapshots do not follow the order of their models"
    if (np.asarray(snapshots["step"]) < 0).any():
        yield "snapshots have steps below 0"
    split, index = models["split"].to_pylist(), models["plan_index"].to_pylist()
    for (a, i), (b, j) in itertools.pairwise(zip(split, index, strict=True)):
        # An importer's numbers are its own.
        if manifest.recipe_sha256 is not None and a == b and i is not None and j is not None and j <= i:
            yield f"models of {a} are not in the order of `plan_index`"
            break
    last = np.full(len(ids), -1)
    last[place] = np.arange(len(place))  # of several the last one stays
    if (last < 0).any():
        return
    at = pa.array(last)
    for name in contents.PUBLISHED_COLUMNS:
        there = name in models.column_names and name in snapshots.column_names
        # Those are compared with the shards; of networks of others a metric may be known of the last snapshot alone.
        if there and name not in ("step", "weights_sha256") and snapshots[name].null_count < len(snapshots):
            differ = _unlike(models[name].combine_chunks(), snapshots[name].take(at).combine_chunks())
            if len(differ):
                yield f"{len(differ):,} models have another `{name}` than their last snapshot, such as {ids[differ[0]]}"


def _unlike(a: pa.Array, b: pa.Array) -> np.ndarray:
    """Where two columns differ, int64; null is null and NaN is NaN."""
    if a.equals(b):
        return np.zeros(0, np.int64)
    pairs = zip(a.to_pylist(), b.to_pylist(), strict=True)
    return np.array(
        [i for i, (x, y) in enumerate(pairs) if x != y and not (x is not None and x != x and y != y)], np.int64
    )


def _recipe(manifest: Manifest, tables: Tables) -> Iterator[str]:
    """What a builder says of its recipe; an importer has none."""
    identity, models = manifest.identity, tables["models"]
    if identity.document.get("zoo", manifest.zoo) != manifest.zoo:
        yield f"the manifest is of {manifest.zoo}, its recipe of {identity.document['zoo']}"
    if manifest.recipe_sha256 is None:
        return
    found = streams.digest([identity.recipe, dict(identity.document)])
    yield from _differ("recipe_sha256", manifest.recipe_sha256, found)
    if identity.more:
        yield f"the manifest's `identity` has parts that nobody knows: {', '.join(sorted(identity.more))}"
    yield from _differ("identity.models", identity.models, len(models))
    yield from _differ("identity.cohorts", identity.cohorts, _distinct(models["cohort_id"]))
    rows = {tuple(r.values()) for r in models.select(["engine", "device"]).to_pylist()}
    yield from _differ("identity.engines", list(identity.engines or ()), sorted(f"{e} on {d}" for e, d in rows))
    yield from _differ("identity.sources", list(identity.sources or ()), sorted(s.sha256 for s in manifest.sources))
    lists = {f"layers-{streams.digest(layers)[:8]}": layers for layers in manifest.layer_lists.values()}
    yield from _differ("layer_lists", sorted(manifest.layer_lists), sorted(lists))
    if "architecture" in models.column_names:
        named = [v for v in _values(models["architecture"]) if v.startswith("layers-")]
        yield from _differ("layer_lists", sorted(manifest.layer_lists), named)
    yield from _splits(manifest)
    yield from _population(manifest, models)
    parents = _values(models["parent_zoo"]) if "parent_zoo" in models.column_names else []
    yield from _differ("identity.parents", sorted(identity.parents or ()), parents)


def _splits(manifest: Manifest) -> Iterator[str]:
    if manifest.splits is None:
        yield "the manifest has no `splits`"
        return
    rule, fractions = manifest.splits.rule, dict(manifest.splits.fractions)
    if rule not in RULES:
        yield f"the manifest's `splits.rule` is {rule!r}, not one of {', '.join(RULES)}"
    if rule == "inherited":
        return
    known = splits.rule_for(manifest.counts.init_groups or 0)
    if (rule, known) != ("deficit", "blocks"):  # zoos of few groups that were sealed before there were blocks
        yield from _differ("splits.rule", rule, known)
    if not set(fractions) <= set(SPLITS) or not math.isclose(sum(fractions.values()), 1.0, abs_tol=TOLERANCE):
        yield f"the manifest's `splits.fractions` are {fractions}, and no shares"
    given = manifest.identity.document.get("splits")
    if isinstance(given, Mapping):
        yield from _differ("splits.fractions", {name: fractions.get(name, 0) for name in given}, dict(given))


def _population(manifest: Manifest, models: pa.Table) -> Iterator[str]:
    said = manifest.population
    if said is None:
        yield "the manifest has no `population`"
        return
    accuracy, groups = models["test_accuracy"].to_pylist(), models["init_group"].to_pylist()
    if None in accuracy or None in groups:
        return
    number = np.unique(groups, return_inverse=True)[1]
    means = np.bincount(number, accuracy) / np.bincount(number)
    error = float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else None
    yield from _differ("population.init_groups", said.init_groups, len(means))
    for name, found in (("test_accuracy", float(means.mean())), ("standard_error", error)):
        value = getattr(said, name)
        if (value is None) != (found is None) or (
            value is not None and found is not None and not math.isclose(value, found, rel_tol=TOLERANCE)
        ):
            yield from _differ(f"population.{name}", value, found)


def _sources(manifest: Manifest, tables: Tables) -> Iterator[str]:
    models = tables["models"]
    if manifest.sources or manifest.recipe_sha256 is not None:
        yield from _differ("sources", sorted({s.sha256 for s in manifest.sources}), _values(models["source_sha256"]))
    for source in manifest.sources:
        where = f"sources: {source.id}"
        sizes = {
            "class_names": len(set(source.class_names)) == len(source.class_names) > 0,
            "images": set(source.images) == set(SPLITS),
            "peak": source.peak > 0,
            "spec": set(source.spec) <= {f.name for f in dataclasses.fields(SourceSpec)},
            "mean and std": len(source.mean) == len(source.std) and all(s > 0 for s in source.std),
        }
        yield from (
            f"`{name}` of {where} in the manifest is no sensible value" for name, good in sizes.items() if not good
        )
        yield from _differ(f"{where}, spec.id", source.spec.get("id", source.id), source.id)
        for part in SPLITS:
            wanted = source.spec.get(part)
            if wanted is not None:
                yield from _differ(f"{where}, images.{part}", source.images.get(part), wanted)
        own = models.filter(pc.equal(models["source_sha256"], source.sha256))
        for field in dataclasses.fields(SourceSpec):
            column, said = field.metadata["column"], _hashable(source.spec.get(field.name))
            if field.name not in source.spec or column not in manifest.factors or column not in own.column_names:
                continue
            found = [field.default if v is None else v for v in _each(own[column])]
            if said not in found and not (said is None and field.default in found):
                yield f"the manifest says {said!r} of `{where}, spec.{field.name}`, and no model does"
        yield from _fits_networks(manifest, source, own, where)


def _fits_networks(manifest: Manifest, source: SourceRecord, models: pa.Table, where: str) -> Iterator[str]:
    for name in _values(models["architecture_id"]):
        try:
            network = manifest.architecture(name)
        except (IntegrityError, FormatVersionError):  # said elsewhere
            continue
        if isinstance(network, Architecture) and network.input_shape != source.input_shape:
            yield f"{where} has inputs {list(source.input_shape)}, architecture {name} takes {list(network.input_shape)}"
    for column in ("train_count_per_class", "test_count_per_class"):
        # A head may have more outputs than there are classes; nothing is of those.
        last = max((i for v in models[column].to_pylist() for i, n in enumerate(v or ()) if n), default=-1)
        if last >= len(source.class_names):
            yield f"{where} has {len(source.class_names)} classes, models count {last + 1}"


def _axes(manifest: Manifest, tables: Tables) -> Iterator[str]:
    for name, levels in manifest.axes.items():
        if name not in manifest.factors or name not in tables["models"].column_names:
            yield f"the axis {name!r} of the manifest is no factor of its models"
            continue
        if levels == "sample" or manifest.recipe_sha256 is None:  # an importer's labels are its own
            continue
        values = _each(tables["models"][name])
        found, said = (
            {_level(streams.level_label(_finite(v))) for v in values if v is not None},
            set(map(_level, levels)),
        )
        # Where the level means nothing, as momentum to Adam, the row has null and the axis its label.
        if not found <= said or (None not in values and found != said) or len(said) < len(levels):
            yield from _differ(f"axes.{name}", sorted(map(_level, levels)), sorted(found))


def _fingerprints(manifest: Manifest, tables: Tables) -> Iterator[str]:
    widths = dict(zip(tables["models"]["model_id"].to_pylist(), tables["models"]["n_params"].to_pylist(), strict=True))
    for f in manifest.fingerprints:
        length = len(base64.b64decode(f.weights)) // VALUE_BYTES
        if not 0 < length <= widths.get(f.model_id, 0):  # of a large network every tenth weight or so
            yield f"the manifest has a fingerprint of {f.model_id} with {length:,} weights, and no such model"


# ── values of columns ──


def _is_digest(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def _each(column: pa.ChunkedArray) -> list[Any]:
    """The distinct values, null among them."""
    return sorted({_hashable(v) for v in _few(column)}, key=lambda v: (v is None, str(v)))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """The distinct values that are there, sorted."""
    return sorted({v for v in _few(column) if v is not None})


def _few(column: pa.ChunkedArray) -> list[Any]:
    """The values, each once where Arrow can tell: a hundred thousand Python objects take longer than their hashes."""
    return (column if pa.types.is_nested(column.type) else pc.unique(column)).to_pylist()  # type: ignore[no-any-return]


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _level(label: str) -> str:
    """A label, of a number the one of its float: a column of floats has 5.0 where the recipe says 5."""
    try:
        return repr(float(label))
    except ValueError:
        return label


def _finite(value: Any) -> Any:
    """What canonical JSON can write: NaN is a text here."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _distinct(column: pa.ChunkedArray) -> int:
    return len(_values(column))
