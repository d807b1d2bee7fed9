"""A manifest is typed, comes back as the same JSON, and no damage to one ends in a traceback."""

from __future__ import annotations

import ast
import copy
import dataclasses
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hub_server import NAME, LoopbackHub
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from resealed import write_manifest

import zoo_builder.cli
import zoo_datasets.cli
from zoo_builder import output
from zoo_builder.plan import Plan
from zoo_builder.planning import lineage
from zoo_builder.verifying import receipts
from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError, ZooError, ZooNotFoundError
from zoo_datasets.format import manifest as manifest_file
from zoo_datasets.format.manifest import Manifest, seal
from zoo_datasets.format.paths import ZooPaths
from zoo_datasets.zoo import open_zoo

pytest_plugins = ("hub_fixtures",)

ROOT = Path(__file__).resolve().parents[2]
REAL = sorted(p.parent for folder in ("manifests", "tests/golden") for p in (ROOT / folder).rglob("manifest.json"))
NEEDED = (
    "zoo", "identity", "axes", "factors", "counts", "weights_dtype", "architectures", "layouts", "sources", "digests",
    "files",
)  # fmt: skip


@pytest.mark.parametrize("folder", REAL, ids=lambda f: f.name)
def test_a_manifest_comes_back_as_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    files.write_json(tmp_path / "again", Manifest.read(folder).to_json())
    assert (tmp_path / "again").read_bytes() == (folder / "manifest.json").read_bytes()


def test_the_real_manifests_are_there() -> None:
    assert {f.name for f in REAL} >= {"digits-mlp", "mnist-cnn", "golden"}


def test_a_manifest_is_typed_and_travels_to_workers(tiny_zoo: Path) -> None:
    found = Manifest.read(tiny_zoo)
    assert found == pickle.loads(pickle.dumps(found))  # noqa: S301
    assert found.counts.n_models == sum(found.counts.models.values()) == 16
    assert found.widths == [610]
    assert found.files["grid.yaml"].verify(tiny_zoo) == tiny_zoo / "grid.yaml"
    assert found.files.size("weights/") == sum(f.bytes for f in found.files.under("weights/"))
    for name in found.architectures:
        assert found.architecture(name).n_params == 610


def test_a_writer_makes_one_of_typed_parts(tiny_zoo: Path) -> None:
    found = Manifest.read(tiny_zoo)
    made = Manifest(**{f.name: getattr(found, f.name) for f in dataclasses.fields(Manifest)})
    assert Manifest.parse(json.loads(json.dumps(made.to_json())), "here") == found


def test_a_part_that_nobody_knows_is_refused(tiny_zoo: Path) -> None:
    """Or a flip in the name of a part would take it away: that of the digest, and with it the check."""
    value = json.loads((tiny_zoo / "manifest.json").read_bytes())
    for name in ("x" * 10_000, "\ud800"):
        with pytest.raises(IntegrityError, match="Unknown part") as caught:
            Manifest.parse({**value, name: 0}, "here")
        assert len(str(caught.value).encode()) < 2000
    for name in ("manifest_sha257", "fingerprints", "population"):
        other = copy.deepcopy(value)
        other["x" + name] = other.pop(name, None)
        with pytest.raises(IntegrityError, match=f"Unknown part 'x{name}'.*where a newer version wrote it, upgrade"):
            Manifest.parse(other, "here")


def test_a_key_that_nobody_knows_is_refused_in_every_part(tiny_zoo: Path) -> None:
    """Of manifests without a digest too, or a key of another name would be no key at all, in silence."""
    value = json.loads((tiny_zoo / "manifest.json").read_bytes())
    del value["manifest_sha256"]
    layout = next(iter(value["layouts"]))
    parts = [
        ("files", 0),
        ("counts",),
        ("splits",),
        ("population",),
        ("engines", 0),
        ("fingerprints", 0),
        ("sources", 0),
    ]
    for path in (*parts, ("layouts", layout, 0)):
        other = copy.deepcopy(value)
        at_path(other, path)["sha255"] = 0
        with pytest.raises(IntegrityError, match=f"Unknown part 'sha255' in `{path[0]}.*Known: "):
            Manifest.parse(other, "here")


def test_what_a_later_version_says_inside_a_part_is_kept(tiny_zoo: Path) -> None:
    value = json.loads((tiny_zoo / "manifest.json").read_bytes())
    value["identity"]["novelty"] = {"deep": [1, None]}
    found = Manifest.parse(seal(value), "here")
    assert found.identity.more == {"novelty": {"deep": [1, None]}}
    assert found.to_json() == seal(value)


