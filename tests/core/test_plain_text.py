"""A stranger's text is shown and not obeyed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zoo_datasets.core import plain_text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("tanh", "tanh"),
        ("größe 数", "größe 数"),
        ("\x1b[2Jgone", r"\x1b[2Jgone"),
        ("\x9b31m", r"\x9b31m"),
        ("two\nlines\r", r"two\nlines\r"),
        ("abc\u202edcb", r"abc\u202edcb"),
        ("\u2028", r"\u2028"),
        ("\ud800", r"\ud800"),
        (b"\x07", r"b'\x07'"),
    ],
)
def test_a_line_shows_what_cannot_be_seen(value: object, shown: str) -> None:
    assert plain_text.line(value) == shown


@given(st.text())
def test_lines_keep_our_own_breaks_and_nothing_else(value: str) -> None:
    assert plain_text.line(value).isprintable()
    assert plain_text.lines(value).replace("\n", "").replace("\t", "").isprintable()
    assert plain_text.lines(value).count("\n") == value.count("\n")


def test_markdown_has_no_markup_left() -> None:
    hostile = "<img src=x onerror=alert(1)> [a](javascript:b) **c** `d` # | ~~e~~ &amp;"
    assert plain_text.markdown(hostile) == (
        r"\<img src=x onerror=alert\(1\)\> \[a\]\(javascript:b\) \*\*c\*\* \`d\` \# \| \~\~e\~\~ \&amp;"
    )


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("tanh", "`tanh`"),
        ("a|b", r"`a\|b`"),
        ("`<b>`", "`` `<b>` ``"),
        ("``", "``` `` ```"),
        ("a\nb", r"`a\nb`"),
        ("", "` `"),
    ],
)
def test_code_cannot_be_left(value: str, span: str) -> None:
    assert plain_text.code(value) == span
