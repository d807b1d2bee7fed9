"""Settings → layers, where an architecture is generated: the parameters of its name are settings beside it.

In:  a run's settings; or what a recipe writes under `architecture`.
Out: the layers that stand for the name; or the settings that a mapping like `{wild: {depth: 4}}` fixes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo_builder.recipe.settings import SETTINGS
from zoo_builder.recipe.values import coerce
from zoo_datasets.errors import GridError, unknown
from zoo_datasets.networks.architecture import Architecture
from zoo_datasets.networks.generated import GENERATED
from zoo_datasets.networks.layers import PRESETS, unrolled


def layers_of(values: Mapping[str, Any]) -> Any:
    """What the settings' `architecture` is: a preset's name, or a list of layers, also of a generated one."""
    name = values["architecture"]
    if not isinstance(name, str) or name not in GENERATED:
        return name
    return GENERATED[name](parameters_of(values))


def takes(values: Mapping[str, Any], name: str) -> bool:
    """Whether the architecture has a layer `name` that has no value of its own: `dropout`, `activation`, `batch_norm`."""
    layers = layers_of(values)
    own = (x for _, x in unrolled(PRESETS[layers] if isinstance(layers, str) else layers))
    return any(x == name or (isinstance(x, Mapping) and x.get(name, 0) is None) for x in own)


def check_generated(values: Mapping[str, Any], architecture: Architecture) -> None:
    """Raises GridError where what was built of a generated architecture is none that its name stands for."""
    name = values["architecture"]
    if isinstance(name, str) and name in GENERATED:
        GENERATED[name].check(architecture)


def parameters_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a generated architecture that settings name, by their keys; those at their defaults may lack."""
    generator = GENERATED[values["architecture"]]
    settings = {p.name: p.setting_of(generator.name) for p in generator.parameters}
    return {name: values[s] for name, s in settings.items() if values.get(s) is not None}


def described(values: Mapping[str, Any]) -> str:
    """The name of a generated architecture with its parameters, for messages; "" of any other."""
    name = values["architecture"]
    if not isinstance(name, str) or name not in GENERATED:
        return ""
    given = parameters_of(values)
    return f"{name} ({', '.join(f'{p.name}: {given.get(p.name, p.default)}' for p in GENERATED[name].parameters)})"


def read(value: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`{wild: {depth: 4}}` → {setting name: value}. Raises GridError."""
    name = str(next(iter(value), None))
    if len(value) != 1 or name not in GENERATED:
        wrong = next((str(k) for k in value if str(k) not in GENERATED), "")
        if not wrong:
            raise GridError(
                f"{where}: `architecture` names {len(value)} generated ones; give one, like {{wild: {{depth: 4}}}}."
            )
        raise GridError(unknown("generated architecture", wrong, GENERATED, where))
    given = value[name]
    if not isinstance(given, Mapping):
        raise GridError(
            f"{where}: `{name}` is {given!r}; its parameters are needed, like {{{name}: {{}}}} for their defaults."
        )
    known = {p.name: SETTINGS[p.setting_of(name)] for p in GENERATED[name].parameters}
    for key in given:
        if key not in known:
            raise GridError(unknown(f"parameter of `{name}`", key, known, where))
    return {"architecture": name} | {known[k].name: coerce(known[k], v, where) for k, v in given.items()}
