"""Roll-outs: one trained layer applied again and again, each application damped."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.errors import require
from meta_icl.models import InContextLearner
from meta_icl.prompt import Prompt


def rolled_out(
    learner: InContextLearner, loops: int, dampening: Float[Array, ""] | float, *, update: str = "all"
) -> InContextLearner:
    """The one-layer, attention-only learner with its layer applied `loops` times, each update times `dampening`.

    `update="y"` writes the target channel only (the roll-out of von Oswald et al., 2022); "all" the whole token (Rossi
    et al., 2024). The dampening multiplies W_O, which is the same thing, so it may be traced and swept by `vmap`.
    """
    config = learner.network.config
    require(config.n_distinct == 1 and not config.d_mlp, "learner", config, "one attention layer without an MLP")
    network = learner.network.with_config(n_layers=loops, looped=True, update=update)
    network = eqx.tree_at(lambda n: n.layers.w_o, network, network.layers.w_o * dampening)
    return InContextLearner(learner.layout, network)


def rollout_losses(learner: InContextLearner, prompts: Prompt) -> Float[Array, " loops"]:
    """The half-MSE on the queries after every loop; divergence shows as infinity or nan."""

    def answers(prompt: Prompt) -> Float[Array, "loops dy"]:
        _, trace = learner.trace(prompt.hidden())
        return jax.vmap(lambda output: learner.layout.read(output, prompt))(trace["resid_post"])

    squared = jnp.square(jax.vmap(answers)(prompts) - prompts.y[:, None, -1])
    return 0.5 * squared.sum(-1).mean(0)
