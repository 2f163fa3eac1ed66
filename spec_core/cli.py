"""The command line: one prompt, streamed, measured against plain decoding; imports torch late."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Items
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from spec_core.decoder import Generation, SpeculativeDecoder
    from spec_core.policy import Policy
    from spec_core.render import TextStream
    from spec_core.session import Outcome

TREES = 3  # drawn at the end
NODES = 64  # room for trees at least
WARM_UP = 8  # tokens decoded before anything is measured
FULL = ("out of memory", "can't allocate memory")  # as torch says it
EXAMPLES = """\
examples:
  python -m spec_core "Once upon a time"
  python -m spec_core "Once upon a time" --temperature 0.8 --seed 7 --max-new-tokens 200
  python -m spec_core "def add(a, b):" --stop "\\n\\n" --depth 4 --width 2 --budget 16
  python -m spec_core "Hello" --target path/to/target --draft path/to/draft --device cuda
  cat prompt.txt | python -m spec_core - --json
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit code 2, without the usage."""
        print(f"error: {message} (--help shows the options)", file=sys.stderr)
        sys.exit(2)


def parser() -> Parser:
    """The options."""
    form = argparse.RawDescriptionHelpFormatter
    about = "Generate a text by speculative decoding and compare with plain decoding."
    made = Parser("python -m spec_core", description=about, epilog=EXAMPLES, formatter_class=form)
    made.add_argument("prompt", help="the text to continue; - reads it from stdin")
    add = made.add_argument_group("models (without --target: the embedded pair)").add_argument
    add("--target", metavar="DIR", help="folder or hub id of the target model")
    add("--draft", metavar="DIR", help="folder or hub id of its draft; same vocabulary")
    add("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    add("--dtype", help="float32, bfloat16 or float16; default float32 on cpu, else bfloat16")
    both = argparse.BooleanOptionalAction
    add("--recall", action=both, help="whether drafts look up the text's own past; default: on cpu")
    add(
        "--backend", default="auto", choices=["auto", "compiled", "fast", "hf"], help="default auto"
    )
    add("--trust-remote-code", action="store_true", help="let hub models run their own code")
    add = made.add_argument_group("text").add_argument
    add("--max-new-tokens", type=int, default=128, metavar="N", help="default 128")
    add("--temperature", type=float, default=0.0, metavar="T", help="0, the default, is greedy")
    add("--top-k", type=int, default=0, metavar="K", help="0, the default, is off")
    add("--top-p", type=float, default=1.0, metavar="P", help="1, the default, is off")
    add("--seed", type=int, default=0, metavar="S", help="the same seed gives the same text")
    add("--stop", action="append", default=[], metavar="STRING", help="end here; may be repeated")
    add = made.add_argument_group("drafting (default: a short chain)").add_argument
    add("--policy", metavar="DIR", help="an exported policy")
    add("--depth", type=int, help="a fixed plan: rounds of drafting; 0 is plain decoding")
    add("--width", type=int, help="a fixed plan: nodes expanded per round")
    add("--budget", type=int, help="a fixed plan: nodes sent to the target, the root included")
    add = made.add_argument_group("output").add_argument
    add("--no-baseline", action="store_true", help="do not decode plainly for comparison")
    add("--output", metavar="FILE", help="also write the text there (with --json: the object)")
    add("--json", action="store_true", help="print one JSON object and nothing else")
    return made


@dataclass
class Printer:
    """What reaches stdout while tokens are accepted, and the last trees."""

    stream: TextStream
    quiet: bool
    outcomes: deque[Outcome] = field(default_factory=lambda: deque(maxlen=TREES))
    interrupted: bool = False

    def interrupt(self, *_: Any) -> None:
        """On Ctrl-C; noted as well, for a library below may swallow what is raised inside it."""
        self.interrupted = True
        raise KeyboardInterrupt

    def check(self, _: Outcome) -> None:
        """After every cycle of whatever can be interrupted."""
        if self.interrupted:
            raise KeyboardInterrupt

    def watch(self, outcome: Outcome) -> None:
        """After every cycle of the text."""
        self.check(outcome)
        self.outcomes.append(outcome)
        self._print(self.stream.push(outcome.tokens[0]))

    def finish(self) -> None:
        """The held back rest, and the end of the line."""
        self._print(self.stream.finish() + "\n")

    def _print(self, text: str) -> None:
        if text and not self.quiet:
            sys.stdout.write(text)
            sys.stdout.flush()


def main(arguments: Items[str] | None = None) -> int:
    """The exit code: 0 done, 1 broken on the way, 2 bad input, 130 interrupted."""
    try:
        _quiet()
        options = parser().parse_args(arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _run(options)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:  # the reader left: nobody to tell
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except (ValueError, OSError) as error:  # ModelError is a ValueError
        return _say(f"error: {error}", 2)
    except (MemoryError, RuntimeError) as error:
        said = str(error) or "out of memory"
        if isinstance(error, RuntimeError) and not any(words in said for words in FULL):
            raise
        return _say(f"error: {said}", 1)


def _quiet() -> None:
    """No progress bars and no chatter of the libraries; what the user has set stays."""
    for name, value in (
        ("HF_HUB_DISABLE_PROGRESS_BARS", "1"),
        ("TRANSFORMERS_VERBOSITY", "error"),
        ("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"),
        ("TOKENIZERS_PARALLELISM", "false"),
    ):
        os.environ.setdefault(name, value)
    with suppress(AttributeError):  # a replaced stdout, as in tests
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _say(message: str, code: int) -> int:
    sys.stdout.flush()
    print(" ".join(message.split()), file=sys.stderr)
    return code


def _run(options: argparse.Namespace) -> int:
    from spec_core.decoder import SpeculativeDecoder
    from spec_core.models.load import cold
    from spec_core.pair import load_pair
    from spec_core.policy import Fixed
    from spec_core.render import TextStream, byte_tokens
    from spec_core.session import most_nodes

    prompt, policy = _checked(options), _policy(options)
    models = ("target", "draft", "device", "dtype", "backend", "trust_remote_code", "recall")
    if sys.stderr.isatty() and cold(options.device):
        print("compiling the decoder's machine code, once on this machine", file=sys.stderr)
    pair = load_pair(**{name: getattr(options, name) for name in models})
    if (options.width or 1) > pair.target.vocab_size:
        raise ValueError(f"--width: the vocabulary has {pair.target.vocab_size} tokens")
    nodes = most_nodes(policy.plan_, pair.target.max_context) if isinstance(policy, Fixed) else 0
    decoder = SpeculativeDecoder(pair, policy, max_nodes=max(NODES, nodes))
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "seed", "stop")
    how = {name: getattr(options, name) for name in names}
    stream = TextStream(pair.decode, byte_tokens(pair.tokenizer))
    return _measure(options, decoder, prompt, how, Printer(stream, options.json))


def _checked(options: argparse.Namespace) -> str:
    """The prompt; refuses what can be refused before a model is loaded."""
    from spec_core.sampling import Sampling

    Sampling(options.temperature, options.top_k, options.top_p)
    if options.max_new_tokens < 1:
        raise ValueError(f"--max-new-tokens must be at least 1, not {options.max_new_tokens}")
    if not all(options.stop):
        raise ValueError("a --stop string is empty")
    if options.output:
        _check_writable(Path(options.output))
    prompt = options.prompt
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode()
    if not prompt:
        raise ValueError("the prompt is empty")
    prompt.encode()  # raises where the shell passed bytes that are no text
    return prompt


def _check_writable(path: Path) -> None:
    """Open for appending; what did not exist before does not exist after."""
    existed = path.exists()
    with path.open("a"):
        pass
    if not existed:
        path.unlink()


def _policy(options: argparse.Namespace) -> Policy | None:
    """The policy of the options; None is the decoder's default."""
    from spec_core.plan import Plan
    from spec_core.policy import Fixed, load_policy

    fixed = {name: getattr(options, name) for name in ("depth", "width", "budget")}
    fixed = {name: value for name, value in fixed.items() if value is not None}
    if options.policy and fixed:
        raise ValueError("--policy and --depth/--width/--budget exclude each other")
    if options.policy:
        return load_policy(options.policy)
    if not fixed:
        return None
    try:
        return Fixed(Plan(**{"depth": 6, **fixed}))
    except AssertionError as error:
        raise ValueError(str(error)) from None


