"""One file per paper, named firstauthorYEAR_topic.py; the directory listing is the registry.

A paper's module has `TIMES` (preset -> time), `PRESETS` (preset -> configuration), `run(config, run)`,
`figures(run) -> {name: chart}` and `claims(run) -> [Claim]`; the last two read the run folder only. `IDS`, the ids of
its claims without its name, lets a claim that it has not be refused before anything is trained.
"""
