"""A sample that spreads and grows; a file of truths that is read or refused line by line."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.cost import derive
from assay.errors import InvalidSetting
from assay.trust.stratify import load_truth, stratified


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.data())
def test_the_first_of_a_larger_sample_are_the_smaller_one(values, data):
    num = data.draw(st.integers(0, len(values)))
    larger = stratified(values, len(values), rng=derive(0, "sample"))
    assert stratified(values, num, rng=derive(0, "sample")) == larger[:num]
    assert sorted(larger) == list(range(len(values)))


@pytest.mark.parametrize("num", [3, 8, 40, 100])
def test_no_stretch_of_the_order_is_left_out(num):
    """Steps of the golden ratio leave no gap of more than 1 + 2/√5 times the mean one."""
    values = derive(0, "values").lognormal(size=600)
    rank = np.argsort(np.argsort(values))
    for seed in range(10):
        chosen = stratified(values, num, rng=derive(seed, "sample"))
        places = np.sort(rank[chosen])
        gaps = np.diff([*places, places[0] + 600])  # the order closes to a circle
        assert gaps.max() <= (1 + 2 / np.sqrt(5)) * 600 / num + 1  # 1: places are whole


def test_another_generator_gives_another_sample_also_of_equal_values():
    samples = {tuple(stratified([1.0] * 50, 5, rng=derive(s, "sample"))) for s in range(20)}
    assert len(samples) == 20


@pytest.mark.parametrize(
    ("values", "num", "said"),
    [([1.0], 2, "cannot choose 2 of 1 candidates"), ([np.nan, 1.0], 1, "not finite")],
)
def test_what_cannot_be_chosen_is_refused(values, num, said):
    with pytest.raises(InvalidSetting, match=said):
        stratified(values, num, rng=derive(0, "sample"))


# --- a file ---------------------------------------------------------------------------------------


def written(folder, text):
    path = folder / "truth.csv"
    path.write_bytes(text.encode())
    return path


def test_a_file_is_read_by_its_columns(tmp_path):
    path = written(tmp_path, '\ufeffindex,arch_str,test\r\n0,"|a~0|, b",91.5\r\n\r\n1,c,-2e1\r\n')
    assert load_truth(path, key="arch_str", value="test") == {"|a~0|, b": 91.5, "c": -20.0}


HEAD = "architecture,truth\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("architecture,thruth\na,1\n", "no column 'truth'; did you mean 'thruth'"),
        ("", "no column 'architecture'; there are: none"),
        (HEAD + "a,1\nb,2\na,3\n", "line 4 repeats 'a' of line 2"),
        (HEAD + "a,1\nq,2\n", "line 3 has 'q', which is no architecture of the space"),
        (HEAD + "a,1\nb,high\n", "line 3 has 'high', which is no finite number"),
        (HEAD + "a,\n", "line 2 has '', which is no finite number"),
        (HEAD + "a,nan\n", "line 2 has 'nan', which is no finite number"),
        (HEAD + ",1\n", "line 2 has no architecture"),
        (HEAD + "a\n", "line 2 does not have one cell for each column"),
        (HEAD + "a,1,000\n", "line 2 does not have one cell for each column"),
        (HEAD + "a,1\n", "no line has 'b'; correct the file"),
        (HEAD + 'a,"1\n', "cannot read truths from .*give a CSV file"),
    ],
)
def test_what_is_wrong_with_a_file_is_named_by_line(text, said, tmp_path):
    with pytest.raises(InvalidSetting, match=said):
        load_truth(written(tmp_path, text), known={"a", "b"}, needed=["a", "b"])


def test_many_faults_are_told_at_once_but_not_all(tmp_path):
    path = written(tmp_path, HEAD + "a,x\n" * 8)
    with pytest.raises(InvalidSetting) as caught:
        load_truth(path)
    assert str(caught.value).count("line ") == 5
    assert str(caught.value).endswith("; and 3 more; correct the file")


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    junk = tmp_path / "junk.csv"
    junk.write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.csv", junk):
        with pytest.raises(InvalidSetting, match="cannot read truths"):
            load_truth(path)