@pytest.mark.slow
def test_a_manifest_carries_its_own_digest(tiny_zoo: Path) -> None:
    value = json.loads((tiny_zoo / "manifest.json").read_bytes())
    rest = {name: part for name, part in value.items() if name != "manifest_sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert value["manifest_sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert Manifest.parse(rest, "here").to_json() == rest  # one of before
    for path in paths_of(value):  # nothing is left out of it
        other = copy.deepcopy(value)
        holder, junk = at_path(other, path[:-1]), at_path(other, path)
        holder[path[-1]] = {str: f"{junk}0", int: 7, float: 0.123}.get(type(junk), None)
        if other != value:
            with pytest.raises(ZooError):
                Manifest.parse(other, "here")


@pytest.mark.parametrize(
    ("old", "new"), [('"zoo": ', '"zoo": "a/b",\n "zoo": '), ('"standard_error": 0.', '"standard_error": NaN, "x": 0.')]
)
def test_json_that_two_readers_read_differently_is_refused(tiny_copy: Path, old: str, new: str) -> None:
    text = (tiny_copy / "manifest.json").read_text()
    assert old in text
    (tiny_copy / "manifest.json").write_text(text.replace(old, new))
    with pytest.raises(IntegrityError, match="is not JSON: the zoo is damaged"):
        Manifest.read(tiny_copy)


def at_path(value: Any, path: tuple[str | int, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@pytest.mark.parametrize(
    ("path", "wrong", "message"),
    [
        *(((name,), None, f"`{name}` is None, not") for name in NEEDED),
        (("zoo",), "\ud800", r"`zoo` is '\\ud800', not Unicode text"),
        (("identity", "document"), [], r"`identity.document` is \[\], not an object"),
        (("identity", "document", "paired"), "subset", "`identity.document.paired` is 'subset', not a list"),
        (("axes", "subset"), 7, "`axes.subset` is 7, not a list"),
        (("axes", "subset"), ["full", 7], r"`axes.subset\[1\]` is 7, not a string"),
        (("counts", "models", "train"), True, "`counts.models.train` is True, not a whole number of 0 or more"),
        (("counts", "models"), {"train": 1}, "names other splits of models than of snapshots"),
        (("counts", "models"), {"tran": 1}, "Unknown split 'tran' in `counts.models`.*Did you mean `train`"),
        (("counts", "diverged"), 10**30, "`counts.diverged` is 10+, not a whole number"),
        (("optimizer_state",), 1, "`optimizer_state` is 1, not true or false"),
        (("layer_lists",), {"x": {}}, "`layer_lists.x` is no list of layers"),
        (("population", "test_accuracy"), "high", "`population.test_accuracy` is 'high', not a number"),
        (("fingerprints", 0, "weights"), "AAA", r"`fingerprints\[0\].weights` is no base64 of float32"),
        (("population", "test_accuracy"), float("inf"), "`population.test_accuracy` is inf, not a finite number"),
        (("layer_lists", "x"), [[0.0, float("nan")]], r"`layer_lists.x\[0\]\[1\]` is nan, not a finite number"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(tiny_zoo: Path, path: Any, wrong: Any, message: str) -> None:
    value = json.loads((tiny_zoo / "manifest.json").read_bytes())
    at_path(value, path[:-1])[path[-1]] = wrong
    with pytest.raises(IntegrityError, match=f"The manifest of here is damaged or hostile: .*{message}"):
        Manifest.parse(value, "here")


@pytest.mark.parametrize("name", NEEDED)
def test_a_missing_part_is_named_by_every_command(
    tiny_copy: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    value = json.loads((tiny_copy / "manifest.json").read_bytes())
    del value[name]
    write_manifest(tiny_copy / "manifest.json", value)
    message = (
        f"error: The manifest of {tiny_copy} is damaged or hostile: it has no `{name}`. Fetch or build the zoo again.\n"
    )
    for main, verbs in (
        (zoo_datasets.cli.main, ("show", "check", "audit")),
        (zoo_builder.cli.main, ("status", "verify")),
    ):
        for verb in verbs:
            assert main([verb, str(tiny_copy)]) == 1
            assert capsys.readouterr() == ("", message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": -1}, r"\[0\].offset` is -1"), ({"shape": [True, 2]}, r"\[0\].shape\[0\]` is True"),
        ({"shape": None}, r"\[0\].shape` is None, not a list"), ({"name": 3}, r"\[0\].name` is 3, not a string"),
        ({"role": "slot"}, r"\[0\]` is linear1.weight with role 'slot'"), ({"groups": ["a"]}, r"\[0\]` .* and 1 groups at 0"),
        ({"offset": 2**40}, r"\[0\]` .* at 1099511627776; .* the offset 0 are needed"),
    ],
)  # fmt: skip
def test_a_false_layout_is_refused(tiny_zoo: Path, change: dict[str, Any], message: str) -> None:
    value = json.loads((tiny_zoo / "manifest.json").read_bytes())
    for layout in value["layouts"].values():
        layout[0].update(change)
    with pytest.raises(IntegrityError, match=message):
        Manifest.parse(value, "here")


def test_a_layout_wider_than_all_files_is_refused(tiny_zoo: Path) -> None:
    value = json.loads((tiny_zoo / "manifest.json").read_bytes())
    wide = {"name": "a.weight", "shape": [2**20, 2**20], "offset": 0, "role": "parameter", "groups": ["", ""]}
    value["layouts"] = {name: [wide] for name in value["layouts"]}
    with pytest.raises(IntegrityError, match=r"layout .* has 1,099,[\d,]+ values, more than all files can hold"):
        Manifest.parse(value, "here")
    wide["shape"] = [2**62, 0]
    with pytest.raises(IntegrityError, match=r"\[0\]\.shape\[1\]` is 0; a tensor has sides of 1 or more"):
        Manifest.parse(value, "here")
    wide.update(shape=[2] * 1000, groups=[""] * 1000)
    with pytest.raises(IntegrityError, match=r"\[0\].shape` has 1,000 sides; a tensor has 32 at most"):
        Manifest.parse(value, "here")


def test_an_architecture_that_cannot_be_made_is_damage(tiny_zoo: Path) -> None:
    value = json.loads((tiny_zoo / "manifest.json").read_bytes())
    name = next(iter(value["architectures"]))
    with pytest.raises(IntegrityError, match="no architecture 'x' in the manifest"):
        Manifest.parse(seal(value), "here").architecture("x")
    other = copy.deepcopy(value)
    other["architectures"][name]["nodes"] = [{"name": 3}]
    with pytest.raises(IntegrityError, match=f"architecture {name} is damaged: "):
        Manifest.parse(seal(other), "here").architecture(name)
    other["architectures"][name]["layout"] = "x"
    with pytest.raises(IntegrityError, match=f"architecture {name} has layout 'x', which is not there"):
        Manifest.parse(other, "here")


# ── bounds come before reading ──


@pytest.mark.slow
def test_a_small_file_of_many_values_is_not_unfolded(tiny_copy: Path) -> None:
    (tiny_copy / "manifest.json").write_bytes(b"[" + b"[]," * 11_000_000 + b"1]")  # 33 MB, and in Python 700
    with pytest.raises(IntegrityError, match=r"manifest\.json holds some 22,000,001 values: that is no manifest"):
        Manifest.read(tiny_copy)


def test_only_a_regular_file_of_sensible_size_is_read(tiny_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tiny_copy / "manifest.json"
    monkeypatch.setattr(manifest_file, "MOST_MANIFEST_BYTES", path.stat().st_size)
    Manifest.read(tiny_copy)
    monkeypatch.setattr(manifest_file, "MOST_MANIFEST_BYTES", path.stat().st_size - 1)
    with pytest.raises(IntegrityError, match=r"manifest\.json is larger than .* bytes: that is not a zoo's"):
        Manifest.read(tiny_copy)
    for make in (lambda: path.mkdir(), lambda: os.mkfifo(path), lambda: path.symlink_to("/dev/zero")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make()
        with pytest.raises(IntegrityError, match=r"manifest\.json is no regular file"):
            Manifest.read(tiny_copy)
    with pytest.raises(ZooNotFoundError, match="is no folder"):
        Manifest.read(tiny_copy / "grid.yaml")


@pytest.mark.parametrize(
    ("path", "said"),
    [("LICENSE/x", "is missing"), ("data", "is no file"), ("x" * 300, "cannot be read: File name too long")],
)
def test_a_path_that_is_no_file_is_said(tiny_copy: Path, path: str, said: str) -> None:
    value = json.loads((tiny_copy / "manifest.json").read_bytes())
    size = (tiny_copy / path).stat().st_size if path == "data" else 1
    value["files"].append({"path": path, "bytes": size, "sha256": "0" * 64})
    found = Manifest.parse(seal(value), "here")
    with pytest.raises(IntegrityError, match=f"{path} (of .* )?{said}"):
        found.files[path].find(tiny_copy)


# ── no damage ends in a traceback ──

JUNK = (
    None, True, 0, -1, 1, 10**30, 1.5, float("nan"), float("inf"), "", "x", "\ud800", "../x", "x" * 300, "sample", [], {},
    [None], [0], ["x"], {"x": None}, {"": {}}, [[[[]]]],
)  # fmt: skip


def paths_of(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [p for key, item in steps for p in ((*path, key), *paths_of(item, (*path, key)))]


def change(value: Any, path: tuple[str | int, ...], how: str, junk: Any) -> None:
    """Delete, replace, rename or double what lies at a path, if it is still there."""
    try:
        holder = at_path(value, path[:-1])
        item = holder[path[-1]]
        if how == "replace":
            holder[path[-1]] = junk
        elif how == "delete":
            del holder[path[-1]]
        elif isinstance(holder, dict):
            holder["x" if how == "rename" else "y"] = holder.pop(path[-1]) if how == "rename" else item
        else:
            holder.append(item)
    except (KeyError, IndexError, TypeError):  # an earlier change took it away
        return


Refuse = Callable[[Path], None]


@pytest.fixture
def refuse(tiny_plan: Plan) -> Refuse:
    """What `build` does first with a folder that holds a zoo."""
    return lambda root: output.refuse_other(ZooPaths(root), tiny_plan)


def commands(root: Path, other: Path, hub: LoopbackHub, refuse: Refuse) -> dict[str, Callable[[], Any]]:
    """What is done with a zoo's folder, by the words typed or the part of the command that reads the manifest."""
    reader, builder = zoo_datasets.cli.main, zoo_builder.cli.main

    def download() -> int:
        shutil.rmtree(other, ignore_errors=True)
        hub.put(NAME, {"manifest.json": (root / "manifest.json").read_bytes()})
        return reader(["--quiet", "download", NAME, str(other)][1:])

    def rebuild() -> None:
        ours = Manifest.read(ROOT / "tests/golden/weightzoo/golden")
        how = {"optimizer": "adam", "lr": 0.01}
        receipts.compare(ours, Manifest.read(root), lambda id: how)
        receipts.compare(dataclasses.replace(ours, engines=()), Manifest.read(root), lambda id: how)

    def parents() -> None:
        lineage.open_parents(str(root))

    def walk() -> None:
        zoo = open_zoo(root, verify=True)
        assert repr(zoo)
        assert repr(zoo.take([0]))
        assert zoo.weights[[0]].shape[0] == 1
        zoo.load_model(zoo.models["model_id"][0].as_py())

    return {
        "show": lambda: reader(["show", str(root)]),
        "check": lambda: reader(["check", str(root)]),
        "list": lambda: reader(["list", str(root.parent)]),
        "audit": lambda: reader(["audit", str(root)]),
        "publish": lambda: reader(["publish", str(root), "weightzoo/other", "--replace"]),
        "download": download,
        "status": lambda: builder(["status", str(root)]),
        "verify": lambda: builder(["verify", str(root)]),
        "verify --rebuild": rebuild,
        "build": lambda: refuse(root),
        "init.zoo": parents,
        "open_zoo": walk,
    }


# Where, whether among the upper parts alone, what is done there, and which junk.
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 9_999), st.booleans(), st.sampled_from(["replace", "replace", "delete", "rename", "double"]),
        st.integers(0, len(JUNK) - 1),
    ), min_size=1, max_size=2,
)  # fmt: skip
NAMES = sorted(commands(Path(), Path(), None, None))  # type: ignore[arg-type]


@pytest.mark.some(1)
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
@pytest.mark.slow
def test_no_damage_to_a_manifest_ends_in_a_traceback(
    name: str, changes: list[tuple[int, bool, str, int]], dressed: Path, published: LoopbackHub, refuse: Refuse,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    value = json.loads(published.tree(NAME, "v1")["manifest.json"])
    if len(changes) == 1:
        del value["manifest_sha256"]  # one of before; of the others the forger recomputes it
    every = paths_of(value)
    for place, near, how, junk in changes:
        paths = [p for p in every if len(p) < 3] if near else every
        change(value, paths[place % len(paths)], how, copy.deepcopy(JUNK[junk]))
    write_manifest(dressed / "manifest.json", value)
    capsys.readouterr()
    try:
        code = commands(dressed, tmp_path / "got", published, refuse)[name]()
    except ZooError:  # of a part of a command, whose frame makes it a line
        return
    said = capsys.readouterr()
    assert code in (None, 0, 1, 2)
    assert not code or name == "audit" or said.err.startswith(("error: ", "warning: ", "zoo_")), said


@pytest.mark.slow
def test_no_value_of_a_manifest_is_believed_unchecked(tiny_zoo: Path) -> None:
    whole = json.loads((tiny_zoo / "manifest.json").read_bytes())
    del whole["manifest_sha256"]
    for path in paths_of(whole):
        if any(isinstance(step, int) and step for step in path):
            continue  # the first of a list stands for all
        holder = at_path(whole, path[:-1])
        kept = holder[path[-1]]
        for junk in JUNK:
            holder[path[-1]] = junk
            try:
                found = Manifest.parse(whole, "here")  # without a digest, as of before: nothing else stands in the way
                json.dumps(found.to_json()).encode()
            except ZooError as error:
                str(error).encode()
        holder[path[-1]] = kept


def test_no_reader_takes_a_manifest_apart_by_its_keys() -> None:
    """Attributes alone: a key that is not there is found in one place."""
    for package in ("zoo_datasets", "zoo_builder"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "manifest[" not in text:
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Subscript):
                    assert not ast.unparse(node.value).endswith("manifest"), f"{path}, line {node.lineno}"
