"""The sizes that a reproduction of Brown et al. (2020) is configured by."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """The model, how many prompts, and the tasks: open ones, word pairs whose sides are labels, and own files."""

    model: str = "smollm2"
    prompts: int = 32
    shots: tuple[int, ...] = (0, 1, 2, 4, 8)
    open_tasks: tuple[str, ...] = (
        "antonym",
        "capitalize",
        "country_capital",
        "english_french",
        "next_item",
        "present_past",
        "singular_plural",
        "addition",
    )
    labelled: tuple[str, ...] = ("country_capital", "english_french", "present_past", "singular_plural")
    files: tuple[str, ...] = ()
