"""Named places where a test may end this process as a power cut would.

`ZOO_FAULT=point:folder` kills the process with SIGKILL at the first passage of that point,
once: the token file it leaves in the folder disarms it. Unset, `point` does nothing.
"""

from __future__ import annotations

import os
import signal


def point(name: str) -> None:
    """Die here if the environment says so."""
    armed = os.environ.get("ZOO_FAULT")
    if not armed:
        return
    wanted, _, folder = armed.partition(":")
    if wanted != name:
        return
    try:
        os.close(os.open(os.path.join(folder, name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
