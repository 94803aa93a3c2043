"""`assay options` reads what can be set from the classes, so nothing there may go without words."""

from __future__ import annotations

import pytest

from assay.cli.main import main
from assay.cli.options import options_named
from assay.errors import InvalidSetting
from assay.estimators.one_shot import OneShot
from assay.options import options_of
from assay.run.names import ESTIMATORS, STRATEGIES
from assay.train import READY
from assay.zoo import SPACES

NAMES = sorted({*ESTIMATORS, *STRATEGIES, *SPACES, *READY, "recipe", "finalists", "target"})


@pytest.mark.parametrize("name", NAMES)
def test_every_option_has_a_default_and_a_meaning(name: str) -> None:
    for found in options_named(name).values():
        for option in found:
            assert option.default not in ("", "<class 'inspect._empty'>"), option
            assert len(option.meaning) > 5, option


def test_defaults_are_those_of_the_class() -> None:
    told = {option.name: option.default for option in options_named("one-shot")["estimator"]}
    assert {name: str(value) for name, value in options_of(OneShot()).items()} == told
    (optuna,) = options_named("optuna:tpe").values()
    assert [(o.name, o.default) for o in optuna] == [("sampler", "tpe"), ("settings", "{}")]


def test_what_the_task_gives_a_space_is_no_option() -> None:
    both = options_named("darts")
    assert list(both) == ["strategy", "space"]
    assert [option.name for option in both["space"]] == ["channels", "cells", "nodes", "none"]


def test_it_prints_names_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["options"], ["options", "one-shot"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code in (0, None)
    said = " ".join(capsys.readouterr().out.split())
    assert "strategy random, evolution" in said
    assert "and recipe, finalists, target one-shot: --set" in said
    assert "one-shot: --set estimator.OPTION=VALUE; in an audit --set one-shot.OPTION=VALUE" in said
    assert "paths sized" in said


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidSetting, match=r"nothing called 'oneshot' .*did you mean 'one-shot'"):
        options_named("oneshot")
    with pytest.raises(InvalidSetting, match=r"did you mean 'darts' or ") as refused:
        options_named("darst")
    assert ", darts, digits, " in str(refused.value)  # once, though a strategy and a space
