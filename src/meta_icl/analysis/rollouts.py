"""Roll-outs: one trained layer applied again and again, each application damped."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.errors import choose, require
from meta_icl.models import Attention, InContextLearner
from meta_icl.prompt import Prompt

UPDATES = {"all": "all", "y": "last"}  # what is written, in a block's own words


def rolled_out(
    learner: InContextLearner, loops: int, dampening: Float[Array, ""] | float, *, update: str = "all"
) -> InContextLearner:
    """The one-layer, attention-only learner with its layer applied `loops` times, each update times `dampening`.

    `update="y"` writes the target channel only (the roll-out of von Oswald et al., 2022); "all" the whole token (Rossi
    et al., 2024). The dampening multiplies W_O, which is the same thing, so it may be traced and swept by `vmap`.
    """
    choose("update", update, UPDATES)
    network = learner.network
    alone = network.blocks[0].config
    plain = isinstance(alone.mixer, Attention) and alone.mixer.project and not alone.mixer.bias_out
    drawn = sum(jax.tree.leaves(block)[0].shape[0] for block in network.blocks)
    one = plain and alone.feed_forward is None and drawn == 1
    require(one, "learner", network.config, "one attention layer without an MLP, mapped back by W_O alone")
    block = replace(alone, writes=UPDATES[update])
    network = network.with_config(n_layers=loops, looped=True, block=block)
    where = lambda n: n.blocks[0].mixer.w_o  # noqa: E731
    network = eqx.tree_at(where, network, where(network) * dampening)
    return InContextLearner(learner.layout, network)


def rollout_losses(learner: InContextLearner, prompts: Prompt) -> Float[Array, " loops"]:
    """The half-MSE on the queries after every loop; divergence shows as infinity or nan."""

    def answers(prompt: Prompt) -> Float[Array, "loops dy"]:
        _, trace = learner.trace(prompt.hidden())
        return jax.vmap(lambda h: learner.layout.read(learner.network.read(h), prompt))(trace["resid_post"])

    squared = jnp.square(jax.vmap(answers)(prompts) - prompts.y[:, None, -1])
    return 0.5 * squared.sum(-1).mean(0)
