"""How far an estimator can be trusted: rank statistics, intervals, comparisons, and a verdict."""

__all__: list[str] = []
