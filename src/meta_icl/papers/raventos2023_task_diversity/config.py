"""The sizes that a reproduction of Raventós et al. (2023) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """One pretraining; `m` is the size of the pool of tasks, K = 2 d the number of points."""

    m: int
    model: str = "base"
    d: int = 8
    batch: int = 256
    steps: int = 500_000
    weight_decay: float = 0.0

    @property
    def name(self) -> str:
        """The name of the part."""
        decay = f"-wd{self.weight_decay:g}" if self.weight_decay else ""
        return f"{self.model}-D{self.d}-M{self.m}-B{self.batch}-S{self.steps}{decay}"

    @property
    def noise_variance(self) -> float:
        """0.25 at D = 8, with the ratio of signal to noise kept."""
        return 0.25 * self.d / 8


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments."""

    seeds: int = 1
    n_eval: int = 1_000
    n_baseline: int = 20_000
    optimiser: str = "muon"
    learning_rate: float = 3e-3
    init_std: float = 0.125  # 1 / sqrt(64); GPT-2's 0.02 is for wider networks
    # Between dMMSE and ridge it takes longest: after 8,000 steps on 64 tasks the error is 1.26 of that of dMMSE.
    trainings: tuple[Training, ...] = tuple(
        Training(m, "small", 4, 64, steps) for m, steps in ((8, 8_000), (64, 16_000), (1_024, 8_000))
    )
