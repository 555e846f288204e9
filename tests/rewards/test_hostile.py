r"""Hostile programs and answers: none of them may get a reward, escape the sandbox, or stop the grader.

A program that escapes prints the correct answer, so an escape has the status `ok`. The cases run in a separate process,
once as root and once as nobody. As a script, this file prints the statuses of all cases as JSON:

    python tests/rewards/test_hostile.py code bubblewrap
"""

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
import uuid
from multiprocessing import resource_tracker
from pathlib import Path

import pytest

from rewards.programs.reward import Code
from rewards.programs.sandbox import backends

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox needs Linux")

SECRET = "the answer is 8128 28496 33550336"  # no program can know or guess it
ANSWER = "42"  # what a program prints or returns if it escapes

# A program that tries several ways to escape, and prints whether one succeeded.
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
    # output and exit code
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
    "a hundred thousand writes": ("wrong", "import os\nfor _ in range(10**5): os.write(1, b'x')"),
    "the answer, then exit code 1": ("died", "import sys; print(42); sys.exit(1)"),
    "the answer, then a text": ("died", "import sys; print(42); sys.exit('no')"),
    "the answer, then an exception": ("died", "print(42); raise ValueError"),
    "the answer, then abort": ("died", "import os; print(42, flush=True); os.abort()"),
    "the answer, then no end": ("timeout", "print(42, flush=True)\nwhile True: pass"),
    "an exit code that lies": (
        "died",
        r"""
class Zero:
    __class__ = property(lambda self: int)
print(42)
raise SystemExit(Zero())
""",
    ),
    "an answer at exit": ("wrong", "import atexit; atexit.register(print, 43); print(42)"),
    # forged results
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
        r"""
import os, resource
print(42, flush=True)
resource.prlimit(os.getppid(), resource.RLIMIT_FSIZE, (0, 0))
resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))
os.abort()
""",
    ),
    "trace the runner": (
        "wrong",
        attempts(
            "attempt(call, 'ptrace', 16, os.getppid(), 0, 0)\nattempt(call, 'ptrace', 0x4206, os.getppid(), 0, 0)"
        ),
    ),
    "memory of the runner": (
        "wrong",
        attempts(r"""
part = (ctypes.c_void_p * 2)(id(attempt), 8)
for name in ('process_vm_readv', 'process_vm_writev'):
    attempt(call, name, os.getppid(), part, 1, part, 1, 0)
attempt(open, f'/proc/{os.getppid()}/mem')
"""),
    ),
    "descriptors of the runner": (
        "wrong",
        attempts("fd = os.pidfd_open(os.getppid())\nfor n in range(8): attempt(call, 'syscall', 438, fd, n, 0)"),
    ),
    "outlive the runner": (
        "died",
        r"""
import ctypes, os, time
ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
ctypes.CDLL(None).prctl(1 + (1 << 32), 0)
os.kill(os.getppid(), 9)
time.sleep(600)
""",
    ),
    "deaf to its parent's death": (
        "wrong",
        attempts(
            "attempt(call, 'prctl', 1, 0, 0, 0, 0)\nattempt(call, 'syscall', 157, ctypes.c_long((1 << 32) + 1), 0)"
        ),
    ),
    # time
    "endless loop": ("timeout", "while True: pass"),
    "deaf to SIGXCPU": (
        "timeout",
        r"""
import signal
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
while True: pass
""",
    ),
    "endless loops in threads": (
        "timeout",
        r"""
import threading
def burn():
    while True: pass
for _ in range(8): threading.Thread(target=burn).start()
""",
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
        attempts(r"""
attempt(mmap.mmap, -1, 2 << 30)
attempt(lambda: bytearray(2 << 30))
attempt(lambda: [mmap.mmap(-1, 64 << 20, flags) for flags in (1, 2) * 16])
attempt(lambda: [mmap.mmap(-1, 64 << 20) for _ in range(20)])
attempt(call, 'memfd_create', b'x', 0)
def file(size):
    with open('/tmp/x', 'wb') as f: f.truncate(size)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
attempt(file, 2 << 30)
def attribute(): os.setxattr('/tmp/x', 'user.x', bytes(1000))
attempt(attribute)
def pipes():
    for _ in range(200): fcntl.fcntl(os.pipe()[1], 1031, 1 << 20)
attempt(pipes)
attempt(call, 'shmget', 0, 1 << 30, 0o1600)
"""),
    ),
    "many threads": (
        "died",
        r"""
import threading
threading.stack_size(32768)
wait = threading.Event().wait
while True: threading.Thread(target=wait, daemon=True).start()
""",
    ),
    # processes
    "fork bomb": ("died", "import os\nwhile True: os.fork()"),
    "another program": ("died", "import os; os.execv('/usr/bin/printf', ['printf', '42'])"),
    "processes in every way": (
        "wrong",
        attempts(r"""
for act in (os.fork, os.forkpty, os.setsid, os.setpgrp): attempt(act)
for name in ('fork', 'vfork', 'setsid'): attempt(call, name)
for flags in (0, 17, 0x4111, 0x10000000, 0x20000000 | 17): attempt(call, 'syscall', 56, flags, 0, 0, 0, 0)
attempt(call, 'syscall', 435, struct.pack('11Q', 0, *[0] * 3, 17, *[0] * 6), 88)
attempt(subprocess.run, ['/usr/bin/env'])
attempt(subprocess.Popen, 'env', 0, None)
attempt(os.posix_spawn, '/usr/bin/env', ['env'], {})
attempt(os.execv, '/usr/bin/env', ['env'])
attempt(threading.Thread(target=os.fork).run)
if os.system('exit 0') == 0: escapes.append('system')
"""),
    ),
    "fork by the call of 32 bits": (
        "died",
        r"""
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=7)
code.write(b'\xb8\x02\0\0\0\xcd\x80\xc3')
call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
print(42 if call() >= 0 else 41)
import os; os.abort()
""",
    ),
    "daemon": (
        "died",
        r"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(600)
print(42)
""",
    ),
    "multiprocessing": ("died", "import multiprocessing\nmultiprocessing.Process(target=print, args=(42,)).start()"),
    # the host
    "files of the host": (
        "wrong",
        attempts(r"""
for path in ('/etc/passwd', '/etc/hostname', '/proc/self/environ', '/proc/1/cmdline', '/proc/meminfo', '/dev/kmsg',
        '/sys/kernel/mm', '/dev/mem', '/dev/tty', '/var/log/wtmp', '/root', THIS_FILE):
    link = '/tmp/link' + path.replace('/', '_')
    os.symlink(path, link)
    for way in (path, '/tmp/../..' + path, link):
        attempt(open, way)
for path in ('/var/lib', '/proc/1', '/sys/class', '/etc', '/run'):
    attempt(os.listdir, path)
""").replace("THIS_FILE", repr(__file__)),
    ),
    "writing on the host": (
        "wrong",
        attempts(r"""
for folder in ('/', '/usr', '/usr/lib', '/etc', '/dev', '/dev/shm', '/var/tmp', '/run', '/root', '/home',
    sys.prefix, os.path.dirname(os.__file__), os.path.dirname(sys.executable)):
    attempt(write, folder + '/gbpo-hostile')
    attempt(os.mkdir, folder + '/gbpo-hostile')
    attempt(os.symlink, '/tmp', folder + '/gbpo-hostile')
    attempt(os.mknod, folder + '/gbpo-hostile', 0o600)
for path in ('/usr/bin/env', sys.executable, os.__file__, '/dev/null'):
    attempt(os.chmod, path, 0o777)
    attempt(os.chown, path, os.getuid(), os.getgid())
    attempt(os.link, path, '/tmp/hard')
    attempt(os.unlink, path)
    attempt(os.rename, path, path + '.old')
    attempt(os.truncate, path, 0)
"""),
    ),
    "network": (
        "wrong",
        attempts(r"""
for family in range(46):
    for kind in (1, 2, 3, 5): attempt(socket.socket, family, kind)
for family in (2, 10, 16): attempt(socket.socketpair, family)
pair = socket.socketpair()
attempt(pair[0].connect, '\0x')
attempt(pair[0].bind, '/tmp/socket')
attempt(pair[0].sendto, b'x', '/dev/log')
attempt(socket.socketpair(type=socket.SOCK_DGRAM)[0].sendto, b'x', '/dev/log')
attempt(socket.socketpair(type=socket.SOCK_DGRAM)[0].sendmsg, [b'x'])
attempt(socket.create_connection, ('127.0.0.1', 22), 1)
attempt(socket.getaddrinfo, 'example.org', 80)
"""),
    ),
    "privileges": (
        "wrong",
        attempts(r"""
for name in ('setuid', 'setgid', 'seteuid', 'setegid'): attempt(call, name, 0)
attempt(os.setgroups, [0])
attempt(os.setresuid, 0, 0, 0)
attempt(os.nice, -1)
attempt(os.chroot, '/tmp')
attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))
attempt(call, 'capset', struct.pack('Ii', 0x20080522, 0), struct.pack('6I', *[2**32 - 1] * 6))
attempt(os.mknod, '/tmp/disk', 0o60600, os.makedev(8, 0))
attempt(call, 'iopl', 3)
attempt(call, 'prctl', 24, 0, 0, 0, 0)
attempt(call, 'prctl', 47, 2, 21, 0, 0)
attempt(call, 'prctl', 38, 0, 0, 0, 0)
attempt(call, 'prctl', 35, 1, 4096, 0, 0)
"""),
    ),
    "namespaces and mounts": (
        "wrong",
        attempts(r"""
