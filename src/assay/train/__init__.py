"""Tasks, recipes, and the one loop that trains weights."""

__all__: list[str] = []
