"""System-call filters of the box, compiled to BPF programs by libseccomp."""

from __future__ import annotations

import errno
import functools
import os

_CLONE_THREAD = 0x00010000
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS, CGROUP, UTS, IPC, USER, PID, NET}
_AF_UNIX = 1
_PR_SET_PDEATHSIG = 1
_INT = 0xFFFFFFFF  # the kernel reads only these bits of an int argument

# Denied in the whole box. A program that reads, computes and writes needs none of these.
_NEVER = """
    socket connect bind listen accept accept4 sendmsg sendmmsg
    ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_getfd
    unshare setns mount umount2 pivot_root chroot move_mount open_tree fsopen fsmount fsconfig fspick mount_setattr
    io_uring_setup io_uring_enter io_uring_register
    bpf perf_event_open userfaultfd keyctl add_key request_key
    init_module finit_module delete_module kexec_load kexec_file_load reboot swapon swapoff acct syslog
    shmget shmat shmctl semget semop semctl msgget msgsnd msgrcv msgctl mq_open
    name_to_handle_at open_by_handle_at fanotify_init inotify_init inotify_init1 quotactl
    iopl ioperm modify_ldt personality vhangup nfsservctl lookup_dcookie
    clock_settime settimeofday adjtimex clock_adjtime sethostname setdomainname
    setxattr lsetxattr fsetxattr setxattrat
"""
# Also denied in each test. The memory limit applies to each process, so a test must stay a single process.
_NO_NEW_PROCESS = "fork vfork execve execveat memfd_create memfd_secret setsid setpgid"


@functools.cache
def box_filter() -> bytes:
    """The filter of the whole box, as BPF instructions: no sockets, tracing, namespaces, mounts or io_uring.

    Raises:
        ImportError: pyseccomp or the library libseccomp is missing.
    """
    return _compiled(_NEVER)


@functools.cache
def test_filter() -> bytes:
    """The filter of each test, as BPF instructions: no new process and no other program. Threads are allowed.

    Raises:
        ImportError: pyseccomp or the library libseccomp is missing.
    """
    return _compiled(_NO_NEW_PROCESS, threads_only=True)


def _compiled(names: str, threads_only: bool = False) -> bytes:
    try:
        import pyseccomp
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"the system-call filter needs pyseccomp and the library libseccomp ({error}): pip install pyseccomp, "
            "and apt install libseccomp2"
        ) from None
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    denied = pyseccomp.ERRNO(errno.EPERM)
    for name in names.split():
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        if number >= 0:  # this architecture has the system call
            rules.add_rule(denied, name)
    # The flags of clone3 are in memory, which a filter cannot read. Without clone3 the C library uses clone.
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    if threads_only:
        rules.add_rule(denied, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0))
        # The test process must die with the runner.
        rules.add_rule(denied, "prctl", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _INT, _PR_SET_PDEATHSIG))
    else:
        for bit in range(32):
            if _NEW_NAMESPACES >> bit & 1:
                rules.add_rule(denied, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, 1 << bit, 1 << bit))
        # asyncio needs a socket pair, and sends from one socket to the other without an address.
        rules.add_rule(denied, "socketpair", pyseccomp.Arg(0, pyseccomp.NE, _AF_UNIX))
        rules.add_rule(denied, "sendto", pyseccomp.Arg(4, pyseccomp.NE, 0))
    with os.fdopen(os.memfd_create("filter"), "r+b") as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
