"""Few-shot learning of a language model: scores of answers by number of examples, under every control, by few passes.

A prompt of n examples is passed once: the answer of its example k is one after k examples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from meta_icl.errors import BadInput, choose, require
from meta_icl.evaluation.by_position import Band, bootstrap
from meta_icl.lm.answers import Asked, log_probabilities
from meta_icl.lm.prompts import CONTROLS, TextPrompt, answer_tokens, draw_prompt, tokenize
from meta_icl.lm.scoring import auc_band, calibrated, calibrated_by_prior, correct, label_losses
from meta_icl.lm.tasks import Example, TextTask
from meta_icl.lm.tokenizer import Tokenizer
from meta_icl.models import Intervention


@dataclass(frozen=True)
class FewShot:
    """What was measured; `scores[control]` is "prompts shots labels" of labels, "prompts shots 1" of open answers.

    `without_content[control]` are scores of labels behind the same examples and a question without content, if asked.
    """

    task: TextTask
    shots: tuple[int, ...]
    scores: dict[str, Float[np.ndarray, "prompts shots labels"]]
    targets: dict[str, Int[np.ndarray, "prompts shots"]]
    exact: dict[str, Float[np.ndarray, "prompts shots"]]  # of open answers: each token, and the end, most probable
    opening: int | None
    longest: int  # tokens of a prompt
    passes: int
    without_content: dict[str, Float[np.ndarray, "prompts shots labels"]] = field(default_factory=dict)

    def accuracy(
        self, control: str, *, by_prior: bool = False, by_content: bool = False
    ) -> Float[np.ndarray, "prompts shots"]:
        """One where the answer is right, a share of one at ties; calibrated by the prompts' mean or by no content."""
        if not self.task.labels:
            return self.exact[control]
        scores = self.scores[control]
        if by_content:
            scores = calibrated(scores, self.without_content[control])
        if by_prior:
            scores = np.stack([calibrated_by_prior(scores[:, k]) for k in range(len(self.shots))], axis=1)
        return correct(scores, self.targets[control])

    def losses(self, control: str) -> Float[np.ndarray, "prompts shots"]:
        """Nats of the right label among the labels, or of a whole open answer."""
        if not self.task.labels:
            return -self.scores[control][..., 0]
        return label_losses(self.scores[control], self.targets[control])

    def rows(self) -> list[dict[str, Any]]:
        """One row per control and number of shots, with 90% intervals over prompts."""
        found = []
        for control in self.scores:
            right, loss = bootstrap(self.accuracy(control)), bootstrap(self.losses(control))
            prior = bootstrap(self.accuracy(control, by_prior=True))
            for k, n in enumerate(self.shots):
                row: dict[str, Any] = {"control": control, "shots": n} | _told_band("accuracy", right, k)
                if self.task.labels:
                    area = auc_band(self.scores[control][:, k], self.targets[control][:, k])
                    row |= {"calibrated": float(prior.mean[k])}
                    if self.without_content:
                        row |= {"content_free": float(self.accuracy(control, by_content=True)[:, k].mean())}
                    row |= {"auc": float(area.mean), "auc_low": float(area.low), "auc_high": float(area.high)}
                found.append(row | _told_band("loss", loss, k))
        return found

    def worth(self) -> dict[str, dict[str, float]]:
        """What right answers are worth: right less each control at the most shots, prompt by prompt, with intervals."""
        found = {}
        for control in self.scores:
            if control != "right" and "right" in self.scores:
                more = bootstrap((self.accuracy("right") - self.accuracy(control))[:, -1:])
                less = bootstrap((self.losses(control) - self.losses("right"))[:, -1:])
                found[control] = _told_band("accuracy", more, 0) | _told_band("loss", less, 0)
        return found


def _told_band(name: str, band: Band, k: int) -> dict[str, float]:
    return {name: float(band.mean[k]), f"{name}_low": float(band.low[k]), f"{name}_high": float(band.high[k])}


