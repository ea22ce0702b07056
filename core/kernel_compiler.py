"""How a kernel that calls kernels is compiled: all of it once, as one piece of machine code.

Numba makes of every function that a compiled function calls a library of its own, with machine code and with wrappers for
Python and C, and optimises it anew within each caller, though only the few functions that Python calls are ever run. Here a
function met within another one stays intermediate code, which the outermost kernel links, optimises and turns into machine
code. (Measured on all kernels of the collector, from nothing: see ADR 0015.)
"""

from __future__ import annotations

from typing import Any

from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.registry import CPUDispatcher


class _Within(JITCodeLibrary):
    """Intermediate code of one function, to be linked into whatever calls it."""

    def finalize(self) -> None:
        self._raise_if_finalized()  # type: ignore[no-untyped-call]
        self._finalized = True


class _Whole(JITCodeLibrary):
    """Machine code of a kernel and of all that it calls."""

    def finalize(self) -> None:
        # LLVM links of a library what something linked before asks for: each comes after all that call it.
        ordered: list[Any] = []
        seen: set[Any] = set()

        def visit(libraries: list[Any]) -> None:
            for library in libraries:
                if library not in seen:
                    seen.add(library)
                    if isinstance(library, _Within):
                        visit(library._linking_libraries)
                    ordered.append(library)

        visit(self._linking_libraries)
        self._linking_libraries = ordered[::-1]
        super().finalize()  # type: ignore[no-untyped-call]


class _Pipeline(Compiler):
    library: type[JITCodeLibrary]

    def compile_extra(self, function: Any) -> Any:
        library = self.library(self.state.targetctx.codegen(), function.__qualname__)
        library.enable_object_caching()  # type: ignore[no-untyped-call]
        self.state.library = library
        return super().compile_extra(function)  # type: ignore[no-untyped-call]


class _WithinPipeline(_Pipeline):
    library = _Within

    def compile_extra(self, function: Any) -> Any:
        self.state.flags.no_compile = True
        made = super().compile_extra(function)._replace(entry_point=_Key())
        made.library._ensure_finalized()
        made.target_context.insert_user_function(made.entry_point, made.fndesc, [made.library])
        return made


class _WholePipeline(_Pipeline):
    library = _Whole


class _Key:
    """Stands for a function that has no machine code."""


class _WithinDispatcher(CPUDispatcher):
    def add_overload(self, made: Any) -> None:
        self.overloads[tuple(made.signature.args)] = made  # and nothing that Python could call


class KernelDispatcher(CPUDispatcher):
    """A kernel: called from Python it is machine code, called from a kernel it becomes part of that one."""

    def __init__(self, function: Any, options: dict[str, Any]) -> None:
        super().__init__(function, targetoptions=options, pipeline_class=_WholePipeline)
        within = {**options, "no_cpython_wrapper": True}
        self._within = _WithinDispatcher(function, targetoptions=within, pipeline_class=_WithinPipeline)

    def get_call_template(self, arguments: Any, named: Any) -> Any:
        return self._within.get_call_template(arguments, named)

    def get_overload(self, signature: Any) -> Any:
        return self._within.get_overload(signature)
