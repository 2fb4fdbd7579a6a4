"""The law *cut commutes*, one row per operator and form: it proves each rule, its promise and its repair together."""

import numpy as np
import pytest
import rows_elementwise
import rows_linear
import rows_shape
from law import check_law
from rows import Row

from onnxprune.channels.op import REPAIRS, RULES, operator

ROWS: list[Row] = [*rows_linear.LINEAR, *rows_elementwise.ROWS, *rows_shape.ROWS]
SEEDS = 3

# Operators whose rules no row can run, and why.
UNTESTED = {
}


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_cut_commutes(case: Row) -> None:
    removed = 0
    for silent in (True, False) if case.loud else (True,):
        for seed in range(SEEDS):
            model, data, weights = case.build(seed)
            trial = check_law(
                model, data, weights, silent=silent, seed=seed, tolerance=case.tolerance, zeros=case.zeros()
            )
            free = np.unique(np.concatenate([trial.deps.component, [trial.deps.frozen]])).size - 1
            assert free == case.free
            assert any(case.refused in why for why in trial.deps.unknown.values()) or not case.refused
            assert bool(trial.deps.unknown) == bool(case.refused), trial.deps.unknown
            removed += trial.removed
    assert removed > 0 or case.free == 0
