"""The durable record of a search."""

__all__: list[str] = []
