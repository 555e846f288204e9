"""`builtin:python`: variables per completion; output, time and damage are bounded."""

import pytest

from gbpo.run.tools.limits import ToolError, take_timeouts
from gbpo.run.tools.python_session import MAX_OUTPUT, session_class
from gbpo.run.tools.replay import replay


@pytest.fixture(scope="module")
def make():
    return session_class(2.0)


def printed(capsys, *pieces):
    replay(list(pieces))
    return capsys.readouterr().out


def test_the_last_piece_is_printed_as_in_an_interactive_session(capsys):
    assert printed(capsys, "1 + 2") == "3\n"
    assert printed(capsys, "x = 4\nprint('a')\nx") == "a\n4\n"
    assert printed(capsys, "x = 4") == ""
    assert printed(capsys, "None") == ""
    assert printed(capsys, "x = [1]\nprint(x)", "x.append(2)\nprint(9)", "x") == "[1, 2]\n"
    assert printed(capsys, "def f(n):\n    return 1 if n == 0 else n * f(n - 1)", "f(5)") == "120\n"


def test_an_error_is_printed_and_what_was_done_before_it_stays(capsys):
    assert printed(capsys, "x = 1\n1 / 0") == "ZeroDivisionError: division by zero\n"
    assert printed(capsys, "x = 1\n1 / 0\nx = 2", "x") == "1\n"
    assert printed(capsys, "1 +").startswith("SyntaxError: ")
    assert printed(capsys, "exit(3)", "raise SystemExit(4)") == "SystemExit: 4\n"


@pytest.mark.slow
def test_each_completion_has_its_own_variables(make):
    one, other = make(), make()
    assert one.python("x = 6\nprint('six')") == "six"
    assert one.python(code="x * 7") == "42"
    assert other.python("x") == "NameError: name 'x' is not defined"
    one.reset(prompt="the next row", solution="3")
    assert one.python("x") == "NameError: name 'x' is not defined"


@pytest.mark.slow
def test_limits(make):
    take_timeouts()
    session = make()
    assert session.python("x = 5") == ""
    long = session.python("print('y' * 5000)")
    assert long == "y" * MAX_OUTPUT + "… (3000 more characters)"
    with pytest.raises(ToolError, match="^no result after 2 seconds; the variables are those from before$"):
        session.python("x = 6\nwhile True: pass")
    with pytest.raises(ToolError, match="printed or wrote too much"):
        session.python("x = 7\nwhile True: print('y' * 100000)")
    with pytest.raises(ToolError, match="ended its own process"):
        session.python("x = 8\nimport os\nos._exit(3)")
    assert session.python("x") == "5"
    assert take_timeouts() == 1
    assert "Error" in session.python("import socket\nsocket.create_connection(('127.0.0.1', 22))")
    assert "Error" in session.python("open('/etc/passwd').read()")
