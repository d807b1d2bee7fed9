"""A URL of the Hub → the bytes of its answer, within bounds of size, time and place.

In:  a URL, and a range of bytes where one is wanted.
Out: an open `Answer` whose bytes come as the line brings them; or NoAnswer, NoFile with the cause.

Who answers may be anybody. The HTTP library waits as long as a byte comes now and then, reads what a
redirect or an error says to its end, and unpacks what is packed. Here an answer begins within the
library's own HF_HUB_DOWNLOAD_TIMEOUT (10 s) and then brings LEAST_BYTES_A_S in every such span, or it
ends; at most MOST_HOPS redirects are followed, whose bodies nobody reads, nor those of errors; and the
token goes to the Hub's own host alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

from zoo_datasets.hub import client
from zoo_datasets.hub.client import NoAnswer, NoFile

LEAST_BYTES_A_S = 1_000  # a telephone line brings six times that
MOST_HOPS = 5  # the Hub has one or two on the way to its content servers
MOST_SMALL_S = 600.0  # for a manifest or a listing; files have as long as they come fast enough
MOST_JSON_BYTES = 16_000_000  # twice what the Hub says of 100,000 files; lists of nothing take 20 times that
PIECES = 4  # on the way between the threads


class TooSlow(NoAnswer):
    """Bytes came, and too few; another try would bring no more."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer whose status is below 300: the address that gave it, its headers, and its bytes as they come."""

    url: str
    status: int
    headers: Mapping[str, str]  # names in any case
    pieces: Iterator[bytes]


@contextlib.contextmanager
def answer(url: str, span: tuple[int, int] | None = None) -> Iterator[Answer]:
    """The answer to a GET, of a range (offset, length) where one is given. Raises NoAnswer, NoFile."""
    for _ in range(MOST_HOPS + 1):
        with _begun(url, _headers(url, span)) as (exchange, status, headers):
            place = headers.get("Location") if status in (301, 302, 303, 307, 308) else None
            if place is None:
                _check_status(status, headers)
                yield Answer(url, status, headers, exchange.pieces())
                return
        url = _hop(url, place)
    raise NoAnswer(f"it redirects more than {MOST_HOPS} times", None)


@contextlib.contextmanager
def _begun(url: str, asked: dict[str, str]) -> Iterator[tuple[_Exchange, int, Mapping[str, str]]]:
    """An exchange, the status and headers of its answer. Raises NoAnswer."""
    exchange = _Exchange(url, asked)
    try:
        try:
            status, headers = exchange.begin()
        except NoAnswer as error:
            if "disconnected without sending" not in str(error):
                raise
            # A line kept from the answer before, which the other side closed meanwhile: once more, on a new one.
            exchange.close()
            exchange = _Exchange(url, asked)
            status, headers = exchange.begin()
        yield exchange, status, headers
    finally:
        exchange.close()


def get(url: str, most_bytes: int, ends: float | None = None) -> tuple[bytes, Mapping[str, str]]:
    """A small file, and the headers it came with; `ends` is when it must be there, by `time.monotonic`.

    Raises NoAnswer, NoFile; TooLarge for more than `most_bytes`.
    """
    ends = time.monotonic() + MOST_SMALL_S if ends is None else ends
    data = bytearray()
    with answer(url) as found:
        if found.status != 200:
            raise NoAnswer(f"HTTP status {found.status}", found.status)
        for piece in found.pieces:
            data += piece
            if len(data) > most_bytes:
                raise TooLarge(f"{url} is larger than {most_bytes:,} bytes", None)
            if time.monotonic() > ends:
                raise TooSlow(f"it did not end within {MOST_SMALL_S:.0f} s", None)
    return bytes(data), found.headers


class TooLarge(NoAnswer):
    """The answer is longer than what is asked for can be."""


def get_json(url: str, ends: float | None = None) -> tuple[Any, Mapping[str, str]]:
    """A JSON value, and the headers it came with. Raises NoAnswer."""
    data, headers = get(url, MOST_JSON_BYTES, ends)
    try:
        return json.loads(data), headers
    except (ValueError, RecursionError):
        begin = data[:40].decode(errors="replace")
        raise NoAnswer(f"what comes is no JSON: {begin!r}, perhaps the page of a proxy", None) from None


def patience() -> float:
    """Seconds for an answer to begin, or to bring what LEAST_BYTES_A_S asks of it: HF_HUB_DOWNLOAD_TIMEOUT."""
    from huggingface_hub import constants

    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)


