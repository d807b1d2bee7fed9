"""A function → the same, that checks dtype and shape of the arrays among its arguments and results, by beartype.

Arrays alone: that a whole number may come as NumPy's is no mistake, and mypy knows the other types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from beartype import beartype


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    hints = dict(function.__annotations__)
    function.__annotations__ = {name: hint if _of_an_array(hint) else Any for name, hint in hints.items()}
    try:
        return beartype(function)
    finally:
        function.__annotations__ = hints


def sparing(jaxtyped: Callable[..., Any]) -> Callable[..., Any]:
    """jaxtyping's decorator for functions and classes with an array among their annotations; the others, which are
    most and are called most, stay as they are."""

    def decorator(**options: Any) -> Callable[..., Any]:
        check = jaxtyped(**options)

        def decorated(thing: Any) -> Any:
            hints = getattr(thing, "__annotations__", {}).values()
            return check(thing) if any(_of_an_array(h) for h in hints) else thing

        return decorated

    return decorator


def _of_an_array(hint: Any) -> bool:
    """Whether a hint, or one written as text, has a shape in it."""
    return "[np.ndarray," in hint if isinstance(hint, str) else "jaxtyping." in repr(hint)
