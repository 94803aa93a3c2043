"""Searches that learn where to look, each with the paths that it trains a supernet on."""

__all__: list[str] = []
