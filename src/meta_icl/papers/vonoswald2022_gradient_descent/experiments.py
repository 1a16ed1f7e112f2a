"""The run: every training, then what is measured on trained and constructed weights."""

from meta_icl.runs import Run, those_there
from meta_icl.sweeps import run_parts

from .config import Config
from .measures import measure_constructions, measure_deep, measure_rollouts, measure_single, measure_sizes
from .training import D, train_part


def run(config: Config, run: Run) -> None:
    """Train everything, then measure on the trained weights."""
    c = config
    stack = {"kind": "stack", "d": D, "looped": True, "optimiser": "adam", "rate": 1e-3, "decay": False}
    one = stack | {"layers": 1, "steps": c.steps, "batch": c.batch}
    other = one | {"optimiser": c.optimiser_sizes, "rate": c.rate_sizes, "decay": c.decay}
    other |= {"steps": c.steps_sizes, "batch": c.batch_sizes}
    sizes = {f"K1-d{d}": other | {"d": d} for d in sorted(c.sizes, reverse=True)}
    two = stack | {"layers": 2, "rate": c.rate_two, "decay": c.decay, "steps": c.steps_two, "batch": c.batch_two}
    five = stack | {"layers": 5, "looped": False, "rate": c.rate_five, "decay": c.decay}
    five |= {"steps": c.steps_five, "batch": c.batch_five}
    separate = {"kind": "separate", "init": c.init_separate, "rate": c.rate_separate, "decay": c.decay}
    separate |= {"optimiser": c.optimiser_separate, "steps": c.steps_separate, "batch": c.batch_separate}
    softmax = {"kind": "softmax", "optimiser": c.optimiser_softmax, "rate": c.rate_softmax, "decay": c.decay}
    softmax |= {"steps": c.steps_softmax, "batch": c.batch_softmax}
    sine = {"kind": "sine", "decay": c.decay, "steps": c.steps_sine, "batch": c.batch_sine}
    parts = {
        "K5": five,
        "separate-softmax": {"first": "softmax", **separate},
        "separate-linear": {"first": "linear", **separate},
        **sizes,
        "sine-transformer": {"descend": False, "rate": c.rates_sine[0], **sine},
        "sine-gd": {"descend": True, "rate": c.rates_sine[1], **sine},
        "K2": two,
        "K1": one,
        "softmax-2": {"heads": 2, **softmax},
        "softmax-1": {"heads": 1, **softmax},
    }  # the longest first, so that the cores finish together
    shared = {"seeds": c.seeds, "n_eval": c.n_eval}
    run_parts(run, train_part, {name: {**arguments, **shared} for name, arguments in parts.items()})
    measures = {
        "constructions": lambda run: measure_constructions(),
        "single": lambda run: measure_single(run, c),
        "sizes": lambda run: measure_sizes(run, c),
        "deep": lambda run: measure_deep(run, c),
        "rollouts": lambda run: measure_rollouts(run, c),
    }
    for name, arrays in those_there(run, measures).items():
        run.save_arrays(name, arrays)