for bit in range(32):
    if 0x7e020080 >> bit & 1: attempt(call, 'unshare', 1 << bit)
attempt(call, 'mount', b'tmpfs', b'/tmp', b'tmpfs', 0, 0)
attempt(call, 'mount', b'/', b'/tmp', 0, 4096, 0)
attempt(call, 'mount', 0, b'/', 0, 4128, 0)
attempt(call, 'umount2', b'/tmp', 2)
attempt(call, 'setns', 0, 0)
attempt(call, 'syscall', 428, -100, b'/', 1)
attempt(call, 'syscall', 430, b'tmpfs', 0)
"""),
    ),
    "limits raised": (
        "wrong",
        attempts(r"""
for name in ('AS', 'CPU', 'NPROC', 'FSIZE', 'NOFILE', 'CORE', 'STACK'):
    kind = getattr(resource, 'RLIMIT_' + name)
    soft, hard = resource.getrlimit(kind)
    if hard < 0: escapes.append(name)
    for limits in ((-1, -1), (soft, -1), (hard + 1, hard + 1), (hard + 1, hard)):
        attempt(resource.setrlimit, kind, limits)
        attempt(resource.prlimit, 0, kind, limits)
"""),
    ),
    "a filter of its own that allows all": (
        "wrong",
        attempts(r"""
