"""Splits never part a group, and an audit finds what is on two sides."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import re
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_builder import plan
from zoo_builder.build import build
from zoo_datasets import audit, near_duplicates, split_files, symmetry
from zoo_datasets.core import streams
from zoo_datasets.errors import FormatVersionError, GridError, IntegrityError, ZooNotFoundError
from zoo_datasets.format.manifest import Manifest

SIDES = ("train", "validation", "test")
GOLDEN = Path(__file__).parent / "golden/weightzoo/golden"


@dataclasses.dataclass
class FakeZoo:
    """What an audit reads of a zoo."""

    models: pa.Table
    snapshots: pa.Table
    manifest: Manifest
    weights: np.ndarray


def zoo(
    n_groups: int = 24, subsets: tuple[str, ...] = ("full", "half"), name: str = "weightzoo/fake", start: int = 0, width: int = 100,
    parents: dict[int, int] | None = None, **columns: list[Any],
) -> FakeZoo:  # fmt: skip
    """Groups of models that share an init, one model a subset; two snapshots each. `parents`: child → parent, by place."""
    n = n_groups * len(subsets)
    group = start + np.arange(n) // len(subsets)
    keys = [streams.stream_key(["init", int(g)]) for g in group]
    ids = [streams.digest([name, start, i])[:16] for i in range(n)]
    parents = parents or {}
    first = [np.random.default_rng(int(g)).normal(size=width) for g in group]
    rng = np.random.default_rng(start + 1)
    weights = np.array([w for f in first for w in (f, f + rng.normal(size=width))], np.float32)
    lr = [1e-3 if g % 2 else 1e-2 for g in group.tolist()]
    roots = {}
    for child in sorted(parents):
        roots[child] = roots.get(parents[child], parents[child])
    sides = split_sides(keys, parents)
    models = {
        "model_id": ids, "split": sides, "init_key": keys, "init_group": [k[:16] for k in keys],
        "parent_id": [ids[parents[i]] if i in parents else None for i in range(n)],
        "lineage_root": [ids[roots[i]] if i in parents else None for i in range(n)],
        "layout": ["L"] * n, "subset": list(subsets) * n_groups, "lr": lr, "source": ["digits"] * n,
        "test_accuracy": [0.5 + 20 * x + 0.1 * (i % len(subsets)) + 0.001 * i / n for i, x in enumerate(lr)], **columns,
    }  # fmt: skip
    hashes = [hashlib.sha256(w.tobytes()).hexdigest() for w in weights]
    snapshots = {"model_id": [i for i in ids for _ in range(2)], "step": [0, 10] * n, "weights_sha256": hashes}
    types = {"parent_id": pa.string(), "lineage_root": pa.string()}
    table = pa.table({k: pa.array(v, types.get(k)) for k, v in models.items()})
    digests = {"weights": streams.digest(hashes), "models_rows": streams.digest(ids)}
    manifest = dataclasses.replace(Manifest.read(GOLDEN), zoo=name, digests=digests, factors=("subset", "lr", "source"))
    return FakeZoo(table, pa.table(snapshots), manifest, weights)


def split_sides(keys: list[str], parents: dict[int, int]) -> list[str]:
    """By init group, children with their parents."""
    result = [SIDES[int(k[:8], 16) % 3] for k in keys]
    for child in sorted(parents):
        result[child] = result[parents[child]]
    return result


def changed(fake: FakeZoo, column: str, at: int, value: Any) -> FakeZoo:
    """The zoo with one cell of `models` replaced."""
    values = fake.models[column].to_pylist()
    values[at] = value
    place = fake.models.column_names.index(column)
    table = fake.models.set_column(place, column, pa.array(values, fake.models.schema.field(column).type))
    return dataclasses.replace(fake, models=table)


def sides_of_groups(split: split_files.Split, *zoos: FakeZoo) -> dict[str, set[str]]:
    keys = split_files.group_keys(*zoos)
    found: dict[str, set[str]] = {}
    for model, side in split.assignment.items():
        found.setdefault(keys[model], set()).add(side)
    return found


# ── groups ──


def test_the_key_of_a_group_is_its_init_group_and_children_do_not_change_it() -> None:
    alone = zoo(4, ("full",))
    assert list(split_files.group_keys(alone).values()) == alone.models["init_group"].to_pylist()
    # Model 3 continues model 2, which continues model 0: one group, by the name of the first.
    family = zoo(4, ("full",), parents={2: 0, 3: 2})
    init = family.models["init_group"].to_pylist()
    assert list(split_files.group_keys(family).values()) == [init[0], init[1], init[0], init[0]]


def test_an_init_key_alone_ties_models_together() -> None:
    fake = zoo(4, ("full",))
    keys = list(split_files.group_keys(changed(fake, "init_key", 3, fake.models["init_key"][1].as_py())).values())
    assert keys[3] == keys[1]


def test_a_parent_alone_ties_a_child_to_its_group() -> None:
    fake = zoo(4, ("full",))
    child = changed(fake, "parent_id", 3, fake.models["model_id"][1].as_py())
    keys = list(split_files.group_keys(child).values())
    assert keys[3] == keys[1] == fake.models["init_group"][1].as_py()


def test_models_whose_ancestor_is_in_no_zoo_stay_together() -> None:
    fake = zoo(4, ("full",))
    for at in (1, 2):
        fake = changed(changed(fake, "parent_id", at, "elsewhere-2"), "lineage_root", at, "elsewhere")
    keys = list(split_files.group_keys(fake).values())
    assert keys[1] == keys[2] == "elsewhere"


def test_a_childs_side_is_the_same_with_and_without_its_parents_zoo() -> None:
    parents, children = zoo(8, ("full",)), zoo(8, ("full", "frac=0.5"), name="weightzoo/children")
    for at in range(16):  # as a builder's: of the parent's init group, in a zoo of their own
        for column in ("parent_id", "lineage_root"):
            children = changed(children, column, at, parents.models["model_id"][at // 2].as_py())
    alone, both = split_files.group_keys(children), split_files.group_keys(parents, children)
    assert alone == {i: both[i] for i in alone}
    assert {both[i] for i in alone} == set(parents.models["init_group"].to_pylist())


def test_zoos_that_share_an_initialization_share_groups() -> None:
    one, other = zoo(6), zoo(6, name="weightzoo/other", start=3)
    keys = split_files.group_keys(one, other)
    assert len(set(keys.values())) == 9
    split = split_files.by_group(one, other, fractions={"train": 0.5, "test": 0.5})
    assert all(len(s) == 1 for s in sides_of_groups(split, one, other).values())


# ── makers ──


@given(
    n=st.integers(8, 30), links=st.dictionaries(st.integers(8, 29), st.integers(0, 7), max_size=6),
    maker=st.sampled_from(["group", "drop", "held"]), start=st.integers(0, 1000),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
@pytest.mark.slow
def test_no_group_straddles_and_adding_models_moves_none(n: int, links: dict[int, int], maker: str, start: int) -> None:
    def make(fake: FakeZoo) -> split_files.Split:
        if maker == "group":
            return split_files.by_group(fake)
        if maker == "drop":
            return split_files.held_out("subset", fake, test=["half"], straddling="drop")
        return split_files.held_out("lr", fake, test=[1e-2])

    half = zoo(n, start=start, parents={2 * c: 2 * p for c, p in links.items() if c < n})
    whole = zoo(n + 9, start=start, parents={2 * c: 2 * p for c, p in links.items() if c < n + 9})
    try:
        before, after = make(half), make(whole)
    except GridError:
        return  # too few groups, or lineages over both levels
    for split, fake in ((before, half), (after, whole)):
        assert all(len(s) == 1 for s in sides_of_groups(split, fake).values())
    old = set(half.models["model_id"].to_pylist())
    assert {i: s for i, s in after.assignment.items() if i in old} == dict(before.assignment)


def test_the_stored_split_is_what_the_zoo_says() -> None:
    fake = zoo()
    split = split_files.stored(fake)
    assert split.column(fake.models).to_pylist() == fake.models["split"].to_pylist()
    assert split.counts == {s: Counter(fake.models["split"].to_pylist())[s] for s in SIDES}
    split.check(fake)


def test_zoos_that_say_two_things_of_a_model_make_no_split() -> None:
    """A later zoo's word took the earlier one's place, and nothing was said."""
    fake = zoo()
    side = fake.models["split"][0].as_py()
    other = dataclasses.replace(changed(fake, "split", 0, next(s for s in SIDES if s != side)))
    other = dataclasses.replace(other, manifest=dataclasses.replace(other.manifest, zoo="weightzoo/again"))
    with pytest.raises(GridError, match=r"is in two of these zoos, with split"):
        split_files.stored(fake, other)
    with pytest.raises(GridError, match=r"is in two of these zoos, with split"):
        split_files.held_out("split", fake, other, test=["test"])
    same_name = dataclasses.replace(fake.manifest, digests={**fake.manifest.digests, "weights": "0" * 64})
    with pytest.raises(GridError, match=r"Two of these zoos are called weightzoo/fake and are not the same"):
        split_files.by_group(fake, dataclasses.replace(fake, manifest=same_name))


def test_a_selection_is_audited_by_a_split_of_its_zoo(tiny_zoo: Path) -> None:
    from zoo_datasets.zoo import open_zoo

    opened = open_zoo(tiny_zoo)
    report = audit.audit(split_files.stored(opened), opened.select(subset="full"))
    assert sum(report.counts.values()) == 8


@pytest.mark.parametrize("test", [1e-2, [1e-2], np.array([1e-2]), (np.float64(1e-2),), pa.array([1e-2]), [1e-2, 1e-2]])
def test_a_level_is_one_or_several_of_any_library(test: Any, tmp_path: Path) -> None:
    split = split_files.held_out("lr", zoo(), test=test)
    assert split.assignment == split_files.held_out("lr", zoo(), test=[1e-2]).assignment
    split.save(tmp_path / "split.json")
    assert split_files.load_split(tmp_path / "split.json") == split


def test_a_level_may_be_no_number() -> None:
    """NaN equals nothing, and a zoo disagreed with itself."""
    some = zoo(lr=[float("nan") if i % 4 < 2 else 0.01 for i in range(48)])
    assert split_files.held_out("lr", some, test=[0.01]).counts == {"train": 24, "test": 24}


def test_lists_are_levels_too() -> None:
    lists = zoo(subset_classes=[[0, 1] if i % 4 < 2 else [2] for i in range(48)])
    split = split_files.held_out("subset_classes", lists, test=[2])
    assert split.assignment == split_files.held_out("subset_classes", lists, test=[[2]]).assignment
    assert split.counts == {"train": 24, "test": 24}
    with pytest.raises(GridError, match=r"Unknown level '\[9\]' in column 'subset_classes'"):
        split_files.held_out("subset_classes", lists, test=[[9]])


def test_held_out_levels_are_the_test_set_and_nothing_else_is() -> None:
    fake = zoo()
    split = split_files.held_out("lr", fake, test=[1e-2])
    expected = ["test" if lr == 1e-2 else "train" for lr in fake.models["lr"].to_pylist()]
    assert split.column(fake.models).to_pylist() == expected
    assert (split.name, split.rule["axis"]) == ("held-out-lr", "lr")


def test_a_source_is_held_out_over_several_zoos() -> None:
    one = zoo(5)
    other = zoo(5, name="weightzoo/other", start=100, source=["iris"] * 10)
    split = split_files.held_out("source", one, other, test=["iris"])
    assert set(split.column(one.models).to_pylist()) == {"train"}
    assert set(split.column(other.models).to_pylist()) == {"test"}
    assert set(split.zoos) == {"weightzoo/fake", "weightzoo/other"}
    shared = zoo(5, name="weightzoo/other", start=3, source=["iris"] * 10)
    with pytest.raises(GridError, match=r"2 of 8 groups .* would fall on several sides by 'source'"):
        split_files.held_out("source", one, shared, test=["iris"])


def test_a_paired_axis_is_refused_or_the_other_sides_are_dropped() -> None:
    fake = zoo()
    with pytest.raises(GridError, match=r"24 of 24 groups .* by 'subset' with test levels half, .*straddling=\"drop\""):
        split_files.held_out("subset", fake, test=["half"])
    split = split_files.held_out(
        "subset", fake, test=["half"], straddling="drop", fractions={"train": 0.6, "test": 0.4}
    )
    kept = dict(zip(fake.models["model_id"].to_pylist(), fake.models["subset"].to_pylist(), strict=True))
    assert {(kept[i], s) for i, s in split.assignment.items()} == {("full", "train"), ("half", "test")}
    assert len(split.assignment) == 24
    assert split.column(fake.models).null_count == 24


def test_wishes_that_cannot_be_met_name_what_is_there() -> None:
    fake = zoo()
    with pytest.raises(GridError, match=r"Unknown column 'learning_rate' in weightzoo/fake"):
        split_files.held_out("learning_rate", fake, test=[1])
    with pytest.raises(GridError, match=r"Unknown level '0.5' in column 'lr'. Known: 0.001, 0.01"):
        split_files.held_out("lr", fake, test=[0.5])
    with pytest.raises(GridError, match=r"Unknown way with straddling groups 'keep'. Known: drop, error"):
        split_files.held_out("lr", fake, test=[1e-2], straddling="keep")
    with pytest.raises(GridError, match=r"No model is left for train in split 'held-out-source'"):
        split_files.held_out("source", fake, test=["digits"])
    with pytest.raises(GridError, match=r"add up to 0.9 .* they must add up to 1"):
        split_files.by_group(fake, fractions={"train": 0.7, "test": 0.2})
    with pytest.raises(GridError, match=r"Unknown split 'tst'. Known: test, train, validation. Did you mean `test`"):
        split_files.by_group(fake, fractions={"train": 0.7, "tst": 0.3})
    with pytest.raises(GridError, match=r"No model is left for .* in split 'by-group'"):
        split_files.by_group(zoo(2))
    with pytest.raises(GridError, match=r"1 of 24 groups .* by stored splits"):
        split_files.stored(changed(fake, "split", 0, "test" if fake.models["split"][0].as_py() != "test" else "train"))


# ── files ──


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_a_split_comes_back_from_its_file(tmp_path: Path, suffix: str) -> None:
    fake = zoo()
    split = split_files.held_out("subset", fake, test=["half"], straddling="drop", name="no-half", version=3)
    split.save(tmp_path / f"a.{suffix}")
    split.save(tmp_path / f"b.{suffix}")
    back = split_files.load_split(tmp_path / f"a.{suffix}")
    assert back == split
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]


def test_files_that_are_no_split_or_damaged_are_refused(tmp_path: Path) -> None:
    path, table = tmp_path / "s.json", tmp_path / "s.parquet"
    split = split_files.stored(zoo())
    split.save(path)
    split.save(table)
    good = json.loads(path.read_bytes())
    with pytest.raises(ZooNotFoundError, match=r"There is no split at .*none.json"):
        split_files.load_split(tmp_path / "none.json")
    with pytest.raises(ValueError, match=r"saved as .json or .parquet, not as 's.csv'"):
        split.save(tmp_path / "s.csv")

    moved = {
        **good["models"],
        "test": good["models"]["test"] + good["models"]["train"][:1],
        "train": good["models"]["train"][1:],
    }
    twice = {**good["models"], "test": good["models"]["test"] + good["models"]["train"][:1]}
    for models in (moved, twice):
        path.write_text(json.dumps({**good, "models": models}))
        with pytest.raises(IntegrityError, match="is damaged: its assignment is not the one that was saved"):
            split_files.load_split(path)
    path.write_text(json.dumps({**good, "format_version": 2}))
    with pytest.raises(FormatVersionError, match="has format version 2; this library reads up to 1"):
        split_files.load_split(path)
    wrong: dict[str, tuple[Any, ...]] = {
        "zoos": ({"a/b": 5}, ["a/b"], "a/b", None),
        "name": ([1], None),
        "version": ({"a": 1}, "1"),
        "rule": (None, []),
    }
    for text in ("[1]", "{", '{"models": {}}', json.dumps({**good, "models": 3}), "[" * 100_000,
                 *(json.dumps({**good, key: value}) for key, values in wrong.items() for value in values)):  # fmt: skip
        path.write_text(text)
        with pytest.raises(IntegrityError, match="is no split of a zoo, or damaged"):
            split_files.load_split(path)

    for content in (b"PAR1", table.read_bytes()[:-40]):
        table.write_bytes(content)
        with pytest.raises(IntegrityError, match="is damaged: "):
            split_files.load_split(table)
    pq.write_table(pa.table({"model_id": ["a"], "split": ["train"]}), table)
    with pytest.raises(IntegrityError, match="is no split of a zoo, or damaged"):
        split_files.load_split(table)
    head = {k: v for k, v in good.items() if k != "models"}
    many = pa.table({"model_id": ["a"] * 1000, "split": ["train"] * 1000})
    pq.write_table(many.replace_schema_metadata({b"weightzoo.split": json.dumps(head)}), table)
    with pytest.raises(IntegrityError, match="it has 1,000 rows, not 48"):
        split_files.load_split(table)


def test_a_split_is_refused_for_another_zoo_or_other_contents() -> None:
    fake = zoo()
    split = split_files.stored(fake)
    with pytest.raises(IntegrityError, match="was made for weightzoo/fake, not for weightzoo/other"):
        split.check(zoo(name="weightzoo/other"))
    with pytest.raises(IntegrityError, match=r"was made for weightzoo/fake with digest [0-9a-f]{16}…; this one has"):
        audit.audit(split, zoo(25))
    with pytest.raises(IntegrityError, match="names 1 models that are in no zoo"):
        split.check(dataclasses.replace(fake, models=fake.models.slice(1)))


# ── leaks ──


def found(report: audit.Audit) -> dict[str, tuple[int, int]]:
    """Kind → leaks, and those across zoos."""
    return {f.kind: (f.count, f.across_zoos) for f in report.leaks}


@pytest.mark.slow
def test_a_split_by_groups_leaks_nothing() -> None:
    fake = zoo(parents={4: 0, 5: 4})
    for split in (None, split_files.stored(fake), split_files.by_group(fake)):
        report = audit.audit(split, fake)
        assert found(report) == {}
        assert report.unassigned == 0
        assert sum(report.counts.values()) == 48
    assert {f.kind: f.looked_at for f in report.findings} == {
        "model ids": 48, "weights": 24 + 48, "init keys": 24, "init groups": 24, "lineages": 2, "training subsets": 0,
        "near-duplicates": 48, "symmetric copies": 0,  # of a layout that nobody wrote down
    }  # fmt: skip


def test_a_random_split_of_twins_leaks_their_initialization() -> None:
    fake = zoo()
    rng = np.random.default_rng(0)
    random = split_files.Split(
        "random",
        1,
        split_files.stored(fake).zoos,
        {},
        {i: SIDES[rng.integers(3)] for i in fake.models["model_id"].to_pylist()},
    )
    report = audit.audit(random, fake)
    torn = found(report)
    assert torn["init keys"] == torn["init groups"] == torn["weights"]
    assert 10 <= torn["init keys"][0] <= 24
    assert "LEAK" in str(report)
    assert json.loads(json.dumps(report.to_json()))["findings"][2]["count"] == torn["init keys"][0]


@pytest.mark.slow
def test_two_zoos_with_one_initialization_on_different_sides_leak() -> None:
    one, other = zoo(6), zoo(6, name="weightzoo/other", start=3)
    assert found(audit.audit(None, one, other)) == {}  # the hash of the group put them on the same side
    at = next(i for i, s in enumerate(other.models["split"].to_pylist()) if s != "test" and i < 6)
    twin = at + 1 if at % 2 == 0 else at - 1
    moved = changed(changed(other, "split", at, "test"), "split", twin, "test")
    report = audit.audit(None, one, moved)
    assert found(report)["init keys"] == found(report)["init groups"] == found(report)["weights"] == (1, 1)
    key = moved.models["init_key"][at].as_py()
    assert next(f for f in report.leaks if f.kind == "init keys").examples == (key,)


def test_a_strangers_name_makes_no_line_of_a_report() -> None:
    forged = f"k\n  init groups: none — forged{'x' * 1000}"
    findings = (
        audit.Finding("init keys", 1, 0, 2, "shared", (forged,)),
        audit.Finding("init groups", 1, 0, 2, "shared", ("a",)),
    )
    report = audit.Audit("stored", ("a/b\n  init groups: none",), {"train": 1}, 0, findings, None, "none\nnone")
    lines = str(report).splitlines()
    assert len(lines) == 4
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["init keys", "init groups", "metadata alone"]
    assert max(map(len, lines)) < 250


def test_one_model_in_two_zoos_on_two_sides_leaks() -> None:
    one = zoo(6)
    side = one.models["split"][0].as_py()
    other = zoo(6, name="weightzoo/other", start=50)
    at = next(i for i, s in enumerate(other.models["split"].to_pylist()) if s != side)
    other = changed(other, "model_id", at, one.models["model_id"][0].as_py())
    assert found(audit.audit(None, one, other))["model ids"] == (1, 1)


@pytest.mark.some(1)
@pytest.mark.parametrize("column", ["parent_id", "lineage_root"])
def test_a_child_on_another_side_than_its_ancestor_leaks(column: str) -> None:
    fake = zoo(subsets=("full",))
    sides = fake.models["split"].to_pylist()
    child = next(i for i, s in enumerate(sides) if s != sides[0])
    fake = changed(fake, column, child, fake.models["model_id"][0].as_py())
    assert found(audit.audit(None, fake)) == {"lineages": (1, 0)}


@pytest.mark.slow
def test_a_near_copy_on_another_side_is_found_and_a_far_one_is_not() -> None:
    fake = zoo(40, ("full",), width=200)
    sides = fake.models["split"].to_pylist()
    near = next(i for i, s in enumerate(sides) if s != sides[0])
    far = next(i for i, s in enumerate(sides) if s == sides[0] and i)
    ids, rng = fake.models["model_id"].to_pylist(), np.random.default_rng(5)
    for copy, shift in ((near, 0.01), (far, 0.02)):  # row 2i + 1 is model i's last snapshot
        fake.weights[2 * copy + 1] = fake.weights[1] + shift * rng.normal(size=200).astype(np.float32)
    report = audit.audit(None, fake)
    assert found(report)["near-duplicates"] == (2, 0)  # both copies are near, and one of three is on another side
    pairs = {e.split(" ")[0] for e in next(f for f in report.leaks).examples}
    assert pairs == {f"{ids[a]}–{ids[b]}" for a, b in (sorted((0, near)), sorted((far, near)))}
    assert found(audit.audit(None, fake, near=1e-4)) == {}
    fake.weights += 1000.0  # far from zero float32 products hardly tell pairs apart; distances do
    assert found(audit.audit(None, fake))["near-duplicates"] == (2, 0)


@pytest.mark.slow
def test_blocks_and_samples_find_what_one_comparison_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = zoo(30, ("full",), width=50)
    fake.weights[1::2] = fake.weights[1] + 0.001 * np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32)
    fake.weights[1::4] += 50.0 * np.random.default_rng(1).normal(size=50).astype(np.float32)
    whole = audit.audit(None, fake)
    monkeypatch.setattr(near_duplicates, "MOST_BLOCK_ROWS", 7)
    assert audit.audit(None, fake) == whole
    sides = np.array(fake.models["split"].to_pylist())
    cluster = np.arange(30) % 2
    expected = sum(sides[i] != sides[j] and cluster[i] == cluster[j] for i in range(30) for j in range(i))
    assert found(whole)["near-duplicates"][0] == expected
    sampled, copies = audit.audit(None, fake, most_models=20).findings[-2:]
    assert sampled.looked_at == 20
    assert sampled.text.endswith("20 of 30 models of layout L drawn")
    assert (copies.looked_at, "20 models are of layouts that say of no units" in copies.text) == (0, True)


@pytest.mark.slow
def test_models_of_different_layouts_are_not_compared() -> None:
    fake = zoo(10, ("full",), layout=["L"] * 5 + ["M"] * 5)
    fake.weights[1::2] = fake.weights[1]
    sides = fake.models["split"].to_pylist()
    expected = sum(sides[i] != sides[j] for a in (0, 5) for i in range(a, a + 5) for j in range(a, i))
    assert found(audit.audit(None, fake))["near-duplicates"][0] == expected


@pytest.mark.slow
def test_models_that_take_no_part_leak_nothing() -> None:
    fake = zoo()
    split = split_files.held_out("subset", fake, test=["half"], straddling="drop")
    report = audit.audit(split, fake)
    assert found(report) == {}
    assert report.unassigned == 24


# ── metadata alone ──


@pytest.mark.slow
def test_metadata_alone_predict_what_follows_from_the_factors() -> None:
    report = audit.audit(None, zoo(40))
    assert report.metadata is not None
    assert report.metadata.value > 0.98
    assert report.metadata.low <= report.metadata.value <= report.metadata.high
    assert report.metadata.n_groups == len(
        {
            g
            for g, s in zip(*(zoo(40).models[c].to_pylist() for c in ("init_group", "split")), strict=True)
            if s == "test"
        }
    )
    assert "from subset, lr by a random forest" in report.metadata_note  # `source` does not vary
    noise = np.random.default_rng(0).normal(size=80).tolist()
    assert audit.audit(None, zoo(40, test_accuracy=noise)).metadata.value < 0.3


@pytest.mark.slow
def test_metadata_with_missing_and_many_values_are_used() -> None:
    rates = [None if i % 7 == 0 else i / 96 for i in range(96)]
    accuracy = [None if i == 5 else 0.3 if r is None else r for i, r in enumerate(rates)]
    report = audit.audit(None, zoo(96, ("full",), lr=rates, test_accuracy=accuracy))
    assert report.metadata.value > 0.95
    assert report.metadata.n_examples + int(report.metadata_note.split(", ")[-1].split(" ")[0]) <= 95


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_level_that_json_lacks_is_a_level(value: float) -> None:
    rates = [value if i % 7 == 0 else i / 96 for i in range(96)]
    report = audit.audit(
        None, zoo(96, ("full",), lr=rates, test_accuracy=[0.3 if not np.isfinite(r) else r for r in rates])
    )
    assert report.metadata.value > 0.9


def test_what_cannot_be_predicted_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = zoo()
    with pytest.raises(GridError, match=r"Unknown target 'accuracy' in weightzoo/fake.*test_accuracy"):
        audit.audit(None, fake, target="accuracy")
    with pytest.raises(GridError, match="The target 'subset' of weightzoo/fake is of type string; a number is needed"):
        audit.audit(None, fake, target="subset")
    with pytest.raises(ValueError, match="audit needs at least one zoo"):
        audit.audit(None)
    alike = audit.audit(None, zoo(subsets=("full",), lr=[0.1] * 24))
    assert (alike.metadata, alike.metadata_note) == (None, "not computed: no factor varies in train")
    few = audit.audit(split_files.by_group(fake, fractions={"train": 1.0}), fake)
    assert "0 test groups are too few" in few.metadata_note
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    missing = audit.audit(None, fake)
    assert missing.metadata is None
    assert "pip install scikit-learn" in missing.metadata_note
    assert "metadata alone: not computed" in str(missing)


@pytest.mark.slow
def test_a_built_zoo_is_audited_as_it_is_opened(tiny_zoo: Path) -> None:
    from zoo_datasets.zoo import open_zoo

    opened = open_zoo(tiny_zoo)
    report = audit.audit(split_files.stored(opened), opened)
    assert found(report) == {}
    assert report.counts.keys() == set(SIDES)
    twins = split_files.held_out(
        "subset", opened, test=["frac=0.5"], straddling="drop", fractions={"train": 0.5, "test": 0.5}
    )
    assert found(audit.audit(twins, opened)) == {}


def test_a_few_weights_come_near_by_chance_and_thousands_do_not() -> None:
    """The nearest of so many pairs of independent models, against the distance called near."""
    for n_weights, n_models in ((10, 60), (40, 100), (2000, 60)):
        models = np.random.default_rng(n_weights).standard_normal((n_models, n_weights))
        models /= np.linalg.norm(models, axis=1, keepdims=True)
        nearest = np.sqrt(1 - np.triu(models @ models.T, 1).max())
        assert near_duplicates.chance(n_weights, n_models * (n_models - 1) // 2) < nearest
    assert near_duplicates.chance(1.0, 10) == 0  # one direction: all are alike
    assert 0 < near_duplicates.chance(10, 1000) < 0.3 < near_duplicates.NEAR < near_duplicates.chance(2000, 10**8)


def test_an_audit_says_how_near_it_looked_where_weights_are_few() -> None:
    """By the normal law, which a few dozen directions do not follow, nothing was near, and the report read as passed."""
    few = zoo(width=12)
    report = audit.audit(None, few)
    near = next(f for f in report.findings if f.kind == "near-duplicates")
    assert re.search(r"; within 0\.\d+ or more for 1 layouts, of whose few weights strangers come nearer", near.text)
    assert near.looked_at == 48
    copy = dataclasses.replace(few, weights=few.weights.copy())
    a, b = (next(i for i, s in enumerate(few.models["split"].to_pylist()) if s == side) for side in ("train", "test"))
    copy.weights[2 * b + 1] = copy.weights[2 * a + 1] * 1.01
    near = next(f for f in audit.audit(None, copy).findings if f.kind == "near-duplicates")
    assert near.count == 1
    line = dataclasses.replace(few, weights=np.outer(np.arange(1, 97), np.r_[1.0, np.zeros(11)]).astype(np.float32))
    near = next(f for f in audit.audit(None, line).findings if f.kind == "near-duplicates")
    assert (
        "48 models hardly differ but in one direction, in which all are near: of them exact copies alone" in near.text
    )
    for wrong in ({"near": -1}, {"near": float("nan")}, {"most_models": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            audit.audit(None, few, **wrong)


class Made:
    """Weights that are made when they are asked for, so that a zoo holds none."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng(int(r)).standard_normal(10_000, np.float32) for r in rows])


