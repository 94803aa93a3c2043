"""Where weights come from: the supernet that all architectures of a space share."""

__all__: list[str] = []