class Program(ctypes.Structure): _fields_ = [('n', ctypes.c_ushort), ('code', ctypes.c_char_p)]
for verdict in (0x7fff0000, 0x7ffc0000):
    program = Program(1, struct.pack('HBBI', 6, 0, 0, verdict))
    libc.prctl(22, 2, ctypes.byref(program), 0, 0)
attempt(os.fork)
attempt(socket.socket)
attempt(call, 'unshare', 0x10000000)
attempt(call, 'prctl', 22, 0, 0, 0, 0)
"""),
    ),
    "a filter of its own that asks itself": (
        "timeout",
        r"""
import ctypes, struct
libc = ctypes.CDLL(None)
class Program(ctypes.Structure): _fields_ = [('n', ctypes.c_ushort), ('code', ctypes.c_char_p)]
libc.syscall(317, 1, 8, ctypes.byref(Program(1, struct.pack('HBBI', 6, 0, 0, 0x7fc00000))))
while True: pass
""",
    ),
    "kernel": (
        "wrong",
        attempts(r"""
for number in (425, 321, 298, 323, 250, 248, 135, 303, 304, 154): attempt(call, 'syscall', number, *[0] * 6)
attempt(call, 'syscall', 425, 1, bytes(256))
attempt(call, 'syscall', 323, 0)
"""),
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
    "stack": (
        "died",
        r"""
