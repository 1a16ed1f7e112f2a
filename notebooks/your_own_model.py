# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own model, on your own task
#
# A question of our own: does a memory learn to forget when the world changes? A task with weights that drift within the
# prompt, a memory with one rate of forgetting per layer, thirty lines in all; then training over several drifts, a
# comparison with regressions that were told the answer, and a look at what was learned.

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl import Architecture, Block, Learner, Prompt, Ridge, Task, compare, key, probes, train
from meta_icl.evaluation import mean_loss
from meta_icl.plotting import Lines, Series, show
from meta_icl.probes import lens
from meta_icl.training import Optimiser

STEPS = int(os.environ.get("META_ICL_NOTEBOOK_STEPS", "3000"))
DRIFTS = (0.0, 0.1, 0.3)

# %% [markdown]
# ## The task
#
# y_i = w_i . x_i, where w takes a random step of deviation `drift` between one row and the next. `drift` is a plain
# number with a default, so it can be swept. With `drift = 0` this is ordinary linear regression.


# %%
class Drifting(Task):
    d: int = 3
    n_context: int = 30
    drift: float = 0.0

    def sample(self, *, key):
        x_key, w_key, step_key = jax.random.split(key, 3)
        x = jax.random.normal(x_key, (self.n_context + 1, self.d))
        steps = jax.random.normal(step_key, x.shape) * self.drift
        w = jax.random.normal(w_key, (self.d,))[None] + jnp.cumsum(steps, axis=0)
        return Prompt(x, jnp.sum(w * x, axis=1, keepdims=True))


# %% [markdown]
# ## The model
#
# A memory S that forgets: S <- g S + v k^T, y = S q, with k, q and v linear in the token. It has `initial_state` and
# `step`, and that is all a mixer needs. What draws it from a key is an ordinary function.


# %%
class Forgetting(eqx.Module):
    w_k: jax.Array
    w_q: jax.Array
    w_v: jax.Array
    gate: jax.Array

    def initial_state(self):
        return jnp.zeros(self.w_k.shape)

    def step(self, memory, x):
        answer = memory @ (self.w_q @ x)  # before writing: the query's own row is not in it
        memory = jax.nn.sigmoid(self.gate) * memory + jnp.outer(self.w_v @ x, self.w_k @ x)
        return memory, answer


def forgetting(d_model, *, key):
    w_k, w_q, w_v = 0.2 * jax.random.normal(key, (3, d_model, d_model))
    return Forgetting(w_k, w_q, w_v, jnp.array(2.0))


# %% [markdown]
# ## Train it for every drift
#
# One call trains all points of the sweep, and draws the same initial weights for each.

# %%
description = Learner(Architecture(d_model=4, block=Block(forgetting)))
adam = Optimiser(learning_rate=1e-2, schedule="cosine", schedule_steps=STEPS)
net = train(Drifting(), description, steps=STEPS, key=key(0), optimiser=adam, sweep={"task.drift": DRIFTS})
gates = [float(jax.nn.sigmoid(learner.network.block(0).mixer.gate)) for learner in net]
for drift, kept in zip(DRIFTS, gates, strict=True):
    print(f"drift {drift}: keeps {kept:.3f} of its memory per token")

# %% [markdown]
# ## Compare
#
# Two readers that need no training, on the same prompts: ridge regression on all rows, which is right for no drift, and
# on the last ten rows only.


# %%
def recent(prompt):
    """Ridge regression that sees the last ten pairs only."""
    return Ridge(0.1)(Prompt(prompt.x[-11:], prompt.y[-11:]))


for drift, learner in zip(DRIFTS, net, strict=True):
    print(f"drift {drift}")
    readers = {"forgetting memory": learner, "ridge": Ridge(1e-3), "ridge of the last ten": recent}
    print(compare(readers, Drifting(drift=drift), n_prompts=500, key=key(1)))

# %% [markdown]
# Which rate of forgetting would have been best? Change it in a trained network, and nothing else: if training found the
# best one, the minimum of each curve is at the rate that it has.


# %%
def gate(learner):
    return learner.network.blocks[0].mixer.gate


def forced(learner, keep):
    """The same network with another rate of forgetting."""
    return eqx.tree_at(gate, learner, jnp.full_like(gate(learner), jnp.log(keep / (1 - keep))))


keeps = np.linspace(0.7, 0.999, 12)
curves = []
for drift, learner in zip(DRIFTS, net, strict=True):
    prompts = Drifting(drift=drift).sample_batch(1_000, key=key(2))

    losses = [float(mean_loss(forced(learner, keep), prompts)) for keep in keeps]
    curves.append(Series(f"drift {drift}", keeps, losses))
    print(f"drift {drift}: best of those tried {keeps[int(np.argmin(losses))]:.2f}")
marks = Series("trained", gates, [float(mean_loss(n, Drifting(drift=d).sample_batch(1_000, key=key(2))))
                                  for d, n in zip(DRIFTS, net, strict=True)], style="points")  # fmt: skip
show(Lines("Forced to forget", "share of the memory kept per token", "half-MSE", (*curves, marks)))

# %% [markdown]
# ## Probe
#
# The memory is a block of the one network, so the probes of the house work on it. The lens says how good the answer is
# after the layer, next to ridge regression and one gradient step on the same prompts.

# %%
for drift, learner in zip(DRIFTS, net, strict=True):
    subject = probes.learner_subject(learner, Drifting(drift=drift).sample_batch(200, key=key(3)))
    print(f"drift {drift}:", *lens.rows(lens.measure(subject)))
