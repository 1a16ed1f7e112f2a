"""What the playground asks of a frozen network: answers beside those of references, attention, with heads removed.

Every number comes from the library; nothing here draws.
"""

from abc import ABC, abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from meta_icl.apps.cli import compare
from meta_icl.apps.dashboard.subjects import Language, Opened, Trained
from meta_icl.errors import BadInput, require
from meta_icl.evaluation.distances import with_inputs
from meta_icl.models import InContextLearner, Intervened, Intervention, Network
from meta_icl.prompt import Prompt, TokenPrompt, answer_batch, truncated
from meta_icl.training.replicas import with_field

POINTS = 61  # of a curve of answers
RATE_PROMPTS = 1024  # on which the best rate of gradient descent is found
MOST = 12  # answers that are shown of a vocabulary
LONGEST = 96  # tokens of a text whose maps are drawn
REFERENCES = {"gradient descent": "gd", "Bayes": "bayes", "ridge": "ridge"}
Head = tuple[int, int]  # layer and head, from 0


class Inspection(ABC):
    """A frozen network with the heads that are removed from it."""

    def __init__(self, network: Any):
        self.network = network
        self.removed: set[Head] = set()

    @property
    def heads(self) -> list[Head]:
        """The heads that can be removed; none where the network names no `z`."""
        shape = self._shapes()
        if shape is None or "z" not in shape:
            return []
        return [(layer, head) for layer in shape.layers_of("z") for head in range(shape["z"].shape[1])]

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers with a pattern of attention."""
        shape = self._shapes()
        return () if shape is None or "pattern" not in shape else shape.layers_of("pattern")

    def toggle(self, head: Head) -> None:
        """Remove a head, or put it back."""
        self.removed ^= {head}

    def interventions(self) -> tuple[Intervention, ...]:
        """Zeros in place of the answers `z` of the removed heads; one shape for all sets, so that nothing compiles."""
        heads = self.heads
        if not heads:
            return ()
        mask = np.zeros((self.network.n_layers, 1 + max(head for _, head in heads), 1, 1), bool)
        for layer, head in self.removed:
            mask[layer, head] = True
        return (Intervention("z", mask),)

    @abstractmethod
    def tokens(self) -> Any:
        """What the network reads."""

    def names(self) -> list[str]:
        """A name for every token."""
        return [str(i + 1) for i in range(jax.tree.leaves(self.tokens())[0].shape[0])]

    def patterns(self) -> np.ndarray:
        """The attention of every layer and head, "l h q k"."""
        return np.asarray(_pattern(self.network, self.tokens(), self.interventions()))

    def _shapes(self) -> Any:
        if not isinstance(self.network, Network):
            return None
        return eqx.filter_eval_shape(lambda network, tokens: network(tokens)[1], self.network, self.tokens())


class TaskInspection(Inspection):
    """A network or any predictor on one prompt of its task, which can be moved."""

    def __init__(self, opened: Trained):
        self.predictor, self.task, self.number = opened.predictor, opened.task, 0
        self.longest = self._sampled().n_context if isinstance(self._sampled(), Prompt) else 0
        self.n_context = self.longest
        self.prompt = self._sampled()
        super().__init__(getattr(opened.predictor, "network", None))
        if isinstance(self.predictor, InContextLearner) and not isinstance(self.network, Network):
            self.network = None

    def draw(self, number: int | None = None) -> None:
        """Take another prompt of the task as it stands, or the same one of a changed task."""
        self.number = self.number if number is None else number
        prompt = self._sampled()
        self.prompt = truncated(prompt, self.n_context) if isinstance(prompt, Prompt) else prompt

    def move(self, field: str, value: float) -> None:
        """Change a number of the task; the prompt is that of the same draw."""
        self.task = with_field(self.task, field, value)
        self.draw()

    def fields(self) -> dict[str, float]:
        """The numbers of the task."""
        found = {name: value for name, value in vars(self.task).items() if eqx.is_inexact_array(value)}
        return {name: float(value) for name, value in found.items() if value.ndim == 0}

    def tokens(self) -> Any:
        return self.predictor.layout.encode(self._hidden())

    def intervened(self) -> Any:
        """The predictor without the removed heads."""
        if not self.removed:
            return self.predictor
        return eqx.tree_at(lambda p: p.network, self.predictor, Intervened(self.network, self.interventions()))

    def _hidden(self) -> Any:
        return self.prompt.hidden() if isinstance(self.prompt, Prompt) else self.prompt

    def _sampled(self) -> Any:
        return self.task.sample(key=jax.random.key(self.number))

    def _shapes(self) -> Any:
        return None if self.network is None else super()._shapes()


class RegressionInspection(TaskInspection):
    """Real targets: answers along one input channel, beside references that see the same context."""

    def __init__(self, opened: Trained):
        super().__init__(opened)
        require(self.prompt.y.shape[-1] == 1, "targets", self.prompt.y.shape[-1], "of one channel in the playground")
        self.channel = 0
        self.unfit: list[str] = []  # why a reference is not there

    def references(self) -> dict[str, Any]:
        """Gradient descent (one step at its best rate for this task and context length), ridge and Bayes."""
        prompts = truncated(self.task.sample_batch(RATE_PROMPTS, key=jax.random.key(1)), self.prompt.n_context)
        found, self.unfit = {}, []
        for name, short in REFERENCES.items():
            try:
                found[name] = compare.reference(short, self.task, prompts)
            except BadInput as error:
                self.unfit.append(str(error))
        return found

    def points(self) -> tuple[np.ndarray, np.ndarray]:
        """The context: the input channel that is shown, and the targets."""
        context = self.prompt.context
        return np.asarray(context.x[:, self.channel]), np.asarray(context.y[:, 0])

    def drag(self, x: np.ndarray, y: np.ndarray) -> None:
        """Put the examples of the context where they were dragged; the other channels stay."""
        m = self.prompt.n_context
        require(x.shape == y.shape == (m,), "points", x.shape, f"{m} examples")
        require(bool(np.isfinite([x, y]).all()), "points", [x.tolist(), y.tolist()], "finite")
        inputs = self.prompt.x.at[:-1, self.channel].set(jnp.asarray(x, self.prompt.x.dtype))
        self.prompt = Prompt(inputs, self.prompt.y.at[:-1, 0].set(jnp.asarray(y, self.prompt.y.dtype)))

    def ask(self, x: float) -> None:
        """Move the query along the channel that is shown."""
        self.prompt = with_inputs(self.prompt, self.prompt.x.at[-1, self.channel].set(x))

    def curves(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Inputs along the channel, and the answers of network and references to them; the last is the query's own."""
        x, _ = self.points()
        reach = 1.15 * max(1.0, float(np.abs(x).max(initial=0.0)))
        along = np.append(np.linspace(-reach, reach, POINTS), float(self.prompt.x[-1, self.channel]))
        inputs = jnp.repeat(self.prompt.x[None], len(along), axis=0).at[:, -1, self.channel].set(along)
        prompts = Prompt(inputs, jnp.repeat(self.prompt.y[None], len(along), axis=0))
        asked = {"network": self.intervened()} | ({"network, whole": self.predictor} if self.removed else {})
        return along, {name: np.asarray(_answers(p, prompts)) for name, p in (asked | self.references()).items()}


