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
# # Circuits of in-context meta-learning
#
# Labels follow one of three maps, and which one has to be inferred from the examples in the prompt. A two-layer network
# of attention alone learns this; on the way its attention changes from one circuit to another (Minegishi et al., 2025).
# This is a small world (32 classes, 16 labels) and Adam in place of long SGD, so that it takes half a minute: the order
# of circuits is that of the paper, its clean plateaus are not (see the page of the paper for what was found at its own
# size).

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl import Learner, key, train
from meta_icl.analysis.circuits import circuit_scores
from meta_icl.models import ItemIndex, minegishi, restricted
from meta_icl.plotting import Heatmaps, Lines, Panel, Series, show
from meta_icl.tasks import meta_classification
from meta_icl.training import Optimiser, cross_entropy

STEPS = int(os.environ.get("META_ICL_NOTEBOOK_STEPS", "2400"))
MAPS, CLASSES, LABELS, CHANNELS, N = 3, 32, 16, 31, 4

# %% [markdown]
# ## The world
#
# Four items with labels, then a query, whose class is mostly not among the four. To answer, the network has to know the
# labels of each class under every map (in its weights) and to find out which map is in use (from the prompt).

# %%
world = meta_classification(MAPS, CLASSES, LABELS, CHANNELS, key=key(0), n_context=N)
prompts = world.sample_batch(512, key=key(9))
print("labels of the first prompt:", prompts.y[0].tolist())

# %% [markdown]
# ## Train, and look at every step
#
# A probe is any function of the learner and a key: here its accuracy, its average attention, and how much of the
# attention belongs to each circuit. *Bigram*: the query looks at itself. *Label attention*: the query looks at the
# labels. *Chunk-example*: a label looks at its own item, which ties the two together.


# %%
def accuracy(learner, key=None, interventions=()):
    """The share of prompts whose most probable label is right."""
    answers = jax.vmap(lambda prompt: learner.trace(prompt, interventions)[0])(prompts)
    return jnp.mean(jnp.argmax(answers, axis=-1) == prompts.y[:, -1])


def circuits(learner, key):
    """Scores of the three circuits by layer, "3 layers"."""
    patterns = jax.vmap(lambda prompt: learner.trace(prompt)[1]["pattern"][:, 0])(prompts)
    return jnp.stack(circuit_scores(patterns)).mean(1)


def maps(learner, key):
    """Attention by layer, on average over prompts."""
    return jax.vmap(lambda prompt: learner.trace(prompt)[1]["pattern"][:, 0])(prompts).mean(0)


description = Learner(minegishi(LABELS, d_model=CHANNELS + 65), ItemIndex())
net = train(
    world,
    description,
    steps=STEPS,
    batch=128,
    key=key(0),
    objective=cross_entropy,
    optimiser=Optimiser(learning_rate=1e-3),
    record=max(1, STEPS // 24),
    probes={"accuracy": accuracy, "circuits": circuits, "maps": maps},
)
steps, course = net.history["step"], net.history["accuracy"][:, 0]
for wanted in (0.05, 0.5, 0.9):
    at = int(np.argmax(course >= wanted))
    print(f"accuracy {wanted} at step {steps[at]}" if course[at] >= wanted else f"accuracy {wanted}: not reached")

# %% [markdown]
# The bigram circuit comes first, in both layers: to know the labels that the query's class has under the three maps,
# the network needs nothing else. Then layer 2 turns to the labels, and in layer 1 labels begin to read their items.

# %%
scores = net.history["circuits"][:, 0]
lines = [Series("accuracy", steps, course, style="dashed")]
for i, name in enumerate(("bigram", "label attention", "chunk-example")):
    lines += [Series(f"{name}, layer {layer + 1}", steps, scores[:, i, layer]) for layer in range(2)]
show(Lines("Circuits while training", "step", "share of attention, accuracy", lines))

# %%
names = [name for i in range(1, N + 1) for name in (f"x{i}", f"l{i}")] + ["q"]
moments = [0, len(steps) // 8, len(steps) - 1]
panels = [
    Panel(f"step {steps[at]}, layer {layer + 1}", net.history["maps"][at, 0, layer], names, names)
    for at in moments
    for layer in range(2)
]
show(Heatmaps("Attention, average over prompts", panels, diverging=False, shared_scale=True))

# %% [markdown]
# ## Is it these links that do it?
#
# Attention maps show what is read, not what it is good for. So links are cut in the trained network (their scores set
# to minus infinity), one kind at a time, and the accuracy is asked for again. Knowing the classes but nothing of the
# prompt gives about one third.

# %%
learner = net[0]
t = 2 * N + 1
places = np.arange(t)
labels, items = places[1::2], places[:-1:2]
cuts = {
    "none": [],
    "query to labels, layer 1": [(0, t - 1, label) for label in labels],
    "query to labels, layer 2": [(1, t - 1, label) for label in labels],
    "label to its item, layer 1": [(0, label, label - 1) for label in labels],
    "label to other items, layer 1": [(0, label, item) for label in labels for item in items if item != label - 1],
}
for name, links in cuts.items():
    visible = np.ones((2, t, t), bool)
    for link in links:
        visible[link] = False
    print(f"cut {name}: accuracy {float(accuracy(learner, interventions=(restricted(visible),))):.2f}")

# %% [markdown]
# The circuit is both layers together: in layer 1 each label takes in its own item, in layer 2 the query reads the
# labels. Without either the network knows hardly more than the classes, one third; links of labels to other items can
# be cut at little cost.