def few_shot(
    network: Any,
    tokenizer: Tokenizer,
    task: TextTask,
    *,
    shots: Sequence[int] = (0, 1, 2, 4, 8),
    controls: Sequence[str] = ("right", "random"),
    prompts: int = 32,
    seed: int = 0,
    opening: int | None = None,
    longest: int | None = None,
    interventions: Sequence[Intervention] = (),
    content_free: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> FewShot:
    """Accuracy and loss by number of examples under every control, on the same examples.

    The answer counts as a whole. An open one is right where each of its tokens is the most probable and then the
    separator. `opening` is a token put first; no prompt may have more than `longest` tokens. With `content_free`,
    labels are also scored behind the same examples and a question without content (Zhao et al., 2021), a pass more per
    number of examples. Raises `BadInput` for a control or number of shots that the task does not allow, for a
    separator without tokens, and for `content_free` where answers are open.
    """
    require(bool(task.labels) or not content_free, "content_free", content_free, f"false: {task.name} has no labels")
    require(len(shots) > 0 and min(shots) >= 0, "shots", list(shots), "numbers from 0 on")
    require(prompts >= 2, "prompts", prompts, "at least 2, for intervals")
    shots, n = tuple(sorted(set(shots))), max(shots)
    asked: list[Asked] = []
    keys: dict[str, list[list[tuple[list[int], int]]]] = {}  # per control, prompt, shots: answers asked, which is right
    empty: dict[str, list[list[list[int]]]] = {}  # the same of answers to the question without content
    end = token_behind_answers(task, tokenizer, seed)
    most = 0
    for control in controls:
        choose("control", control, CONTROLS)
        keys[control], empty[control] = [], []
        for i in range(prompts):
            drawn = draw_prompt(task, n, rng=np.random.default_rng((seed, i)), control=control)
            cut = tokenize(drawn, tokenizer, separator=task.separator, opening=opening, answered=True)
            most = max(most, len(cut.tokens))
            spans, each = cut.of("answer"), []
            renamed = (*drawn.context, drawn.query)
            for k in shots:
                own = renamed[k] if control in ("flipped", "symbols") or k == n else task.examples[drawn.indices[k]]
                before = tuple(map(int, cut.tokens[: spans[k].start]))
                answers = drawn.labels or (own.answer,)
                rows = [tuple(row) for row in answer_tokens(own.question, answers, tokenizer)]
                rows = _told_apart(rows, end) if drawn.labels else [*rows, (*rows[0], end)]
                each.append((list(range(len(asked), len(asked) + len(rows))), list(answers).index(own.answer)))
                if not before:
                    raise BadInput("the first question is empty, so an opening token must stand before it")
                asked += [Asked(before, row) for row in rows]
            keys[control].append(each)
            if content_free:
                free = []
                for k in shots:
                    nothing = TextPrompt(drawn.context[:k], Example(task.content_free, ""), drawn.labels, ())
                    before = tokenize(nothing, tokenizer, separator=task.separator, opening=opening).tokens.tolist()
                    rows = _told_apart(answer_tokens(task.content_free, drawn.labels, tokenizer), end)
                    free.append(list(range(len(asked), len(asked) + len(rows))))
                    asked += [Asked(tuple(before), row) for row in rows]
                empty[control].append(free)
    require(
        longest is None or most <= longest, "tokens of a prompt", most, f"at most {longest}, for which the model is"
    )
    passes = [0]

    def count(done: int, total: int) -> None:
        passes[0] = total
        progress(done, total)

    told = log_probabilities(network, asked, interventions, count)
    scores, targets, exact = {}, {}, {}
    for control, rows in keys.items():
        at = np.array([[answers for answers, _ in each] for each in rows])
        scores[control] = told.scores[at] if task.labels else told.scores[at[..., :1]]
        targets[control] = np.array([[right for _, right in each] for each in rows])
        exact[control] = told.greedy[at[..., -1]].astype(float)
    free = {control: told.scores[np.array(rows)] for control, rows in empty.items()} if content_free else {}
    return FewShot(task, shots, scores, targets, exact, opening, most, passes[0], free)


def token_behind_answers(task: TextTask, tokenizer: Tokenizer, seed: int = 0) -> int:
    """The token with which the separator begins behind an answer; by itself it may be cut otherwise.

    Raises `BadInput` where the tokenizer makes none of it.
    """
    prompt = draw_prompt(task, 1, rng=np.random.default_rng((seed, 0)))
    cut = tokenize(prompt, tokenizer, separator=task.separator, answered=True)
    ends = [int(cut.tokens[segment.start]) for segment in cut.of("separator") if segment.stop > segment.start]
    require(len(ends) > 0, "separator", task.separator, "a text of which the tokenizer makes at least one token")
    return ends[0]


def _told_apart(rows: Sequence[Sequence[int]], end: int) -> list[tuple[int, ...]]:
    """Labels as tokens; with the end behind each where one begins another, so that its end tells."""
    begins = any(a != b and list(b[: len(a)]) == list(a) for a in rows for b in rows)
    return [(*row, end) if begins else tuple(row) for row in rows]
