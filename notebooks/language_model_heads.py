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
# # Heads of a language model
#
# SmolLM2, a language model of 135 M parameters, is loaded into the same network that everything else here is made of.
# Which of its 270 heads are induction heads? What does the model lose without them? Where do they look in a few-shot
# prompt? (Olsson et al., 2022.)
#
# The model comes by `meta-icl models get smollm2`; texts need the extra `lm`.

# %%
import os

import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.analysis.circuits import prefix_matching
from meta_icl.lm import load_language_model, read_tokenizer
from meta_icl.models import Intervention
from meta_icl.plotting import Heatmaps, Lines, Panel, Series, show

# At least one of every kind; a test says 20.
SMALL = int(os.environ.get("META_ICL_NOTEBOOK_STEPS", "1000")) < 100
SEQUENCES, PERIOD = (1, 6) if SMALL else (3, 30)

# %%
model, tokenizer = load_language_model("smollm2"), read_tokenizer("smollm2")
network = model.network
LAYERS, HEADS = network.config.n_layers, network.block(0).mixer.w_q.shape[0]
run = jax.jit(lambda network, tokens, interventions=(): network(tokens, interventions))
print(f"{LAYERS} layers of {HEADS} heads")

# %% [markdown]
# ## It learns in context
#
# Four pairs of opposites, and the fifth is asked for: the most probable next tokens.

# %%
text = "hot -> cold\nbig -> small\nup -> down\nopen -> closed\nhigh ->"
tokens = tokenizer.encode(text)
logits, trace = run(network, jnp.asarray(tokens.numbers))
best = np.argsort(-np.asarray(logits[-1]))[:4]
print({tokenizer.text(int(i)): round(float(jax.nn.softmax(logits[-1])[i]), 3) for i in best})

# %% [markdown]
# ## Which heads match prefixes
#
# Random tokens, twice. At each token of the second round, an induction head looks at what followed the same token in
# the first; nothing else in such a sequence can be predicted. The score is the attention that goes there.

# %%
rng = np.random.default_rng(0)
opening = int(tokens.numbers[0])  # language models put idle attention on the first token
blocks = [rng.choice(tokenizer.n_tokens, PERIOD, replace=False) for _ in range(SEQUENCES)]
sequences = [jnp.asarray(np.concatenate([[opening], block, block])) for block in blocks]
scores = np.mean([prefix_matching(run(network, s)[1]["pattern"], PERIOD) for s in sequences], axis=0)
ranked = [divmod(int(i), HEADS) for i in np.argsort(-scores, axis=None)]
for layer, head in ranked[:6]:
    print(f"layer {layer + 1}, head {head + 1}: {scores[layer, head]:.2f}")
names = [str(i + 1) for i in range(HEADS)], [f"layer {i + 1}" for i in range(LAYERS)]
show(Heatmaps("Prefix matching", (Panel("score by layer and head", scores, *names),), diverging=False))

# %% [markdown]
# ## What is lost without them
#
# The loss of every token in the second round, with the strongest heads silenced (their output `z` set to zero), and
# with as many others, drawn at random. If the copying is theirs, the loss of the second round goes back towards that of
# the first, where nothing can be known.


# %%
def silenced(heads):
    """An intervention that sets the output of these heads to zero."""
    mask = np.zeros((LAYERS, HEADS, 1, 1), bool)
    for layer, head in heads:
        mask[layer, head] = True
    return (Intervention("z", mask),)


def losses(heads):
    """Nats of every token after the first, on average over the sequences."""
    found = []
    for sequence in sequences:
        logits, _ = run(network, sequence, silenced(heads))
        found.append(-np.asarray(jnp.take_along_axis(jax.nn.log_softmax(logits[:-1]), sequence[1:, None], 1))[:, 0])
    return np.mean(found, axis=0)


count = 12
others = [ranked[count:][int(i)] for i in rng.choice(len(ranked) - count, count, replace=False)]
courses = {
    "whole": losses([]),
    f"without the {count} strongest": losses(ranked[:count]),
    f"without {count} others": losses(others),
}
for name, course in courses.items():
    print(f"{name}: first round {course[:PERIOD].mean():.2f} nats, second round {course[PERIOD:].mean():.2f}")
place = np.arange(1, 2 * PERIOD + 1)
show(Lines("Random tokens, twice", "token", "nats", [Series(n, place, c) for n, c in courses.items()]))

# %% [markdown]
# ## Where they look in a text
#
# The attention of the strongest of these heads in the few-shot prompt. Rows read, columns are read. At an arrow it
# looks at what followed earlier arrows, which are the answers; the rest goes to the first token, where language
# models put attention that has nothing to do.

# %%
layer, head = ranked[0]
shown = [f"{i}: {tokenizer.text(int(t))!r}" for i, t in enumerate(tokens.numbers)]
attention = np.asarray(trace["pattern"][layer, head])
show(Heatmaps(f"Layer {layer + 1}, head {head + 1}", (Panel("attention", attention, shown, shown),), diverging=False))
last = np.argsort(-attention[-1])[:3]
print("the last token looks at", {shown[i]: round(float(attention[-1, i]), 2) for i in last})
