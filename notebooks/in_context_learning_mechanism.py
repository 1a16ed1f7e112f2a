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
# # The mechanism of in-context learning, in one layer
#
# A layer of linear self-attention is trained on prompts, each a new linear regression. Its weights never change
# afterwards, and yet it solves regressions it has never seen. How? This notebook looks inside: at the attention maps of
# one task and of the task average, at the products of the weights and their eigenvalues, and at the prediction itself,
# next to one step of gradient descent on the same prompts (von Oswald et al., 2022).

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl import GradientDescent, LinearAttention, LinearRegression, Uniform, best_rate, compare, key, train
from meta_icl.analysis import copying_score, descent_weights, eigenvalues, gauge_fixed
from meta_icl.evaluation import loss_on, mean_loss, sensitivities
from meta_icl.plotting import Heatmaps, Lines, Panel, Series, show
from meta_icl.training import Optimiser

STEPS = int(os.environ.get("META_ICL_NOTEBOOK_STEPS", "3000"))

# %% [markdown]
# ## Train on regression tasks
#
# Every prompt has its own weights w ~ N(0, I), ten pairs (x, w.x) and a query; x ~ U(-1, 1) in five dimensions.

# %%
task = LinearRegression(d=5, n_context=10, x_law=Uniform(half_range=1.0))
prompts = task.sample_batch(2_000, key=key(1))
gd = GradientDescent(rate=best_rate(task))
adam = Optimiser(learning_rate=1e-3, b2=0.98, clip_norm=1e-3, schedule="cosine", schedule_steps=STEPS)
net = train(
    task,
    LinearAttention(d_model=6),
    steps=STEPS,
    key=key(0),
    batch=256,
    optimiser=adam,
    probes={"eval": loss_on(prompts)},
)
steps, gd_loss = net.history["step"], float(mean_loss(gd, prompts))
trained_curve = Series("one trained layer", steps, net.history["eval"][:, 0])
gd_level = Series("one gradient step", steps[[0, -1]], [gd_loss, gd_loss], style="dashed")
show(Lines("Training", "step", "half-MSE", (trained_curve, gd_level)))

# %% [markdown]
# ## What attends to what
#
# Rows are the tokens that read, columns the context tokens that are read. In one task the map is different each time:
# it is the inner product of inputs. Averaged over tasks it vanishes but for the diagonal, since inputs are independent.

# %%
layer = net[0]
_, trace = layer.trace(jax.tree.map(lambda leaf: leaf[0], prompts))
average = jnp.mean(jax.vmap(lambda prompt: layer.trace(prompt)[1]["pattern"][0, 0])(prompts), axis=0)
one_task = Panel("one task", np.asarray(trace["pattern"][0, 0]))
show(Heatmaps("Attention maps", (one_task, Panel("average over tasks", np.asarray(average)))))

# %% [markdown]
# ## What the weights are
#
# Only the products W_Q W_K^T and W_V W_O matter. The first is the identity on x: attention compares inputs.
# The second has one entry: it writes the targets, times minus the rate over N, into the slot of the query.

# %%
qk, ov = (np.asarray(product[0, 0]) for product in gauge_fixed(layer.network))
names = ["x1", "x2", "x3", "x4", "x5", "y"]
products = Heatmaps(
    "Products of the weights", (Panel("W_Q W_K^T / m", qk, names, names), Panel("W_V W_O m", ov, names, names))
)
show(products)
found = descent_weights(layer.network)
print(f"entry that writes the target {float(found.corner):.4f}; gradient descent: {-float(best_rate(task)) / 10:.4f}")

# %% [markdown]
# Eigenvalues measure copying: a product whose eigenvalues have positive real parts copies what it attends to, one with
# negative ones suppresses it (Elhage et al., 2021). The read-out has the sign -1, so here suppressing is the gradient.

# %%
for name, product in (("W_Q W_K^T", qk), ("W_V W_O", ov)):
    print(f"{name}: eigenvalues {np.round(eigenvalues(product).real, 3)}, copying score {copying_score(product):.2f}")

# %% [markdown]
# ## It is a gradient step
#
# On the same prompts: the same loss, the same predictions, and the same dependence on the query, which for one step of
# gradient descent is its weight vector.

# %%
print(compare({"trained": net, "gd": gd}, task, n_prompts=1_000, key=key(2)))
mine, step = (np.asarray(sensitivities(predictor, prompts))[:200, 0].ravel() for predictor in (layer, gd))
implicit = Series("one coordinate of one prompt", step, mine, style="points")
diagonal = Series("equal", [step.min(), step.max()], [step.min(), step.max()], style="dashed")
show(Lines("Implicit weights", "gradient step", "trained layer", (implicit, diagonal)))
