"""Key → random numbers, the same on every machine, for every engine.

In:  a 16-byte key made from what a stream may depend on, and a counter.
Out: raw words, uniforms, normals, permutations; for analyses a generator of NumPy.

The generator is Philox4x64-10 (Salmon et al., SC 2011, section 4) as NumPy ships it: its
raw words are stable by NumPy's policy, and ten lines of C++ give the same. Everything
above the raw words is defined here, from integer operations and the functions of `exact.py`.

Definitions that another implementation must match (golden values: tests/core/test_streams.py):

* key: the first 16 bytes of SHA-256 of canonical JSON, read as two little-endian uint64.
* `words(key, n, hi)`: block i (i = 1, 2, …) is Philox of counter (i, hi₀, hi₁, hi₂), four
  words each; NumPy counts up before it draws, so the first block has i = 1.
* uniform: the top 24 bits of a word, times 2⁻²⁴: in [0, 1), exact in float32.
* normal: AS 241 (Wichura 1988) at the mid-point of the word's top 53 bits.
* permutation: stable argsort of n words.
* whole number below n: the top 32 bits of a word, times n, over 2³², rounded down.
* dropout at (step, layer, sample): `hi = (step, layer, DROPOUT)`; a sample takes
  ceil(units / 16) whole blocks, in the order of its place in the batch; a block is sixteen
  16-bit fields, the lowest bits of the first word first; a unit is dropped where its
  field < round(rate · 65536).
* augmentation at (step, sample): `hi = (step, 0, AUGMENT)`, one block (w₀, w₁, w₂, w₃) a
  sample in the order of its place in the batch; shift by rows and columns from the top 24
  bits of w₀ and w₁, crop from the top 24 and the next 24 bits of w₂, flip where the top bit
  of w₃ is set; a 24-bit field k gives the whole number (k · (2r + 1) >> 24) − r in [−r, r].
  Noise: normals of `hi = (step, 1, AUGMENT)`, a word a value, sample by sample.
* balance at an epoch: `hi = (epoch, 0, BALANCE)` of the key that orders batches, a word for each image of the source's
  train part, whose stable argsort ranks them; of each class the lowest are taken.
* distortion at (step, sample): `hi = (step, 2, AUGMENT)`, two blocks a sample; of the first five words the top 24 and
  the next 24 bits k are ten uniforms k·2⁻²⁴, in the order of `networks/distort.py`. Its noise: normals of
  `hi = (step, 3, AUGMENT)`, a word a value, sample by sample.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer, UInt64

from zoo_datasets.core import exact

# The last counter word tells apart what one key is used for.
SEQUENCE, DROPOUT, AUGMENT, BALANCE = range(4)
UNIFORMS_AT_ONCE = 1024  # drawn ahead: microseconds
FIELDS_PER_BLOCK = 16  # 4 words of 64 bits as fields of 16


def _plain(value: Any) -> Any:
    """A NumPy number as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__} has no JSON")


_CANONICAL = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain
)


def canonical_json(value: Any) -> str:
    """The one spelling of a value: sorted keys, no blanks, no NaN. Raises ValueError."""
    return _CANONICAL.encode(value)


def level_label(value: Any) -> str:
    """How a level of an axis is written: text as it is, any other value as canonical JSON."""
    return value if isinstance(value, str) else level_json(value)


def level_json(value: Any) -> str:
    """A level as canonical JSON, so that a text and a number differ; a number that JSON lacks by its name."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else canonical_json(value)


def digest(value: Any) -> str:
    """SHA-256 of the canonical JSON, 64 hex digits; blind to the order of keys."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def stream_key(value: Any) -> str:
    """The key of a stream: 32 hex digits, the first 16 bytes of the digest."""
    return digest(value)[:32]


def key_words(key: str) -> UInt64[np.ndarray, " 2"]:
    """The words that Philox takes, little-endian in the order of the key's bytes."""
    return np.frombuffer(bytes.fromhex(key), "<u8").astype(np.uint64)


def words(key: str, n: int, hi: tuple[int, int, int] = (0, 0, SEQUENCE)) -> UInt64[np.ndarray, " {n}"]:
    """n raw words of the stream at counter (·, *hi)."""
    counter = np.array([0, *hi], np.uint64)
    return np.random.Philox(key=key_words(key), counter=counter).random_raw(n)


