"""Init groups → train, validation, test.

In:  the keys of the groups in plan order, and the fractions of the splits.
Out: the split of each group. Models of one group never fall on different sides, because
paired models are near-twins and a random split of them leaks.

Two rules. With many groups a hash of the group's key alone decides, so that zoos which
share initializations agree and adding models moves none. With few groups a hash would be
too uneven: every split gets one group, then groups in order go to the split that is
furthest behind its share, which is stable under prefixes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from zoo_datasets import errors

# At 400 groups a 15 % split by hash is 15 ± 1.8 % (one standard deviation).
MANY_GROUPS = 400


def rule_for(n_groups: int) -> str:
    """`hash` or `deficit`: which rule so many groups take."""
    return "hash" if n_groups >= MANY_GROUPS else "deficit"


def assign(groups: Iterable[str], fractions: Mapping[str, float]) -> dict[str, str]:
    """Group key → split name. Repeated keys count once, at their first place.

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
    if rule_for(len(keys)) == "hash":
        return {key: by_hash(key, wanted) for key in keys}
    counts = dict.fromkeys(wanted, 0)
    result = {}
    for number, key in enumerate(keys, 1):
        # An empty split comes first: three groups fill three splits, whatever the shares. Ties
        # go to the split named first; the rounding keeps 0.1 + 0.2 from deciding.
        name = max(wanted, key=lambda s: (counts[s] == 0, round(wanted[s] * number - counts[s], 9)))
        counts[name] += 1
        result[key] = name
    return result


def by_hash(key: str, fractions: Mapping[str, float]) -> str:
    """The split of one group, from its key alone."""
    at = int.from_bytes(hashlib.sha256(f"split:{key}".encode()).digest()[:8], "big") / 2**64
    name = ""
    for name, share in fractions.items():
        at -= share
        if at < 0:
            break
    return name
