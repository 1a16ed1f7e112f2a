"""The sizes that a reproduction of Hendel et al. (2023) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """The model, its tasks, prompts on which a layer is chosen and on which it is tested, examples in a prompt.

    Layers are tried every `every`, the last one always. `conflicts` are pairs "A>B" of tasks on the same words: the
    vector of B is put into prompts with examples of A.
    """

    model: str = "smollm2"
    tasks: tuple[str, ...] = (
        "antonym",
        "capitalize",
        "country_capital",
        "english_french",
        "next_item",
        "present_past",
        "singular_plural",
    )
    shots: int = 5
    choosing: int = 12
    testing: int = 20
    every: int = 2
    conflicts: tuple[str, ...] = (
        "antonym>capitalize",
        "present_past>capitalize",
        "capitalize>present_past",
        "antonym>present_past",
    )
