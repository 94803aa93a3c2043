"""Executors: where trainings and scorings run."""

__all__: list[str] = []
