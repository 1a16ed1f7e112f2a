"""How a layer moves information between tokens: the sensitivity of its output tokens to its input tokens."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from meta_icl.models import InContextLearner
from meta_icl.prompt import Prompt


class TokenCopying(NamedTuple):
    """Sensitivity of an output token to its own, the next, and all other input tokens (von Oswald et al., 2022).

    `other` is the sum over all tokens but the own one, the next included as in the released code, divided by their
    number less one; `other_without_next` leaves the next one out.
    """

    own: Float[Array, ""]
    next: Float[Array, ""]
    other: Float[Array, ""]
    other_without_next: Float[Array, ""]


def token_copying(learner: InContextLearner, prompts: Prompt, *, layer: int = 0) -> TokenCopying:
    """Norms of the prompt-averaged gradient of sum(output token k) by input token j, averaged over k.

    k runs over the tokens that have a successor in the context, k < t - 2.
    """

    def jacobian(prompt: Prompt) -> Float[Array, "t t d"]:
        tokens = learner.layout.encode(prompt.hidden())

        def sums(tokens: Array) -> Array:
            return learner.network(tokens)[1]["resid_post"][layer].sum(-1)

        return jax.jacrev(sums)(tokens)

    mean = jax.lax.map(jacobian, prompts, batch_size=256).mean(0)
    norms = jnp.linalg.norm(mean, axis=-1)
    t = norms.shape[0]
    k = jnp.arange(t - 2)
    own, following = norms[k, k], norms[k, k + 1]
    others = norms[: t - 2].sum(1) - own
    return TokenCopying(
        own.mean(), following.mean(), (others / (t - 2)).mean(), ((others - following) / (t - 2)).mean()
    )
