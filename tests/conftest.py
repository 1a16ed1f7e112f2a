"""Every test runs with shapes and types checked at each call, and without silent rank promotion."""

import gc
import os
import sys
from collections import defaultdict
from pathlib import Path

# Set before anything imports JAX; processes that a test starts inherit them.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")
os.environ.setdefault("MPLBACKEND", "agg")
# A draw of this generator compiles four times as fast as one of the default. Its keys have 32 bits, which is enough for
# tests and too few for research.
os.environ.setdefault("JAX_DEFAULT_PRNG_IMPL", "philox2x32")

import jax
import pytest
from hypothesis import HealthCheck, settings
from jaxtyping import install_import_hook

# The independent oracles of several rooms are imported by name.
sys.path.insert(0, str(Path(__file__).parent / "oracles"))

# jaxtyping's annotations of all of meta_icl are checked by beartype from here on; an int is a float, as in PEP 484.
install_import_hook("meta_icl", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

# Compiling is what tests wait for. jax reads these flags when it first computes.
from meta_icl.sweeps.environment import AT_ONCE, SINGLE_THREADED  # noqa: E402  (behind the hook)

os.environ.setdefault("XLA_FLAGS", f"{SINGLE_THREADED} {AT_ONCE}")

# The first example of a shape compiles, which no deadline foresees; the same examples on every machine. Each new shape
# costs a compilation per operation, so a run sees few, and with HYPOTHESIS_PROFILE=many it sees many.
for name, examples in {"few": 6, "many": 40}.items():
    settings.register_profile(
        name, deadline=None, max_examples=examples, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


# Files that take longest come first (`--no-loadscope-reorder`), so that no worker waits for another at the end.
LONGEST = (
    "test_loop", "test_documents", "test_mixers", "test_steps", "test_lean", "test_published", "test_implicit_updates",
    "test_probe", "test_train", "test_implicit_descent", "test_circuit_probes", "test_population", "test_glyphs",
)  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Variants of a test that its mark `variants` does not name are slow; of the rest, the longest come first."""
    known = defaultdict(set)
    for item in items:
        if often := item.get_closest_marker("variants"):
            known[item.originalname, often.args].add(item.callspec.id)
            if item.callspec.id not in often.args:
                item.add_marker("slow")
    if not any("::" in str(argument) for argument in config.args):  # else not all variants are there
        for (name, often), ids in known.items():
            if unknown := set(often) - ids:
                raise pytest.UsageError(f"{name} has no variants {sorted(unknown)}")
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_collection_finish():
    """What is loaded by now stays; looking for garbage in it again and again would take a fifteenth of all time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope="module", autouse=True)
def _few_programs():
    """Drops compiled programs while the process may still map memory: each takes some of Linux's 65,530 mappings."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 40_000:
        jax.clear_caches()


@pytest.fixture
def x64():
    """Float64 for one test, as oracles need it."""
    with jax.enable_x64(True):
        yield
