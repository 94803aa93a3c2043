"""The trials of a study as a study of Optuna, for its dashboard and its plots."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assay.architecture import Option
from assay.contracts import Trial
from assay.errors import InvalidSetting
from assay.space.suggest import category

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

__all__ = ["to_optuna"]


def to_optuna(
    trials: Sequence[Trial],
    objectives: Sequence[str],
    *,
    attributes: Mapping[str, Any],
    storage: str | BaseStorage | None = None,
    name: str | None = None,
) -> optuna.Study:
    """Return a study of Optuna with the trials that have ended; see `Study.to_optuna`.

    Args:
        trials: In any state.
        objectives: Their names, "-" in front of what is minimised; empty where nobody knows them.
        attributes: Kept with the study, as JSON.
        storage: URL or storage of Optuna; None for memory.
        name: Of the study; None for one that Optuna makes up.
    Raises:
        InvalidSetting: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise InvalidSetting("to_optuna needs the package optuna; pip install optuna") from error
    width = len(objectives) or max((len(t.objectives) for t in trials), default=0) or 1
    minimised = [o.startswith("-") for o in objectives] or [False] * width
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=["minimize" if m else "maximize" for m in minimised],
    )
    if objectives:
        with warnings.catch_warnings():  # Optuna calls the names of metrics experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([o.removeprefix("-") for o in objectives])
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    ended = [t for t in trials if t.state != "running"]
    distributions = _distributions(ended)
    study.add_trials([_frozen(t, minimised, distributions) for t in ended])
    return study


def _distributions(trials: Sequence[Trial]) -> dict[str, BaseDistribution]:
    """Return for each label the options that were taken; a study knows no others."""
    from optuna.distributions import CategoricalDistribution

    taken: dict[str, set[Option]] = {}
    for trial in trials:
        for label, option in trial.architecture.items():
            taken.setdefault(label, set()).add(option)
    return {
        label: CategoricalDistribution([category(o) for o in sorted(options)])
        for label, options in taken.items()
    }


def _frozen(
    trial: Trial, minimised: Sequence[bool], distributions: Mapping[str, BaseDistribution]
) -> FrozenTrial:
    from optuna.trial import TrialState, create_trial

    scored = trial.state == "scored"
    states = {
        "scored": TrialState.COMPLETE, "infeasible": TrialState.PRUNED, "failed": TrialState.FAIL
    }  # fmt: skip
    values = [-v if m else v for v, m in zip(trial.objectives, minimised)]
    return create_trial(
        state=states[trial.state],
        values=values if scored else None,
        params={label: category(option) for label, option in trial.architecture.items()},
        distributions={label: distributions[label] for label in trial.architecture},
        user_attrs=_attributes(trial),
        constraints={"violation": trial.violation},
    )


def _attributes(trial: Trial) -> dict[str, Any]:
    told: dict[str, Any] = {"trial": trial.number, "fidelity": trial.fidelity, **trial.measured}
    if trial.parent is not None:
        told["parent"] = trial.parent
    if trial.error is not None:
        told["error"] = trial.error
    if trial.estimate is not None:
        told |= {"score": trial.estimate.score, "cost_s": trial.estimate.cost.wall_s}
        told |= {
            "metrics": dict(trial.estimate.metrics),
            "made_from": dict(trial.estimate.made_from),
        }
    return told
