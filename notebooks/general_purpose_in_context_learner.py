# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A general-purpose in-context learner
#
# A small transformer is trained on handwritten digits, but every sequence is a task of its own: all pixels are mixed by
# a random matrix, and classes get random labels. What it can learn is not what a three looks like, but how to learn
# from examples. Afterwards its weights are frozen, and it classifies characters and wines that it has never seen
# (Kirsch et al., 2022).

# %%
import os

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from meta_icl import key, train
from meta_icl.algorithms import NearestNeighbours, OneHot
from meta_icl.analysis import improvement, learning_phase
from meta_icl.data import ImageSet, characters, digits, draw_glyphs, table
from meta_icl.evaluation import correct_by_position
from meta_icl.models import Learner, Shifted, kirsch
from meta_icl.plotting import Grid, Heatmaps, Lines, Panel, Series, show
from meta_icl.prompt import Prompt
from meta_icl.tasks import projected_images
from meta_icl.training import Optimiser, every_position_cross_entropy

STEPS = int(os.environ.get("META_ICL_NOTEBOOK_STEPS", "4000"))
LABELS, ROWS = 3, 16

# %% [markdown]
# ## A task: a projection and an assignment of labels
#
# Task j of a pool follows from its number alone: a dense 64 x 64 matrix A with entries N(0, 1/64), and which classes
# have which labels. All images of a sequence are mixed by the same matrix, so likeness survives and shapes do not.

# %%
images = digits().normalised()
task = projected_images(images, n_context=ROWS - 1, n_labels=LABELS, key=key(0), bias=0.9)
unseen = task.unseen().with_images(images, "test")
projection = unseen.projection(2**30)
label_of = np.asarray(projection.label_of)
print({f"digit {digit}": f"label {label}" for digit, label in enumerate(label_of) if label >= 0})
matrix = np.asarray(projection.matrix)
print(f"variance of the entries times 64: {64 * matrix.var():.3f}")


# %%
def panels(prompt: Prompt, names: list[str], mixing: np.ndarray | None = None) -> list[Panel]:
    """Some images of a prompt, mixed or with the mixing undone."""
    x = np.asarray(prompt.x[-len(names) :], np.float64)
    shown = x if mixing is None else np.linalg.solve(mixing, x.T).T
    return [Panel(name, row.reshape(8, 8)) for name, row in zip(names, shown, strict=True)]


one_task = eqx.tree_at(lambda t: (t.first_task, t.n_tasks), unseen, (jnp.asarray(2**30), jnp.asarray(1)))
prompt = one_task.sample(key=key(1))
names = [f"label {int(label)}" for label in prompt.y[-6:]]
show(Heatmaps("As drawn, with the mixing undone", panels(prompt, names, matrix)))
show(Heatmaps("As the network sees them", panels(prompt, names)))

# %% [markdown]
# ## Training: a plateau, then learning to learn
#
# Token t holds image t and the label of image t - 1; the network answers at every token. In nine tenths of the tasks
# the labels are assigned the same way, which shortens the plateau; without that, the loss stays at chance for long.


# %%
def trained_on(task, steps: int):
    """A transformer trained on a task."""
    network = kirsch(64 + LABELS, LABELS, 32, 2, 2, ROWS, init_std=32**-0.5)
    return train(
        task,
        Learner(network, layout=Shifted(LABELS)),
        steps=steps,
        key=key(3),
        batch=64,
        objective=every_position_cross_entropy,
        optimiser=Optimiser(learning_rate=3e-3, eps=1e-10, clip_norm=1.0, warmup_steps=100),
        record=max(1, steps // 40),
    )


permuted = eqx.tree_at(lambda t: t.bias, task, jnp.zeros_like(task.bias))
net, without_bias = trained_on(task, STEPS), trained_on(permuted, max(1, STEPS // 2))
curves = [
    Series(name, trained.history["step"][1:], trained.history["loss"][1:, 0])
    for name, trained in (("90 % with fixed labels", net), ("all labels permuted", without_bias))
]
show(Lines("Training", "step", "loss in nats", curves, h_lines=(("chance", float(np.log(LABELS))),)))

# %% [markdown]
# ## Learning without a change of weights
#
# Accuracy against the number of examples seen: on tasks of the training pool, on new tasks with held-out digits and
# permuted labels, on characters drawn from fonts, and on three wines described by thirteen measurements.

# %%
letters = characters()[:60]
drawn = draw_glyphs(letters, per_class=12).reshape(-1, 28, 28)
labels = np.repeat(np.arange(60), 12)
glyphs = ImageSet("glyphs", drawn, labels, np.ones(len(drawn), bool), letters).resized(8).normalised()
tests = {
    "digits, training tasks": task,
    "digits, new tasks and images": unseen,
    "characters of fonts": unseen.with_images(glyphs, "all"),
    "wine": unseen.with_images(table("wine").normalised(), "all"),
}
reference, charts, found = OneHot(NearestNeighbours(1), LABELS), [], {}
for name, drawn_from in tests.items():
    prompts = drawn_from.sample_batch(500, key=key(4))
    mine, nearest = (np.asarray(correct_by_position(p, prompts).mean(0)) for p in (net[0], reference))
    seen = np.arange(ROWS)
    series = [Series("transformer", seen, mine), Series("nearest neighbour", seen, nearest, style="dashed")]
    charts.append(Lines(name, "examples seen", "accuracy", series, h_lines=(("chance", 1 / LABELS),)))
    found[name] = improvement(mine, window=2)
    at_end = f"{mine[-3:].mean():.2f} at the end (nearest neighbour {nearest[-3:].mean():.2f})"
    print(f"{name}: {mine[0]:.2f} without examples, {at_end}")
show(Grid("Accuracy by number of examples", charts))

# %%
seen_tasks, new_tasks = found["digits, training tasks"], found["digits, new tasks and images"]
print("phase:", learning_phase(seen_tasks, new_tasks, chance=1 / LABELS))

# %% [markdown]
# ## One task, looked at
#
# The same characters for the network (mixed) and for us (as drawn), with its answers. It has seen the labels of the ten
# images before.

# %%
letters_task = eqx.tree_at(lambda t: (t.first_task, t.n_tasks), tests["characters of fonts"],
                           (jnp.asarray(2**30), jnp.asarray(1)))  # fmt: skip
prompt = letters_task.sample(key=key(7))
answers = jnp.argmax(net[0](prompt), axis=-1)
names = [f"label {int(y)}, answer {int(a)}" for y, a in zip(prompt.y[-6:], answers[-6:], strict=True)]
mixing = np.asarray(letters_task.projection(2**30).matrix)
show(Heatmaps("As drawn", panels(prompt, names, mixing)))
show(Heatmaps("As the network sees them", panels(prompt, names)))
