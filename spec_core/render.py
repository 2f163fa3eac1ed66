"""What the command line shows: the text as it grows, drafted trees, statistics; runs nothing."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from spec_core.tree import NOTHING, Tree

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree as Drawing

    from spec_core.decoder import Generation, Stats
    from spec_core.session import Outcome

Decode = Callable[[list[int]], str]
WINDOW = 512  # tokens that are decoded anew at most; then the older half is let go
HALF = "\N{REPLACEMENT CHARACTER}"  # what decoders print for a part of a character
BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def byte_tokens(tokenizer: Any) -> Callable[[int], bool]:
    """Which tokens are single bytes of a byte-fallback vocabulary: these are decoded in runs."""
    return lambda token: BYTE.fullmatch(str(tokenizer.convert_ids_to_tokens(token))) is not None


class TextStream:
    """Text of a growing token list, in pieces that never hold a part of a character."""

    def __init__(
        self, decode: Decode, is_byte: Callable[[int], bool] = lambda token: False
    ) -> None:  # fmt: skip
        self.decode, self.is_byte = decode, is_byte
        self.tokens: list[int] = []  # the last ones: what stands before them is out for good
        self.shown = 0  # characters of their text that are out

    def push(self, tokens: list[int]) -> str:
        """Append tokens; return what can be printed for good."""
        self.tokens += tokens
        certain = len(self.tokens)
        while certain and self.is_byte(self.tokens[certain - 1]):  # one more may change all of them
            certain -= 1
        text = self.decode(self.tokens[:certain]).rstrip(HALF)
        piece = text[self.shown :]
        self.shown += len(piece)
        if len(self.tokens) > WINDOW:
            self._forget()
        return piece

    def finish(self) -> str:
        """The rest, parts of characters included."""
        piece = self.decode(self.tokens)[self.shown :]
        self.shown += len(piece)
        return piece

    def _forget(self) -> None:
        """Let old tokens go where the others decode to the same without them."""
        recent = self.tokens[-WINDOW // 2 :]
        before, after = self.decode(self.tokens), self.decode(recent)
        gone = len(before) - len(after)
        if before.endswith(after) and gone <= self.shown and not self.is_byte(recent[0]):
            self.tokens, self.shown = recent, self.shown - gone


def draw(
    tree: Tree, row: int, path: list[int], decode: Decode, bonus: int | None = None
) -> Drawing:  # fmt: skip
    """One sequence's drafted tree: token and path probability; `*` accepted, `+` the bonus."""
    from rich.text import Text
    from rich.tree import Tree as Drawing

    tokens, parents = tree.tokens[row].tolist(), tree.parents[row].tolist()
    scores, accepted = tree.scores[row].tolist(), set(path)
    drawings = [Drawing(Text(repr(decode(tokens[:1])), style="bold"), guide_style="dim")]
    for node in range(1, len(tokens)):
        if tokens[node] == NOTHING:
            drawings.append(drawings[0])  # padding has no children
            continue
        label = _label(decode(tokens[node : node + 1]), scores[node], node in accepted)
        drawings.append(drawings[parents[node]].add(label))
    if bonus is not None:
        label = Text.assemble(("+ ", "cyan"), (repr(decode([bonus])), "cyan"))
        drawings[path[-1] if path else 0].add(label)
    return drawings[0]


def _label(text: str, score: float, accepted: bool) -> Text:
    from rich.text import Text

    style = "bold green" if accepted else "dim"
    mark = "* " if accepted else "  "
    probability = (f"  {math.exp(score):.3f}", "dim")
    return Text.assemble((f"{mark}{text!r}", style), probability, no_wrap=True)


def plain(
    tree: Tree, row: int, path: list[int], decode: Decode, bonus: int | None = None
) -> str:  # fmt: skip
    """The same drawing as text without colours, wide enough for its depth."""
    from rich.console import Console

    out = io.StringIO()
    width = 4 * tree.depth + 80
    console = Console(
        file=out, width=width, color_system=None, force_terminal=False, legacy_windows=False
    )
    console.print(draw(tree, row, path, decode, bonus))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def show_trees(outcomes: Iterable[Outcome], decode: Decode) -> None:
    """The trees of some cycles of a single sequence, on stdout; plain steps have none."""
    drawn = [outcome for outcome in outcomes if outcome.drafted[0]]
    if not drawn:
        return
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        return print("to see the last trees, install rich")
    console = Console(legacy_windows=False)
    console.print(Text("last trees, with path probabilities: * accepted, + the target's own"))
    for outcome in drawn:
        path, tokens = outcome.path[0], outcome.tokens[0]
        bonus = tokens[-1] if len(tokens) > len(path) else None  # cut where the text ended
        console.print(draw(outcome.tree, 0, path, decode, bonus))


def report(made: Generation, base: Generation | None) -> dict[str, Any]:
    """What --json prints."""
    stats, ending = made.stats, made.endings[0]
    plain = base.stats.tokens_per_second if base else None
    return {
        "text": made.text[0],
        "tokens": made.tokens[0],
        "ending": ending.value if ending else None,
        "stats": {
            "new_tokens": len(made.tokens[0]),
            "cycles": stats.cycles,
            "drafted": stats.drafted,
            "accepted": stats.accepted,
            "seconds": stats.seconds,
            "prefill_seconds": stats.prefill_seconds,
            "tokens_per_second": stats.tokens_per_second,
            "baseline_tokens_per_second": plain,
            "speedup": stats.tokens_per_second / plain if plain else None,
            "identical": base.tokens == made.tokens if base else None,
            "tokens_per_cycle": stats.tokens_per_cycle,
            "phases": phases(stats),
        },
    }


def phases(stats: Stats) -> dict[str, float]:
    """Shares of the decoding time."""
    total = stats.phases.total or math.inf
    names = {"draft": "draft", "verify": "verify", "policy": "decide", "commit": "commit"}
    return {name: getattr(stats.phases, part) / total for name, part in names.items()}


def summary(stats: Stats, plain: Stats | None) -> str:
    """The line of statistics."""
    parts = [f"{stats.new_tokens} tokens", f"{stats.tokens_per_second:.1f} tokens/s"]
    if plain and plain.seconds:
        ratio = stats.tokens_per_second / plain.tokens_per_second
        parts.append(f"{ratio:.2f}x plain decoding ({plain.tokens_per_second:.1f} tokens/s)")
    parts.append(f"{stats.tokens_per_cycle:.2f} tokens/cycle")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in phases(stats).items())
    return " | ".join([*parts, shares])
