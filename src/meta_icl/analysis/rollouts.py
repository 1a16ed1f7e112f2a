"""Roll-outs: one trained layer applied again and again, each application damped."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.errors import require
from meta_icl.models import InContextLearner
from meta_icl.prompt import Prompt


def rolled_out(
    learner: InContextLearner, loops: int, dampening: float, *, update: str = "all"
) -> InContextLearner:
    """The one-layer learner with its layer applied `loops` times, each update times `dampening`.

    `update="y"` writes the target channel only (the roll-out of von Oswald et al., 2022); "all" the whole token (Rossi
    et al., 2024).
    """
    require(learner.network.config.n_distinct == 1, "learner", learner.network.config.n_layers, "of a single layer")
    network = learner.network.with_config(n_layers=loops, looped=True, dampening=dampening, update=update)
    return InContextLearner(learner.layout, network)


def rollout_losses(learner: InContextLearner, prompts: Prompt) -> Float[Array, " loops"]:
    """The half-MSE on the queries after every loop; divergence shows as infinity or nan."""

    def answers(prompt: Prompt) -> Float[Array, "loops dy"]:
        _, trace = learner.trace(prompt.hidden())
        return jax.vmap(lambda output: learner.layout.read(output, prompt))(trace["resid_post"])

    squared = jnp.square(jax.vmap(answers)(prompts) - prompts.y[:, None, -1])
    return 0.5 * squared.sum(-1).mean(0)
