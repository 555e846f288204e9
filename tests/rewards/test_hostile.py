r"""Programs and answers that try to be paid for nothing, to get out, or to stop the grader: none of them may.

A program that gets out prints the right answer, so an escape shows as `ok`. The cases run in a process of its own, once
as root and once as nobody; run as a script, this file prints what became of them as JSON:

    python tests/rewards/test_hostile.py code bubblewrap
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from rewards import backends
from rewards.code import Code

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is Linux's")

SECRET = "the answer is 8128 28496 33550336"  # nothing that a program could know, or hit upon
ANSWER = "42"  # what a program prints, or returns, when it got out

# What a program prints that tried one thing after another.
ATTEMPTS = """
import ctypes, errno, fcntl, mmap, os, resource, signal, socket, struct, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
escapes = []
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
def attempt(act, *arguments):
    try:
        act(*arguments)
    except (OSError, ValueError, MemoryError, OverflowError, RuntimeError, struct.error):
        return
    escapes.append((act, arguments))
def write(path):
    with open(path, "w") as file:
        file.write("x")
%s
print(42 if escapes else "no way out")
"""


def attempts(body):
    return ATTEMPTS % body


FORGED = '{"end": "ok", "data": "NDIK"}'  # base64 of 42 and a line end

STDIN = {
    # the verdict is the output's
    "silence": ("wrong", ""),
    "exit code 0": ("wrong", "import sys; sys.exit(0)"),
    "exit code 256": ("wrong", "import sys; sys.exit(256)"),
    "end without a word": ("wrong", "import os; os._exit(0)"),
    "end of a thread": ("wrong", "import os, threading; threading.Thread(target=os._exit, args=(0,)).start()"),
    "the words of a judge": ("wrong", "print('All tests passed', 'ok', 'OK', 1.0, True, 'ready')"),
    "the answer and more": ("wrong", "print(42); print(42)"),
    "the answer after an empty line": ("wrong", "print(); print(42)"),
    "the answer and its input": ("wrong", "print(input('42\\n'))"),
    "another notation": ("wrong", "print(42.0)"),
    "full-width digits": ("wrong", "print('４２')"),
    "arabic digits": ("wrong", "print('٤٢')"),
    "zero width space": ("wrong", "print('4\\u200b2')"),
    "byte order mark": ("wrong", "print('\\ufeff42')"),
    "right to left": ("wrong", "print('\\u202e24')"),
    "terminal escapes": ("wrong", "print('41\\x1b[2K\\x1b[1G42')"),
    "backspaces": ("wrong", "print('41\\b\\b42')"),
    "carriage return": ("wrong", "print('41\\r42')"),
    "NUL": ("wrong", "print('42\\0')"),
    "no UTF-8": ("wrong", "import os; os.write(1, b'\\xff42')"),
    "a million lines": ("wrong", "for _ in range(10**6): print(42)"),
    "a million writes": ("wrong", "import os\nfor _ in range(10**6): os.write(1, b'x')"),
    "the answer, then exit code 1": ("died", "import sys; print(42); sys.exit(1)"),
    "the answer, then a text": ("died", "import sys; print(42); sys.exit('no')"),
    "the answer, then an exception": ("died", "print(42); raise ValueError"),
    "the answer, then abort": ("died", "import os; print(42, flush=True); os.abort()"),
    "the answer, then no end": ("timeout", "print(42, flush=True)\nwhile True: pass"),
    "an exit code that lies": (
        "died",
        "class Zero:\n    __class__ = property(lambda self: int)\nprint(42)\nraise SystemExit(Zero())",
    ),
    "an answer at exit": ("wrong", "import atexit; atexit.register(print, 43); print(42)"),
    # the way out of the box
    "result line on the output": ("wrong", f"print('''{FORGED}''')"),
    "result line on descriptor 3": ("died", f"import os; os.write(3, b'''{FORGED}\\n''')"),
    "result line on every descriptor": (
        "wrong",
        f"import os\nfor fd in range(5000):\n    try: os.write(fd, b'''\\n{FORGED}\\n''')\n    except OSError: pass",
    ),
    "result line on the runner's output": (
        "wrong",
        attempts(f"for pid in range(1, 50): attempt(lambda: open(f'/proc/{{pid}}/fd/1', 'w').write('''{FORGED}'''))"),
    ),
    "descriptors closed": ("wrong", "import os; os.closerange(0, 5000)"),
    "output closed": ("wrong", "import sys; sys.stdout.close(); sys.__stdout__ = None"),
    "streams deleted": ("died", "import sys; del sys.stdout, sys.stdin, sys.stderr; print(42)"),
    "input overwritten": ("wrong", "import os; os.ftruncate(0, 0); os.pwrite(0, b'42', 0); os.write(1, b'41')"),
    "bombs": ("died", "while True: print('x' * 10**6)"),
    "bomb without a line end": ("died", "import os\nwhile True: os.write(1, b'42\\n' * 20000)"),
    "bomb on the error stream": ("timeout", "import sys\nwhile True: sys.stderr.write('x' * 10**6)"),
    # the runner
    "kill the runner": ("died", "import os; print(42, flush=True); os.kill(os.getppid(), 9)"),
    "kill all": ("died", "import os; print(42, flush=True); os.kill(-1, 9)"),
    "kill the group": ("died", "import os; print(42, flush=True); os.kill(0, 9)"),
    "interrupt the runner": ("died", "import os; print(42, flush=True); os.kill(os.getppid(), 2); os.abort()"),
    "stop the runner": ("timeout", "import os; print(42, flush=True); os.kill(os.getppid(), 19)"),
    "stop itself": ("timeout", "import os; print(42, flush=True); os.kill(os.getpid(), 19)"),
    "starve the runner": (
        "died",
        "import os, resource\nprint(42, flush=True)\n"
        "resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (0, 0))\n"
        "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))\nos.abort()",
    ),
    "trace the runner": (
        "wrong",
        attempts("attempt(call, 'ptrace', 16, os.getppid(), 0, 0)\nattempt(call, 'ptrace', 0x4206, os.getppid(), 0, 0)"),
    ),
    "memory of the runner": (
        "wrong",
        attempts(
            "part = (ctypes.c_void_p * 2)(id(attempt), 8)\n"
            "for name in ('process_vm_readv', 'process_vm_writev'):\n"
            "    attempt(call, name, os.getppid(), part, 1, part, 1, 0)\n"
            "attempt(open, f'/proc/{os.getppid()}/mem')"
        ),
    ),
    "descriptors of the runner": (
        "wrong",
        attempts("fd = os.pidfd_open(os.getppid())\nfor n in range(8): attempt(call, 'syscall', 438, fd, n, 0)"),
    ),
    "outlive the runner": (
        "died",
        "import ctypes, os, time\nctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\nctypes.CDLL(None).prctl(1 + (1 << 32), 0)\n"
        "os.kill(os.getppid(), 9)\ntime.sleep(600)",
    ),
    "deaf to its parent's death": (
        "wrong",
        attempts("attempt(call, 'prctl', 1, 0, 0, 0, 0)\nattempt(call, 'syscall', 157, ctypes.c_long((1 << 32) + 1), 0)"),
    ),
    # time
    "endless loop": ("timeout", "while True: pass"),
    "deaf to SIGXCPU": ("timeout", "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass"),
    "endless loops in threads": (
        "timeout",
        "import threading\ndef burn():\n    while True: pass\n"
        "for _ in range(8): threading.Thread(target=burn).start()",
    ),
    "sleep": ("timeout", "import time; time.sleep(10**6)"),
    "wait for a signal": ("timeout", "import signal\nwhile True: signal.pause()"),
    "wait for itself": ("timeout", "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()"),
    "sleep with the output closed": ("timeout", "import os, time; os.closerange(0, 9); time.sleep(10**6)"),
    "no end at the end": ("timeout", "import atexit, time; atexit.register(time.sleep, 10**6)"),
    "power tower": ("timeout", "print(9 ** 9 ** 9)"),
    "backtracking": ("timeout", "import re; re.match('(a+)+$', 'a' * 50 + 'b')"),
    "threads that wait": (
        "timeout",
        "import threading\nfor _ in range(50): threading.Thread(target=threading.Event().wait).start()",
    ),
    # memory
    "memory": ("died", "x = bytearray(10**10)"),
    "memory, little by little": ("died", "x = []\nwhile True: x.append(bytearray(10**6))"),
    "memory in every way": (
        "wrong",
        attempts(
            "attempt(mmap.mmap, -1, 2 << 30)\nattempt(lambda: bytearray(2 << 30))\n"
            "attempt(lambda: [mmap.mmap(-1, 64 << 20, flags) for flags in (1, 2) * 16])\n"
            "attempt(lambda: [mmap.mmap(-1, 64 << 20) for _ in range(20)])\nattempt(call, 'memfd_create', b'x', 0)\n"
            "def file(size):\n    with open('/tmp/x', 'wb') as f: f.truncate(size)\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nattempt(file, 2 << 30)\n"
            "def files():\n    for n in range(40): open(f'/tmp/{n}', 'wb').write(bytes(2 << 20))\n"
            "attempt(files)\n"
            "def attribute(): os.setxattr('/tmp/x', 'user.x', bytes(1000))\nattempt(attribute)\n"
            "def pipes():\n"
            "    for _ in range(200): fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)\nattempt(pipes)\n"
            "attempt(call, 'shmget', 0, 1 << 30, 0o1600)"
        ),
    ),
    "many threads": (
        "died",
        "import threading\nthreading.stack_size(32768)\nwait = threading.Event().wait\n"
        "while True: threading.Thread(target=wait, daemon=True).start()",
    ),
    # processes
    "fork bomb": ("died", "import os\nwhile True: os.fork()"),
    "another program": ("died", "import os; os.execv('/usr/bin/printf', ['printf', '42'])"),
    "processes in every way": (
        "wrong",
        attempts(
            "for act in (os.fork, os.forkpty, os.setsid, os.setpgrp): attempt(act)\n"
            "for name in ('fork', 'vfork', 'setsid'): attempt(call, name)\n"
            "for flags in (0, 17, 0x4111, 0x10000000, 0x20000000 | 17): attempt(call, 'syscall', 56, flags, 0, 0, 0, 0)\n"
            "attempt(call, 'syscall', 435, struct.pack('11Q', 0, *[0] * 3, 17, *[0] * 6), 88)\n"
            "attempt(subprocess.run, ['/usr/bin/env'])\nattempt(subprocess.Popen, 'env', 0, None)\n"
            "attempt(os.posix_spawn, '/usr/bin/env', ['env'], {})\nattempt(os.execv, '/usr/bin/env', ['env'])\n"
            "attempt(threading.Thread(target=os.fork).run)\n"
            "if os.system('exit 0') == 0: escapes.append('system')"
        ),
    ),
    "fork by the call of 32 bits": (
        "died",
        "import ctypes, mmap\ncode = mmap.mmap(-1, 4096, prot=7)\ncode.write(b'\\xb8\\x02\\0\\0\\0\\xcd\\x80\\xc3')\n"
        "call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))\n"
        "print(42 if call() >= 0 else 41)\nimport os; os.abort()",
    ),
    "daemon": (
        "died",
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: time.sleep(600)\nprint(42)",
    ),
    "multiprocessing": ("died", "import multiprocessing\nmultiprocessing.Process(target=print, args=(42,)).start()"),
    # the host
    "files of the host": (
        "wrong",
        attempts(
            "for path in ('/etc/passwd', '/etc/hostname', '/proc/self/environ', '/proc/1/cmdline', '/proc/meminfo',\n"
            f"    '/sys/kernel/mm', '/dev/mem', '/dev/kmsg', '/dev/tty', '/var/log/wtmp', '/root/.ssh', {__file__!r}):\n"
            "    attempt(open, path)\n    attempt(open, '/tmp/../..' + path)\n"
            "    name = '/tmp/link' + path.replace('/', '_')\n    os.symlink(path, name)\n    attempt(open, name)\n"
            "for path in ('/var/lib', '/proc/1', '/sys/class', '/etc', '/run'): attempt(os.listdir, path)"
        ),
    ),
    "writing on the host": (
        "wrong",
        attempts(
            "for folder in ('/', '/usr', '/usr/lib', '/etc', '/dev', '/dev/shm', '/var/tmp', '/run', '/root', '/home',\n"
            "    sys.prefix, os.path.dirname(os.__file__), os.path.dirname(sys.executable)):\n"
            "    attempt(write, folder + '/gbpo-hostile')\n    attempt(os.mkdir, folder + '/gbpo-hostile')\n"
            "    attempt(os.symlink, '/tmp', folder + '/gbpo-hostile')\n"
            "    attempt(os.mknod, folder + '/gbpo-hostile', 0o600)\n"
            "for path in ('/usr/bin/env', sys.executable, os.__file__, '/dev/null'):\n"
            "    attempt(os.chmod, path, 0o777)\n    attempt(os.chown, path, os.getuid(), os.getgid())\n"
            "    attempt(os.link, path, '/tmp/hard')\n    attempt(os.unlink, path)\n"
            "    attempt(os.rename, path, path + '.old')\n    attempt(os.truncate, path, 0)"
        ),
    ),
    "network": (
        "wrong",
        attempts(
            "for family in range(46):\n    for kind in (1, 2, 3, 5): attempt(socket.socket, family, kind)\n"
            "for family in (2, 10, 16): attempt(socket.socketpair, family)\n"
            "pair = socket.socketpair()\nattempt(pair[0].connect, '\\0x')\nattempt(pair[0].bind, '/tmp/socket')\n"
            "attempt(pair[0].sendto, b'x', '/dev/log')\n"
            "attempt(socket.create_connection, ('127.0.0.1', 22), 1)\nattempt(socket.getaddrinfo, 'example.org', 80)"
        ),
    ),
    "privileges": (
        "wrong",
        attempts(
            "for name in ('setuid', 'setgid', 'seteuid', 'setegid'): attempt(call, name, 0)\n"
            "attempt(os.setgroups, [0])\nattempt(os.setresuid, 0, 0, 0)\nattempt(os.nice, -1)\nattempt(os.chroot, '/tmp')\n"
            "attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))\n"
            "attempt(call, 'capset', struct.pack('Ii', 0x20080522, 0), struct.pack('6I', *[2**32 - 1] * 6))\n"
            "attempt(os.mknod, '/tmp/disk', 0o60600, os.makedev(8, 0))\nattempt(call, 'iopl', 3)\n"
            "attempt(call, 'prctl', 24, 0, 0, 0, 0)\nattempt(call, 'prctl', 47, 2, 21, 0, 0)\n"
            "attempt(call, 'prctl', 38, 0, 0, 0, 0)\nattempt(call, 'prctl', 35, 1, 4096, 0, 0)"
        ),
    ),
    "namespaces and mounts": (
        "wrong",
        attempts(
            "for bit in range(32):\n    if 0x7e020080 >> bit & 1: attempt(call, 'unshare', 1 << bit)\n"
            "attempt(call, 'mount', b'tmpfs', b'/tmp', b'tmpfs', 0, 0)\nattempt(call, 'mount', b'/', b'/tmp', 0, 4096, 0)\n"
            "attempt(call, 'mount', 0, b'/', 0, 4128, 0)\nattempt(call, 'umount2', b'/tmp', 2)\n"
            "attempt(call, 'setns', 0, 0)\nattempt(call, 'syscall', 428, -100, b'/', 1)\n"
            "attempt(call, 'syscall', 430, b'tmpfs', 0)"
        ),
    ),
    "limits raised": (
        "wrong",
        attempts(
            "for name in ('AS', 'CPU', 'NPROC', 'FSIZE', 'NOFILE', 'CORE', 'STACK'):\n"
            "    kind = getattr(resource, 'RLIMIT_' + name)\n    soft, hard = resource.getrlimit(kind)\n"
            "    if hard < 0: escapes.append(name)\n"
            "    for limits in ((-1, -1), (soft, -1), (hard + 1, hard + 1), (hard + 1, hard)):\n"
            "        attempt(resource.setrlimit, kind, limits)\n        attempt(resource.prlimit, 0, kind, limits)"
        ),
    ),
    "a filter of its own that allows all": (
        "wrong",
        attempts(
            "class Program(ctypes.Structure): _fields_ = [('n', ctypes.c_ushort), ('code', ctypes.c_char_p)]\n"
            "for verdict in (0x7fff0000, 0x7ffc0000):\n"
            "    program = Program(1, struct.pack('HBBI', 6, 0, 0, verdict))\n"
            "    libc.prctl(22, 2, ctypes.byref(program), 0, 0)\n"
            "attempt(os.fork)\nattempt(socket.socket)\nattempt(call, 'unshare', 0x10000000)\n"
            "attempt(call, 'prctl', 22, 0, 0, 0, 0)"
        ),
    ),
    "a filter of its own that asks itself": (
        "timeout",
        "import ctypes, struct\nlibc = ctypes.CDLL(None)\n"
        "class Program(ctypes.Structure): _fields_ = [('n', ctypes.c_ushort), ('code', ctypes.c_char_p)]\n"
        "libc.syscall(317, 1, 8, ctypes.byref(Program(1, struct.pack('HBBI', 6, 0, 0, 0x7fc00000))))\nprint(42)",
    ),
    "kernel": (
        "wrong",
        attempts(
            "for number in (425, 321, 298, 323, 250, 248, 135, 303, 304, 154): attempt(call, 'syscall', number, *[0] * 6)\n"
            "attempt(call, 'syscall', 425, 1, bytes(256))\nattempt(call, 'syscall', 323, 0)"
        ),
    ),
    # the parser and the interpreter
    "parentheses": ("died", "print(" + "(" * 10**5 + "42" + ")" * 10**5 + ")"),
    "minus signs": ("died", "print(" + "-" * 10**6 + "42)"),
    "attributes": ("died", "print(42" + ".real" * 10**6 + ")"),
    "a number too long": ("died", "print(" + "4" * 10**6 + ")"),
    "NUL in the program": ("died", "print(42)\0"),
    "surrogate in the program": ("died", "print('\ud800')"),
    "surrogate in the output": ("died", "print('\\ud800')"),
    "indentation": ("died", "".join(" " * n + "if 1:\n" for n in range(200)) + " " * 200 + "print(42)"),
    "no Python": ("died", "The answer is 42."),
    "an empty block": ("wrong", "```\nprint(42)"),
    "null pointer": ("died", "import ctypes; print(42, flush=True); ctypes.string_at(0)"),
    "stack": ("died", "import sys; sys.setrecursionlimit(10**9)\nclass A:\n    __getitem__ = lambda s, i: s[i]\nA()[0]"),
    "freed reference": ("died", "import ctypes; ctypes.pythonapi.Py_DecRef.argtypes = ()\nimport os; os.abort()"),
    "recursion": ("died", "def f(): f()\nf()"),
    "threading replaced": ("died", "import sys; sys.modules['threading'] = 1; print(42)"),
    "more input than there is": ("died", "while True: input()"),
    "modules that are not there": ("died", "import numpy; print(42)"),
    # files in /tmp
    "files without number": (
        "died",
        "import os\nn = 0\nwhile True:\n    os.close(os.open(f'/tmp/{n}', 66))\n    n += 1",
    ),
    "folders without bottom": (
        "wrong",
        "import os\ntry:\n    for _ in range(1200):\n        os.mkdir('d')\n        os.chdir('d')\nexcept OSError: pass",
    ),
    "folders that nobody may enter": (
        "wrong",
        "import os\nos.makedirs('/tmp/a/b')\nos.mkfifo('/tmp/a/fifo')\nopen('/tmp/a/\\n -rf', 'w')\n"
        "os.chmod('/tmp/a/b', 0)\nos.chmod('/tmp/a', 0)",
    ),
}

# Return 42 to be paid; each is a whole program.
CALL = {
    "nothing": ("wrong", "def f(a, b): pass"),
    "no function": ("died", "x = 42"),
    "no function, and a value": ("died", "f = 42"),
    "exit at import": ("wrong", "import sys; sys.exit(0)"),
    "exit in the call": ("wrong", "import sys\ndef f(a, b): sys.exit(0)"),
    "end in the call": ("wrong", "import os\ndef f(a, b): os._exit(0)"),
    "exception": ("died", "def f(a, b): raise KeyError"),
    "printed": ("wrong", "def f(a, b): print(42)"),
    "a text": ("wrong", "def f(a, b): return '42'"),
    "a list of it": ("wrong", "def f(a, b): return [42]"),
    "all equal": ("wrong", "class Same(int):\n    __eq__ = lambda *a: True\n    __hash__ = lambda *a: 42\nf = lambda a, b: Same(41)"),
    "all equal, of no type": ("wrong", "class Same:\n    __eq__ = lambda *a: True\nf = lambda a, b: Same()"),
    "a liar about its class": (
        "wrong",
        "class Liar:\n    __class__ = property(lambda self: int)\n    __index__ = __int__ = lambda self: 42\nf = lambda a, b: Liar()",
    ),
    "a liar about its ancestors": (
        "wrong",
        "class Meta(type):\n    __mro__ = property(lambda cls: (int, object))\nclass Liar(metaclass=Meta): pass\nf = lambda a, b: Liar()",
    ),
    "a class for a function": ("wrong", "class f(int):\n    def __new__(cls, a, b): return int.__new__(cls, 41)"),
    "a module that has everything": ("wrong", "def __getattr__(name): return lambda *a, **k: True"),
    "a Solution that has everything": (
        "wrong",
        "class Solution:\n    def __getattr__(self, name): return lambda *a, **k: 41",
    ),
    "a generator": ("wrong", "def f(a, b): yield 42"),
    "a list that holds itself": ("wrong", "def f(a, b):\n    x = []\n    x.append(x)\n    return x"),
    "a deep list": ("wrong", "def f(a, b):\n    x = 42\n    for _ in range(10**5): x = [x]\n    return x"),
    "a large list": ("died", "def f(a, b): return [42] * 1_200_000"),
    "a large number": ("wrong", "def f(a, b): return 10**2_000_000"),
    "a number too large to send": ("died", "def f(a, b): return 1 << 10**8"),
    "not a number": ("wrong", "def f(a, b): return float('nan')"),
    "colliding values": ("wrong", "def f(a, b): return {n * (2**61 - 1) for n in range(5000)}"),
    # the way out
    "result line": ("wrong", f"import os\nos.write(3, b'''{FORGED}\\n''')\nos._exit(0)"),
    **{
        f"way out: {name}": ("wrong", f"import os\nos.write(3, {text})\nos._exit(0)")
        for name, text in {
            "a number": "b'42'",
            "null": "b'null'",
            "true": "b'true'",
            "a text": "b'\"42\"'",
            "a set": "b'{\"set\": [42]}'",
            "two values": "b'[42, 42]'",
            "no value": "b'[]'",
            "a float": "b'[42.0]'",
            "NaN": "b'[NaN]'",
            "no UTF-8": "b'[\\xff]'",
            "other words": "b'[42]\\nready\\n[42]'",
            "deep": "b'[' * 60000",
            "unhashable": "b'[{\"set\": [[1]]}]'",
            "unknown": "b'[{\"object\": 42}]'",
            "a long number": "b'[' + b'4' * 60000 + b']'",
        }.items()
    },
    "way out: collisions": (
        "wrong",
        "import json, os\nitems = [{'int': hex(n * (2**61 - 1))} for n in range(1, 30000)]\n"
        "view = json.dumps([{'set': items}]).encode()\nwhile view: view = view[os.write(3, view):]\nos._exit(0)",
    ),
    "way out: too much": ("died", "import os\nwhile True: os.write(3, b'[42]' * 10000)"),
    "way out: closed": ("died", "import os; os.close(3)\ndef f(a, b): return 42"),
    "way out: turned": ("wrong", "import os; os.dup2(os.open('/dev/null', 1), 3)\ndef f(a, b): return 42"),
    # the runner's own code, in this process
    "encode replaced": (
        "wrong",
        "import sys\nframe = sys._getframe()\nwhile frame:\n    frame.f_globals['encode'] = lambda values: '[41]'\n"
        "    frame = frame.f_back\nf = lambda a, b: 42",
    ),
    "runner replaced": (
        "wrong",
        "import sys\nframe = sys._getframe()\nwhile frame:\n"
        "    for name in ('_answer', '_write', '_call', 'decode', '_tagged'): frame.f_globals[name] = lambda *a, **k: None\n"
        "    frame = frame.f_back\nf = lambda a, b: 42",
    ),
    "builtins replaced": (
        "died",
        "import builtins\ndef f(a, b):\n    builtins.isinstance = builtins.getattr = builtins.type = lambda *a: True\n"
        "    builtins.len = lambda x: 42\n    return 41",
    ),
    "json replaced": (
        "died",
        "import json, sys\njson.dumps = json.loads = lambda *a, **k: 'x'\nsys.modules['json'] = None\nf = lambda a, b: 42",
    ),
    "traced": (
        "died",
        "import sys\ndef look(frame, event, value):\n    for name in frame.f_locals: frame.f_locals[name] = 42\n"
        "    return look\nsys.settrace(look)\nf = lambda a, b: 41",
    ),
    "arguments changed": ("wrong", "def f(a, b): raise SystemExit(f.__defaults__)"),
    "sleep": ("timeout", "import time\ndef f(a, b): time.sleep(10**6)"),
    "killed runner": ("died", "import os\ndef f(a, b):\n    os.kill(os.getppid(), 9)\n    return 42"),
}

ASSERT = {
    "nothing": ("wrong", "def f(a, b): pass"),
    "all equal": CALL["all equal"],
    "all equal, of no type": CALL["all equal, of no type"],
    "assertions off": ("wrong", "import sys\nsys.flags = None\n__debug__ if True else 0\ndef f(a, b): return 41"),
    "exit": ("wrong", "raise SystemExit"),
    "way out: a number": ("wrong", "import os\nos.write(3, b'42')\nos._exit(0)"),
    "way out: deep": ("wrong", "import os\nos.write(3, b'[' * 900 + b']' * 900)\nos._exit(0)"),
    "way out: two values": ("wrong", "import os\nos.write(3, b'[42, 42]')\nos._exit(0)"),
    "a large number": ("wrong", "def f(a, b): return 10**10000"),
}

# Prints what it finds of the answer, of which it knows the beginning: in its objects, its frames, its memory.
HUNT = r"""
import ctypes, gc, os, re, sys
begin = "the answer" + " is "
pattern = re.compile((begin + "[0-9 ]+").encode())
found = set()
def look(text):
    found.update(pattern.findall(text if isinstance(text, bytes) else str(text).encode("utf-8", "replace")))
