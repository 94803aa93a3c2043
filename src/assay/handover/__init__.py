"""What is handed back: files that carry no trace of Assay."""

__all__: list[str] = []
