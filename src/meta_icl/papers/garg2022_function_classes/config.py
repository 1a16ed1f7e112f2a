"""The sizes that a reproduction of Garg et al. (2022) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Training:
    """One network: what it is trained on. `functions` and `prompts` are sizes of finite pools (0: none)."""

    family: str = "linear"
    d: int = 5
    size: str = "tiny"
    noise: float = 0.0
    curriculum: bool = False
    functions: int = 0
    prompts: int = 0
    steps: int = 0  # 0: those of the preset
    seeds: int = 0  # 0: those of the preset
    changed: bool = True  # put to changed prompts too, if it learned plain linear functions

    @property
    def name(self) -> str:
        """The name of the part."""
        extra = [f"noise{self.noise:g}"] if self.noise else []
        extra += ["curriculum"] if self.curriculum else []
        extra += [f"{label}{n}" for label, n in (("functions", self.functions), ("prompts", self.prompts)) if n]
        return "-".join([self.family, self.size, f"d{self.d}", *extra])


@dataclass(frozen=True)
class Config:
    """Sizes of the experiments; `trainings` are the networks, all with the same optimiser."""

    seeds: int = 1
    n_linear: int = 10_000  # prompts for least squares, averaging and neighbours: 0.7 % error where theory is known
    n_lasso: int = 10_000  # its errors are heavy-tailed
    n_alphas: int = 1_000  # to compare its weights of the penalty on the same prompts
    n_trees: int = 1_280
    n_networks: int = 256
    network_steps: int = 5_000
    n_eval: int = 1_280
    n_noisy: int = 10_000  # prompts with label noise, whose errors are heavy-tailed near k = d
    bound_spectra: int = 200_000  # to which the rates of GD++ are fitted, the bound of so many layers
    stair: int = 2_000  # steps of a stair of the curriculum
    trainings: tuple[Training, ...] = (Training(size="deep", steps=20_000), Training(size="deep", noise=0.5))
    steps: int = 10_000
    batch: int = 32
    optimiser: str = "muon"
    learning_rate: float = 3e-3
    decay: bool = True
    read_init: str = "torch"
    init_std: float = 0.125  # 1 / sqrt(64): with GPT-2's 0.02 a width of 64 stays at the zero predictor
