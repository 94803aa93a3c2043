"""The report: one offline page that shows what a study tried, what it cost and what was measured.

Reads a `Study` and nothing else; `html.write_report` is the way in.
"""

__all__: list[str] = []
