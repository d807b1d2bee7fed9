"""The errors a user of a zoo can act on, and the two helpers that word them.

    ZooError
    ├── GridError(ValueError)               a recipe that cannot be built
    ├── ZooNotFoundError(FileNotFoundError) no zoo, source or model of that name
    ├── IntegrityError(ValueError)          bytes that are not what was sealed
    ├── FormatVersionError(ValueError)      a zoo newer than this library
    ├── NoNetworkError(ValueError)          weights of a network whose layers nobody wrote down
    ├── MissingLibraryError(ModuleNotFoundError)  a library that this needs and the base install has not
    └── BuildError(RuntimeError)            a build that had to stop
        └── InterruptedBuildError           … because somebody asked it to

A message says what is wrong with its value and place, what is allowed, what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# What is shown of a message: a stranger's value in it may have a megabyte. Its way out stands at the end.
MOST_SHOWN = 1000


class ZooError(Exception):
    """Base of every deliberate error; catch this to catch them all."""

    def __str__(self) -> str:
        text = Exception.__str__(self)  # FileNotFoundError formats its arguments as (errno, text, …); we have one text
        if len(text) <= MOST_SHOWN:
            return text
        return f"{text[: MOST_SHOWN // 2]} […] {text[-MOST_SHOWN // 3 :]}"


class GridError(ZooError, ValueError):
    """The recipe asks for something that does not exist or cannot be built."""


class ZooNotFoundError(ZooError, FileNotFoundError):
    """No zoo, source or model of that name where it was looked for."""


class IntegrityError(ZooError, ValueError):
    """The bytes found are not the bytes that were sealed."""


class FormatVersionError(ZooError, ValueError):
    """The zoo was written by a newer version of the format."""


class NoNetworkError(ZooError, ValueError):
    """The architecture is a layout without layers, and what was asked needs the network."""


class MissingLibraryError(ZooError, ModuleNotFoundError):
    """What was asked needs a library that is not installed; the message says how to install it."""


class BuildError(ZooError, RuntimeError):
    """The build stopped; what was finished is kept and the next run goes on from there."""


class InterruptedBuildError(BuildError):
    """The build finished what was running and stopped, as it was asked to."""


# Longer lists hide the one name that the reader looks for.
MOST_ALTERNATIVES = 10
MOST_COMPARED = 100  # characters of a name, whose likeness takes their square
MOST_LIKENED = 5_000  # names that one is compared with; ids are many, and say nothing by their likeness
MOST_NAME = 200  # characters; a stranger's may have a million


def alternatives(known: Iterable[object], name: object = "") -> str:
    """`a, b, c` with at most ten of the known names, those most like `name` kept."""
    names = sorted({str(k) for k in known})
    if not names:
        return "none"
    if len(names) > MOST_LIKENED:
        return ", ".join(names[:MOST_ALTERNATIVES]) + f", … ({len(names)} in all)"
    if len(names) > MOST_ALTERNATIVES:
        near = difflib.get_close_matches(str(name)[:MOST_COMPARED], names, n=MOST_ALTERNATIVES, cutoff=0.0)
        return ", ".join(sorted(near)) + f", … ({len(names)} in all)"
    return ", ".join(names)


def shown(name: object) -> str:
    """A name as a message has it: not endless, and half of a surrogate pair, which nothing can print, escaped."""
    text = str(name)
    text = text if len(text) <= MOST_NAME else f"{text[:MOST_NAME]}…"
    return text.encode(errors="backslashreplace").decode()


def reason(error: BaseException) -> str:
    """What was wrong with a file, in words that end a sentence."""
    return f"it lacks {error}" if isinstance(error, KeyError) else str(error).removesuffix(".") or type(error).__name__


def unknown(what: str, name: object, known: Iterable[object], where: str = "") -> str:
    """`Unknown axis 'x' in grid.yaml, line 3. Known: … Did you mean `y`?`"""
    names = [str(k) for k in known]
    name = shown(name)
    place = f" in {where}" if where else ""
    text = f"Unknown {what} {str(name)!r}{place}. Known: {alternatives(names, name)}."
    near = difflib.get_close_matches(str(name)[:MOST_COMPARED], names, n=1) if len(names) <= MOST_LIKENED else ()
    return text + (f" Did you mean `{near[0]}`?" if near else "")
