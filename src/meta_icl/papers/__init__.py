"""One file per paper, named firstauthorYEAR_topic.py; the directory listing is the registry.

A paper's module has `TIMES` (preset -> time), `IDS` (of its claims, without its name), `PRESETS` (preset ->
configuration), `run(config, run)`, `figures(run) -> {name: chart}` and `claims(run) -> [Claim]`; the last two read the
run folder only.
"""