def test_what_is_compared_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directions too: all samples at once, as float64, took 30 MB here."""
    monkeypatch.setattr(near_duplicates, "BLOCK_BYTES", 2**19)
    monkeypatch.setattr(near_duplicates, "DOUBLE_BYTES", 2**17)
    members = [near_duplicates.Member(0, i, i % 2, str(i)) for i in range(100)]
    tracemalloc.start()
    try:
        assert near_duplicates.find([argparse.Namespace(weights=Made())], members) == near_duplicates.Found([], [], 0.6)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_blocks_change_no_bit_of_vectors_and_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(0).standard_normal((50, 300)).astype(np.float32) ** 3
    kernels = [slice(0, 70), slice(100, 300)]
    whole = near_duplicates._plain(weights, kernels)
    monkeypatch.setattr(near_duplicates, "DOUBLE_BYTES", 8 * 300 * 7)
    assert near_duplicates._plain(weights, kernels).tobytes() == whole.tobytes()
    for few in np.split(weights, 100, axis=1):  # of three weights, where the last bit of a sum shows
        power = (few.astype(np.float64) ** 2).mean(axis=0)
        assert near_duplicates._directions(np.split(few, [7, 30])) == power.sum() ** 2 / (power**2).sum()


# ── copies under another face ──


def planted(opened: Any, change: Callable[[np.ndarray, Any], np.ndarray], activation: str) -> tuple[FakeZoo, int]:
    """The zoo, where the last weights of some held-out models are changed ones of a train model each; and how many."""
    rows = opened.models.to_pylist()
    weights = np.array(opened.weights[np.arange(len(opened.snapshots))], np.float32)
    last = {m: i for i, m in enumerate(opened.snapshots["model_id"].to_pylist())}  # steps ascend
    rows = list({r["init_group"]: r for r in rows if r["activation"] == activation}.values())  # no twins
    sources, targets = ([r for r in rows if (r["split"] == "train") is side] for side in (True, False))
    hashes = opened.snapshots["weights_sha256"].to_pylist()
    n = min(len(sources), len(targets))
    for a, b in zip(sources[:n], targets[:n], strict=True):
        weights[last[b["model_id"]]] = change(weights[last[a["model_id"]]], opened.architecture(a["model_id"]))
        hashes[last[b["model_id"]]] = f"planted {b['model_id']}"
    snapshots = opened.snapshots.drop_columns(["weights_sha256"]).append_column("weights_sha256", pa.array(hashes))
    assert n
    return FakeZoo(opened.models, snapshots, opened.manifest, weights), n


def _moved(*kinds: str) -> Callable[[np.ndarray, Any], np.ndarray]:
    return lambda w, architecture: symmetry.augment(w, architecture, "plant", kinds=kinds)


@pytest.mark.parametrize(
    ("activation", "change", "kind"),
    [
        ("tanh", _moved("sign"), "symmetric copies"),
        ("tanh", _moved("permutation"), "symmetric copies"),
        ("tanh", _moved("permutation", "sign"), "symmetric copies"),
        ("relu", _moved("scale"), None),  # by which of both is the draw's to say
        ("relu", _moved("permutation", "scale"), "symmetric copies"),
        ("relu", lambda w, _: w * np.float32(2), "near-duplicates"),
        ("tanh", lambda w, _: w * np.float32(0.3), "near-duplicates"),
        ("tanh", lambda w, _: w + np.float32(0.2) * w.std() * np.random.default_rng(1).normal(size=w.size).astype(np.float32),
         "near-duplicates"),
    ],
)  # fmt: skip
def test_a_copy_under_another_face_is_found(
    activation: str, change: Callable[[np.ndarray, Any], np.ndarray], kind: str | None, zoo_of_digits: Any
) -> None:
    fake, n = planted(zoo_of_digits, change, activation)
    leaks = found(audit.audit(None, fake))
    if kind is None:
        assert sum(leaks.get(k, (0, 0))[0] for k in ("near-duplicates", "symmetric copies")) >= n
    else:
        assert leaks[kind][0] >= n
    assert leaks.keys() <= {"near-duplicates", "symmetric copies"}


@pytest.fixture(scope="module")
def zoo_of_digits(tiny_zoo: Path) -> Any:
    from zoo_datasets.zoo import open_zoo

    return open_zoo(tiny_zoo)


MIXED_INITS = (
    "axes={init: [{constant: 0.1}, {normal: [0, 1.0]}, {normal: [1, 0.5]}, glorot_uniform, {uniform: [0, 1]}], "
    "activation: [relu, tanh]}",
    "paired=[]", "replicates=6", "training={epochs: 2, batch_size: 32}", "snapshots={epochs: [0, 2]}", "cohort_size=60",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture",
    [
        "[flatten, {linear: 8}, activation, {linear: classes}]",
        "[{conv: 4, kernel: 3}, batch_norm, activation, {max_pool: 2}, flatten, {linear: classes}]",
    ],
)
def test_mixed_inits_are_no_near_duplicates(
    make_plan: Callable[..., plan.Plan], tmp_path: Path, architecture: str
) -> None:
    from zoo_datasets.zoo import open_zoo

    build(make_plan(*MIXED_INITS, f"architecture={architecture}"), tmp_path / "zoo", workers=0)
    assert found(audit.audit(None, open_zoo(tmp_path / "zoo"))) == {}


@pytest.mark.slow
def test_a_training_subset_on_two_sides_is_a_leak() -> None:
    keys = [f"{i:032x}" for i in range(48)]
    fractions = [1.0, 0.5] * 24
    apart = zoo(subset_key=keys, subset_frac=fractions)
    assert found(audit.audit(None, apart)) == {}
    shared = zoo(subset_key=["a" * 32] * 48, subset_frac=fractions)
    assert found(audit.audit(None, shared)) == {"training subsets": (1, 0)}
    # Of whole sets nothing is drawn, and nothing is shared but the source.
    assert found(audit.audit(None, zoo(subset_key=["a" * 32] * 48, subset_frac=[1.0] * 48))) == {}
    noisy = zoo(subset_key=["a" * 32] * 48, subset_frac=[1.0] * 48, label_noise_frac=[0.0, 0.2] * 24)
    assert found(audit.audit(None, noisy)) == {"training subsets": (1, 0)}
    across = zoo(name="weightzoo/other", start=50, subset_key=keys, subset_frac=fractions)
    both = found(audit.audit(None, apart, across))
    assert both["training subsets"][1] == both["training subsets"][0] > 0


@pytest.mark.slow
def test_metadata_know_how_long_was_trained() -> None:
    """A stop rule decides when training ends, and no factor says so."""
    rng = np.random.default_rng(0)
    steps = rng.integers(10, 1000, 96)
    fake = zoo(96, ("full",), step=steps.tolist(), test_accuracy=(steps / 1000).tolist())
    report = audit.audit(None, fake)
    assert report.metadata.value > 0.9
    assert "step" in report.metadata_note
