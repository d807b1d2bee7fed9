"""YAML → plain values with lines: the traps read right, everything hostile refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_builder.recipe import recipe_yaml
from zoo_datasets.errors import GridError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "1e-3",
        "no",
        "null",
        "~",
        "",
        "010",
        "1_000",
        ".5",
        "e5",
        ".inf",
        "<<",
        "=",
        "- a",
        "a: b",
        "#",
        "1:30",
        "5\n",
        "true",
    ]
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT.filter(lambda k: k != "<<"), inner, max_size=4),
    max_leaves=12,
)


def value(text: str) -> Any:
    return recipe_yaml.load(text.encode(), "g.yaml")[0]


# --- what is read ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-3", 1e-3), ("1E5", 1e5), ("+2e+3", 2e3), ("3", 3), ("-0", 0), ("+7", 7), ("1_000", 1000), ("0.5", 0.5),
        (".5", 0.5), ("5.", 5.0), ("-.5e1", -5.0), ("0", 0), ("0.0", 0.0),
        ("true", True), ("False", False), ("null", None), ("~", None), ("[]", []), ("{}", {}),
        # Text that other readers of YAML take for something else.
        ("no", "no"), ("Yes", "Yes"), ("on", "on"), ("y", "y"), ("010", "010"), ("0x1F", "0x1F"), ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"), ("1_0.5", "1_0.5"), ("e5", "e5"), (".e5", ".e5"), ("1.2.3", "1.2.3"),
        (".", "."), ("+", "+"), ("-", None), ("inf", "inf"), ("nan", "nan"),
        # Quoted text stays text.
        ("'1e-3'", "1e-3"), ('"null"', "null"), ("''", ""), ("|\n 3", "3"),
    ],
)  # fmt: skip
def test_a_plain_value_is_what_it_looks_like(text: str, expected: Any) -> None:
    found = value(f"- {text}")[0] if text != "-" else value("- ")[0]
    assert found == expected
    assert type(found) is type(expected)


def test_keys_stay_text() -> None:
    assert value("{no: 1, 3: 2, null: 3, 1e-3: 4}") == {"no": 1, "3": 2, "null": 3, "1e-3": 4}


def test_every_key_and_item_has_its_line() -> None:
    text = "zoo: a/b\n\naxes:\n  lr:\n    - 1e-3\n    - 1e-4\n  subset: [full, {frac: 0.5}]\n"
    _, lines = recipe_yaml.load(text.encode(), "g.yaml")
    assert lines[("zoo",)] == 1
    assert lines[("axes",)] == 3
    assert lines[("axes", "lr")] == 4
    assert [lines[("axes", "lr", i)] for i in (0, 1)] == [5, 6]
    assert lines[("axes", "subset", 1, "frac")] == 7


def test_anchors_may_be_used_again_and_a_byte_order_mark_is_skipped() -> None:
    assert value("a: &x [1, 2]\nb: *x") == {"a": [1, 2], "b": [1, 2]}
    assert recipe_yaml.load(b"\xef\xbb\xbfa: 1", "g.yaml")[0] == {"a": 1}


# --- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"g\.yaml, line 3: `a` is given twice \(first in line 1\)\. Keep one\."),
        ("a:\n  x: 1\n  'x': 2", r"line 3: `x` is given twice \(first in line 2\)"),
        ("{1: a, '1': b}", "`1` is given twice"),
        ("", r"g\.yaml is empty; a recipe needs at least `zoo: owner/name`"),
        ("# only a comment\n", "is empty"),
        ("a: [1, 2", r"g\.yaml, line 1: this is not YAML: expected ',' or '\]'"),
        ("a: 1\n\tb: 2", "line 2: this is not YAML"),
        ("a: *b", "this is not YAML: found undefined alias"),
        ("a: 1\n---\nb: 2", "this is not YAML: but found another document"),
        ("a: \0", "this is not YAML: unacceptable character"),
        ('a: "\\UFFFFFFFF"', "this is not YAML"),
        ('a: "\\U00110000"', "this is not YAML"),
        ('a: 1\nb: "\\uD800"', "line 2: half a surrogate pair is no character"),
        ('a: 1\n"\\uD800": 2', "line 2: half a surrogate pair is no character"),
        ("a: 1\nb: !!python/object:os.system x", r"line 2: the tag 'tag:yaml.org,2002:python/object:os.system' is refused"),
        ("!!python/name:x a: 1", r"line 1: the tag .*python/name:x' is refused"),
        ("a: !mine 3", "the tag '!mine' is refused; a recipe holds plain values"),
        ("a: !!binary aGk=", "the tag .*binary' is refused"),
        ("a: !!set {b, c}", "the tag .*set' is refused"),
        ("base: &b {x: 1}\na:\n  <<: *b", "line 3: a key must be a plain name"),
        ("? [a, b]\n: 1", "a key must be a plain name"),
        ("? {a: b}\n: 1", "a key must be a plain name"),
        ("a: 9223372036854775808", "line 1: 9223372036854775808 is too large; whole numbers have 64 bits"),
        ("a: -" + "9" * 5000, "line 1: -9{39} is too large"),
        ("a: .inf", r"line 1: \.inf is not a finite number"),
        ("a: [1e999]", "1e999 is not a finite number"),
        ("a: -.inf", "is not a finite number"),
        ("a: .nan", r"\.nan is not a finite number"),
        ("a: &a [*a]", "nested deeper than 40 levels"),
        ("a: &a {b: *a}", "nested deeper than 40 levels"),
        ("[" * 42 + "]" * 42, "line 1: nested deeper than 40 levels"),
        ("[" * 20_000, "g.yaml, line 1: nested deeper than 40 levels"),
        ("- " * 20_000, "g.yaml, line 1: nested deeper than 40 levels"),
        ("{a: " * 20_000, "g.yaml, line 1: nested deeper"),
        pytest.param("[" + "1," * 50_001 + "]", r"g\.yaml has more than 50,000 values", marks=pytest.mark.slow),
        ("a" * 1_000_001, r"g\.yaml has 1,000,001 bytes; a recipe has at most 1,000,000"),
    ],
    ids=lambda v: v[:30],
)  # fmt: skip
def test_a_document_that_is_no_recipe_is_refused(text: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        value(text)


def test_a_document_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(GridError, match=r"g\.yaml is not UTF-8 \(byte 4\)\. Save it as UTF-8\."):
        recipe_yaml.load("a: \xe9".encode("latin-1")[:3] + b" \xe9", "g.yaml")


@pytest.mark.slow
def test_an_alias_bomb_does_not_go_off() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(GridError, match="unfolds to more than 50,000 values: aliases of aliases are refused"):
        value("\n".join(lines))


@pytest.mark.slow
def test_one_long_text_under_many_aliases_does_not_go_off() -> None:
    with pytest.raises(GridError, match="unfolds to more than 50,000 values"):
        value(f"a: &a '{'x' * 100_000}'\nb: [{', '.join(['*a'] * 1000)}]")


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60) | st.text("[]{}:,-&*!|>'\"%@` \n\tab01.e\\uxU#?<=~", max_size=40).map(str.encode))
def test_any_bytes_are_a_value_or_a_grid_error(text: bytes) -> None:
    try:
        recipe_yaml.load(text, "g.yaml")
    except GridError as error:
        assert str(error).startswith("g.yaml")  # noqa: PT017 (most bytes are no error)


# --- round trip ------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(VALUES.filter(lambda v: v is not None))
def test_what_is_dumped_loads_as_it_was(original: Any) -> None:
    again, _ = recipe_yaml.load(recipe_yaml.dump(original).encode(), "g.yaml")
    assert again == original
    assert repr(again) == repr(original)  # 1 is not 1.0, −0.0 not 0.0, and the order of keys stays


def test_shared_values_load_as_they_were() -> None:
    shared = [1, 2]
    assert value(recipe_yaml.dump({"a": shared, "b": shared})) == {"a": [1, 2], "b": [1, 2]}
