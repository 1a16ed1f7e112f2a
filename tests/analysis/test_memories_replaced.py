"""What any memory read of a context is replaced exactly by changes of the weights behind it."""

import jax.numpy as jnp
import numpy as np
import pytest

from meta_icl.analysis.implicit import answer, implicit_update, random_network, replacement_error
from meta_icl.models import contextual, mixers

FAMILY = {
    "deltanet": mixers.DeltaNet(chunk_size=1),
    "titans": mixers.Titans(chunk_size=1, depth=2),
    "titans in chunks": mixers.Titans(chunk_size=4),
    "linear": mixers.LinearAttention(decay="channel"),
    "mamba": mixers.Mamba(d_state=4),
    "mamba2": mixers.Mamba2(d_key=4),
    "gated deltanet": mixers.GatedDeltaNet(),
    "longhorn": mixers.Longhorn(),
    "rwkv7": mixers.Rwkv7(rank=3),
    "mesa": mixers.Mesa(),
    "ttt": mixers.Ttt(chunk_size=4),
    "mlstm": mixers.Mlstm(),
    "lstm": mixers.Lstm(project=True),
}
ALWAYS = {"deltanet"}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in ALWAYS else pytest.mark.slow) for n in FAMILY])
def test_what_any_memory_read_is_replaced_exactly(name):
    """Two pre-LN blocks around each of the memories; all of the context removed, and a part of it."""
    network = random_network(contextual(8, 12, 2, "pre-LN", FAMILY[name]), 0)
    rows = jnp.asarray(np.random.default_rng(1).normal(size=(7, 8)))
    context, query = rows[:-1], rows[-1]
    for subset in (None, [0, 3]):
        patch = implicit_update(network, context, query, subset)
        assert float(replacement_error(network, context, query, subset, patch)) < 1e-12
        without = answer(network, context, query, subset) - answer(network, context, query)
        assert float(jnp.linalg.norm(without)) > 1e-6
