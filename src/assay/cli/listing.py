"""`assay spaces` and `assay tasks`."""

from __future__ import annotations

__all__ = ["spaces", "tasks"]

_TASKS = {
    "digits": "1,797 handwritten digits, 8x8; comes with the install",
    "fashion-mnist": "70,000 pictures of clothes, 28x28; Debian's package, a folder, or downloaded",
    "cifar10": "60,000 pictures of ten classes, 32x32; a folder, or downloaded",
}
_SPACES = {
    "cell": "NAS-Bench-201: five operations on six edges of a cell, 15,625 architectures",
    "conv": "a chain of convolutions: 3, 5, separable, skip; width by stage",
    "darts": "DARTS: two cells; each node picks two inputs and one of seven operations on each",
    "enas-macro": "ENAS: a chain of layers; each picks one of six operations and whom it reads",
    "enas-micro": "ENAS: two cells; each node picks two inputs and two of five operations",
    "memory-bank": "SMASH's banks: what is read, written, and by which convolution",
    "mobile": "inverted bottlenecks: kernel 3/5/7 x expansion 3/6, skip, depth and width by stage",
}


def spaces() -> None:
    """List the ready spaces."""
    from assay.zoo import SPACES

    for name in SPACES:
        print(f"{name:15} {_SPACES.get(name, '')}")
    print("your own        assay search --model package.module:Class")


def tasks() -> None:
    """List the ready tasks."""
    from assay.train import READY

    for name in READY:
        print(f"{name:15} {_TASKS.get(name, '')}")
    print("your own        assay search --data FOLDER  (one sub-folder of images for each class)")
