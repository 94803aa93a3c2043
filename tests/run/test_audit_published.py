"""A file of published truths that lacks what its classes of one network need."""

from __future__ import annotations

import csv
from itertools import islice

import pytest

from assay.cli.benchmark import published
from assay.errors import InvalidSetting
from assay.zoo.cell import arch_string, cell

SPACE = cell(channels=4, cells=1)


@pytest.fixture(scope="module")
def rows():
    """Two classes of several architectures, and a third of one: index, text, class."""
    classes = {}
    for point in SPACE.all():
        classes.setdefault(SPACE.canonical(point), []).append(arch_string(point))
    several = islice((texts for texts in classes.values() if len(texts) > 2), 2)
    alone = next(texts for texts in classes.values() if len(texts) == 1)
    made = []
    for texts in (*several, alone):
        first = len(made)
        made += [
            {"index": first + i, "arch_str": text, "acc": 50 + first + i, "rep_index": first}
            for i, text in enumerate(texts[:3])
        ]
    return made


def read(folder, rows):
    with (folder / "truths.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return published(SPACE, folder / "truths.csv", key="arch_str", value="acc")


def test_a_part_of_the_space_is_read_by_the_rows_that_stand_for_their_classes(rows, tmp_path):
    assert list(read(tmp_path, rows).values()) == [50.0, 53.0, 56.0]
    assert list(read(tmp_path, rows[3:]).values()) == [53.0, 56.0]


def test_a_class_without_its_row_is_named(rows, tmp_path):
    with pytest.raises(InvalidSetting) as caught:
        read(tmp_path, rows[1:])
    assert rows[1]["arch_str"] in str(caught.value) or rows[2]["arch_str"] in str(caught.value)
    assert "index = rep_index" in str(caught.value)
    assert "more" not in str(caught.value)
    with pytest.raises(InvalidSetting, match="and of 1 more; add what is missing"):
        read(tmp_path, [row for row in rows if row["index"] not in (0, 3)])


def test_a_class_of_two_networks_loses_neither_silently(rows, tmp_path):
    wrong = [{**row, "rep_index": 0} if row["index"] == 6 else row for row in rows]
    with pytest.raises(InvalidSetting, match="lacks the row that stands for the class of"):
        read(tmp_path, wrong)
