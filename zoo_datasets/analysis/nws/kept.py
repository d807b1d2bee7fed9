"""Answers of a study → the file that a study which was stopped leaves, and from it back.

In:  a `Results` that knows what is asked, and answers, question by question. Out: its numbers, with each answer written down before
     the next question. A study that asks the same of the same zoos with the same code takes up what was written, any other nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from zoo_datasets.analysis.results import UNFINISHED, Results
from zoo_datasets.core import files
from zoo_datasets.core.jsonable import jsonable

log = logging.getLogger("zoo_datasets")

PACKAGE = Path(__file__).parents[2]


class Answers:
    """Answers by question, kept in the folder of the results after each, and taken up where the same was asked of the same code."""

    def __init__(self, results: Results) -> None:
        self.results = results
        self.about = jsonable({**results.numbers, "code": _code()})
        self.kept: dict[str, Any] = {}
        path = results.folder / UNFINISHED
        try:
            found = json.loads(path.read_text())
            if found["about"] == self.about:
                self.kept = found["answers"]
        except (OSError, ValueError, KeyError, TypeError):  # none, or none that was written here
            pass

    def ask(self, question: str, answered: Callable[[], Mapping[str, Any]]) -> None:
        """Adds the answer to the numbers: what was kept, or what `answered` gives."""
        self.results.numbers |= self.answer(question, answered)

    def answer(self, question: str, answered: Callable[[], Any]) -> Any:
        """What was kept, or what `answered` gives."""
        if question in self.kept:
            log.info("`%s` was answered before.", question)
        else:
            self.kept[question] = jsonable(answered())
            files.write_json(self.results.folder / UNFINISHED, {"about": self.about, "answers": self.kept})
        return self.kept[question]


def _code() -> str:
    """A digest of the package: answers of other code are asked again."""
    found = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()
