"""What running a network costs: counted, looked up, measured."""

__all__: list[str] = []
