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
# # A league of memories
#
# Sequence layers of fixed state are memories that are written while they read. What they write differs: linear
# attention adds an outer product per token, the delta rule writes only what is missing (Schlag et al., 2021). Here
# they play each other where that matters: every key is written twice, with different values, and the latest one is
# asked for.

# %%
import os

import numpy as np

from meta_icl import Learner, LinearRegression, key, probes, train
from meta_icl.evaluation.league import arena, play, roster
from meta_icl.models import Interleaved
from meta_icl.models import memories as network_of
from meta_icl.plotting import show
from meta_icl.probes import memories
from meta_icl.training import every_position_mse

STEPS = int(os.environ.get("META_ICL_NOTEBOOK_STEPS", "600"))

# %% [markdown]
# ## The arena
#
# Four keys, each written twice in random order, then each asked for. One layer, so that nothing but the memory itself
# can tell first from last.

# %%
overwrite = arena("overwrite", 32)
prompt = overwrite.task.sample(key=key(0))
print("tokens:", np.asarray(prompt.tokens).tolist())

# %% [markdown]
# ## The league
#
# Every mixer plays at two rates and is judged at its better one.

# %%
mixers = roster(8)
for name in ("linear_attention", "deltanet"):
    out = play(overwrite, mixers[name], steps=STEPS, key=key(0), d_model=32, n_layers=1, rates=(3e-3, 1e-2), seeds=1,
               batch=32)  # fmt: skip
    recalled, state = 100 * out["score/latest"][0], int(out["state"])
    print(f"{name}: recalls the latest value in {recalled:.0f} % (a state of {state} numbers)")

# %% [markdown]
# Both carry a state of the same size. A sum holds both values of a key, and nothing in it says which came last; the
# delta rule takes the first out when it writes the second.
#
# ## What is written
#
# The same memory on linear regression, looked into by the probe `memories`: how large each write is, how surprising
# the token was, and how well what was written can be read back afterwards.

# %%
task = LinearRegression(d=3, n_context=12)
description = Learner(network_of(16, (mixers["deltanet"],), 1, d_in=3), Interleaved())
net = train(task, description, steps=STEPS, key=key(1), batch=32, objective=every_position_mse)
measured = memories.measure(probes.learner_subject(net[0], task.sample_batch(16, key=key(2))))
for row in memories.rows(measured):
    print({name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()})
for chart in list(memories.figures({"DeltaNet": measured}).values())[:2]:
    show(chart)
