"""The search from end to end: one loop, six steps, one result."""

__all__: list[str] = []