def _measure(
    options: argparse.Namespace, decoder: SpeculativeDecoder, prompt: str, how: dict[str, Any],
    printer: Printer,
) -> int:  # fmt: skip
    """Warm up, decode, decode plainly, compare, report."""
    from spec_core.decoder import SpeculativeDecoder
    from spec_core.policy import autoregressive
    from spec_core.session import Broken

    plain = None if options.no_baseline else SpeculativeDecoder(decoder.pair, autoregressive())
    short = how | {"max_new_tokens": min(WARM_UP, options.max_new_tokens)}
    with suppress(Broken):  # it will be met again, and told then; a bad prompt is refused here
        for each in filter(None, (decoder, plain)):
            each.generate(prompt, **short)
    before = signal.signal(signal.SIGINT, printer.interrupt)
    base, ended = None, ""
    try:
        try:
            made, ended = _decoded(decoder, prompt, printer, printer.watch, how)
        finally:
            printer.finish()
        if plain and not ended:
            base, ended = _decoded(plain, prompt, printer, printer.check, how)
    finally:
        signal.signal(signal.SIGINT, before)
    if made:
        base = None if ended else base  # half of one compares with nothing
        _deliver(options, printer, made, base)
    if ended or not made:
        return _say(ended, 130 if printer.interrupted else 1)
    if base is None or base.tokens == made.tokens:
        return 0
    pairs = enumerate(zip(*base.tokens, *made.tokens, strict=False))
    where = next((i for i, (a, b) in pairs if a != b), len(base.tokens[0]))
    return _say(f"error: plain decoding gave other tokens, from new token {where + 1} on", 1)


def _decoded(
    decoder: SpeculativeDecoder, prompt: str, printer: Printer, watch: Callable[[Outcome], None],
    how: dict[str, Any],
) -> tuple[Generation | None, str]:  # fmt: skip
    """What was made, and what ended it early, if anything."""
    from spec_core.session import Broken

    try:
        return decoder.generate(prompt, watch, **how), ""
    except BaseException as stop:
        made = getattr(stop, "generation", None)
        if printer.interrupted:  # a compiler makes other errors of it
            return made, "interrupted"
        if not isinstance(stop, Broken):
            raise
        return made, f"error: {stop}"


def _deliver(
    options: argparse.Namespace, printer: Printer, made: Generation, base: Generation | None
) -> None:
    """The JSON object, or the line of statistics and the trees; the file."""
    from spec_core.render import report, show_trees, summary

    record = json.dumps(report(made, base), ensure_ascii=False)
    if options.json:
        print(record)
    elif made.stats.cycles:
        print("\n" + summary(made.stats, base.stats if base else None))
        show_trees(printer.outcomes, printer.stream.decode)
    if options.output:  # after what is printed: a disk may be full
        content = record + "\n" if options.json else made.text[0]
        Path(options.output).write_text(content, encoding="utf-8")
