"""System-call filters of the box, compiled by libseccomp to BPF programs."""

from __future__ import annotations

import errno
import functools
import os

_CLONE_THREAD = 0x00010000
_NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS, CGROUP, UTS, IPC, USER, PID, NET}
_AF_UNIX = 1
_PR_SET_PDEATHSIG = 1
_INT = 0xFFFFFFFF  # of such an argument the kernel reads these bits alone

# For the whole box: nothing here has a use in a program that reads, computes and writes.
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
# For each test as well: it stays one process, whose memory limit therefore counts.
_NO_NEW_PROCESS = "fork vfork execve execveat memfd_create memfd_secret setsid setpgid"


@functools.cache
def box_filter() -> bytes:
    """For the whole box: no sockets, tracing, namespaces, mounts, io_uring. BPF instructions.

    Raises:
        ImportError: pyseccomp, or the library libseccomp it loads, is missing.
    """
    return _compiled(_NEVER)


@functools.cache
def test_filter() -> bytes:
    """For the process of one test: no new process and no other program; threads are allowed. BPF instructions.

    Raises:
        ImportError: pyseccomp, or the library libseccomp it loads, is missing.
    """
    return _compiled(_NO_NEW_PROCESS, threads_only=True)


def _compiled(names: str, threads_only: bool = False) -> bytes:
    try:
        import pyseccomp
    except (ImportError, RuntimeError) as error:
        raise ImportError(
            f"the filter of system calls needs pyseccomp and the library libseccomp ({error}): pip install pyseccomp, "
            "and apt install libseccomp2"
        ) from None
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    denied = pyseccomp.ERRNO(errno.EPERM)
    for name in names.split():
        number = pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name)
        if number >= 0:  # this architecture has it
            rules.add_rule(denied, name)
    # its flags lie in memory, where no filter can read them; without it the C library takes clone
    rules.add_rule(pyseccomp.ERRNO(errno.ENOSYS), "clone3")
    if threads_only:
        rules.add_rule(denied, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _CLONE_THREAD, 0))
        # it dies with the runner
        rules.add_rule(denied, "prctl", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, _INT, _PR_SET_PDEATHSIG))
    else:
        for bit in range(32):
            if _NEW_NAMESPACES >> bit & 1:
                rules.add_rule(denied, "clone", pyseccomp.Arg(0, pyseccomp.MASKED_EQ, 1 << bit, 1 << bit))
        # asyncio has a pair of sockets and sends from one to the other, to no address
        rules.add_rule(denied, "socketpair", pyseccomp.Arg(0, pyseccomp.NE, _AF_UNIX))
        rules.add_rule(denied, "sendto", pyseccomp.Arg(4, pyseccomp.NE, 0))
    with os.fdopen(os.memfd_create("filter"), "r+b") as file:
        rules.export_bpf(file)
        file.seek(0)
        return file.read()
