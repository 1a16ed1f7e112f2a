"""The sizes that a reproduction of Kirsch et al. (2022) is configured by."""

from dataclasses import asdict, dataclass
from typing import Any

from meta_icl.models import Decoder, FastWeightLstm, Lstm, Mlp
from meta_icl.tasks import UNLIMITED

RANDOM = "random"  # the Random set is no set of images


@dataclass(frozen=True)
class Training:
    """One meta-training; groups of them belong to one study."""

    study: str
    model: str = "transformer"
    width: int = 64
    layers: int = 2
    heads: int = 4
    n_tasks: int = UNLIMITED
    bias: float = 0.75
    n_labels: int = 5
    rows: int = 30
    batch: int = 64
    steps: int = 5_000
    rate: float = 2e-3
    eps: float = 1e-10
    optimiser: str = "adam"
    falling: bool = False  # the rate falls to zero in the last third
    data: str = "digits"
    seed: int = 0

    @property
    def name(self) -> str:
        """The name of the part: everything that differs from the defaults."""
        plain = Training(self.study)
        changed = [f"{k}={v:g}" if isinstance(v, float) else f"{k}={v}" for k, v in asdict(self).items()
                   if k != "study" and v != getattr(plain, k)]  # fmt: skip
        return "-".join([self.study, *changed]).replace("n_tasks", "n")

    def network(self, d: int) -> Any:
        """The description of the network for images of d numbers."""
        d_in, out = d + self.n_labels, self.n_labels
        if self.model in ("transformer", "linear"):
            kind = "softmax" if self.model == "transformer" else "linear"
            sizes = (self.width, self.layers, self.heads, self.rows)
            std = self.width**-0.5
            return Decoder(*sizes, d_in=d_in, d_out=out, read_init="torch", init_std=std, attention=kind)
        if self.model == "fast_weights":
            return FastWeightLstm(d_in, self.heads, self.width // self.heads, out)
        if self.model == "lstm":
            return Lstm(d_in, self.width, self.layers, d_out=out)
        return Mlp(d_in, self.width, self.layers, out)


@dataclass(frozen=True)
class Config:
    """The trainings, the data sets tested on, and the number of test prompts; `side` is the size of the images."""

    trainings: tuple[Training, ...]
    others: tuple[str, ...] = ("glyphs", "wine", "blobs", RANDOM)
    side: int = 8
    n_eval: int = 1_000
    n_probe: int = 200
    maml_steps: int = 400
    maml_batch: int = 32
