"""The tables of a study. Text columns hold JSON; nothing in them is ever executed."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table, Text

__all__ = [
    "VERSION",
    "costs",
    "documents",
    "estimates",
    "failures",
    "finalists",
    "measurements",
    "meta",
    "metadata",
    "phases",
    "sessions",
    "trials",
]

VERSION = 1
"""Raised whenever an older Assay could no longer read what is written."""

metadata = MetaData()
"""All tables."""

meta = Table(
    "meta",
    metadata,
    Column("key", String(100), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Schema version, identity and settings of the study."""
sessions = Table(
    "sessions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("started", Float, nullable=False),
    Column("heartbeat", Float, nullable=False),
    Column("ended", Float),
    Column("versions", Text, nullable=False),
)
"""One row for each process that worked on it."""
phases = Table(
    "phases",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("counts", Text, nullable=False),
    Column("done", Integer, nullable=False),
    Column("checkpoint", Text, nullable=False),
)
"""The steps: what each is to do, how far it is, what it goes on from."""
trials = Table(
    "trials",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("architecture", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("parent", Integer),
    Column("fidelity", Float, nullable=False),
    Column("measured", Text, nullable=False),
    Column("objectives", Text, nullable=False),
    Column("violation", Float, nullable=False),
    Column("error", Text),
)
"""One row for each proposal."""
estimates = Table(
    "estimates",
    metadata,
    Column("trial", Integer, primary_key=True),
    Column("score", Float, nullable=False),
    Column("metrics", Text, nullable=False),
    Column("cost", Text, nullable=False),
    Column("made_from", Text, nullable=False),
)
"""What scored trials were found to be worth."""
measurements = Table(
    "measurements",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("architecture", Text),
    Column("trial", Integer),
    Column("quantity", String(200), nullable=False),
    Column("value", Float, nullable=False),
    Column("source", String(20), nullable=False),
    Column("detail", Text, nullable=False),
)
"""Figures measured on hardware."""
costs = Table(
    "costs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("session", Integer, nullable=False),
    Column("phase", String(100), nullable=False),
    Column("kind", String(20), nullable=False),
    Column("wall_s", Float, nullable=False),
    Column("samples", BigInteger, nullable=False),
    Column("macs", BigInteger, nullable=False),
    Column("device", String(50), nullable=False),
    Index("costs_by_session", "session"),
)
"""Every second of compute, booked to a step."""
failures = Table(
    "failures",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("phase", String(100), nullable=False),
    Column("trial", Integer),
    Column("error", Text, nullable=False),
    Column("traceback", Text, nullable=False),
)
"""What went wrong, with tracebacks."""
finalists = Table(
    "finalists",
    metadata,
    Column("key", String(100), primary_key=True),
    Column("trial", Integer),
    Column("seed", BigInteger, nullable=False),
    Column("architecture", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("metrics", Text, nullable=False),
    Column("weights", Text, nullable=False),
    Column("steps", Integer, nullable=False),
)
"""Networks trained for real."""
documents = Table(
    "documents",
    metadata,
    Column("key", String(200), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Everything else, as JSON by key."""