class ChoiceInspection(TaskInspection):
    """Labels or tokens: the probabilities of the answers at the end of the prompt."""

    def choices(self) -> tuple[list[str], list[float]]:
        """The most probable answers, by their numbers."""
        logits = np.asarray(_logits(self.intervened(), self.prompt if self._tokens() else self._hidden()))
        return _best(jax.nn.softmax(logits), lambda number: f"{'token' if self._tokens() else 'label'} {number}")

    def right(self) -> str:
        """The label that is right."""
        return "" if self._tokens() else f"label {int(self.prompt.y[-1])}"

    def _tokens(self) -> bool:
        return isinstance(self.prompt, TokenPrompt)


class LanguageInspection(Inspection):
    """A language model on a text: what it would say next."""

    def __init__(self, opened: Language, text: str = "hot -> cold\nbig -> small\nup -> down\nhigh ->"):
        from meta_icl.lm import load_language_model, read_tokenizer

        self.tokenizer = read_tokenizer(opened.checkpoint)
        self.write(text)
        super().__init__(load_language_model(opened.checkpoint).network)

    def write(self, text: str) -> None:
        """Take another text; `BadInput` for one without tokens, or with more than can be shown."""
        found = self.tokenizer.opened(text)
        n = len(found.numbers)
        require(n <= LONGEST, "text", f"{n} tokens", f"at most {LONGEST} tokens")
        self.text, self.found = text, found

    def tokens(self) -> Any:
        from meta_icl.lm.answers import padded

        row = np.zeros(padded(len(self.found.numbers), self.network), int)  # later tokens change nothing before them
        row[: len(self.found.numbers)] = self.found.numbers
        return jnp.asarray(row)

    def names(self) -> list[str]:
        return [repr(text)[1:-1] for text in self.found.texts]

    def choices(self) -> tuple[list[str], list[float]]:
        """The most probable next tokens."""
        last = jnp.asarray(len(self.found.numbers) - 1)
        probabilities = _next(self.network, self.tokens(), last, self.interventions())
        return _best(probabilities, lambda number: repr(self.tokenizer.text(number)))

    def patterns(self) -> np.ndarray:
        n = len(self.found.numbers)
        return super().patterns()[..., :n, :n]


def inspection_of(opened: Opened) -> RegressionInspection | ChoiceInspection | LanguageInspection:
    """How to look into what was opened, by what its task asks for."""
    if isinstance(opened, Language):
        return LanguageInspection(opened)
    prompt = opened.task.sample(key=jax.random.key(0))
    choice = isinstance(prompt, TokenPrompt) or prompt.has_labels
    return ChoiceInspection(opened) if choice else RegressionInspection(opened)


def _best(probabilities: Any, name: Any) -> tuple[list[str], list[float]]:
    values = np.asarray(probabilities, float)
    best = np.argsort(-values, kind="stable")[:MOST]
    return [name(int(i)) for i in best], [float(values[i]) for i in best]


@eqx.filter_jit
def _answers(predictor: Any, prompts: Prompt) -> Any:
    return answer_batch(predictor, prompts)[:, 0]


@eqx.filter_jit
def _logits(predictor: Any, prompt: Any) -> Any:
    answer = predictor(prompt)
    return answer[-1] if answer.ndim == 2 else answer


@eqx.filter_jit
def _pattern(network: Any, tokens: Any, interventions: tuple[Intervention, ...]) -> Any:
    return network(tokens, interventions)[1]["pattern"]


@eqx.filter_jit
def _next(network: Any, tokens: Any, last: Any, interventions: tuple[Intervention, ...]) -> Any:
    logits, _ = network(tokens, interventions)
    return jax.nn.softmax(logits[last])