def uniforms(key: str, n: int, hi: tuple[int, int, int] = (0, 0, SEQUENCE)) -> Float64[np.ndarray, " {n}"]:
    """n uniforms in [0, 1), multiples of 2⁻²⁴."""
    return _uniform(words(key, n, hi))


def uniform_stream(key: str) -> Iterator[float]:
    """The uniforms of a key, one after another for as long as they are asked for."""
    source = np.random.Philox(key=key_words(key), counter=np.array([0, 0, 0, SEQUENCE], np.uint64))
    while True:
        yield from _uniform(source.random_raw(UNIFORMS_AT_ONCE)).tolist()


def _uniform(raw: np.ndarray) -> np.ndarray:
    return (raw >> np.uint64(40)).astype(np.float64) * 2.0**-24


def normals(key: str, n: int, hi: tuple[int, int, int] = (0, 0, SEQUENCE)) -> Float64[np.ndarray, " {n}"]:
    """n standard normals, the same bits wherever float64 is IEEE 754."""
    return _inverse_normal((words(key, n, hi) >> np.uint64(11)).astype(np.float64))


def permutation(key: str, n: int, turn: int = 0) -> Int64[np.ndarray, " {n}"]:
    """A permutation of range(n); `turn` numbers the epochs of one key."""
    return np.argsort(words(key, n, (turn, 0, SEQUENCE)), kind="stable")


def integers(
    key: str, below: Integer[np.ndarray, " n"], hi: tuple[int, int, int] = (0, 0, SEQUENCE)
) -> Int64[np.ndarray, " n"]:
    """Whole numbers in [0, below), each below 2³²: the top halves of words, times below, over 2³²."""
    top = words(key, len(below), hi) >> np.uint64(32)
    return (top * below.astype(np.uint64) >> np.uint64(32)).astype(np.int64)


def generator(*what: Any) -> np.random.Generator:
    """NumPy's generator over the Philox stream of the key of `what`, for draws that nothing stored depends on.

    Its distributions are not frozen: another NumPy may draw other numbers, as good as these.
    What a zoo records takes the functions above.
    """
    return np.random.Generator(np.random.Philox(key=key_words(stream_key(list(what)))))


def dropout_keep(
    key: str, rate: float, step: int, layer: int, batch: int, units: int
) -> Bool[np.ndarray, "{batch} {units}"]:
    """Which units stay, for one layer at one step of one model."""
    blocks = -(-units // FIELDS_PER_BLOCK)
    raw = words(key, batch * blocks * 4, (step, layer, DROPOUT))
    fields = raw.astype("<u8").view("<u2").reshape(batch, blocks * FIELDS_PER_BLOCK)
    return fields[:, :units] >= dropout_threshold(rate)


def dropout_threshold(rate: float) -> int:
    """Fields below this are dropped: the rate to the nearest 1/65536."""
    return round(rate * 65536)


def _inverse_normal(top53: np.ndarray) -> np.ndarray:
    """Algorithm AS 241 PPND16 (Wichura, Applied Statistics 37, 1988) at (top53 + ½)·2⁻⁵³."""
    # (k + ½)·2⁻⁵³ − ½, each step exact: k − 2⁵² has at most 53 bits, and so has 2k + 1 − 2⁵³.
    q = (2.0 * (top53 - 2.0**52) + 1.0) * 2.0**-54
    out = np.empty_like(q)
    central = np.abs(q) <= 0.425
    r = 0.180625 - q[central] * q[central]
    out[central] = q[central] * _ratio(r, _CENTRAL)
    tail = ~central
    r = np.sqrt(-exact.log(0.5 - np.abs(q[tail])))
    z = np.where(r <= 5.0, _ratio(r - 1.6, _MIDDLE), _ratio(r - 5.0, _FAR))
    out[tail] = np.where(q[tail] < 0, -z, z)
    return out


def _ratio(x: np.ndarray, coefficients: tuple[tuple[float, ...], tuple[float, ...]]) -> np.ndarray:
    top, bottom = np.zeros_like(x), np.zeros_like(x)
    for a in reversed(coefficients[0]):
        top = top * x + a
    for b in reversed(coefficients[1]):
        bottom = bottom * x + b
    ratio: np.ndarray = top / bottom
    return ratio


_CENTRAL = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
     4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3),
)  # fmt: skip
_MIDDLE = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
     1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9),
)  # fmt: skip
_FAR = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
     2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15),
)  # fmt: skip
