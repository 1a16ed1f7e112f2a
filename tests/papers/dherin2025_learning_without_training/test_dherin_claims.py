"""The guard of what is said about trained blocks: those that answer hardly better than zero are not judged."""

import numpy as np
import pytest

from meta_icl.papers.dherin2025_learning_without_training.claims import claim_d8, claim_d11


@pytest.mark.parametrize(("losses", "verdict"), [((0.5, 0.9, 0.5), "holds"), ((0.5, 0.9, 0.9), "not converged")])
def test_updates_of_trained_blocks(losses, verdict):
    """Updates of untrained seeds do the opposite of what the claims say."""
    stuck = np.array(losses) > 0.75
    falling, uneven = 1 / np.arange(1, 51), np.tile([1.0, 2.0], 25)
    arrays = {"step": np.array([0, 1_500]), "loss": np.stack([np.ones(3), losses])}

    def sizes(good, bad):
        return {"update size": np.stack([np.tile(bad if one else good, (4, 1)) for one in stuck])}

    assert claim_d8(arrays | sizes(falling, uneven)).verdict == verdict
    assert claim_d11(arrays | sizes(uneven, falling)).verdict == verdict
