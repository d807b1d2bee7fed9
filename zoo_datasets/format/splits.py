"""Init groups → train, validation, test.

In:  the keys of the groups in plan order, and the fractions of the splits.
Out: the split of each group. Models of one group never fall on different sides, because
paired models are near-twins and a random split of them leaks.

With many groups a hash of the group's key alone decides (`hash`), so that zoos which share initializations agree and
adding models moves none. With few groups a hash would be too uneven, and they are dealt in permuted blocks (`blocks`): of every
few groups in plan order, so many that the smallest split has one of them, each split has its share, in an order that is drawn for the
block. A prefix of the groups keeps its splits.

`deficit` dealt the same shares in an order that is the same for every block. It is how zoos were sealed before, and is kept to verify
them: where the points of a grid recur every so many groups, a split had some of the points every time, and others never.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping

from zoo_datasets import errors
from zoo_datasets.core import streams

# At 400 groups a 15 % split by hash is 15 ± 1.8 % (one standard deviation).
MANY_GROUPS = 400
LONGEST = 20  # groups of a block, however small a share is
RULES = ("hash", "blocks", "deficit")


def rule_for(n_groups: int) -> str:
    """`hash` or `blocks`: which rule so many groups take."""
    return "hash" if n_groups >= MANY_GROUPS else "blocks"


def assign(groups: Iterable[str], fractions: Mapping[str, float], rule: str = "") -> dict[str, str]:
    """Group key → split name, by `rule` or the one that so many groups take. Repeated keys count once, at their first place.

    Raises GridError where there are fewer groups than splits.
    """
    keys = list(dict.fromkeys(groups))
    wanted = {name: share for name, share in fractions.items() if share > 0}
    if len(keys) < len(wanted):
        raise errors.GridError(
            f"{len(keys)} init group(s) cannot fill {len(wanted)} splits ({', '.join(wanted)}). Either build more "
            "groups (raise `replicates` or `--limit`, or take axes out of `paired`), or ask for fewer splits "
            "(`splits: {train: 1.0}`)."
        )
    rule = rule or rule_for(len(keys))
    if rule == "hash":
        return {key: by_hash(key, wanted) for key in keys}
    names = _behind(wanted)
    if rule == "blocks":
        names = _permuted(keys, names, wanted)
    return dict(zip(keys, names, strict=False))


def _behind(wanted: Mapping[str, float]) -> Iterator[str]:
    """Splits without end, each the one that is furthest behind its share."""
    counts = dict.fromkeys(wanted, 0)
    for number in itertools.count(1):
        # An empty split comes first: three groups fill three splits, whatever the shares. Ties
        # go to the split named first; the rounding keeps 0.1 + 0.2 from deciding.
        name = max(wanted, key=lambda s: (counts[s] == 0, round(wanted[s] * number - counts[s], 9)))
        counts[name] += 1
        yield name


def _permuted(keys: list[str], names: Iterator[str], wanted: Mapping[str, float]) -> Iterator[str]:
    """The same splits, in each block of groups in an order that its first group's key draws.

    Of the first block as many as there are splits stay in front: they fill each once.
    """
    length = max(len(wanted), min(LONGEST, math.ceil(1 / min(wanted.values()) - 1e-9)))
    for start in range(0, len(keys), length):
        block = list(itertools.islice(names, length))
        front = len(wanted) if start == 0 else 0
        for part in (block[:front], block[front:]):
            order = streams.permutation(streams.stream_key(["split block", keys[start], len(part)]), len(part))
            yield from (part[i] for i in order.tolist())


def by_hash(key: str, fractions: Mapping[str, float]) -> str:
    """The split of one group, from its key alone."""
    at = int.from_bytes(hashlib.sha256(f"split:{key}".encode()).digest()[:8], "big") / 2**64
    name = ""
    for name, share in fractions.items():
        at -= share
        if at < 0:
            break
    return name
