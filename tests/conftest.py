"""Every test runs with shapes and types checked at each call, and without silent rank promotion."""

import os

# Set before anything imports JAX; processes that a test starts inherit them. `make test` sets the same and a cache.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1 --xla_backend_optimization_level=1",
)
os.environ.setdefault("MPLBACKEND", "agg")

import jax
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# jaxtyping's annotations of all of meta_icl are checked by beartype from here on; an int is a float, as in PEP 484.
install_import_hook("meta_icl", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# The first example of a shape compiles, which no deadline foresees; the same examples on every machine.
settings.register_profile(
    "meta_icl", deadline=None, max_examples=25, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("meta_icl")


@pytest.fixture
def x64():
    """Float64 for one test, as oracles need it."""
    with jax.enable_x64(True):
        yield
