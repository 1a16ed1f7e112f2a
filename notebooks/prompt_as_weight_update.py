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
# # The prompt as a weight update
#
# A block that mixes tokens and then applies an MLP answers with a context exactly as it answers without it, once the
# first matrix of the MLP is changed by a matrix of rank one (Dherin et al., 2025). Here this is checked on a trained
# block, the change is taken apart example by example, and what is an identity is told from what is learned.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl import GradientDescent, Learner, LinearRegression, best_rate, compare, key, train
from meta_icl.analysis.implicit import (
    answer,
    first_matrix,
    implicit_descent,
    implicit_update,
    prefix_readings,
    replacement_error,
)
from meta_icl.models import Attention, Concatenated, contextual
from meta_icl.plotting import Lines, Series, show
from meta_icl.training import Optimiser

STEPS = int(os.environ.get("META_ICL_NOTEBOOK_STEPS", "3000"))
N, D = 40, 2

# %% [markdown]
# ## A block that learns in context
#
# One block of linear attention and an MLP without skips, trained on linear regressions with two inputs. Attention reads
# sums of products of tokens, and so can form one step of gradient descent at the query; that step, at its best rate, is
# the loss that training should come to. The MLP can bend the answer, and so go a little below.

# %%
task = LinearRegression(d=D, n_context=N)
attention = Attention(kind="linear", scale=1 / N)
block = contextual(d_model=16, d_mlp=64, arrangement="no skip", mixer=attention, d_in=D + 1, d_out=1)
description = Learner(block, Concatenated(sign=1.0))  # the answer is what the network says, without a sign
adam = Optimiser(learning_rate=5e-3, schedule="cosine", schedule_steps=STEPS, clip_norm=1.0)
net = train(task, description, steps=STEPS, batch=128, key=key(0), optimiser=adam)
trained, fresh = net[0], description(key=key(1))
readers = {"trained": trained, "untrained": fresh, "one gradient step": GradientDescent(rate=best_rate(task))}
table = compare(readers, task, n_prompts=1_000, key=key(2))
print(table)

# %% [markdown]
# ## The context, replaced
#
# `implicit_update` makes the patch from the activations with and without the context; `answer` runs the network with a
# part of the context hidden, and with a patch. The answer without context but with the patch is that with the context,
# up to rounding, for trained and untrained weights alike: it is an identity.


# %%
def rows(prompt):
    """Context rows and the query row, as the network reads them."""
    tokens = trained.layout.encode(prompt.hidden())
    return tokens[:-1], tokens[-1]


prompt = task.sample(key=key(3))
context, query = rows(prompt)
everything = np.arange(N)
for name, learner in {"trained": trained, "untrained": fresh}.items():
    patch = implicit_update(learner.network, context, query)
    told = [float(answer(learner.network, context, query, *how)[0]) for how in ((), (everything,), (everything, patch))]
    error = float(replacement_error(learner.network, context, query, None, patch))
    print(f"{name}: with context {told[0]:.4f}, without {told[1]:.4f}, without but patched {told[2]:.4f} ({error:.1e})")
print(f"the target is {float(prompt.y[-1, 0]):.4f}")

# %% [markdown]
# ## Token by token, a descent
#
# Behind ever longer prefixes the patches are a chain, each step of rank one. Linear attention is a sum over examples:
# each of them moves the weights by about as much as the one before. The answer along the chain comes closer to the
# target, as under training.


# %%
def chain(learner, prompt):
    """Sizes of the steps, relative to the matrix, and the squared error of the answer behind every prefix."""
    context, query = rows(prompt)
    w, readings = first_matrix(learner.network), prefix_readings(learner.network, context, query)
    steps = implicit_descent(w, readings.mlp_in).steps
    size = jnp.linalg.norm(steps.inputs[:, 0], axis=-1) * jnp.linalg.norm(steps.outputs[:, 0], axis=-1)
    return size / jnp.linalg.norm(w), jnp.square(readings.answers[:, 0] - prompt.y[-1, 0])


prompts = task.sample_batch(200, key=key(4))
courses = {name: jax.vmap(lambda p, net=net: chain(net, p))(prompts)
           for name, net in {"trained": trained, "untrained": fresh}.items()}  # fmt: skip
place = np.arange(1, N + 1)
sizes = [Series(name, place, np.median(size, axis=0)) for name, (size, _) in courses.items()]
show(Lines("Size of the update", "token of the context", "|step| / |W|, median over prompts", sizes, log_y=True))
errors = [Series(name, np.arange(N + 1), np.median(error, axis=0)) for name, (_, error) in courses.items()]
show(Lines("Error along the chain", "tokens read", "squared error, median over prompts", errors, log_y=True))

# %% [markdown]
# The untrained block moves its weights as well, and by about as much each time: that a context is a change of
# weights is an identity, and by itself no sign of learning. That the error falls along the chain is.

# %%
for name, (size, error) in courses.items():
    steps, errors = np.median(size, axis=0), np.median(error, axis=0)
    print(f"{name}: last / second step {steps[-1] / steps[1]:.2f}")
    print(f"    squared error {errors[0]:.3f} without context, {errors[-1]:.3f} with all of it")
