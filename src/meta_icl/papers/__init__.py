"""One folder per paper, named firstauthorYEAR_topic; the directory listing is the registry.

`__init__` is the reproduction on one screen: citation, claims and setting in the docstring, `TIMES` (preset -> time),
`IDS` (of the claims, without the paper's name), `PRESETS` (preset -> `Config`). It shows `run(config, run)` of
`experiments`, `claims(run) -> [Claim]` and `figures(run) -> {name: chart}`; the last two read the run folder only.
`published.json` holds numbers of the publication, `reasons.toml` why claims fail in the kept runs, as it was measured.
"""
