"""Probes for the command line: one file per probe, which looks at any model of `Subject`; the listing is the registry.

A probe's module has a docstring (a title; what it shows, and what it does not), `check(subject)`, which raises
`BadInput` for a model that it cannot look at, and `measure(subject) -> {name: array}`; from such arrays alone it makes
tables, `rows(measured) -> [{column: value}]`, and figures of several subjects side by side,
`figures({label: measured}) -> {name: chart}`.
"""

from meta_icl.probes._subject import (
    Subject,
    language_subject,
    learner_subject,
    prompt_subject,
    require_site,
    text_subject,
)

__all__ = ["Subject", "language_subject", "learner_subject", "prompt_subject", "require_site", "text_subject"]
