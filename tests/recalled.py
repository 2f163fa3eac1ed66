"""What a past recalls, as it is meant."""

from __future__ import annotations

from spec_core.rows import SURE


def longest(text: list[int], path: list[int]) -> tuple[int, int]:
    """The token after the longest common end, of equals the latest, and how long that is."""
    whole, best = text + path, (0, 0)
    for place in range(1, len(text)):
        common = 0
        while common < min(place, SURE) and text[place - 1 - common] == whole[-1 - common]:
            common += 1
        if common and common >= best[1]:
            best = text[place], common
    return best
