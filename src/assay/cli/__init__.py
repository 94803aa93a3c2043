"""The command line: it says in words what `assay.search` and `assay.study` do."""

__all__: list[str] = []
