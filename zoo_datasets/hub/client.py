"""`huggingface_hub` and what it raises → one error of ours that says why nothing came."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from zoo_datasets.errors import ZooNotFoundError


class NoAnswer(OSError):
    """The Hub gave no answer, or refused: why, HTTP's status if there is one, and the Hub's own word for it."""

    def __init__(self, text: str, status: int | None, code: str = "") -> None:
        super().__init__(text)
        self.status, self.code = status, code


class NoFile(NoAnswer):
    """The Hub has the dataset at that revision, and no such file in it."""


def api() -> Any:
    """The library's client, which reads HF_ENDPOINT and the token that `hf auth login` kept."""
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
