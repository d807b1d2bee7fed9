"""A safetensors file that somebody saved → its tensors by name, or what is wrong with it in a sentence.

Nothing is unpickled, and no tensor is passed over: one of a type that is no weight's is named.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zoo_datasets.core import files
from zoo_datasets.errors import IntegrityError, ZooError, reason, shown

PICKLES = (b"PK", b"\x80")  # zip archives of `torch.save`, and bare ones
READ = ("F16", "F32", "F64")  # types of weights
COUNTED = ("I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "BOOL")  # of what is counted beside them


def read(path: Path, most_bytes: int, counter: Callable[[str], bool]) -> dict[str, np.ndarray]:
    """Name → array as it was saved; whole numbers are taken of those tensors alone that are a `counter`.

    Raises IntegrityError where it is no safetensors file, or damaged, ZooError where weights are of a type that is not read,
    FileNotFoundError.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = files.read_bounded(path, most_bytes)
    if data.startswith(PICKLES) and data[8:9] != b"{":  # where the header of a safetensors file begins
        raise IntegrityError(
            f"{path} is a pickle, as `torch.save` writes them, and nothing is unpickled here. Save its tensors with "
            "`safetensors.torch.save_file`."
        )
    try:
        head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        types = {name: entry["dtype"] for name, entry in head.items() if name != "__metadata__"}
        strange = [n for n, t in types.items() if t not in READ and not (t in COUNTED and counter(n))]
        tensors = {} if strange else load(data)
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{path} is no safetensors file, or damaged: {reason(error)}.") from None
    if strange:
        raise ZooError(
            f"{path} holds {shown(strange[0])} as {shown(types[strange[0]])}, and weights are read as {', '.join(READ)}. Save them "
            "as one of these."
        )
    return tensors
