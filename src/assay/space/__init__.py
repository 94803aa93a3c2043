"""Choices in an ordinary module, and the space of all architectures they span."""

__all__: list[str] = []
