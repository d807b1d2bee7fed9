"""`huggingface_hub` and what it raises → one error of ours that says why nothing came."""

from __future__ import annotations

import contextlib
import ctypes
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from zoo_datasets.core import libraries
from zoo_datasets.errors import ZooError, ZooNotFoundError

T = TypeVar("T")


class NoAnswer(OSError):
    """The Hub gave no answer, or refused: why, HTTP's status if there is one, and the Hub's own word for it."""

    def __init__(self, text: str, status: int | None, code: str = "") -> None:
        super().__init__(text)
        self.status, self.code = status, code


class NoFile(NoAnswer):
    """The Hub has the dataset at that revision, and no such file in it."""


def api() -> Any:
    """The library's client, which reads HF_ENDPOINT and the token that `hf auth login` kept."""
    with libraries.needed():
        from huggingface_hub import HfApi

    return HfApi()


def is_the_hub(url: str) -> bool:
    """Whether an address is on the Hub's own host: by its parts, since one may begin like another."""
    try:
        hub, other = urlsplit(api().endpoint), urlsplit(url)
        _ = other.port
    except ValueError:  # no port, no address
        return False
    return (hub.scheme, hub.hostname, hub.port) == (other.scheme, other.hostname, other.port)


@contextlib.contextmanager
def talking() -> Iterator[None]:
    """Whatever goes wrong with the Hub inside is NoAnswer. Raises ZooNotFoundError for what is no id."""
    with libraries.needed():
        from huggingface_hub import errors

    # The HTTP library's own errors (no connection, a body cut short) reach us as they are, and which library
    # that is has changed with versions (requests, httpx, httpx2): its base class is that of the Hub's errors.
    transport: type[Exception] = errors.HfHubHTTPError.__mro__[1]
    known = (transport, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError)
    try:
        yield
    except errors.HFValidationError as error:
        raise ZooNotFoundError(f"That is no id of the Hub: {error}") from None
    except (*known, RuntimeError) as error:
        # An upload's failure comes inside a RuntimeError.
        cause = error if isinstance(error, known) else error.__cause__
        if not isinstance(cause, known):
            raise
        status = getattr(getattr(cause, "response", None), "status_code", None)
        text = " ".join((str(cause) or type(cause).__name__).split())[:300]
        raise NoAnswer(text, status) from cause
    except OSError as error:  # the token of somebody else's HF_HOME, say
        if isinstance(error, (NoAnswer, ZooError)):
            raise
        raise NoAnswer(f"{error.filename or 'a file'} cannot be used: {error.strerror or error}", None) from error


def within(seconds: float, call: Callable[[], T]) -> T:
    """What a call of the library gives; it sets itself no time, and a Hub may be silent or trickle for ever.

    Raises NoAnswer where that takes longer, and whatever the call raises.
    """
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # handed on without __all__

    done: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

    def run() -> None:
        try:
            done.put((call(), None))
        except BaseException as error:  # raised again where somebody waits
            done.put((None, error))

    session, before = get_session(), set(threading.enumerate())
    patience, session.timeout = session.timeout, seconds  # of each read: what nobody waits for ends too
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        value, error = done.get(timeout=seconds)
    except queue.Empty:
        for other in set(threading.enumerate()) - before:
            if other is thread or _is_in_the_library(other):  # which uploads by threads of its own
                stop(other)
        raise NoAnswer(f"it did not end within {seconds:,.0f} s", None) from None
    finally:
        session.timeout = patience
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def stop(thread: threading.Thread) -> None:
    """Let a thread end with its next step in Python: that of a read which brings a byte now and then."""
    if thread.ident is not None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))


def _is_in_the_library(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if str(frame.f_globals.get("__name__")).partition(".")[0] == "huggingface_hub":
            return True
        frame = frame.f_back
    return False
