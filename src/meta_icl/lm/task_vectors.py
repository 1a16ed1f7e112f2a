"""Task vectors: one hidden state that takes the place of a prompt's examples (Hendel et al., 2023).

A prompt of examples ends with the question of another example, a dummy; the stream after a layer at its last token is
the task vector of that context and layer. Put in place of the same state of a prompt that is the query alone, it makes
the network answer as after the examples, if the vector holds the task.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from meta_icl.errors import require
from meta_icl.lm.answers import Asked, log_probabilities
from meta_icl.lm.prompts import TextPrompt, answer_tokens, draw_prompt, tokenize
from meta_icl.lm.states import Replaced, replaced_answers, states_at
from meta_icl.lm.tasks import TextTask
from meta_icl.lm.tokenizer import Tokenizer


@dataclass(frozen=True)
class Contexts:
    """Prompts of a task with examples and without, and the vectors of their contexts; every query is asked both ways.

    `vectors` "prompts layers d" are those at the dummies, `bare` the same at the dummies without any examples.
    """

    task: TextTask
    shots: int
    after_examples: tuple[Asked, ...]
    alone: tuple[Asked, ...]
    vectors: Float[np.ndarray, "prompts layers d"]
    bare: Float[np.ndarray, "prompts layers d"]
    queries: tuple[int, ...]  # their numbers in the task


def contexts_of(
    network: Any,
    tokenizer: Tokenizer,
    task: TextTask,
    *,
    shots: int,
    prompts: int,
    seed: int = 0,
    opening: int | None = None,
) -> Contexts:
    """Draw prompts of different examples, and take the vectors of their contexts.

    An answer counts as right where greedy decoding gives each of its tokens. Raises `BadInput` where a task has too few
    examples for the context, the query and the dummy.
    """
    enough = f"at least {shots + 2}"
    require(len(task.examples) >= shots + 2, f"number of examples of {task.name}", len(task.examples), enough)
    after, alone, dummies, bare, queries = [], [], [], [], []
    for i in range(prompts):
        rng = np.random.default_rng((seed, i))
        drawn = draw_prompt(task, shots, rng=rng)
        dummy = task.examples[rng.choice(sorted(set(range(len(task.examples))) - set(drawn.indices)))]
        queries.append(drawn.indices[-1])
        after.append(asked_of(drawn, tokenizer, task.separator, opening))
        alone.append(asked_of(TextPrompt((), drawn.query, (), drawn.indices[-1:]), tokenizer, task.separator, opening))
        for context, rows in ((drawn.context, dummies), ((), bare)):
            with_dummy = TextPrompt(context, dummy, (), ())
            rows.append(asked_of(with_dummy, tokenizer, task.separator, opening).before)
    vectors, without = states_at(network, dummies), states_at(network, bare)
    return Contexts(task, shots, tuple(after), tuple(alone), vectors, without, tuple(queries))


def asked_of(prompt: TextPrompt, tokenizer: Tokenizer, separator: str, opening: int | None) -> Asked:
    """The tokens of a prompt before its query's answer, and those of the answer."""
    cut = tokenize(prompt, tokenizer, separator=separator, opening=opening)
    (answer,) = answer_tokens(prompt.query.question, [prompt.query.answer], tokenizer)
    return Asked(tuple(map(int, cut.tokens)), tuple(answer))


@dataclass(frozen=True)
class Carried:
    """What a task's vectors carry: shares of prompts answered right, and by layer with the vector in place.

    `by_layer` "layers prompts" are of the layers `layers`, counted from 0; `losses` likewise, in nats of whole answers.
    """

    layers: tuple[int, ...]
    with_examples: Bool[np.ndarray, " prompts"]
    alone: Bool[np.ndarray, " prompts"]
    by_layer: Bool[np.ndarray, "layers prompts"]
    losses: Float[np.ndarray, "layers prompts"]
    loss_with_examples: Float[np.ndarray, " prompts"]
    loss_alone: Float[np.ndarray, " prompts"]

    @property
    def best(self) -> int:
        """The layer at which the vectors answer best, counted from 0; the loss decides between equals."""
        order = np.lexsort((self.losses.mean(1), -self.by_layer.mean(1)))
        return self.layers[int(order[0])]


def carried(
    network: Any,
    found: Contexts,
    layers: Sequence[int],
    vectors: Float[np.ndarray, "prompts layers d"] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Carried:
    """Ask the queries after their examples, alone, and alone with a vector of each of some layers in place.

    `vectors` of other contexts, or none of a context at all, take the place of the prompts' own.
    """
    own = found.vectors if vectors is None else vectors
    n = len(found.alone)
    usual = log_probabilities(network, [*found.after_examples, *found.alone])
    wanted = [Replaced(one, layer, own[i, layer]) for layer in layers for i, one in enumerate(found.alone)]
    told = replaced_answers(network, wanted, progress)
    return Carried(
        tuple(layers),
        usual.greedy[:n],
        usual.greedy[n:],
        told.greedy.reshape(len(layers), n),
        -told.scores.reshape(len(layers), n),
        -usual.scores[:n],
        -usual.scores[n:],
    )
