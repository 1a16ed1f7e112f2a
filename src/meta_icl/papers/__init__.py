"""One folder per paper, named firstauthorYEAR_topic; the directory listing is the registry.

A paper's package has `TIMES` (preset -> time), `IDS` (of its claims, without its name), `PRESETS` (preset ->
configuration), `run(config, run)`, `figures(run) -> {name: chart}` and `claims(run) -> [Claim]`; the last two read the
run folder only.
"""
