"""What checks a call against its annotations while the tests run: beartype, for which a whole number is a float too."""

from __future__ import annotations

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # as PEP 484 has it, and mypy
