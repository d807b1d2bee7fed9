"""A zoo → one HTML file that shows it: opened from a disk, without a server or the network.

In:  a `Zoo`, local or on the Hub.
Out: the page as text, or a file. Code and styles are the bundle beside this file, built from `app/`; the data are
     packed by `payload.py`.

Whatever a zoo holds is data there: it lies in one block of base64, and scripts put it on the page as text. The
page's own policy lets run nothing but the one script of that hash, and fetch nothing at all.
"""

from __future__ import annotations

import base64
import hashlib
import html
from importlib import resources
from pathlib import Path

from zoo_datasets.core import files, plain_text
from zoo_datasets.errors import ZooError
from zoo_datasets.format.manifest_parts import PAGE
from zoo_datasets.page import payload
from zoo_datasets.reading.location import Location
from zoo_datasets.reading.selection import Selection
from zoo_datasets.zoo import open_zoo

MOST_TITLE = 120  # characters of a name on a browser's tab


def render(zoo: Selection, name: str | None = None, revision: str | None = None) -> str:
    """The page of a zoo; `name` is the id it is published under, where that is not its own.

    `revision` is the one of the Hub that it was opened at, which its code then names.
    """
    name = name or zoo.name
    data = base64.b64encode(payload.make(zoo, name, revision)).decode("ascii")
    script, style = bundle("page.js"), bundle("page.css")
    policy = (
        f"default-src 'none'; script-src '{_source(script)}'; style-src '{_source(style)}'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    title = html.escape(plain_text.line(name)[:MOST_TITLE])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=True)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title} · a zoo of networks</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<main id="app"><p class="wait" role="status">Unpacking the zoo …</p></main>\n'
        "<noscript><p>This page draws its pictures with JavaScript, which is switched off.</p></noscript>\n"
        f'<script type="application/x-weightzoo" id="data">{data}</script>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def of(location: Location, name: str) -> str:
    """The page of the zoo in a place, under the id that it is published under."""
    return render(open_zoo(location.root), name)


def write(zoo: Selection, out: Path, revision: str | None = None) -> int:
    """Write the page of a zoo, and say how many bytes it has. Raises ZooError where it would take a sealed file's place."""
    try:
        place = out.resolve()
    except (RuntimeError, ValueError) as error:  # links in a circle, a NUL
        raise ZooError(f"--out {str(out)!r} is no path of a file: {error}. Name another place.") from None
    if zoo.location.is_local and place.is_relative_to(zoo.root) and place != zoo.root / PAGE:
        raise ZooError(
            f"--out {out} lies inside the zoo, where {PAGE} alone is known to be no part of the seal. Write it elsewhere."
        )
    if out.is_dir():
        raise ZooError(f"--out {out} is a folder; name the file, like {out / PAGE}.")
    text = render(zoo, revision=revision).encode()
    with files.writing(out, "Name another place with --out."):
        files.write_atomic(out, text)
    return len(text)


def bundle(name: str) -> str:
    """A file of the built bundle. Raises ZooError where the installation lacks it."""
    try:
        return resources.files("zoo_datasets.page").joinpath("bundle", name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ZooError(f"The page's {name} is not installed. Install weightzoo again.") from None


def _source(text: str) -> str:
    """How a content security policy names an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
