"""A zoo whose architectures are `external`: a layout, and no layers. What works, and what says why it does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from resealed import write_manifest

from zoo_builder.verify import verify
from zoo_datasets import audit, symmetry, views
from zoo_datasets.errors import NoNetworkError, ZooError
from zoo_datasets.format.check import check
from zoo_datasets.networks.architecture import External
from zoo_datasets.zoo import Zoo, open_zoo

pytest_plugins = ("reader_fixtures",)


@pytest.fixture
def external(tiny_copy: Path) -> Zoo:
    """The tiny zoo, as if its networks had been trained elsewhere."""
    path = tiny_copy / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for name, record in manifest["architectures"].items():
        manifest["architectures"][name] = {"kind": "external", "layout": record["layout"]}
    write_manifest(path, manifest)
    return open_zoo(tiny_copy)


@pytest.mark.slow
def test_it_opens_reads_and_checks(external: Zoo, zoo: Zoo) -> None:
    assert repr(external) == repr(zoo)
    np.testing.assert_array_equal(external.weights[:], zoo.weights[:])
    assert external.select(activation="relu").final().weights[:].shape == (8, 610)
    assert not check(external.root).problems
    model = external.row(external.models["model_id"][0].as_py())["model_id"]
    state = external.state_dict(model)
    assert {name: tuple(t.shape) for name, t in state.items()} == {
        "linear1.weight": (8, 64), "linear1.bias": (8,), "linear2.weight": (10, 8), "linear2.bias": (10,),
    }  # fmt: skip


def test_views_and_permutations_need_the_layout_alone(external: Zoo, zoo: Zoo) -> None:
    model = zoo.models["model_id"][0].as_py()
    known, architecture = zoo.architecture(model), external.architecture(model)
    weights = external.weights[:5]
    assert isinstance(architecture, External)
    assert architecture.layout == known.layout
    np.testing.assert_array_equal(views.flat(weights, architecture.layout), weights)
    np.testing.assert_array_equal(
        views.statistics(weights, architecture.layout), views.statistics(weights, known.layout)
    )
    for by in ("layer", "neuron"):
        tokens = views.tokens(weights, architecture.layout, by)
        np.testing.assert_array_equal(views.untokens(tokens), weights)
    assert views.window(weights, 7, "key")[0].shape == (5, 7)
    assert [(g.name, g.units) for g in symmetry.groups(architecture.layout)] == [("linear1", 8)]
    moved = symmetry.augment(weights, architecture, "key", kinds="permutation")
    np.testing.assert_array_equal(moved, symmetry.augment(weights, known, "key", kinds="permutation"))
    one = symmetry.canonicalize(weights, architecture, kinds="permutation")
    np.testing.assert_array_equal(one, symmetry.canonicalize(moved, architecture, kinds="permutation"))
    np.testing.assert_array_equal(symmetry.align(moved[0], weights[0], architecture), weights[0])


@pytest.mark.slow
def test_what_needs_the_network_says_so_in_one_sentence(external: Zoo) -> None:
    model = external.models["model_id"][0].as_py()
    weights, architecture = external.weights[:2], external.architecture(model)
    sentence = rf"^Model {model} of weightzoo/tiny is of kind 'external', a layout without layers: .* alone\.$"
    for asked in (
        lambda: external.load_model(model),
        lambda: external.evaluate([model]),
        lambda: views.graph(weights, architecture),
        lambda: symmetry.factors(architecture),
        lambda: symmetry.canonicalize(weights, architecture),
        lambda: symmetry.augment(weights, architecture, 0, kinds="sign"),
    ):
        with pytest.raises(NoNetworkError, match=sentence):
            asked()
    assert issubclass(NoNetworkError, ZooError)
    assert verify(external.root).problems == ["`architectures` of the manifest is not what the recipe gives"]


def test_an_audit_says_which_copies_it_could_not_look_for(external: Zoo, zoo: Zoo) -> None:
    def copies(of: Zoo) -> audit.Finding:
        (found,) = [f for f in audit.audit(None, of).findings if f.kind == "symmetric copies"]
        return found

    assert "permuted ones alone" not in copies(zoo).text
    assert "of 16 models permuted ones alone, for their layers are not known" in copies(external).text
    assert copies(external).looked_at == copies(zoo).looked_at == 16
    value = json.loads((external.root / "manifest.json").read_bytes())
    for entries in value["layouts"].values():
        for entry in entries:
            entry["groups"] = ["" for _ in entry["groups"]]
    write_manifest(external.root / "manifest.json", value)
    found = copies(open_zoo(external.root))
    assert "16 models are of layouts that say of no units that they may change places" in found.text
    assert found.looked_at == 0