frame = sys._getframe()
while frame:
    look([frame.f_locals, frame.f_globals])
    frame = frame.f_back
look([dict(os.environ), sys.argv, sys.orig_argv, open(0).read()])
for thing in gc.get_objects():
    try:
        look(gc.get_referents(thing))
    except Exception:
        pass
libc = ctypes.CDLL(None)
libc.sbrk.restype = ctypes.c_void_p
page, resident = 4096, ctypes.create_string_buffer(1)
def scan(start, pages):
    for address in range(start // page * page, start // page * page + pages * page, page):
        if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(page), resident) == 0:
            look(ctypes.string_at(address, page))
heap = libc.sbrk(0)
scan(heap - 3000 * page, 3000)
for thing in (found, begin, sys, None, gc.get_objects()[0], gc.get_objects()[-1], resident):
    scan(id(thing) - 500 * page, 1000)
for folder in ("/tmp", "/dev", "/"):
    for name in os.listdir(folder):
        try:
            look(open(os.path.join(folder, name), "rb").read(10**6))
        except OSError:
            pass
print(*(text.decode() for text in found if text.strip() != begin.strip().encode()) or ["nothing"])
"""

STDIN_TESTS = {"type": "stdin", "cases": [{"input": "6 7\n", "output": f"{ANSWER}\n"}] * 2}
CALL_TESTS = {"type": "call", "fn_name": "f", "cases": [{"args": [6, 7], "expected": int(ANSWER)}]}
ASSERT_TESTS = f"assert f(6, 7) == {ANSWER}"
HUNTED = {"type": "stdin", "cases": [{"input": "", "output": SECRET}]}

PROGRAMS = {
    **{f"stdin: {name}": (*case, STDIN_TESTS) for name, case in STDIN.items()},
    **{f"call: {name}": (*case, CALL_TESTS) for name, case in CALL.items()},
    **{f"assert: {name}": (*case, ASSERT_TESTS) for name, case in ASSERT.items()},
    "stdin: hunt": ("wrong", HUNT, HUNTED),
    "call: hunt": ("wrong", f"def f():\n    exec({HUNT!r}, {{}})", {**CALL_TESTS, "cases": [{"args": [], "expected": SECRET}]}),
    "assert: hunt": ("wrong", f"def f():\n    exec({HUNT!r}, {{}})", f"assert f() == {SECRET!r}"),
}

if __name__ == "__main__":
    backend = sys.argv[2]
    missing = ("user",) if os.geteuid()==0 and backend=="sandlock" else ()
    reward = Code(sandbox=backend, seconds=1, total_seconds=8, workers=4, allow_missing=missing)
    names = [n for n in PROGRAMS if len(sys.argv) < 4 or sys.argv[3] in n]
    t = time.time()
    got = reward.grade([f"```python\n{PROGRAMS[n][1]}\n```" for n in names], [PROGRAMS[n][2] for n in names])
    for n, (s, _) in zip(names, got):
        if s != PROGRAMS[n][0] or len(sys.argv) > 3: print(n, "expected", PROGRAMS[n][0], "got", s)
    print(len(names), time.time() - t)
