"""Every strategy, hooked to the suite that it must pass."""

from __future__ import annotations

from assay.strategies.evolution import Evolution
from assay.strategies.nsga2 import NSGA2
from assay.strategies.random import Random
from assay.testing import StrategyContract


class TestRandom(StrategyContract):
    strategy = Random


class TestRandomOverDecisions(StrategyContract):
    strategy = staticmethod(lambda: Random(over="decisions"))


class TestEvolution(StrategyContract):
    strategy = Evolution


class TestEvolutionOfFew(StrategyContract):
    strategy = staticmethod(lambda: Evolution(population=4, sample=2))


class TestNSGA2(StrategyContract):
    strategy = NSGA2


class TestNSGA2OfFew(StrategyContract):
    strategy = staticmethod(lambda: NSGA2(population=4, crossover=0.5, mutation=1.0))
