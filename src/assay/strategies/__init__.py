"""Strategies: the history in, proposals out."""

__all__: list[str] = []