def _headers(url: str, span: tuple[int, int] | None) -> dict[str, str]:
    # Not the library's `build_hf_headers`, which asks the Hub what to call itself, and waits for any answer.
    from huggingface_hub import constants

    headers = {"User-Agent": "weightzoo", "Accept-Encoding": "identity"}  # packed bytes would shift ranges
    if client.is_the_hub(url) and not constants.HF_HUB_DISABLE_IMPLICIT_TOKEN and (token := _token()):
        headers["Authorization"] = f"Bearer {token}"  # for the Hub alone
    if span is not None:
        headers["Range"] = f"bytes={span[0]}-{span[0] + span[1] - 1}"
    return headers


def _token() -> str | None:
    """What `hf auth login` kept, or HF_TOKEN; none where it is not ours to read: public zoos need none."""
    from huggingface_hub import get_token

    try:
        return get_token()
    except OSError:
        return None


def _hop(url: str, place: str) -> str:
    """Where a redirect leads. Raises NoAnswer where that is no place of the web."""
    try:
        target = urljoin(url, place)
        parts = urlsplit(target)
        sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:
        sound = False
    if not sound:
        raise NoAnswer(f"it redirects to {place[:100]!r}, which is no address", None)
    return target


def _check_status(status: int, headers: Mapping[str, str]) -> None:
    """Raises NoAnswer, NoFile with what the headers say; nobody reads the body, which may never end."""
    if 200 <= status < 300:
        if (packed := headers.get("Content-Encoding", "identity").lower()) not in ("", "identity"):
            raise NoAnswer(f"it is packed ({packed[:20]}), where plain bytes were asked for", status)
        return
    code, said = (
        headers.get("X-Error-Code", ""),
        "".join(filter(str.isprintable, headers.get("X-Error-Message", "")))[:200],
    )
    if status == 401 and not code and said != "Invalid credentials in Authorization header":
        code = "RepoNotFound"  # the Hub's word for what is private or not there, to somebody without a token
    text = f"HTTP status {status}{f': {said}' if said else ''}"
    if status == 429:
        text += ", too many requests: wait some minutes, or log in (`hf auth login`)"
    raise (NoFile if code == "EntryNotFound" else NoAnswer)(text, status, code)


class _Exchange:
    """One request, on a thread of its own: that may wait as long as bytes come, and we need not.

    A thread that nobody waits for ends with its next bytes, or when the library's patience does, which is
    longer, so that the cause is always told here.
    """

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self.line: queue.Queue[Any] = queue.Queue(PIECES)
        self.over = self.late = False
        self.thread = threading.Thread(target=self._run, args=(url, headers), daemon=True)
        self.thread.start()

    def begin(self) -> tuple[int, Mapping[str, str]]:
        """Status and headers. Raises NoAnswer."""
        begun: tuple[int, Mapping[str, str]] = self._next(patience())
        return begun

    def pieces(self) -> Iterator[bytes]:
        """The body as it comes. Raises NoAnswer; TooSlow."""
        while True:
            # Time that passes while nobody waits here is not the line's.
            span, waited, got = patience(), 0.0, 0
            while waited < span:
                begun = time.monotonic()
                try:
                    piece = self._next(span - waited)
                except TooSlow:
                    break
                if piece is None:
                    return
                waited += time.monotonic() - begun
                got += len(piece)
                yield piece
            if got < LEAST_BYTES_A_S * span:
                self.late = True
                raise TooSlow(f"{got:,} bytes came in {span:g} s", None)

    def close(self) -> None:
        self.over = True
        with contextlib.suppress(queue.Empty):
            while True:
                self.line.get_nowait()  # room for what the thread is about to hand over
        if self.late:
            # It reads headers, or `100 Continue` again and again, and would for ever: the library has no end of
            # that, and no way to close a connection that has not answered.
            client.stop(self.thread)

    def _next(self, most_s: float) -> Any:
        try:
            item = self.line.get(timeout=most_s)
        except queue.Empty:
            self.late = True
            raise TooSlow(f"nothing came within {patience():g} s", None) from None
        if isinstance(item, NoAnswer):
            raise item
        return item

    def _hand(self, item: Any) -> None:
        self.line.put(item)
        if self.over:
            raise InterruptedError

    def _run(self, url: str, headers: dict[str, str]) -> None:
        from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # handed on without __all__

        try:
            with (
                client.talking(),
                get_session().stream(
                    "GET", url, headers=headers, timeout=2 * patience(), follow_redirects=False
                ) as response,
            ):
                self._hand((response.status_code, response.headers))
                for piece in response.iter_raw() if response.status_code < 300 else ():
                    self._hand(piece)
            self._hand(None)
        except (InterruptedError, SystemExit):  # nobody waits any more
            pass
        except NoAnswer as error:
            self.line.put(error)
        except Exception as error:  # whatever the HTTP library runs into with what another sends
            self.line.put(NoAnswer(f"{type(error).__name__}: {error}"[:300], None))
