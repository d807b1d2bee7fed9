"""A licence as somebody writes it → its identifier on the Hub, which refuses a card with any other.

In:  `MIT`, `Apache 2.0`, `CC-BY 4.0`, `cc-by-4.0`.
Out: `mit`, `apache-2.0`, `cc-by-4.0`, `cc-by-4.0`; None where the Hub has no such licence.

A zoo keeps what its recipe says; cards and metadata are written with the identifier.
"""

from __future__ import annotations

import re

# Of https://huggingface.co/docs/hub/repositories-licenses. A licence that is missing here can be named
# `other`, and so is one that a sealed zoo has and the Hub has not.
LICENSES = (
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-sa-3.0",
    "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1",
    "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "h-research",
    "intel-research", "lppl-1.3c", "ms-pl", "apple-ascl", "apple-amlr", "mpl-2.0", "odc-by", "odbl", "openmdw-1.0",
    "openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl", "lgpl-lr",
    "deepfloyd-if-license", "fair-noncommercial-research-license", "llama2", "llama3", "llama3.1", "llama3.2",
    "llama3.3", "llama4", "grok2-community", "gemma", "unknown", "other",
)  # fmt: skip
# Names that are no spelling of the identifier; SPDX's where the Hub has one of its own.
ALSO = {
    "apache": "apache-2.0", "cc0": "cc0-1.0", "bsd2clause": "bsd-2-clause", "bsd3clause": "bsd-3-clause",
    "newbsd": "bsd-3-clause", "bsdnew": "bsd-3-clause", "simplifiedbsd": "bsd-2-clause", "boost1.0": "bsl-1.0",
    "mozilla2.0": "mpl-2.0", "odcby1.0": "odc-by", "odbl1.0": "odbl", "pddl1.0": "pddl", "gfdl1.3": "gfdl",
    "bsd2": "bsd-2-clause", "bsd3": "bsd-3-clause", "expat": "mit", "theunlicense": "unlicense", "publicdomain": "cc0-1.0",
}  # fmt: skip


def _plain(name: str) -> str:
    """A name without case, blanks and the words that everybody adds or leaves out."""
    text = name.casefold().replace("creative commons", "cc")
    text = re.sub(r"\b(lesser|affero)? ?general public\b", lambda m: f" {(m[1] or ' ')[0].strip()}gpl", text)
    text = re.sub(r"\b(the|gnu|licen[cs]e[ds]?|version|international|unported|universal)\b", " ", text).strip()
    text = re.sub(r"(-only|-or-later|\+)$", "", text) if "gpl" in text else text
    text = re.sub(r"(?<![a-z])v(?=\d)|(?<=gpl)v(?=\d)", "", text)
    return re.sub(r"[\s_\-/,()]+", "", text)


def _without_zero(plain: str) -> str:
    """`apache2` of `apache2.0`: nobody who writes 2 means another than 2.0."""
    return plain.removesuffix(".0")


_BY_PLAIN = {_plain(name): name for name in LICENSES} | ALSO
_BY_PLAIN = {_without_zero(plain): name for plain, name in _BY_PLAIN.items()} | _BY_PLAIN


def on_the_hub(name: str) -> str | None:
    """The Hub's identifier of a licence; None where it has none."""
    plain = _plain(name)
    return _BY_PLAIN.get(plain) or _BY_PLAIN.get(_without_zero(plain))
