"""Machine code that many call where it is: of what it calls numba compiles a copy into each."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from llvmlite import binding
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from spec_core.models.tiles import compiled

_FUNCTIONS: list[Callable] = []


def ready() -> None:
    """Bring all that is linked to its place: callers that are read from disk look for it there."""
    for code in _FUNCTIONS:
        code()


def linked(*types: Any) -> Callable[[Callable], Any]:
    """Compiled for arguments of these types alone; for machine code to call, by its name."""

    def link(function: Callable) -> Any:
        symbol = f"{function.__module__}.{function.__qualname__}"  # in every process the same

        @cache
        def code() -> Any:
            dispatcher = compiled(function)
            dispatcher.compile(types)
            made = dispatcher.overloads[types]
            place = made.library.get_pointer_to_function(made.fndesc.llvm_func_name)
            assert place, f"{symbol} has no address"
            binding.add_symbol(symbol, place)
            return made

        def generate(context: Any, builder: Any, wanted: Any, arguments: Any) -> Any:
            rules, result = context.call_conv, wanted.return_type
            kind = rules.get_function_type(result, types)
            there = cgutils.get_or_insert_function(builder.module, kind, symbol)
            status, value = rules.call_function(builder, there, result, types, arguments)
            with cgutils.if_unlikely(builder, status.is_error):
                rules.return_status_propagate(builder, status)
            return value

        def call(context: Any, *arguments: Any) -> Any:
            for given, wanted in zip(arguments, types, strict=True):
                if context.can_convert(given, wanted) is None:
                    raise TypingError(f"{symbol} takes {wanted}, not {given}")
            return signature(code().signature.return_type, *types), generate

        own, context = inspect.signature(function), inspect.signature(call).parameters["context"]
        named = own.replace(parameters=[context, *own.parameters.values()])
        call.__signature__ = named  # type: ignore[attr-defined]  # numba takes no *arguments
        _FUNCTIONS.append(code)
        return intrinsic(call)

    return link
