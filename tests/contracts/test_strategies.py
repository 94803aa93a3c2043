"""Every strategy, hooked to the suite that it must pass."""

from __future__ import annotations

from assay.strategies.evolution import Evolution
from assay.strategies.halving import ASHA, Halving, Hyperband
from assay.strategies.learned.darts import DARTS
from assay.strategies.learned.enas import ENAS
from assay.strategies.learned.proxyless import Proxyless
from assay.strategies.learned.reinforce import Reinforce
from assay.strategies.nsga2 import NSGA2
from assay.strategies.optuna import Optuna
from assay.strategies.random import Random
from assay.strategies.smash import Smash
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


class TestHalving(StrategyContract):
    strategy = Halving


class TestHyperband(StrategyContract):
    strategy = Hyperband


class TestASHA(StrategyContract):
    strategy = ASHA


class TestSmash(StrategyContract):
    strategy = Smash


class TestSmashOfFew(StrategyContract):
    strategy = staticmethod(lambda: Smash(random=5, around=20, rate=0.2))


class TestProxyless(StrategyContract):
    strategy = Proxyless


class TestReinforce(StrategyContract):
    strategy = Reinforce


class TestDARTS(StrategyContract):
    strategy = DARTS


class TestOptuna(StrategyContract):
    strategy = Optuna


class TestOptunaOfGenerations(StrategyContract):
    strategy = staticmethod(lambda: Optuna("nsga2", {"population_size": 10}))


class TestOptunaOfManyObjectives(StrategyContract):
    strategy = staticmethod(lambda: Optuna("nsga3", {"population_size": 10}))


class TestENAS(StrategyContract):
    strategy = ENAS
