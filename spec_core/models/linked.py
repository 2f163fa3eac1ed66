"""Machine code that many call where it is: of what it calls numba compiles a copy into each."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

from llvmlite import binding
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typing.templates import signature as typed
from numba.extending import intrinsic

from spec_core.models.tiles import compiled


def linked(*types: Any) -> Callable[[Callable], Any]:
    """Compiled at once for arguments of these types; for machine code to call, by its name."""

    def link(function: Callable) -> Any:
        code = compiled(function, types).overloads[types]
        symbol = f"{function.__module__}.{function.__qualname__}"  # in every process the same
        place = code.library.get_pointer_to_function(code.fndesc.llvm_func_name)
        binding.add_symbol(symbol, place)
        result = code.signature.return_type

        def generate(context: Any, builder: Any, _: Any, arguments: Any) -> Any:
            rules = context.call_conv
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
            return typed(result, *types), generate

        own, first = signature(function), signature(call).parameters["context"]
        call.__signature__ = own.replace(parameters=[first, *own.parameters.values()])  # type: ignore[attr-defined]
        return intrinsic(call)

    return link
