"""Being written."""

from __future__ import annotations

import argparse

from zoo_datasets.analysis.report import Report


def arguments(parser: argparse.ArgumentParser) -> None:
    pass


def run(options: argparse.Namespace) -> Report:
    raise NotImplementedError
