"""A page of docs/ as the repository shows it → the same page as the site shows it.

Pages link to code and recipes beside docs/, which a site of pages has not: such a link becomes its own text, and the
path stays readable in it. Links between pages stay, and a strict build checks them.
"""

from __future__ import annotations

import re
from typing import Any

OUTSIDE = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(((?:\.\./)+[^)\s]*)\)")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Links that leave docs/ as text."""
    depth = page.file.src_uri.count("/")

    def shown(found: re.Match[str]) -> str:
        return found[1] if found[2].count("../") > depth else found[0]

    return OUTSIDE.sub(shown, markdown)
