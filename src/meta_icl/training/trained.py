"""What a training returns: the predictors of all replicas, with what was recorded; chosen by seed and swept value."""

from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Int

from meta_icl.errors import BadInput, choose
from meta_icl.prompt import Ensemble
from meta_icl.words import in_words


class Trained(Ensemble):
    """The trained predictor of every replica, with what was recorded on the way.

    `history["step"]` has shape "records"; every other entry "records replicas ...": `loss` is the mean training loss
    since the record before, the others are the probes. `replicas` names the seed and the swept values of each member,
    `model` is what was trained. `diverged` says which members are not finite, and the recorded step at which their loss
    or a parameter was first seen to be NaN or infinite; their histories keep what was measured. A number as index is
    one member, a slice or a list the same of some members.
    """

    history: dict[str, np.ndarray]
    replicas: tuple[dict[str, float], ...] = eqx.field(static=True)
    model: Any = eqx.field(static=True, default=None)
    diverged: dict[int, int] = eqx.field(static=True, default_factory=dict)

    def subset(self, members: Int[np.ndarray, " k"]) -> "Trained":
        """Some members, by their numbers, with their part of the history."""
        stacked = super().subset(members).stacked
        history = {name: values if name == "step" else values[:, members] for name, values in self.history.items()}
        diverged = {at: self.diverged[int(i)] for at, i in enumerate(members) if int(i) in self.diverged}
        return Trained(stacked, history, tuple(self.replicas[i] for i in members), self.model, diverged)

    def select(self, **values: Any) -> "Trained":
        """The members with given values, as `net.select(seed=0, **{"optimiser.learning_rate": 1e-3})`.

        A value may be a list of values. Raises `BadInput` where nothing was swept by that name, or no member has the
        value.
        """
        chosen = np.arange(len(self))
        for name, wanted in values.items():
            known = np.array([replica[choose("swept name", name, self.replicas[0])] for replica in self.replicas])
            right = np.isclose(known[chosen, None], np.atleast_1d(wanted)[None], rtol=1e-6, atol=0).any(axis=1)
            if not right.any():
                there = ", ".join(f"{value:g}" for value in dict.fromkeys(known[chosen].tolist()))
                raise BadInput(f"no member has {name} = {wanted!r} (there are: {there})")
            chosen = chosen[right]
        return self.subset(chosen)

    def points(self) -> dict[str, Int[np.ndarray, " k"]]:
        """{point of the sweep, as "task.noise=0.1": the numbers of its members}; one point "" without a sweep."""
        groups: dict[str, list[int]] = {}
        for index, replica in enumerate(self.replicas):
            label = ", ".join(f"{name}={in_words(value)}" for name, value in replica.items() if name != "seed")
            groups.setdefault(label, []).append(index)
        return {label: np.array(members) for label, members in groups.items()}

    def save(self, path: str | Path) -> Path:
        """Write everything to one file in the format of safetensors, for `load`."""
        from meta_icl.training.files import save  # which makes a `Trained`

        return save(self, path)