import sys; sys.setrecursionlimit(10**9)
x = []
for _ in range(10**6): x = (x,)
hash(x)
""",
    ),
    "recursion": ("died", "def f(): f()\nf()"),
    "threading replaced": ("died", "import sys; sys.modules['threading'] = 1; print(42)"),
    "more input than there is": ("died", "while True: input()"),
    "modules that are not there": ("died", "import numpy; print(42)"),
    # files in /tmp
    "two gigabytes of files": (
        "wrong",
        attempts(r"""
def files():
    for n in range(1000): open(f'/tmp/{n}', 'wb').write(bytes(2 << 20))
attempt(files)
"""),
    ),
    "files without number": (
        "died",
        r"""
import os
n = 0
while True:
    os.close(os.open(f'/tmp/{n}', 66))
    n += 1
""",
    ),
    "folders without bottom": (
        "wrong",
        r"""
import os
try:
    for _ in range(1200):
        os.mkdir('d')
        os.chdir('d')
except OSError: pass
""",
    ),
    "folders that nobody may enter": (
        "wrong",
        r"""
import os
os.makedirs('/tmp/a/b')
os.mkfifo('/tmp/a/fifo')
open('/tmp/a/\n -rf', 'w')
os.chmod('/tmp/a/b', 0)
os.chmod('/tmp/a', 0)
import time; time.sleep(0.5)
""",
    ),
}

# Whole programs. A program that returns 42 passes the test.
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
    "all equal": (
        "wrong",
        r"""
class Same(int):
    __eq__ = lambda *a: True
    __hash__ = lambda *a: 42
f = lambda a, b: Same(41)
""",
    ),
    "all equal, of no type": (
        "wrong",
        r"""
class Same:
    __eq__ = lambda *a: True
f = lambda a, b: Same()
""",
    ),
    "a liar about its class": (
        "wrong",
        r"""
class Liar:
    __class__ = property(lambda self: int)
    __index__ = __int__ = lambda self: 42
f = lambda a, b: Liar()
""",
    ),
    "a liar about its ancestors": (
        "wrong",
        r"""
class Meta(type):
    __mro__ = property(lambda cls: (int, object))
class Liar(metaclass=Meta): pass
f = lambda a, b: Liar()
""",
    ),
    "a class for a function": ("wrong", "class f(int):\n    def __new__(cls, a, b): return int.__new__(cls, 41)"),
    "a module that has everything": ("wrong", "def __getattr__(name): return lambda *a, **k: True"),
    "a Solution that has everything": (
        "wrong",
        "class Solution:\n    def __getattr__(self, name): return lambda *a, **k: 41",
    ),
    "a generator": ("wrong", "def f(a, b): yield 42"),
    "a list that holds itself": (
        "wrong",
        r"""
def f(a, b):
    x = []
    x.append(x)
    return x
""",
    ),
    "a deep list": (
        "wrong",
        r"""
def f(a, b):
    x = 42
    for _ in range(10**5): x = [x]
    return x
""",
    ),
    "a large list": ("died", "def f(a, b): return [42] * 1_200_000"),
    "a large number": ("wrong", "def f(a, b): return 10**2_000_000"),
    "a number too large to send": ("died", "def f(a, b): return 1 << 10**8"),
    "not a number": ("wrong", "def f(a, b): return float('nan')"),
    "colliding values": ("wrong", "def f(a, b): return {n * (2**61 - 1) for n in range(5000)}"),
    # forged results
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
        r"""
import json, os
items = [{'int': hex(n * (2**61 - 1))} for n in range(1, 30000)]
view = json.dumps([{'set': items}]).encode()
while view: view = view[os.write(3, view):]
os._exit(0)
""",
    ),
    "way out: too much": ("died", "import os\nwhile True: os.write(3, b'[42]' * 10000)"),
    "way out: closed": ("died", "import os; os.close(3)\ndef f(a, b): return 42"),
    "way out: turned": ("wrong", "import os; os.dup2(os.open('/dev/null', 1), 3)\ndef f(a, b): return 42"),
    # changes to the runner's code in the process of the test
    "encode replaced": (
        "wrong",
        r"""
import sys
frame = sys._getframe()
while frame:
    frame.f_globals['encode'] = lambda values: '[41]'
    frame = frame.f_back
