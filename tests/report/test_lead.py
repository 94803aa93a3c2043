from __future__ import annotations

from dataclasses import replace

from assay.report import lead
from assay.report.content import read_content
from tests.report.fake_study import FakeStudy, finished, halved, untested


def test_lead_says_what_was_searched_measured_and_saved() -> None:
    assert lead.lead(read_content(finished())) == [
        "400 architectures out of 17.3 M were proposed by evolution: 204 scored by one-shot, "
        "195 over a limit (latency 0.420 ms) and never scored, 1 failed, 3 trained from scratch.",
        "Latency was measured on the machine that ran this (onnxruntime, 1 thread, batch 1, "
        "median of up to 50 runs). A score ranks architectures within this search and is not the "
        "accuracy of a trained network.",
        "Finding the winner took 1 min 53 s; training every scored architecture instead would "
        "have taken 56 min 52 s, 30.3 times as long.",
    ]


def test_finalists_that_go_on_from_shared_weights_are_not_said_to_start_anew() -> None:
    content = read_content(finished())
    content = replace(content, settings={**content.settings, "finalists": {"weights": "supernet"}})
    assert lead.lead(content)[0].endswith("3 trained on, from the supernet's weights.")
    assert lead.weights_of(content) == "on, from the supernet's weights"


def test_a_name_is_taken_from_what_the_study_holds() -> None:
    assert lead.name_of("one-shot") == "one-shot"
    assert lead.name_of({"name": "digits", "class": "a:B"}) == "digits"
    assert lead.name_of({"class": "assay.estimators.one_shot:OneShot"}) == "one-shot"
    assert lead.name_of({"class": "assay.strategies.nsga2:NSGA2"}) == "nsga2"
    assert (lead.name_of(None), lead.name_of({})) == ("", "")
    assert lead.title(read_content(finished())) == "digits · mobile"


def test_headline_of_another_task_names_its_metric_and_of_another_limit_its_quantity() -> None:
    content = replace(
        read_content(finished()),
        quantity="macs",
        limits={"macs": 2_000_000},
        winner={"metrics": {"test_mse": 0.0123, "test_loss": 0.5, "macs": 1_500_000}},
    )
    assert lead.headline(content) == (
        "A trained network with a test mse of 0.0123 at 1.50 M MACs (limit 2.00 M), "
        "found and trained in 1 min 53 s."
    )


def test_an_architecture_counts_once_whatever_rungs_it_climbed() -> None:
    content = read_content(FakeStudy(rows=halved(), documents={"space": {"size": "3"}}))
    assert lead.headline(content) == "No winner yet: 3 architectures scored in 0 s."
    assert lead.lead(content)[0] == (
        "3 architectures out of 3 were proposed: 3 scored by the estimator."
    )


def test_without_a_test_split_the_validation_figure_is_shown_and_named_so() -> None:
    content = read_content(untested())
    assert lead.headline(content).startswith("A trained network with 97.00 % validation accuracy")
    first = lead.tiles(content)[0]
    assert (first.value, first.name) == ("97.00 %", "validation accuracy")
    assert first.note == "it chose the winner; there is no test split"
    assert lead.quality_of({"valid_loss": 0.1, "valid_mse": 0.2}) == "valid_mse"
    assert lead.quality_of({"valid_accuracy": 0.9, "test_loss": 0.2}) == "test_loss"
    assert lead.quality_of({"macs": 3}) is None


def test_tiles_say_where_each_figure_comes_from() -> None:
    tiles = lead.tiles(read_content(finished()))
    assert [(tile.name, tile.note) for tile in tiles] == [
        ("test accuracy", "test split, opened once"),
        ("latency", "whole network, measured; limit 0.420 ms"),
        ("MACs", "counted, one forward pass"),
        ("parameters", "counted"),
        ("cost", "all steps together"),
    ]


def test_each_limit_stands_in_the_tile_of_its_quantity() -> None:
    content = read_content(finished())
    content = replace(content, limits={**content.limits, "params": 8_000, "model_bytes": 2.0**20})
    notes = {tile.name: tile.note for tile in lead.tiles(content)}
    assert notes["latency"] == "whole network, measured; limit 0.420 ms"
    assert notes["parameters"] == "counted; limit 8.00 k"
    assert (
        "over a limit (latency 0.420 ms, parameters 8.00 k, model size 1.00 MiB)"
        in (lead.lead(content)[0])
    )


def test_an_unfinished_study_has_a_headline_too() -> None:
    content = read_content(FakeStudy(rows=finished(40).rows, costs=finished().costs))
    assert lead.headline(content) == "No winner yet: 22 architectures scored in 1 min 53 s."
    assert lead.title(content) == "a search"


def test_one_is_one_and_a_search_that_took_longer_is_not_praised() -> None:
    one = FakeStudy(rows=halved()[:1], documents={"saving": {"spent_s": 25.0, "train_each_s": 1.2}})
    content = read_content(one)
    assert lead.headline(content) == "No winner yet: 1 architecture scored in 0 s."
    said = lead.lead(content)
    assert said[0] == "1 architecture was proposed: 1 scored by the estimator."
    assert said[-1].endswith(
        "25 s; training every scored architecture instead would have taken 1.2 s."
    )


def test_an_unfinished_study_says_where_it_is() -> None:
    begun = FakeStudy(running={"supernet": 0, "train": 412}, counts={"train": {"steps": 1720}})
    assert lead.lead(read_content(begun))[0] == (
        "It has come to: train it once, 412 of 1,720 steps."
    )
    searching = FakeStudy(running={"search": 0}, counts={"search": {"trials": 9}})
    assert lead.lead(read_content(searching))[0] == "It has come to: search."
    assert "come to" not in " ".join(lead.lead(read_content(finished())))
