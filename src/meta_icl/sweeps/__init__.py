"""Independent trainings of one run on all cores, resumed when they die."""

from meta_icl.sweeps.environment import (
    cache_folder,
    compile_soon,
    compute_like_a_worker,
    default_workers,
    use_compilation_cache,
)
from meta_icl.sweeps.parts import PartFailed, run_parts

__all__ = [
    "PartFailed",
    "cache_folder",
    "compile_soon",
    "compute_like_a_worker",
    "default_workers",
    "run_parts",
    "use_compilation_cache",
]
