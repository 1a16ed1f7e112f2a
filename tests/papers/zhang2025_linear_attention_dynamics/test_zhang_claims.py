"""The guard of the maps at plateaus: flows that have not ended are recorded, not judged."""

import importlib

import numpy as np
import pytest

from meta_icl.papers.zhang2025_linear_attention_dynamics.experiments import SPECTRA

# The package itself shows the function of that name.
claims = importlib.import_module("meta_icl.papers.zhang2025_linear_attention_dynamics.claims")
LEVELS = np.array([1.0, 0.6, 0.4, 0.2, 0.1])


@pytest.mark.parametrize(
    ("stuck", "wrong", "verdict"),
    [((0, 0, 0), (0, 0, 0), "holds"), ((0, 1, 0), (0, 1, 0), "holds"), ((0, 0, 0), (0, 1, 1), "fails"),
     ((0, 1, 1), (0, 1, 1), "not converged")],
)  # fmt: skip
def test_maps_at_plateaus(run, stuck, wrong, verdict):
    ends = np.where(stuck, LEVELS[-2], LEVELS[-1])
    share = np.stack([np.tri(3, 4) if not bad else np.full((3, 4), 0.5) for bad in wrong])  # seeds plateaus directions
    for name in SPECTRA:
        with run.part(f"separate-{name}") as part:
            part.save_arrays("result", {"levels": LEVELS, "loss": np.stack([np.ones(3), ends], 1),
                                        "plateau_height": np.tile(LEVELS[1:-1], (3, 1)),
                                        "plateau_share": share})  # fmt: skip
            part.finish()
    assert claims.z5(run).verdict == verdict
