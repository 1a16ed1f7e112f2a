"""The restarts that claims of Ahn et al. tell of, and the guard of weights that Adam finds."""

import importlib

import numpy as np
import pytest

from meta_icl.papers.ahn2023_preconditioned_gd.experiments import N, length_table

# The package itself shows the function of that name.
claims = importlib.import_module("meta_icl.papers.ahn2023_preconditioned_gd.claims")


def plant(run, name, **arrays):
    """A finished part of the run."""
    with run.part(name) as part:
        part.save_arrays("result", {key: np.asarray(value) for key, value in arrays.items()})
        part.finish()


def test_restarts_are_picked_by_contexts_of_their_own(run):
    """The second restart has the lowest training loss and blows up elsewhere; the third is lucky where it is told."""
    fit = {"train": [2.0, 0.5, 2.1], "validation": [2.2, 90.0, 2.4], "held_out": [2.3, 80.0, 1.0]}
    plant(run, "length-2", **fit)
    plant(run, "depth-3", **fit)
    plant(
        run, "references", **{f"{kind}_3_{n}": [loss] for n in (2, N) for kind, loss in (("plain", 4), ("whitened", 3))}
    )
    lengths, rows = length_table(run)
    assert lengths == [2, N]
    np.testing.assert_array_equal(rows["transformer"], [2.3, 2.3])
    np.testing.assert_array_equal(rows["whitened"], [3, 3])


@pytest.mark.parametrize(("losses", "verdict"), [((1e-3, 1e-3, 9e-3), "holds"), ((1e-3, 9e-3, 9e-3), "not converged")])
def test_weights_are_judged_where_the_training_loss_is_low(run, losses, verdict):
    for seed, loss in enumerate(losses):
        distances = np.full((3, 1, 3), 0.01)
        distances[1] = 0.5  # on the way
        if loss > 2e-3:
            distances[-1] = 0.3
        plant(run, f"adam-{seed}", loss=[[5.0], [1.0], [loss]], distance_a=distances, distance_b=distances[..., :2],
              held_out=[1e-3])  # fmt: skip
    assert claims.a7(run).verdict == verdict
