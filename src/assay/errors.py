"""Every error Assay raises on purpose, in one tree.

AssayError
├── InvalidSpace            a model whose choices cannot be searched
│   ├── UnsupportedLayer    an open size reaches a layer without a slicing rule
│   └── LostLink            an open size was turned into a plain number on its way
├── InvalidArchitecture     a mapping that is no point of the space
├── InvalidTask             data, labels or splits that cannot be trained on
│   └── TestSplitClosed     the test split was read before the finalists' step
├── InvalidSetting          an option, limit, budget or name that does not exist or does not fit
├── SpaceExhausted          no architecture within the limits was found in bounded tries
├── NotFinite               a loss or output that is NaN or infinite
├── ExportRefused           a network that the exporter cannot write, with its reason
├── UnsupportedMix          a mix of options that a choice cannot carry
├── ForeignMachine          a latency table that was measured on another machine
├── WorkerDied              a process that ended before its job did
├── Unsendable              a job that cannot be copied to another process
├── Unwritable              a file or database of a study that takes no more, as on a full disk
└── InvalidStudy            junk, newer than this Assay, in use, or of another search

Each also inherits the builtin a caller would expect. A message says what is wrong, the offending
value, and the fix.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AssayError",
    "ExportRefused",
    "ForeignMachine",
    "InvalidArchitecture",
    "InvalidSetting",
    "InvalidSpace",
    "InvalidStudy",
    "InvalidTask",
    "LostLink",
    "NotFinite",
    "SpaceExhausted",
    "TestSplitClosed",
    "Unsendable",
    "UnsupportedLayer",
    "UnsupportedMix",
    "Unwritable",
    "WorkerDied",
    "nearest",
    "reason",
]


class AssayError(Exception):
    """The root: whatever Assay raises on purpose."""


class InvalidSpace(AssayError, ValueError):
    """A model whose choices cannot be searched."""


class UnsupportedLayer(InvalidSpace, TypeError):
    """An open size reaches a layer that has no slicing rule."""


class LostLink(InvalidSpace):
    """An open size became a plain number before it reached a layer that depends on it."""


class InvalidArchitecture(AssayError, ValueError):
    """A mapping that is not a point of the space."""


class InvalidTask(AssayError, ValueError):
    """Data, labels or splits that cannot be trained on."""


class TestSplitClosed(InvalidTask, PermissionError):
    """The test split was read before the finalists' step opened it."""

    __test__ = False  # the name begins like a test case's; it is none


class InvalidSetting(AssayError, ValueError):
    """An option, limit, budget or name that does not exist or does not fit."""


class SpaceExhausted(AssayError, RuntimeError):
    """No new architecture within the limits was found in a bounded number of tries."""


class NotFinite(AssayError, ArithmeticError):
    """A loss or an output is NaN or infinite."""


class ExportRefused(AssayError, RuntimeError):
    """A network that the exporter cannot write."""


class UnsupportedMix(AssayError, TypeError):
    """A weighted mix of options that this kind of choice cannot compute."""


class ForeignMachine(AssayError, RuntimeError):
    """A latency table that was measured on another machine or with other settings."""


class WorkerDied(AssayError, RuntimeError):
    """A worker process ended, killed or crashed, before its job did."""


class Unsendable(AssayError, TypeError):
    """A job that holds what cannot be copied to another process, such as an open file."""


class Unwritable(AssayError, OSError):
    """A file or database of a study that cannot be written, as on a full disk."""


class InvalidStudy(AssayError, RuntimeError):
    """A study directory that is junk, newer than this Assay, in use, or of another search."""


def reason(error: BaseException) -> str:
    """Return an error as one says it: by its message, after its class where it is not Assay's."""
    said = str(error)
    if isinstance(error, AssayError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def nearest(value: str, known: Iterable[str]) -> str:
    """Say which known names come nearest to a wrong one, ready to end an error message.

    Args:
        value: The name that was given.
        known: The names that exist.
    Returns:
        A sentence such as ``did you mean 'digits'? There are: cifar10, digits``.
    """
    names = sorted(known)
    close = difflib.get_close_matches(value, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, close))}? There are" if close else "there are"
    return f"{hint}: {', '.join(names) or 'none'}"