f = lambda a, b: 42
""",
    ),
    "runner replaced": (
        "wrong",
        r"""
import sys
frame = sys._getframe()
while frame:
    for name in ('_answer', '_write', '_call', 'decode', '_tagged'): frame.f_globals[name] = lambda *a, **k: None
    frame = frame.f_back
f = lambda a, b: 42
""",
    ),
    "builtins replaced": (
        "died",
        r"""
import builtins
def f(a, b):
    builtins.isinstance = builtins.getattr = builtins.type = lambda *a: True
    builtins.len = lambda x: 42
    return 41
""",
    ),
    "json replaced": (
        "died",
        r"""
import json, sys
json.dumps = json.loads = lambda *a, **k: 'x'
sys.modules['json'] = None
f = lambda a, b: 42
""",
    ),
    "traced": (
        "died",
        r"""
import sys
def look(frame, event, value):
    for name in frame.f_locals: frame.f_locals[name] = 42
    return look
sys.settrace(look)
f = lambda a, b: 41
""",
    ),
    "sleep": ("timeout", "import time\ndef f(a, b): time.sleep(10**6)"),
    "killed runner": (
        "died",
        r"""
import os
def f(a, b):
    os.kill(os.getppid(), 9)
    return 42
""",
    ),
}

ASSERT = {
    "nothing": ("wrong", "def f(a, b): pass"),
    "all equal": CALL["all equal"],
    "all equal, of no type": CALL["all equal, of no type"],
    "assertions off": (
        "wrong",
        r"""
import sys
sys.flags = None
__debug__ if True else 0
def f(a, b): return 41
""",
    ),
    "exit": ("wrong", "raise SystemExit"),
    "way out: a number": (
        "wrong",
        r"""
import os
os.write(3, b'42')
os._exit(0)
""",
    ),
    "way out: deep": (
        "wrong",
        r"""
import os
os.write(3, b'[' * 900 + b']' * 900)
os._exit(0)
""",
    ),
    "way out: two values": (
        "wrong",
        r"""
