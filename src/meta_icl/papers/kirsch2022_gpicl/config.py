"""The sizes that a reproduction of Kirsch et al. (2022) is configured by."""

from dataclasses import asdict, dataclass

from meta_icl.models import Architecture, kirsch, lstm, mlp
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

    def network(self, d: int) -> Architecture:
        """The description of the network for images of d numbers."""
        d_in, out = d + self.n_labels, self.n_labels
        if self.model in ("transformer", "linear"):
            kind = "softmax" if self.model == "transformer" else "elu"
            sizes = (self.width, self.layers, self.heads, self.rows)
            return kirsch(d_in, out, *sizes, init_std=self.width**-0.5, attention=kind)
        if self.model == "fast_weights":
            return lstm(d_in, self.width, d_out=out, fast_weights=self.heads)
        if self.model == "lstm":
            return lstm(d_in, self.width, self.layers, d_out=out)
        return mlp(d_in, self.width, self.layers, out)


@dataclass(frozen=True)
class Config:
    """The trainings, the data sets tested on, and the number of test prompts; `side` is the size of the images."""

    trainings: tuple[Training, ...]
    others: tuple[str, ...] = ("glyphs", "wine", "blobs", RANDOM, "digits")  # but that trained on
    side: int = 8
    n_eval: int = 1_000
    n_probe: int = 200
    maml_steps: int = 400
    maml_batch: int = 32
