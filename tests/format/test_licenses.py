"""Licences as people write them → the Hub's identifiers."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from zoo_builder import grid
from zoo_builder.planning import runs
from zoo_datasets.errors import GridError
from zoo_datasets.format import card
from zoo_datasets.format.licenses import LICENSES, on_the_hub


def test_every_identifier_is_itself_in_any_case_and_with_blanks() -> None:
    for name in LICENSES:
        assert {on_the_hub(s) for s in (name, name.upper(), name.replace("-", " "), f" The {name} License ")} == {name}


@pytest.mark.parametrize(
    ("written", "identifier"),
    [
        ("MIT", "mit"), ("The MIT License", "mit"), ("Apache 2.0", "apache-2.0"), ("Apache-2", "apache-2.0"),
        ("Apache License, Version 2.0", "apache-2.0"), ("CC BY-NC-SA 4.0 International", "cc-by-nc-sa-4.0"),
        ("Creative Commons BY 4.0", "cc-by-4.0"), ("CC0", "cc0-1.0"), ("GPLv3", "gpl-3.0"), ("GPL-3.0-only", "gpl-3.0"),
        ("GPL-3.0-or-later", "gpl-3.0"), ("The GNU General Public License v3.0", "gpl-3.0"), ("LGPL v2.1", "lgpl-2.1"),
        ("GNU Lesser General Public License v2.1", "lgpl-2.1"), ("AGPL-3.0", "agpl-3.0"), ("BSD-3", "bsd-3-clause"),
        ("BSD 3-Clause", "bsd-3-clause"), ("ODC-By-1.0", "odc-by"), ("OpenRAIL++", "openrail++"),
        ("0BSD", None), ("CC-BY", None), ("proprietary", None), ("no", None), ("", None), ("gpl4", None),
    ],
)  # fmt: skip
def test_common_spellings_have_an_identifier_and_others_none(written: str, identifier: str | None) -> None:
    assert on_the_hub(written) == identifier


def load(tmp_path: Path, license: str) -> grid.Grid:
    path = tmp_path / "g.yaml"
    path.write_text(f"zoo: a/b\nreplicates: 3\nlicense: {license}\n")
    return grid.load(path)


def test_a_recipe_names_a_licence_that_the_hub_takes(tmp_path: Path) -> None:
    for name in ("MIT", "Apache 2.0", "other"):
        assert load(tmp_path, name).document["license"] == name  # kept as it is written
    with pytest.raises(
        GridError, match=r"Unknown license 'gpl4' in g\.yaml, line 3.*Did you mean `gpl`\?.*`other` stands"
    ):
        load(tmp_path, "gpl4")


def test_a_licence_is_in_no_id(tmp_path: Path) -> None:
    ids = [[r.id for r in runs.of(load(tmp_path, name))] for name in ("MIT", "mit", "cc-by-4.0")]
    assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize(
    ("license", "sealed"), [("MIT", "MIT"), ("Apache 2.0", "apache-2.0"), (None, "cc-by-4.0"), ("a\nb: c", "other")]
)
def test_a_citation_names_it_on_one_line(license: str | None, sealed: str) -> None:
    assert yaml.safe_load(card.companions("a/b", license)["CITATION.cff"])["license"] == sealed