import os
os.write(3, b'[42, 42]')
os._exit(0)
""",
    ),
    "a large number": ("wrong", "def f(a, b): return 10**10000"),
}

# Searches objects, frames, files and memory for the answer, whose beginning it knows.
HUNT = r"""
import ctypes, gc, os, re, sys
def hunt():
    begin = "the answer" + " is "
    pattern = re.compile((begin + "[0-9 ]+[0-9]").encode())
    found = set()
    def look(text):
        found.update(pattern.findall(text if isinstance(text, bytes) else str(text).encode("utf-8", "replace")))
    frame = sys._getframe()
    while frame:
        look([frame.f_locals, frame.f_globals])
        frame = frame.f_back
    look([dict(os.environ), sys.argv, sys.orig_argv])
    for thing in gc.get_objects():
        try:
            look(gc.get_referents(thing))
        except Exception:
            pass
    for folder in ("/tmp", "/dev", "/"):
        for name in os.listdir(folder):
            try:
                look(open(os.path.join(folder, name), "rb").read(10**6))
            except OSError:
                pass
    libc, page = ctypes.CDLL(None), 4096
    libc.sbrk.restype = ctypes.c_void_p
    out, into = os.pipe()
    def scan(start, pages):  # write() fails for addresses that are not mapped
        for address in range(start // page * page, (start // page + pages) * page, page):
            if libc.write(into, ctypes.c_void_p(address), ctypes.c_size_t(page)) == page:
                look(os.read(out, page))
    scan(libc.sbrk(0) - 3000 * page, 3000)
    for thing in (found, begin, sys, None, hunt, gc.get_objects()[-1], libc):
        scan(id(thing) - 500 * page, 1000)
    return max(found, key=len, default=b"nothing").decode()
"""

# Honest programs, which must pass: a box that stops everything would fail here.
HONEST = {
    "arithmetic": "a, b = map(int, input().split())\nprint(a * b)",
    "asyncio": """
import asyncio
async def main(): print(await asyncio.to_thread(int, 42))
asyncio.run(main())
""",
    "folders": """
import os, shutil
os.makedirs('/tmp/a/b/c')
for n in range(100): open(f'/tmp/a/b/{n}', 'w').write('42')
os.rename('/tmp/a/b', '/tmp/d')
print(open('/tmp/d/7').read())
shutil.rmtree('/tmp/d')
os.rmdir('/tmp/a')
""",
    "threads": """
import threading
threads = [threading.Thread(target=list.append, args=([], n)) for n in range(50)]
for thread in threads: thread.start()
for thread in threads: thread.join()
threading.Thread(target=print, args=(42,)).start()
""",
    "recursion": """
import functools, sys
sys.setrecursionlimit(10**6)
@functools.cache
def down(n): return n and down(n - 1)
print(42 + down(20_000))
""",
    "processes asked about": "import os\nprint(os.getpid() * 0 + os.cpu_count() * 0 + 42)",
}

STDIN_TESTS = {"type": "stdin", "cases": [{"input": "6 7\n", "output": f"{ANSWER}\n"}] * 2}
CALL_TESTS = {"type": "call", "fn_name": "f", "cases": [{"args": [6, 7], "expected": int(ANSWER)}]}
ASSERT_TESTS = f"assert f(6, 7) == {ANSWER}"
HUNTED = {"type": "stdin", "cases": [{"input": "", "output": SECRET}]}
FOUND = {"input": SECRET, "output": SECRET}

PROGRAMS = {
    **{f"stdin: {name}": (*case, STDIN_TESTS) for name, case in STDIN.items()},
    **{f"call: {name}": (*case, CALL_TESTS) for name, case in CALL.items()},
    **{f"assert: {name}": (*case, ASSERT_TESTS) for name, case in ASSERT.items()},
    **{f"honest: {name}": ("ok", program, STDIN_TESTS) for name, program in HONEST.items()},
    "stdin: hunt": ("wrong", f"{HUNT}\nprint(hunt())", HUNTED),
    "call: hunt": ("wrong", f"{HUNT}\nf = hunt", CALL_TESTS | {"cases": [{"args": [], "expected": SECRET}]}),
    "assert: hunt": ("wrong", f"{HUNT}\nf = hunt", f"assert f() == {SECRET!r}"),
    # the search works: it finds the input of another test
    "hunt of an input": ("ok", f"{HUNT}\nprint(hunt())", HUNTED | {"cases": [*HUNTED["cases"], FOUND]}),
}

SANDLOCK = {  # its /tmp is on the host, so the supervisor ends the box if it is too full
    "stdin: two gigabytes of files": "died",
    "stdin: folders that nobody may enter": "died",
}
MARK = uuid.uuid4().hex  # in the command lines of all boxes
SLOW = "stdin: files without number"  # with sandlock, the time limit may be reached first


def programs(backend):
    """The programs for a backend. What functions return does not depend on the backend, so one backend tests it."""
    both = ("stdin: ", "honest: ", "hunt ")
    return {name: case for name, case in PROGRAMS.items() if backend == "bubblewrap" or name.startswith(both)}


def statuses_of_programs(backend):
    reward = Code(sandbox=backend, seconds=1, total_seconds=8, workers=4)
    cases = programs(backend)
    texts = [f"```python\n{program}\n```" for _, program, _ in cases.values()]
    graded = reward.grade(texts, [tests for _, _, tests in cases.values()])
    return dict(zip(cases, (status for status, _ in graded), strict=True))


def box(answer):
    return rf"\boxed{{{answer}}}"


# The status, the completion and the reference answer. tests/rewards/answers/test_math_answer.py has more cases.
MATHS = {
    # that never end
    "tower of twos": ("timeout", box(r"2^{2^{2^{2^{2^2}}}}"), "4"),
    "factorials": ("timeout", box("((9!)!)!"), "4"),
    "many factorials": ("timeout", box("4" + "!" * 300), "5"),
    "sum": ("wrong", box(r"\sum_{n=1}^{10^9} n^n"), "4"),
    "infinite sum": ("wrong", box(r"\sum_{n=1}^{\infty} \frac{1}{n^n}"), "4"),
    "primes": ("wrong", box("4" + "'" * 300), "5"),
    "a long box": ("unparsed", box("1" * 100_000), "4"),
    "a long box of braces": ("unparsed", box("{" * 100_000 + "}" * 100_000), "4"),
    "a long box of spaces": ("wrong", box(" " * 100_000 + "4"), "5"),
    "brackets": ("unparsed", box(r"\left(" * 60 + "4" + r"\right)" * 60), "5"),
    "signs": ("unparsed", box("-" * 350 + "4"), "5"),
    "dollars": ("unparsed", "$" * 100_001, "4"),
    "a million letters": ("wrong", box("4") + "x" * 10**6, "5"),
    # LaTeX commands
    "macro": ("unparsed", box(r"\newcommand{\x}{\x\x}\x"), "4"),
    "definition": ("unparsed", box(r"\def\x{\x\x}\x"), "4"),
    "input": ("unparsed", box(r"\input{/etc/passwd}"), "4"),
    "shell": ("unparsed", box(r"\write18{touch /tmp/gbpo-hostile}"), "4"),
    "colour": ("unparsed", box(r"\color{white}4"), "4"),
    "link": ("unparsed", box(r"\href{x}{4}"), "4"),
    # Python code that sympy could evaluate
    "import": ("unparsed", box("__import__('os').system('touch /tmp/gbpo-hostile')"), "4"),
    "import as text": ("unparsed", box(r"\text{__import__('os').system('touch /tmp/gbpo-hostile')}"), "4"),
    "lambda": ("wrong", box("lambda: 4"), "4"),
    "exec": ("unparsed", box("exec('x')"), "4"),
    "sympify": ("wrong", box("S('4')"), "4"),
    "eval": ("unparsed", box("eval(4)"), "4"),
    # several answers
    "or": ("wrong", box(r"4 \text{ or } 5"), "4"),
    "or, turned": ("wrong", box(r"5 \text{ or } 4"), "4"),
    "comma": ("wrong", box("4, 5"), "4"),
    "semicolon": ("wrong", box("4;5"), "4"),
    "set": ("wrong", box(r"\{1,2,3,4,5,6\}"), "4"),
    "sign": ("wrong", box(r"\pm 4"), "4"),
    "equality": ("wrong", box("4=5"), "4"),
    "chain of equalities": ("wrong", box("x=4=5"), "4"),
    "element": ("wrong", box(r"x \in \{4,5\}"), "4"),
    "inequality": ("wrong", box(r"4 \leq x"), "4"),
    "all numbers": ("wrong", box(r"\mathbb{R}"), "(1,2)"),
    "all intervals": ("wrong", box(r"(-\infty,\infty)"), "(1,2)"),
    "two boxes": ("wrong", box("4") + box("5"), "4"),
    "two boxes, turned": ("wrong", box("4") + " or " + box("5"), "4"),
    "three boxes": ("wrong", ", ".join(map(box, "345")), "4"),
    "hundreds of boxes": ("wrong", "".join(box(n) for n in range(200)) + box("4"), "5"),
    "nested boxes": ("wrong", box(box("4")), "5"),
    "two final answers": ("wrong", "The final answer is $4$ or $5$.", "4"),
    # no answer
    "the word": ("wrong", box("answer"), "4"),
    "the gold": ("wrong", box(r"\text{gold}"), "4"),
    "the gold's value": ("wrong", box("gold=5"), "4"),
    "a variable": ("wrong", box("x"), "4"),
    "itself": ("wrong", box("x=x"), "4"),
    "true": ("wrong", box("True"), "4"),
    "not a number": ("wrong", box("NaN"), "4"),
    "infinity": ("wrong", box(r"\infty-\infty"), "4"),
    "zero over zero": ("wrong", box("0/0"), "4"),
    "a space": ("unparsed", box(" "), "4"),
    "no text": ("unparsed", box(r"\text{}"), "4"),
    "not closed": ("unparsed", r"\boxed{4", "4"),
    "no braces": ("unparsed", r"\boxed 4", "4"),
    "another box": ("unparsed", r"\fbox{4}", "4"),
    "no box": ("unparsed", "$4$", "4"),
    # characters that look like 4
    "full-width digit": ("ok", box("４"), "4"),
    "arabic digit": ("unparsed", box("٤"), "4"),
    "circled digit": ("wrong", box("④"), "4"),
    "superscript": ("unparsed", box("⁴"), "4"),
    "zero width space": ("ok", box("4\u200b"), "4"),
    "NUL": ("unparsed", box("4\0"), "4"),
    "surrogate": ("unparsed", box("\ud8004"), "4"),
    "terminal escape": ("unparsed", box("\x1b[2K4"), "4"),
    # values close to the reference answer
    "beyond the sixth decimal of an integer": ("wrong", box("4.0000001"), "4"),
    "with a unit": ("wrong", box(r"4\text{ cm}"), "5"),
    "imaginary": ("wrong", box("4i"), "4"),
    "repeated": ("wrong", box(r"\overline{4}"), "4"),
    "inverse": ("wrong", box("1/4"), "4"),
}


def statuses_of_answers():
    from rewards.answers.math_answer import Math

    reward = Math(workers=2)
    statuses = reward.grade([text for _, text, _ in MATHS.values()], [gold for _, _, gold in MATHS.values()])
    reward.close()
    return dict(zip(MATHS, statuses, strict=True))


def resources():
    """The resources of this process, and everything that programs could leave behind."""
    folders = ("/", "/dev", "/etc", "/tmp", "/usr", "/usr/lib", "/var/tmp", tempfile.gettempdir())
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "children": Path(f"/proc/self/task/{os.getpid()}/children").read_text().split(),
        "files": [str(path) for folder in folders for path in Path(folder).glob("gbpo-hostile*")],
        "boxes": os.listdir(tempfile.gettempdir()),
        "processes": box_processes(),
    }


def box_processes(patience=60.0):
    """Processes of this process's boxes that do not end within `patience` seconds. The state says what each waits for.

    A killed process may wait for a slow disk for many seconds before it ends.
    """
    deadline = time.monotonic() + patience
    while True:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # the process has ended
                if MARK.encode() in (folder / "cmdline").read_bytes():
                    found.append({name: (folder / name).read_text()[:100] for name in ("stat", "wchan", "cmdline")})
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def memory_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20


def main(kind, backend=None):
    """Grade all cases of a kind. Print their statuses, and the resources before and after."""
    with tempfile.TemporaryDirectory(prefix="gbpo-test-") as folder:
        os.chmod(folder, 0o711)
        tempfile.tempdir = folder
        backends._SOURCE = f"# {MARK}\n{backends._SOURCE}"
        resource_tracker.ensure_running()  # Python starts it when a process spawns workers
        before, size = resources(), memory_mb()
        statuses = statuses_of_programs(backend) if kind == "code" else statuses_of_answers()
        after, growth = resources(), memory_mb() - size
    report = {"user": os.geteuid(), "statuses": statuses, "before": before, "after": after, "growth": growth}
    print(json.dumps(report))


def check(report, expected, user):
    statuses = report["statuses"]
    assert statuses.keys() == expected.keys()
    # On a machine that stalls for a second, a few other failures may become timeouts.
    late = [name for name in expected if statuses[name] == "timeout" and expected[name] not in ("timeout", "ok")]
    assert len(late) <= 3, late
    assert {**statuses, **{name: expected[name] for name in late}} == expected
    assert report["before"] == report["after"]
    assert report["growth"] < 150  # MiB
    assert (report["user"] == 0) == (user == "root")


@pytest.mark.parametrize("backend", ["bubblewrap", "sandlock"])
def test_no_hostile_program_passes_escapes_or_stays(run_as, backend, skip_if_blocked):
    skip_if_blocked(backend, run_as.user)
    report = run_as(__file__, "code", backend)
    expected = {name: status for name, (status, _, _) in programs(backend).items()}
    if backend == "sandlock":
        expected |= SANDLOCK | {SLOW: "timeout" if report["statuses"][SLOW] == "timeout" else "died"}
    check(report, expected, run_as.user)


def test_no_hostile_answer_is_correct_or_stops_the_grader(run_as):
    check(run_as(__file__, "maths"), {name: status for name, (status, _, _) in MATHS.items()}, run_as.user)


if __name__ == "__main__":
    main(*sys.argv[1:])
