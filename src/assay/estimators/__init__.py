"""Estimators: what architectures are worth, and what saying so cost."""

__all__: list[str] = []
