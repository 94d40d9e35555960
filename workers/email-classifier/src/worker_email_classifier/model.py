"""The shipped linear model: file format, checks on loading, probability of a message.

The file is a NumPy `.npz` read with `allow_pickle=False`: `header` (JSON as bytes), `words` (one
signed byte per bucket) and `measures`. The header carries the SHA-256 of both arrays.
"""

import hashlib
import io
import json
import zipfile  # noqa: TID251 - its error class; numpy opens the shipped file, pickle off
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from worker_email_classifier.features import BUCKETS, Features, Floats
from worker_email_classifier.structure import NAMES

FORMAT = "hivemesh-linear-1"
_FILE = "spam.npz"
_LEAST_LENGTH = 60  # buckets; a message of three words is no stronger evidence than one of twenty
_LARGEST_FILE = 4 * 1024 * 1024


class ModelError(Exception):
    """The model file is not the one that this code was written for; install the worker again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Weights, and the two numbers that turn a score into a probability."""

    words: Floats
    measures: Floats
    constant: float
    slope: float
    offset: float
    header: dict[str, Any]

    def probabilities(self, features: Features) -> npt.NDArray[np.float64]:
        """Return for each message how probable it is that it is of the model's type."""
        values = self.words[features.buckets] * scaled(features)
        sums = np.bincount(features.rows, values, features.count)
        scores = sums + (features.measures * self.measures).sum(axis=1) + self.constant
        linear = np.clip(self.slope * scores + self.offset, -60, 60)
        return np.asarray(1.0 / (1.0 + np.exp(-linear)), np.float64)


def scaled(features: Features) -> npt.NDArray[np.float64]:
    """Return the value of every bucket of every row: 1 over the root of the row's length."""
    lengths = np.bincount(features.rows, minlength=features.count)
    roots = 1.0 / np.sqrt(np.maximum(lengths, _LEAST_LENGTH))
    return np.asarray(roots[features.rows], np.float64)


def shipped() -> Model:
    """Load the model of this package."""
    return load(resources.files("worker_email_classifier").joinpath(_FILE).read_bytes())


def load(data: bytes) -> Model:
    """Read a model file.

    Raises:
        ModelError: the bytes are not a model, or not unchanged.
    """
    if len(data) > _LARGEST_FILE:
        message = f"model file has {len(data)} bytes, more than {_LARGEST_FILE}"
        raise ModelError(message)
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            words, measures = arrays["words"], arrays["measures"]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        message = f"not a model file: {error}"
        raise ModelError(message) from error
    _check(header, words, measures)
    return Model(
        words=words.astype(np.float32) * np.float32(header["word_step"]),
        measures=measures.astype(np.float32),
        constant=float(header["constant"]),
        slope=float(header["slope"]),
        offset=float(header["offset"]),
        header=header,
    )


def _check(header: Any, words: npt.NDArray[Any], measures: npt.NDArray[Any]) -> None:
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        message = f"model format is not {FORMAT!r}"
        raise ModelError(message)
    if words.dtype != np.int8 or words.shape != (BUCKETS,) or measures.dtype != np.float32:
        message = "model arrays have another type or length than this code expects"
        raise ModelError(message)
    if header.get("measures") != list(NAMES) or measures.shape != (len(NAMES),):
        message = "model was trained with other measures; train it again"
        raise ModelError(message)
    if header.get("sha256") != digest(words, measures):
        message = "model file was changed: its arrays do not match the SHA-256 in its header"
        raise ModelError(message)


def digest(words: npt.NDArray[Any], measures: npt.NDArray[Any]) -> str:
    """Return the SHA-256 over both arrays."""
    return hashlib.sha256(words.tobytes() + measures.tobytes()).hexdigest()


def dump(
    words: npt.NDArray[np.float64],
    measures: npt.NDArray[np.float64],
    header: dict[str, Any],
) -> bytes:
    """Write a model file: weights rounded to 255 steps, header completed with step and SHA-256."""
    step = max(float(np.abs(words).max()) / 127, 1e-9)
    small = np.rint(words / step).astype(np.int8)
    floats = measures.astype(np.float32)
    complete = {
        "format": FORMAT,
        **header,
        "word_step": step,
        "measures": list(NAMES),
        "sha256": digest(small, floats),
    }
    text = json.dumps(complete, sort_keys=True, indent=1).encode()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, header=np.frombuffer(text, np.uint8), words=small, measures=floats)
    return buffer.getvalue()
