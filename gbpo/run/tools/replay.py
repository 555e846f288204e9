"""Runs the pieces of code of an episode, one after another. The sandbox runs the source of this file."""

import ast
import contextlib
import os


def replay(pieces: list[str]) -> None:
    """Run all pieces with the same variables, and print the output of the last one.

    As in an interactive session, the value of a last expression is printed too. An exception is printed in one line.
    """
    variables: dict[str, object] = {"__name__": "__main__"}
    *earlier, last = pieces
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        for piece in earlier:
            with contextlib.suppress(BaseException):  # it was printed when the piece was the last one
                _run(piece, variables)
    try:
        _run(last, variables)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}")


def _run(piece: str, variables: dict[str, object]) -> None:
    statements = ast.parse(piece).body
    last = statements[-1] if statements else None
    before = statements[:-1] if isinstance(last, ast.Expr) else statements
    exec(compile(ast.Module(before, []), "code", "exec"), variables)
    if isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), "code", "eval"), variables)
        if value is not None:
            print(repr(value))
