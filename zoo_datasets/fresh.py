"""A zoo and a seed → networks of its recipe that nobody can have seen, for baselines that were trained before.

In:  a sealed zoo; a base seed that did not exist when a result was handed in; how many networks; a folder.
Out: a new zoo, built by `python -m zoo_builder` as a process of its own from the recipe that the zoo carries.

It answers reuse of a test set: whoever chose among baselines by it finds these networks harder. The reader knows nothing of
building; where the builder is not installed, a sentence says so.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from zoo_datasets.errors import ZooError
from zoo_datasets.targets import TaskError
from zoo_datasets.zoo import Zoo, open_zoo


def build(zoo: Zoo, seed: int, count: int, out: Path) -> Zoo:
    """`count` networks by the recipe of `zoo` from `seed`, in `out/fresh/`; opened where they are there.

    Raises TaskError where the seed is the zoo's own, networks are the same all the same, or those that are there are of another
    recipe; ZooError where the builder fails.
    """
    own = zoo.manifest.identity.document.get("seed", 0)
    if own == seed:
        raise TaskError(f"{zoo.name} was built from seed {seed}: its networks are not new. Take another.")
    name = f"{zoo.name}-fresh-{seed}"
    folder = out / "fresh" / name
    if not (folder / "manifest.json").exists():
        recipe = zoo.location.verified("grid.yaml")
        command = [
            sys.executable, "-m", "zoo_builder", "build", "--grid", str(recipe), "--set", f"seed={seed}",
            "--set", f"zoo={name}", "--limit", str(count), "--workers", "0", "--out", str(folder),
        ]  # fmt: skip
        folder.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, stdout=subprocess.DEVNULL, check=False)
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode:
            raise ZooError(
                f"The builder ended with exit code {done.returncode} and made no fresh networks of {zoo.name}; what it said is "
                "above. It needs the package with its builder, and the source's data (`ZOO_DATA`)."
            )
    made = open_zoo(folder)
    if made.manifest.counts.n_models != count:
        raise TaskError(
            f"{folder} holds {made.manifest.counts.n_models:,} networks and not {count:,}. Take it away, or ask for as many."
        )
    if _recipe(made) != _recipe(zoo):
        raise TaskError(f"{folder} was built by another recipe than {zoo.name}'s. Take it away, and it is built anew.")
    for column in ("model_id", "init_key"):
        both = set(zoo.models[column].to_pylist()) & set(made.models[column].to_pylist())
        if both:
            raise TaskError(f"{len(both):,} fresh networks have a {column} of {zoo.name}: they are not new.")
    return made


def _recipe(zoo: Zoo) -> dict[str, Any]:
    """What its networks are drawn from, whatever the seed and however many."""
    return {k: v for k, v in zoo.manifest.identity.document.items() if k not in ("zoo", "seed", "limit")}
