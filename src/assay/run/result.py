"""What a search hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from assay.architecture import Architecture
from assay.contracts import Trial
from assay.errors import InvalidStudy
from assay.pareto import front
from assay.run.auditing import Audit
from assay.run.fidelity import fidelity
from assay.run.plan import Plan
from assay.space.space import Space
from assay.study.store import Study
from assay.train.files import load_tensors

__all__ = ["Best", "Result"]


@dataclass(frozen=True)
class Best:
    """The network a search found.

    Attributes:
        architecture: Its options by label.
        module: The trained network: an ordinary module, in eval mode, on the CPU.
        metrics: Figures by name, units in the names: `test_accuracy`, `latency_ms`, `macs`, ...
        folder: Where its files lie.
    """

    architecture: Architecture
    module: nn.Module
    metrics: Mapping[str, float]
    folder: Path


class Result:
    """What a finished search knows; reads its study, computes nothing anew.

    Args:
        out: Folder of the study.
        space: The space that was searched.
        trials: All its trials.
        plan: What was searched and how.
    """

    def __init__(self, out: Path, space: Space, trials: list[Trial], plan: Plan) -> None:
        self.out = out
        self._space = space
        self._trials = trials
        self._plan = plan

    def best(self) -> Best:
        """Return the winner: chosen on validation, tested once.

        Raises:
            InvalidStudy: the search has not finished.
        """
        with Study.read(self.out, url=self._plan.url) as study:
            winner: dict[str, Any] | None = study.get("winner")
        if winner is None:
            raise InvalidStudy(
                f"{self.out} has no winner yet; run the same search again to finish it"
            )
        architecture = Architecture(winner["architecture"])
        module = self._space.build(architecture).cpu()
        tensors = load_tensors(self.out / "best" / "weights.safetensors")
        extra = {k: v for k, v in module.state_dict().items() if not isinstance(v, Tensor)}
        module.load_state_dict({**extra, **tensors})  # extra state is not in the file
        return Best(architecture, module.eval(), winner["metrics"], self.out / "best")

    def trials(self) -> list[Trial]:
        """Return every trial in the order of proposing, infeasible and failed ones included."""
        return list(self._trials)

    def front(self) -> list[Trial]:
        """Return the scored trials that no other beats in all objectives.

        After halving, of those that were trained longest.
        """
        scored = [t for t in self._trials if t.state == "scored"]
        longest = max((t.fidelity for t in scored), default=1.0)
        scored = [t for t in scored if t.fidelity == longest]
        return [scored[i] for i in front([t.objectives for t in scored])]

    def fidelity(self, *, num: int = 12, seeds: int = 1) -> Audit:
        """Say how far the scores of this search can be trusted: train some of its trials for real.

        Args:
            num: Trials of the sample, spread over the scores; the finalists come beside them.
            seeds: Trainings of each, as finalists have; two or more tell the noise ceiling, too.
        Returns:
            As of `assay.audit`: a table with parameters and MACs as rows, and a verdict. The report
            shows both from then on.
        Raises:
            InvalidSetting: fewer than one seed.
            InvalidStudy: the search has not finished, or has fewer than two scores.
        """
        return fidelity(self._plan, self._trials, num=num, seeds=seeds)

    def __repr__(self) -> str:
        return f"Result({str(self.out)!r}, {len(self._trials)} trials)"
