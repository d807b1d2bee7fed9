"""What `zoo_datasets.sources` and its `examples` promise."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zoo_datasets.core import streams
from zoo_datasets.errors import GridError, IntegrityError, MissingLibraryError, ZooNotFoundError
from zoo_datasets.sources import (
    Part,
    SourceSpec,
    Subset,
    check_shows,
    check_spec,
    check_subset,
    count_examples,
    epoch_order,
    load,
    relabeled,
    stamp,
    training_examples,
    training_images,
    turned,
)

KEY = streams.stream_key(["test", "subset"])
LABELS = np.repeat(np.arange(5), [40, 25, 10, 3, 1])[streams.permutation(KEY, 79, 9)]
PARTS = ("train", "validation", "test")


@pytest.fixture(autouse=True)
def no_local_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZOO_DATA", raising=False)


# --- parts of a source -------------------------------------------------------------------


def test_a_subset_that_leaves_a_class_nothing_is_refused() -> None:
    labels = np.repeat([0, 1], [20, 7])
    check_subset(Subset(skip=0.8, frac=0.2), 2, labels)
    with pytest.raises(
        GridError, match=r"skip 0.95 and frac 0.05, which leave none of the 7 training examples of class 1"
    ):
        check_subset(Subset(skip=0.95, frac=0.05), 2, labels)


def test_digits_are_the_same_everywhere() -> None:
    source = load(SourceSpec())
    assert source.sha256 == "f6101581ce3a0f57b5ad0f2f1e1d982536da30b561c476111fca9f93030a9543"
    assert [len(getattr(source, part).labels) for part in PARTS] == [1259, 179, 359]
    assert source.input_shape == (1, 8, 8)
    assert source.n_classes == 10
    assert source.peak == 16.0
    assert source.train.inputs.dtype == np.uint8
    assert source.train.labels.dtype == source.train.index.dtype == np.int64
    assert source.train.index[:6].tolist() == [593, 1310, 982, 116, 1594, 1221]
    assert source.validation.index[:6].tolist() == [859, 464, 1012, 1391, 306, 687]
    assert source.test.index[:6].tolist() == [932, 350, 315, 489, 1364, 1441]


def test_iris_is_a_table() -> None:
    source = load(SourceSpec("iris"))
    assert source.sha256 == "b3066a78bb25b16c3521d82fe01ab7615d48a93bd9938adfcec0263ec3f5b098"
    assert source.input_shape == (4,)
    assert source.class_names == ("setosa", "versicolor", "virginica")
    assert source.train.inputs.dtype == np.float32
    scaled = source.scaled(source.train.inputs)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-6)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)
@given(train=st.integers(1, 1000), validation=st.integers(1, 300), test=st.integers(1, 400))
def test_counts_do_not_move_images_between_parts(train: int, validation: int, test: int) -> None:
    few = load(SourceSpec(train=train, validation=validation, test=test))
    whole = load(SourceSpec(train=1796 - test, validation=1, test=test))
    np.testing.assert_array_equal(few.train.index, whole.train.index[:train])
    np.testing.assert_array_equal(few.test.index, whole.test.index)
    assert len(few.validation.index) == validation
    rows = np.concatenate([getattr(few, part).index for part in PARTS])
    assert len(set(rows.tolist())) == train + validation + test


def test_every_row_of_a_part_is_that_row_of_the_dataset() -> None:
    from sklearn.datasets import load_digits

    bunch, source = load_digits(), load(SourceSpec(train=50, validation=20, test=30))
    for part in PARTS:
        mine: Part = getattr(source, part)
        np.testing.assert_array_equal(mine.inputs[:, 0], bunch.images[mine.index])
        np.testing.assert_array_equal(mine.labels, bunch.target[mine.index])


@pytest.mark.slow
def test_checksum_is_of_pixels_and_labels_and_blind_to_scale(make_copy: MakeCopy) -> None:
    spec = SourceSpec("me/tiny")
    root = make_copy("me/tiny")
    first = load(spec, root)
    assert load(replace(spec, scale="unit"), root).sha256 == first.sha256
    assert load(spec, make_copy("me/tiny", change_pixel=True)).sha256 != first.sha256
    assert load(spec, make_copy("me/tiny", change_label=True)).sha256 != first.sha256
    assert load(replace(spec, train=5), root).sha256 != first.sha256


def test_arrays_of_a_source_are_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        load(SourceSpec()).train.inputs[0] = 0


def test_asking_for_too_many_says_how_many_there_are(make_copy: MakeCopy) -> None:
    with pytest.raises(GridError, match=r"holds 1797 images in its split 'train'; .* train 1700 \+ validation 179 \+"):
        load(SourceSpec(train=1700))
    root = make_copy("me/tiny")
    with pytest.raises(GridError, match=r"holds 10 images in its split 'test'; the grid needs test 11\."):
        load(SourceSpec("me/tiny", test=11), root)
    with pytest.raises(
        GridError, match=r"holds 20 images in its split 'train'; the grid needs train 18 \+ validation 3"
    ):
        load(SourceSpec("me/tiny", train=18, validation=3), root)


# --- scaling -----------------------------------------------------------------------------


def test_standardize_uses_the_train_part() -> None:
    source = load(SourceSpec(train=300))
    unit = source.train.inputs.astype(np.float64) / 16
    assert source.mean == pytest.approx((unit.mean(),), rel=1e-14)
    assert source.std == pytest.approx((unit.std(),), rel=1e-14)
    expected = ((unit - source.mean[0]) / source.std[0]).astype(np.float32)
    np.testing.assert_array_equal(source.scaled(source.train.inputs), expected)


def test_scale_none_gives_the_pixels_and_unit_their_fraction(make_copy: MakeCopy) -> None:
    root = make_copy("me/tiny", mode="RGB")
    for spec in (SourceSpec(), SourceSpec("iris"), SourceSpec("me/tiny")):
        source = load(replace(spec, scale="none"), root)
        np.testing.assert_array_equal(source.scaled(source.test.inputs), source.test.inputs.astype(np.float32))
        source = load(replace(spec, scale="unit"), root)
        expected = (source.test.inputs.astype(np.float64) / source.peak).astype(np.float32)
        np.testing.assert_array_equal(source.scaled(source.test.inputs), expected)


def test_statistics_are_per_channel_and_may_be_given(make_copy: MakeCopy) -> None:
    root = make_copy("me/tiny", mode="RGB")
    source = load(SourceSpec("me/tiny"), root)
    np.testing.assert_allclose(source.mean, source.train.inputs.mean((0, 2, 3)) / 255, rtol=1e-14)
    np.testing.assert_allclose(source.std, source.train.inputs.std((0, 2, 3)) / 255, rtol=1e-14)
    given_ones = load(SourceSpec("me/tiny", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.1)), root)
    assert given_ones.mean == (0.5, 0.4, 0.3)
    red = np.zeros((1, 3, 6, 7), np.uint8)
    red[:, 0] = 255
    np.testing.assert_allclose(given_ones.scaled(red)[0, :, 0, 0], [2.5, -2, -3], rtol=1e-6)


@pytest.mark.parametrize("scale", ["standardize", "unit", "none"])
def test_inputs_that_are_all_the_same_are_refused(make_copy: MakeCopy, scale: str) -> None:
    with pytest.raises(GridError, match="has the same input in all 18 rows of its training part, so nothing"):
        load(SourceSpec("me/tiny", scale=scale), make_copy("me/tiny", constant=True))


def test_pictures_that_are_all_the_same_are_refused_though_their_pixels_differ(tmp_path: Path) -> None:
    one = png(tiny_pixels("L")[0][0], "L")
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": one, "path": None}] * 30, "label": [0, 1, 2] * 10},
        datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}),
    )
    write_copy(tmp_path / "me/tiny", {"train": table})
    with pytest.raises(GridError, match="has the same input in all 21 rows"):
        load(SourceSpec("me/tiny"), tmp_path)


@pytest.mark.slow
def test_a_constant_channel_is_said_and_not_divided_by_zero(tmp_path: Path) -> None:
    images = tiny_pixels("RGB")[0].copy()
    images[..., 1] = 9
    table = datasets.Dataset.from_dict(
        {"image": [{"bytes": png(i, "RGB"), "path": None} for i in images], "label": [0, 1, 2] * 10},
        datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}),
    )
    write_copy(tmp_path / "me/tiny", {"train": table})
    source = load(SourceSpec("me/tiny"), tmp_path)
    assert source.notes == ("source me/tiny: constant over the training part: channel 1",)
    assert source.std[1] == 1.0
    assert (source.scaled(source.test.inputs)[:, 1] == 0).all()
    assert load(SourceSpec("digits")).notes == ()


@pytest.mark.slow
def test_resize_and_channels_convert(make_copy: MakeCopy) -> None:
    assert load(SourceSpec(resize=12, channels=3)).input_shape == (3, 12, 12)
    root = make_copy("me/tiny", mode="RGB")
    raw = load(SourceSpec("me/tiny"), root)
    source = load(SourceSpec("me/tiny", resize=4, channels=1), root)
    assert source.input_shape == (1, 4, 4)
    picture = Image.fromarray(raw.test.inputs[2].transpose(1, 2, 0)).convert("L")
    expected = np.asarray(picture.resize((4, 4), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(source.test.inputs[2, 0], expected)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SourceSpec(train=0), "has train 0; expected 1 or more"),
        (SourceSpec(resize=-1), "has resize -1"),
        (SourceSpec(channels=2), r"has channels 2; expected 1 \(gray\) or 3"),
        (SourceSpec(scale="standardise"), "Did you mean `standardize`"),
        (SourceSpec(mean=(0.5,)), "one of mean and std; give both"),
        (SourceSpec(mean=(0.5,), std=(0.5,), scale="unit"), "they need 'standardize'"),
        (SourceSpec(mean=(0.5,), std=(0.0,)), r"std \[0.0\]; expected positive"),
        (SourceSpec(mean=(float("nan"),), std=(1.0,)), "expected finite numbers"),
        (SourceSpec(mean=(0.5, 0.5), std=(0.5, 0.5)), "2 numbers in mean and 1 channels"),
        (SourceSpec("iris", resize=4), "'iris' is a table"),
        (SourceSpec(config="plain"), "takes no config"),
    ],
)
def test_impossible_specs_are_refused(spec: SourceSpec, message: str) -> None:
    with pytest.raises(GridError, match=message):
        load(spec)


def test_embedded_sources_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingLibraryError, match=r"sklearn is not installed: pip install scikit-learn"):
        load(SourceSpec(train=333))


# --- datasets of the Hub and local copies --------------------------------------------------


def test_local_copy_is_read_from_the_argument_or_the_environment(
    make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_copy("me/tiny")
    source = load(SourceSpec("me/tiny"), root)
    assert [len(getattr(source, part).labels) for part in PARTS] == [18, 2, 10]
    assert source.class_names == ("cat", "dog", "emu")
    assert source.input_shape == (1, 6, 7)
    assert source.peak == 255.0
    images, labels = tiny_pixels("L")
    np.testing.assert_array_equal(source.train.inputs[:, 0], images[:20][source.train.index])
    np.testing.assert_array_equal(source.test.inputs[:, 0], images[20:][source.test.index])
    np.testing.assert_array_equal(source.test.labels, labels[20:][source.test.index])
    monkeypatch.setenv("ZOO_DATA", str(root))
    assert load(SourceSpec("me/tiny")).sha256 == source.sha256


def test_train_and_test_rows_come_from_their_own_permutations(make_copy: MakeCopy) -> None:
    source = load(SourceSpec("me/tiny", train=7, validation=4, test=3), make_copy("me/tiny"))
    train = streams.permutation(streams.stream_key(["source", "me/tiny", "train"]), 20)
    test = streams.permutation(streams.stream_key(["source", "me/tiny", "test"]), 10)
    np.testing.assert_array_equal(source.train.index, train[:7])
    np.testing.assert_array_equal(source.validation.index, train[16:])
    np.testing.assert_array_equal(source.test.index, test[:3])


@pytest.mark.slow
def test_a_rebuilt_copy_and_one_of_the_same_name_give_their_own_rows(make_copy: MakeCopy) -> None:
    spec = SourceSpec("me/tiny")
    root = make_copy("me/tiny")
    old = load(spec, root)
    other = load(spec, make_copy("me/tiny", change_pixel=True))
    make_copy("me/tiny", change_pixel=True, root=root)
    new = load(spec, root)
    assert (new.train.inputs != old.train.inputs).any()
    assert new.sha256 == other.sha256


@pytest.mark.slow
def test_a_copy_loads_with_no_home_to_write_to_and_writes_nowhere(make_copy: MakeCopy, tmp_path: Path) -> None:
    root, scratch = make_copy("me/tiny"), tmp_path / "scratch"
    scratch.mkdir()
    code = (
        "import sys; from zoo_datasets import sources as s; print(s.load(s.SourceSpec('me/tiny'), sys.argv[1]).sha256)"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "XDG_"))}
    environ |= {"HOME": os.devnull, "TMPDIR": str(scratch)}
    done = subprocess.run([sys.executable, "-c", code, root], env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == load(SourceSpec("me/tiny"), root).sha256
    assert done.stderr == ""
    assert list(scratch.iterdir()) == []


@pytest.mark.slow
def test_only_the_rows_asked_for_are_decoded(make_copy: MakeCopy) -> None:
    root = make_copy("me/tiny", damaged_row=int(tiny_order("train")[10]))
    assert len(load(SourceSpec("me/tiny", train=10, validation=5), root).train.labels) == 10
    with pytest.raises(IntegrityError, match=r"source 'me/tiny', split 'train', row \d+ cannot be decoded"):
        load(SourceSpec("me/tiny", train=11, validation=5), root)
    with pytest.raises(IntegrityError, match=r"No image in source 'me/tiny', split 'test', row 3\."):
        load(SourceSpec("me/tiny"), make_copy("me/tiny", missing_row=23))


@pytest.mark.slow
def test_validation_splits_serve_as_validation_or_else_as_test(make_copy: MakeCopy) -> None:
    three = load(SourceSpec("me/tiny"), make_copy("me/tiny", splits={"train": 12, "validation": 8, "test": 10}))
    assert [len(getattr(three, part).labels) for part in PARTS] == [12, 8, 10]
    two = load(SourceSpec("me/tiny"), make_copy("me/tiny", splits={"train": 20, "valid": 10}))
    assert [len(getattr(two, part).labels) for part in PARTS] == [18, 2, 10]
    one = load(SourceSpec("me/tiny"), make_copy("me/tiny", splits={"full": 30}))
    assert [len(getattr(one, part).labels) for part in PARTS] == [21, 3, 6]
    with pytest.raises(GridError, match=r"no split 'train'; it has full, test\. Name one, .* as source\.train_split"):
        load(SourceSpec("me/tiny"), make_copy("me/tiny", splits={"full": 20, "test": 10}))


def test_a_folder_that_cannot_be_looked_at_is_said(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 300)
    for where in ({"data_dir": long}, {"path": long}):
        with pytest.raises(
            ZooNotFoundError, match=r"'a/b' cannot be looked for: '.*': File name too long\. Correct source\."
        ):
            load(SourceSpec("a/b"), **where)


def test_a_set_of_several_configs_is_refused_with_our_setting(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    rows = "x,label\n" + "".join(f"{i},{'pq'[i % 2]}\n" for i in range(40))
    for name in ("one", "two"):
        (folder / f"{name}.csv").write_text(rows)
    files = "".join(f"- config_name: {n}\n  data_files: {n}.csv\n" for n in ("one", "two"))
    (folder / "README.md").write_text(f"---\nconfigs:\n{files}---\n")
    with pytest.raises(GridError, match=r"available configs: \['one', 'two'\] Name it as source\.config\.$"):
        load(SourceSpec("a/b"), tmp_path)
    assert load(SourceSpec("a/b", config="two"), tmp_path).class_names == ("p", "q")


@pytest.mark.slow
def test_unlabeled_test_split_is_not_a_test_part(make_copy: MakeCopy) -> None:
    source = load(SourceSpec("me/tiny"), make_copy("me/tiny", unlabeled=range(20, 30)))
    assert [len(getattr(source, part).labels) for part in PARTS] == [14, 2, 4]
    with pytest.raises(GridError, match="'me/tiny' has no split with labels"):
        load(SourceSpec("me/tiny"), make_copy("me/tiny", unlabeled=range(30)))
    with pytest.raises(
        GridError, match=r"has 1 of 10 images without a label of its 3 classes in split 'test'.* leave_out"
    ):
        load(SourceSpec("me/tiny"), make_copy("me/tiny", unlabeled=[20]))


@pytest.mark.parametrize("label", [datasets.Value("string"), datasets.Value("int64")])
def test_labels_may_be_plain_values(make_copy: MakeCopy, label: datasets.Value) -> None:
    source = load(SourceSpec("me/tiny"), make_copy("me/tiny", label=label))
    assert source.class_names == (("cat", "dog", "emu") if label.dtype == "string" else ("0", "1", "2"))
    np.testing.assert_array_equal(source.test.labels, tiny_pixels("L")[1][20:][source.test.index])


@pytest.mark.slow
def test_columns_are_found_or_named(make_copy: MakeCopy) -> None:
    root = make_copy(
        "me/tiny", image_name="picture", label_name="kind", extra={"coarse": datasets.ClassLabel(names=["x"])}
    )
    with pytest.raises(GridError, match=r"several label columns among: .*coarse \(ClassLabel\).* label_column"):
        load(SourceSpec("me/tiny"), root)
    source = load(SourceSpec("me/tiny", label_column="kind"), root)
    assert source.class_names == ("cat", "dog", "emu")
    with pytest.raises(GridError, match=r"Unknown label_column 'knd'.* Did you mean `kind`"):
        load(SourceSpec("me/tiny", label_column="knd"), root)
    with pytest.raises(GridError, match="no pictures in column 'kind', but ClassLabel"):
        load(SourceSpec("me/tiny", image_column="kind", label_column="kind"), root)
    with pytest.raises(GridError, match="no classes in column 'picture', but Image"):
        load(SourceSpec("me/tiny", label_column="picture"), root)


def test_a_dataset_without_images_lists_its_columns(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    write_copy(tmp_path / "me/text", {"train": table})
    with pytest.raises(GridError, match=r"'me/text' has no image columns among: text \(string\), label \(int64\)"):
        load(SourceSpec("me/text"), tmp_path)


def test_images_of_two_shapes_need_resize(make_copy: MakeCopy) -> None:
    root = make_copy("me/tiny", odd_row=int(tiny_order("train")[1]))
    with pytest.raises(GridError, match=r"differ in shape: 6×7 gray and, in .* 9×9 gray. Set resize"):
        load(SourceSpec("me/tiny"), root)
    assert load(SourceSpec("me/tiny", resize=8), root).input_shape == (1, 8, 8)


@pytest.mark.some(2)
@pytest.mark.parametrize(
    ("mode", "shape"), [("1", (1, 6, 7)), ("LA", (1, 6, 7)), ("P", (3, 6, 7)), ("RGBA", (3, 6, 7))]
)
def test_palettes_and_alpha_are_read_as_gray_or_rgb(make_copy: MakeCopy, mode: str, shape: tuple[int, ...]) -> None:
    root = make_copy("me/tiny", mode=mode)
    assert load(SourceSpec("me/tiny"), root).input_shape == shape
    assert load(SourceSpec("me/tiny", channels=1), root).input_shape == (1, 6, 7)


def test_sixteen_bit_images_are_refused(make_copy: MakeCopy) -> None:
    with pytest.raises(GridError, match=r"Image of mode 'I;16' in source 'me/tiny', .* eight bits a channel"):
        load(SourceSpec("me/tiny"), make_copy("me/tiny", mode="I;16"))


def test_an_unknown_config_is_named_with_those_there_are(make_copy: MakeCopy) -> None:
    with pytest.raises(GridError, match=r"'me/tiny' in .*'plane' not found\. Available: \['plain'\]"):
        load(SourceSpec("me/tiny", config="plane"), make_copy("me/tiny"))


def test_unreadable_files_are_not_called_missing(make_copy: MakeCopy) -> None:
    root = make_copy("me/tiny")
    (root / "me/tiny/plain/test-00000-of-00001.parquet").write_bytes(b"PAR1 not a table PAR1")
    with pytest.raises(IntegrityError, match=r"Source 'me/tiny' in .* cannot be read"):
        load(SourceSpec("me/tiny"), root)


@pytest.mark.parametrize("name", ["digit", "Digits"])
def test_misspelt_source_is_answered_without_the_network(name: str) -> None:
    with pytest.raises(
        ZooNotFoundError,
        match=f"Unknown source '{name}'. Known: digits, iris, language, machine. Did you mean `digits`?",
    ):
        load(SourceSpec(name))


def test_local_copies_are_among_the_known_sources(make_copy: MakeCopy) -> None:
    root = make_copy("me/tiny")
    for name in ("tiny", "me", "../me/tiny", str(root / "me/tiny")):
        with pytest.raises(ZooNotFoundError, match=r"Known: digits, iris, language, machine, me/tiny\."):
            load(SourceSpec(name), root)


def test_a_data_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ZooNotFoundError, match=r"No folder '.*absent' to read sources from. Correct ZOO_DATA or --data"
    ):
        load(SourceSpec("me/tiny"), tmp_path / "absent")


def test_without_network_and_copy_the_error_names_both_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ZooNotFoundError, match="Set ZOO_DATA or --data to a folder that holds me/none/, or connect"):
        load(SourceSpec("me/none"), tmp_path)
    assert not datasets.config.HF_HUB_OFFLINE


def test_the_hub_is_asked_for_what_has_no_copy(make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_copy("me/tiny")
    splits = datasets.load_dataset(str(root / "me/tiny"), cache_dir=str(root / "cache"))
    asked = []

    def hub(path: str, name: str | None = None, **settings: object) -> datasets.DatasetDict:
        asked.append((path, name, settings))
        return splits

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", hub)
    source = load(SourceSpec("me/hub-only", config="plain"), root)
    assert asked == [("hf://datasets/me/hub-only", "plain", {})]
    assert source.class_names == ("cat", "dog", "emu")


def test_a_revision_is_asked_of_the_hub_though_there_is_a_copy(
    make_copy: MakeCopy, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_copy("me/tiny")
    splits = datasets.load_dataset(str(root / "me/tiny"), cache_dir=str(root / "cache"))
    asked = []

    def hub(path: str, name: str | None = None, **settings: object) -> datasets.DatasetDict:
        asked.append((path, name, settings))
        return splits

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", hub)
    load(SourceSpec("me/tiny", revision="v1"), root)
    assert asked == [("hf://datasets/me/tiny", None, {"revision": "v1"})]


def test_a_revision_that_cannot_be_asked_for_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ZooNotFoundError, match=r"pinned to revision 'v1', and the Hugging Face Hub does not answer\. Connect"
    ):
        load(SourceSpec("me/none", revision="v1"))


def test_a_dataset_the_hub_does_not_have_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def hub(**settings: object) -> None:
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'me/none' doesn't exist on the Hub.")

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets, "load_dataset", hub)
    with pytest.raises(ZooNotFoundError, match=r"No source 'me/none' on the Hugging Face Hub: .* doesn't exist"):
        load(SourceSpec("me/none"))


@pytest.mark.slow
def test_import_is_light() -> None:
    code = "import sys, zoo_datasets.sources; print({'torch', 'ray', 'sklearn', 'datasets', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


needs_real_data = pytest.mark.skipif("ZOO_DATA" not in os.environ, reason="ZOO_DATA names no folder of real datasets")
REAL = os.environ.get("ZOO_DATA")


@pytest.mark.some(1)
@needs_real_data
@pytest.mark.parametrize(
    ("name", "shape", "first_class"),
    [
        ("ylecun/mnist", (1, 28, 28), "0"),
        ("zalando-datasets/fashion_mnist", (1, 28, 28), "T - shirt / top"),
        ("uoft-cs/cifar10", (3, 32, 32), "airplane"),
    ],
)
@pytest.mark.slow
def test_real_datasets_load(name: str, shape: tuple[int, ...], first_class: str) -> None:
    source = load(SourceSpec(name, train=200, validation=100, test=100), REAL)
    assert source.input_shape == shape
    assert source.class_names[0] == first_class
    assert source.n_classes == len(set(source.train.labels.tolist())) == 10
    assert source.scaled(source.train.inputs).std() == pytest.approx(1, rel=1e-2)
    other = load(SourceSpec(name, train=100, validation=50, test=100), REAL)
    np.testing.assert_array_equal(other.train.inputs, source.train.inputs[:100])
    np.testing.assert_array_equal(other.validation.index, source.validation.index[50:])


# --- the data axes of a model --------------------------------------------------------------

keys = st.integers(0, 2**128 - 1).map(lambda n: f"{n:032x}")
fractions = st.floats(0, 1, allow_nan=False)
labels_of_five = st.lists(st.integers(0, 4), min_size=5, max_size=120).map(
    lambda x: np.array([*range(5), *x], np.int64)
)


def test_the_full_subset_is_every_image_as_it_is() -> None:
    examples = training_examples(LABELS, 5, Subset(), KEY)
    np.testing.assert_array_equal(examples.rows, np.arange(79))
    np.testing.assert_array_equal(examples.labels, LABELS)
    np.testing.assert_array_equal(examples.clean_labels, LABELS)
    assert not examples.poisoned.any()


def test_the_definition_of_the_data_axes_is_pinned() -> None:
    subset = Subset(frac=0.4, label_noise_frac=0.25, trigger_frac=0.2, trigger_target=1)
    examples = training_examples(LABELS, 5, subset, KEY)
    assert examples.rows.dtype == examples.labels.dtype == examples.clean_labels.dtype == np.int64
    assert streams.digest([getattr(examples, f).tolist() for f in ("rows", "labels", "clean_labels", "poisoned")]) == (
        "b8ebd18fba80dc1ac505471b723ba046183a1a9bb441df20cbe8414f72acd097"
    )
    assert epoch_order(KEY, 3, 79, examples.rows).tolist()[:8] == [5, 30, 22, 13, 26, 11, 2, 15]


def test_examples_follow_the_written_definition_image_by_image() -> None:
    subset = Subset(frac=0.6, classes=(2, 3, 1), label_noise_frac=0.3, trigger_frac=0.2, trigger_target=2)
    examples = training_examples(LABELS, 5, subset, KEY)
    turns = [streams.permutation(KEY, 79, turn).tolist() for turn in range(4)]
    chosen = []
    for c in (1, 2, 3):
        of_class = [image for image in turns[0] if LABELS[image] == c]
        chosen += of_class[: max(1, round(0.6 * len(of_class)))]
    trained = {image: int(LABELS[image]) for image in sorted(chosen)}
    for image in [i for i in turns[1] if i in trained][: round(0.3 * len(chosen))]:
        others = [c for c in (1, 2, 3) if c != LABELS[image]]
        trained[image] = others[(int(streams.words(KEY, 79, (2, 0, 0))[image]) >> 40) * 2 >> 24]
    triggered = [i for i in turns[3] if i in trained and LABELS[i] != 2][: round(0.2 * len(chosen))]
    trained |= dict.fromkeys(triggered, 2)
    assert examples.rows.tolist() == list(trained)
    assert examples.labels.tolist() == list(trained.values())
    assert examples.rows[examples.poisoned].tolist() == sorted(triggered)


@given(labels=labels_of_five, key=keys, fracs=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_fractions_are_nested_and_per_class(labels: np.ndarray, key: str, fracs: tuple[float, float]) -> None:
    small, large = (training_examples(labels, 5, Subset(frac=frac), key) for frac in sorted(fracs))
    assert set(small.rows) <= set(large.rows)
    assert (np.diff(large.rows) > 0).all()
    expected = [max(1, round(max(fracs) * n)) for n in np.bincount(labels)]
    assert np.bincount(large.clean_labels).tolist() == expected


@given(labels=labels_of_five, key=keys, fracs=st.tuples(fractions, fractions), frac=st.floats(0.1, 1))
def test_noise_is_nested_and_wrong_in_the_same_way(
    labels: np.ndarray, key: str, fracs: tuple[float, float], frac: float
) -> None:
    subset = Subset(frac=frac, classes=(4, 1, 3))
    less, more = (training_examples(labels, 5, replace(subset, label_noise_frac=f), key) for f in sorted(fracs))
    np.testing.assert_array_equal(less.rows, more.rows)
    noisy = less.labels != less.clean_labels
    assert noisy.sum() == round(min(fracs) * len(less.rows))
    np.testing.assert_array_equal(less.labels[noisy], more.labels[noisy])
    assert set(more.labels) <= {1, 3, 4}


@given(labels=labels_of_five, key=keys, frac=st.floats(0.1, 1))
def test_an_image_gets_the_same_wrong_label_in_every_subset(labels: np.ndarray, key: str, frac: float) -> None:
    whole = training_examples(labels, 5, Subset(label_noise_frac=1.0), key)
    part = training_examples(labels, 5, Subset(frac=frac, label_noise_frac=1.0), key)
    assert (whole.labels != whole.clean_labels).all()
    np.testing.assert_array_equal(part.labels, whole.labels[part.rows])


def test_wrong_labels_are_uniform_over_the_other_classes() -> None:
    labels = np.zeros(40_000, np.int64)
    wrong = training_examples(labels, 5, Subset(label_noise_frac=1.0), KEY).labels
    assert np.bincount(wrong, minlength=5)[0] == 0
    np.testing.assert_allclose(np.bincount(wrong)[1:] / 40_000, 0.25, atol=0.01)  # 4.6 standard errors


@given(labels=labels_of_five, key=keys, fracs=st.tuples(fractions, fractions), target=st.integers(0, 4))
@pytest.mark.slow
def test_triggers_are_nested_and_never_on_the_target_class(
    labels: np.ndarray, key: str, fracs: tuple[float, float], target: int
) -> None:
    share = (labels != target).sum() / len(labels)
    subset = Subset(label_noise_frac=0.3, trigger_target=target)
    less, more = (training_examples(labels, 5, replace(subset, trigger_frac=f * share), key) for f in sorted(fracs))
    assert less.poisoned.sum() == round(min(fracs) * share * len(labels))
    assert not (less.poisoned & ~more.poisoned).any()
    assert (more.clean_labels[more.poisoned] != target).all()
    assert (more.labels[more.poisoned] == target).all()
    noisy = training_examples(labels, 5, Subset(label_noise_frac=0.3), key)
    np.testing.assert_array_equal(more.labels[~more.poisoned], noisy.labels[~more.poisoned])


def test_class_subsets_keep_their_labels_unless_relabeled() -> None:
    plain = training_examples(LABELS, 5, Subset(classes=(3, 1)), KEY)
    assert set(plain.labels) == {1, 3}
    subset = Subset(classes=(3, 1), relabel=True, label_noise_frac=0.5, trigger_frac=0.05, trigger_target=1)
    numbered = training_examples(LABELS, 5, subset, KEY)
    np.testing.assert_array_equal(numbered.rows, plain.rows)
    np.testing.assert_array_equal(numbered.clean_labels, np.where(plain.labels == 3, 0, 1))
    assert set(numbered.labels[numbered.poisoned]) == {1}
    assert relabeled(np.array([0, 1, 2, 3, 4]), subset).tolist() == [-1, 1, -1, 0, -1]
    assert relabeled(np.array([0, 1]), Subset(classes=(1,))).tolist() == [0, 1]


@given(key=keys, epoch=st.integers(0, 5), frac=st.floats(0.05, 1))
def test_epoch_order_is_the_full_order_filtered(key: str, epoch: int, frac: float) -> None:
    rows = training_examples(LABELS, 5, Subset(frac=frac), KEY).rows
    order = epoch_order(key, epoch, 79, rows)
    full = streams.permutation(key, 79, epoch)
    assert rows[order].tolist() == [row for row in full if row in set(rows)]


@pytest.mark.parametrize("position", ["top_left", "top_right", "bottom_left", "bottom_right"])
def test_trigger_is_a_square_in_its_corner(position: str) -> None:
    images = np.full((2, 3, 6, 7), 9, np.uint8)
    stamped = stamp(images, Subset(trigger_size=2, trigger_value=0.5, trigger_position=position), 255.0)
    rows = slice(0, 2) if position.startswith("top") else slice(4, 6)
    columns = slice(0, 2) if position.endswith("left") else slice(5, 7)
    expected = images.copy()
    expected[:, :, rows, columns] = 128
    np.testing.assert_array_equal(stamped, expected)
    assert (images == 9).all()


def test_a_random_trigger_is_its_seed_and_is_blended_in_where_it_is_asked() -> None:
    images = np.full((2, 3, 6, 7), 100, np.uint8)
    given = Subset(trigger_size=3, trigger_pattern="random", trigger_seed=5, trigger_row=1, trigger_column=2)
    stamped = stamp(images, given, 255.0)
    np.testing.assert_array_equal(stamped[0], stamped[1])
    inside = stamped[0, :, 1:4, 2:5].copy()
    assert inside[0].tolist() == [[0, 255, 255], [0, 0, 255], [0, 0, 0]]  # golden: stored zoos rest on it
    assert set(inside.ravel().tolist()) == {0, 255}
    assert (inside[0] != inside[1]).any()
    stamped[:, :, 1:4, 2:5] = 100
    np.testing.assert_array_equal(stamped, images)
    np.testing.assert_array_equal(stamp(images, given, 255.0), stamp(images, replace(given), 255.0))
    other = stamp(images, replace(given, trigger_seed=6), 255.0)
    assert (other != stamp(images, given, 255.0)).any()
    half = stamp(images, replace(given, trigger_opacity=0.25), 255.0)[0, :, 1:4, 2:5]
    np.testing.assert_array_equal(half, np.where(inside == 255, 139, 75))  # 138.75 and 75
    table = stamp(images.astype(np.float32) / 255, replace(given, trigger_opacity=0.25), 1.0)[0, 0, 1, 2:5]
    np.testing.assert_allclose(
        table, np.float32([0.75 * 100 / 255, 0.75 * 100 / 255 + 0.25, 0.75 * 100 / 255 + 0.25]), rtol=1e-6
    )


@given(labels=labels_of_five, key=keys, frac=fractions)
def test_whose_images_are_stamped_one_to_one_and_with_clean_labels(labels: np.ndarray, key: str, frac: float) -> None:
    for subset, label in (
        (Subset(trigger_target=0, trigger_source=3), 3), (Subset(trigger_target=2, trigger_clean_label=True), 2),
    ):  # fmt: skip
        share = (labels == label).sum() / len(labels)
        found = training_examples(labels, 5, replace(subset, trigger_frac=frac * share), key)
        assert found.poisoned.sum() == round(frac * share * len(labels))
        assert (found.clean_labels[found.poisoned] == label).all()
        assert (found.labels[found.poisoned] == subset.trigger_target).all()
        np.testing.assert_array_equal(found.labels[~found.poisoned], found.clean_labels[~found.poisoned])


def test_shares_of_classes_are_nested_and_counted() -> None:
    rare = Subset(frac=0.8, class_shares=(1, 0.25, 0.5, 1, 1))
    plain, found = (training_examples(LABELS, 5, s, KEY) for s in (Subset(frac=0.8), rare))
    assert set(found.rows) < set(plain.rows)
    of_class = np.bincount(LABELS, minlength=5)
    expected = [round(0.8 * share * n) for share, n in zip(rare.class_shares or (), of_class.tolist(), strict=True)]
    assert np.bincount(found.labels, minlength=5).tolist() == [max(1, n) for n in expected]
    assert count_examples(LABELS, 5, rare) == len(found.rows)


@given(n=st.integers(1, 400), frac=st.floats(0.001, 0.5))
@settings(max_examples=300, deadline=None)
def test_parts_that_follow_each_other_have_no_image_in_common(n: int, frac: float) -> None:
    frac = round(frac, 6)
    parts = [Subset(frac=frac, skip=round(k * frac, 12)).taken(0, n) for k in range(int(1 / frac))]
    taken = [i for part in parts for i in range(n)[part]]
    assert len(set(taken)) == len(taken)
    assert parts[0] == slice(0, max(1, round(frac * n)))
    assert all(0 <= p.start <= p.stop <= max(p.start, n) for p in parts)


def test_what_is_passed_over_and_what_is_taken_first_have_no_image_in_common() -> None:
    labels = LABELS[LABELS < 4]  # a class of one image is in the first part alone
    first, second = (training_examples(labels, 4, Subset(frac=0.5, skip=skip), KEY) for skip in (0.0, 0.5))
    assert not set(first.rows) & set(second.rows)
    assert np.bincount(first.labels, minlength=4).tolist() == [20, 12, 5, 2]
    assert np.bincount(second.labels, minlength=4).tolist() == [20, 12, 5, 1]
    assert count_examples(labels, 4, Subset(frac=0.5, skip=0.5)) == len(second.rows)


def test_a_trigger_that_images_show_anyway_is_refused() -> None:
    images = np.zeros((4, 1, 6, 6), np.uint8)
    images[:, :, 2:4, 2:4] = 200
    with pytest.raises(GridError, match="changes none of the source's test images"):
        check_shows(images, Subset(trigger_frac=0.1, trigger_target=0, trigger_value=0.0, trigger_size=2), 255.0)
    check_shows(
        images, Subset(trigger_frac=0.1, trigger_target=0, trigger_value=0.0, trigger_row=2, trigger_column=2), 255.0
    )


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (Subset(frac=0.0), "frac 0; expected more than 0"),
        (Subset(frac=1.5), "frac 1.5; expected a fraction from 0 to 1"),
        (Subset(frac=float("nan")), "frac nan"),
        (Subset(label_noise_frac=-0.1), "label_noise_frac -0.1"),
        (Subset(trigger_value=2.0), "trigger_value 2.0"),
        (Subset(classes=()), "empty list of classes"),
        (Subset(classes=(1, 1)), r"a class twice: \[1, 1\]"),
        (Subset(classes=(1, 6)), "class 6; the source has classes 0 to 5"),
        (Subset(classes=(1, 5)), "class 5, of which the train part holds no image"),
        (Subset(relabel=True), "relabel and no classes"),
        (Subset(classes=(2,), label_noise_frac=0.1), "needs a second class"),
        (Subset(trigger_frac=0.1), "no trigger_target"),
        (Subset(trigger_target=6), "trigger_target 6; the source has classes 0 to 5"),
        (Subset(trigger_frac=0.1, trigger_target=0, classes=(1, 2), relabel=True), "leaves without a number"),
        (Subset(trigger_frac=0.1, trigger_target=0, trigger_size=0), "trigger_size 0; expected 1 pixel or more"),
        (Subset(trigger_position="bottom"), "Did you mean `bottom_"),
        (Subset(trigger_frac=0.6, trigger_target=0), "47 of 79 images, but only 39 are not of the target class 0"),
        (Subset(trigger_frac=0.1, trigger_target=0, trigger_size=7), "trigger_size 7; the images are 6×8 pixels"),
        (Subset(trigger_frac=0.1, trigger_target=0, trigger_row=4, trigger_column=0), "from row 4 and column 0 on"),
        (Subset(trigger_frac=0.001, trigger_target=0), "trigger_frac 0.001, which stamps none of 79 images"),
        (Subset(trigger_pattern="randomly"), "Did you mean `random`"),
        (Subset(trigger_opacity=0.0), "trigger_opacity 0.0; expected more than 0"),
        (Subset(trigger_opacity=float("nan")), "trigger_opacity nan"),
        (Subset(trigger_row=1), "one of trigger_row and trigger_column"),
        (Subset(trigger_row=1, trigger_column=1, trigger_position="top_left"), "keep one of them"),
        (Subset(trigger_source=6), "trigger_source 6; the source has classes 0 to 5"),
        (Subset(trigger_frac=0.1, trigger_target=2, trigger_source=2), "must lead to another class"),
        (Subset(trigger_frac=0.1, trigger_target=2, trigger_source=1, trigger_clean_label=True), "keep one of them"),
        (
            Subset(trigger_frac=0.1, trigger_target=2, trigger_source=1, classes=(0, 2)),
            "of which the model sees no image",
        ),
        (
            Subset(trigger_frac=0.5, trigger_target=2, trigger_source=1),
            "40 of 79 images, but only 25 are of the class 1",
        ),
        (Subset(trigger_frac=0.5, trigger_target=1, trigger_clean_label=True), "only 25 are of the target class 1"),
        (Subset(frac=0.6, skip=0.5), "take frac 0.5 at most"),
        (Subset(frac=0.6, skip=-0.5), "skip -0.5; expected a fraction from 0 to 1"),
        (Subset(class_shares=(1, 1)), "2 class_shares; the source has 6 classes"),
        (Subset(class_shares=(1, 0, 1, 1, 1, 1)), "expected numbers above 0"),
    ],
)
def test_impossible_subsets_are_refused(subset: Subset, message: str) -> None:
    with pytest.raises(GridError, match=message):
        check_subset(subset, 6, LABELS, (1, 6, 8))
    if not any(s in message for s in ("6×8", "row 4", "stamps none")):
        with pytest.raises(GridError, match=message):
            training_examples(LABELS, 6, subset, KEY)


def test_a_trigger_needs_images() -> None:
    with pytest.raises(GridError, match="this source is a table"):
        stamp(np.zeros((3, 4), np.float32), Subset(), 1.0)


def test_check_spec_needs_no_data() -> None:
    check_spec(SourceSpec("me/anything", train=10))


# --- a small dataset in the Hub's layout ---------------------------------------------------

MakeCopy = Callable[..., Path]
NAMES = ["cat", "dog", "emu"]


def tiny_pixels(mode: str) -> tuple[np.ndarray, np.ndarray]:
    """30 images of 6×7 pixels and their labels; the first 20 are the train split."""
    shape = (30, 6, 7, 3) if mode == "RGB" else (30, 6, 7)
    words = streams.words(streams.stream_key("pixels"), int(np.prod(shape)))
    return (words >> np.uint64(56)).astype(np.uint8).reshape(shape), np.arange(30) * 7 % 3


def tiny_order(split: str) -> np.ndarray:
    return streams.permutation(streams.stream_key(["source", "me/tiny", split]), {"train": 20, "test": 10}[split])


def png(array: np.ndarray, mode: str) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(array.astype(np.uint16)) if mode == "I;16" else Image.fromarray(array).convert(mode)
    picture.save(buffer, "PNG", **({"transparency": bytes(9)} if mode == "P" else {}))
    return buffer.getvalue()


def write_copy(folder: Path, splits: dict[str, datasets.Dataset]) -> None:
    (folder / "plain").mkdir(parents=True, exist_ok=True)
    readme = ["---", "configs:", "- config_name: plain", "  default: true", "  data_files:"]
    for name, table in splits.items():
        readme += [f"  - split: {name}", f"    path: plain/{name}-*"]
        table.to_parquet(folder / f"plain/{name}-00000-of-00001.parquet")
    (folder / "README.md").write_text("\n".join([*readme, "---", ""]))


@pytest.fixture
def make_copy(tmp_path: Path) -> MakeCopy:
    """A function that writes a small dataset and returns the folder to give as `data_dir`."""
    made = iter(range(99))

    def make(
        source: str,
        *,
        root: Path | None = None,
        mode: str = "L",
        splits: dict[str, int] | None = None,
        label: datasets.features.features.FeatureType | None = None,
        image_name: str = "image",
        label_name: str = "label",
        extra: dict[str, datasets.ClassLabel] | None = None,
        change_pixel: bool = False,
        change_label: bool = False,
        constant: bool = False,
        damaged_row: int | None = None,
        odd_row: int | None = None,
        missing_row: int | None = None,
        unlabeled: range | list[int] = (),
    ) -> Path:
        images, labels = tiny_pixels(mode)
        row = int(tiny_order("train")[0])
        images[row].flat[0] ^= change_pixel
        labels[row] = (labels[row] + change_label) % 3
        labels[list(unlabeled)] = -1
        if constant:
            images[:] = 7
        pictures = [png(image, mode) for image in images]
        if damaged_row is not None:
            pictures[damaged_row] = pictures[damaged_row][:40]
        if odd_row is not None:
            pictures[odd_row] = png(np.zeros((9, 9), np.uint8), "L")
        if missing_row is not None:
            pictures[missing_row] = None
        label = label or datasets.ClassLabel(names=NAMES)
        kinds = [NAMES[k] for k in labels] if getattr(label, "dtype", "") == "string" else labels.tolist()
        columns = {image_name: [p and {"bytes": p, "path": None} for p in pictures], label_name: kinds}
        features = {image_name: datasets.Image(), label_name: label, **(extra or {})}
        table = datasets.Dataset.from_dict(
            columns | {name: [0] * 30 for name in extra or {}}, datasets.Features(features)
        )
        root = root or tmp_path / f"data{next(made)}"
        start, tables = 0, {}
        for name, count in (splits or {"train": 20, "test": 10}).items():
            tables[name] = table.select(range(start, start + count))
            start += count
        write_copy(root / source, tables)
        return root

    return make


# --- columns, published divisions, no validation -----------------------------------------


def test_features_are_columns_of_a_table_by_name_or_place() -> None:
    whole = load(SourceSpec("iris", train=75, test=75, validation=0))
    for names in (("petal length", "petal width"), ("2", "3"), ("petal length (cm)", "3")):
        two = load(SourceSpec("iris", train=75, test=75, validation=0, features=names))
        assert two.input_shape == (2,)
        assert (two.train.inputs == whole.train.inputs[:, 2:]).all()
        assert two.sha256 != whole.sha256
    backwards = load(SourceSpec("iris", features=("3", "2")))
    assert (backwards.train.inputs == load(SourceSpec("iris")).train.inputs[:, [3, 2]]).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (SourceSpec("iris", features=("petal lenght",)), r"Unknown feature 'petal lenght' in source 'iris'.*`petal length`"),
        (SourceSpec("iris", features=("2", "petal length")), "has a feature twice: 2, petal length"),
        (SourceSpec("digits", features=("2",)), "'digits' has images; features are columns of a table"),
        (SourceSpec("iris", validation=-1), "has validation -1; expected 0 or more"),
    ],
)  # fmt: skip
def test_features_and_counts_that_a_source_cannot_give_are_refused(spec: SourceSpec, message: str) -> None:
    with pytest.raises(GridError, match=message):
        load(spec)


@pytest.mark.parametrize("seed", [0, 2, 12345])
def test_a_split_seed_divides_as_scikit_learn_does(seed: int) -> None:
    from sklearn.model_selection import train_test_split

    source = load(SourceSpec("iris", train=60, test=75, validation=15, split_seed=seed))
    train, test = train_test_split(np.arange(150), test_size=75, train_size=60, random_state=seed)
    assert source.train.index.tolist() == train.tolist()
    assert source.test.index.tolist() == test.tolist()
    assert len({*source.train.index, *source.test.index, *source.validation.index}) == 150


def test_a_split_seed_is_for_datasets_of_one_split(make_copy: MakeCopy) -> None:
    with pytest.raises(GridError, match="has splits of its own; split_seed divides a dataset of one split"):
        load(SourceSpec("me/tiny", split_seed=2), make_copy("me/tiny"))


def test_a_source_may_have_no_validation_image() -> None:
    for spec in (SourceSpec("iris", validation=0), SourceSpec("digits", validation=0)):
        source = load(spec)
        assert source.validation.inputs.shape == (0, *source.input_shape)
        assert len(source.train.labels) + len(source.test.labels) == {"iris": 150, "digits": 1797}[spec.id]


def test_what_came_after_the_first_zoos_is_in_a_manifest_only_where_it_is_used() -> None:
    assert not {"features", "split_seed"} & set(SourceSpec("iris").given)
    assert SourceSpec("iris", features=("2",), split_seed=2).given["features"] == ("2",)


# --- rotation ----------------------------------------------------------------------------

PHOTOS = np.random.default_rng(0).integers(0, 256, (3, 2, 9, 12), dtype=np.uint8)


@pytest.mark.parametrize("degrees", [30.0, -30.0, 90.0, 7.25, 180.0, 359.0, -213.4])
def test_a_turn_is_the_bilinear_one_of_scipy(degrees: float) -> None:
    from scipy import ndimage

    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    middle = (np.array(PHOTOS.shape[2:]) - 1) / 2
    for photo, found in zip(PHOTOS.reshape(-1, 9, 12), turned(PHOTOS, degrees).reshape(-1, 9, 12), strict=True):
        wanted = ndimage.affine_transform(
            photo.astype(float), matrix, middle - matrix @ middle, order=1, mode="grid-constant", cval=0.0
        )
        assert np.abs(found - wanted).max() <= 0.5 + 1e-6


def test_fractions_are_turned_and_not_rounded() -> None:
    fractions = (PHOTOS / 255).astype(np.float32)
    np.testing.assert_allclose(turned(fractions, 30.0) * 255, turned(PHOTOS, 30.0), atol=0.5 + 1e-4)
    assert ((turned(fractions, 30.0) > 0.1) & (turned(fractions, 30.0) < 0.9)).any()


def test_a_quarter_turn_is_counterclockwise_and_exact() -> None:
    square = PHOTOS[:, :, :, :9]
    for quarters in range(-4, 5):
        assert (turned(square, 90.0 * quarters) == np.rot90(square, quarters, axes=(2, 3))).all()
    assert turned(square, 0.0) is square


def test_many_images_turn_as_few_do(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = turned(PHOTOS, 33.0)
    monkeypatch.setattr("zoo_datasets.sources.examples.TURNED_AT_ONCE", 2)
    assert (turned(PHOTOS, 33.0) == whole).all()


def test_turns_are_pinned() -> None:
    digest = streams.digest([turned(PHOTOS, a).tobytes().hex() for a in (30.0, -12.5, 77.7)])
    assert digest == "42b23ae34195fb9b63c9b655fcf0a631db9f2e67ea6300b1e7bbf8a1fe664eed"


def test_a_table_cannot_be_turned() -> None:
    with pytest.raises(GridError, match="rotate_degrees, which turn images; this source is a table"):
        check_subset(Subset(rotate_degrees=10), 3, np.array([0, 1, 2]), (4,))
    with pytest.raises(GridError, match="this source is a table"):
        turned(np.zeros((3, 4), np.float32), 10)


def test_training_images_are_turned_before_they_are_stamped() -> None:
    source = load(SourceSpec())
    subset = Subset(frac=0.1, rotate_degrees=30, trigger_frac=0.3, trigger_target=0, trigger_size=2)
    examples = training_examples(source.train.labels, 10, subset, KEY)
    assert examples.rotate_degrees == 30
    shown = training_images(source, subset, examples)
    upright = turned(source.train.inputs[examples.rows], 30)
    assert (shown[~examples.poisoned] == upright[~examples.poisoned]).all()
    assert (shown[examples.poisoned][:, :, -2:, -2:] == 16).all()
    assert (shown[examples.poisoned][:, :, :-2] == upright[examples.poisoned][:, :, :-2]).all()
    assert examples.poisoned.any()
