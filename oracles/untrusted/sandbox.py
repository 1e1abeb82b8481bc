"""What keeps a process that runs a stranger's code from everything else: namespaces, Landlock and resource limits.

Linux has all of it, for any user, where user namespaces are allowed. What a system lacks is left out, and
`Protection` says what is there.

- A user namespace of its own, without capabilities; a network without interfaces; mounts of which all are read-only but
  a scratch folder in memory, of limited size; a process namespace: a process sees and signals its descendants alone,
  and they all end with it.
- Landlock: only listed paths can be opened, so neither the reference nor ``/proc`` can be read; no TCP.
- A filter of system calls: no keys, queues, semaphores and shared memory that outlive the process that made them.
- Resource limits on memory, processors' time, processes, open files and the size of files.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import signal
import struct
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from oracles.constants import SCRATCH_MB


class Protection(StrEnum):
    """What a subject is kept from.

    FILES: opening files other than those that it needs.
    WRITES: writing anything but its scratch folder, which is in memory.
    NETWORK: any connection.
    PROCESSES: seeing, signalling and outliving: processes other than its own.
    LIMITS: more memory, time, processes and open files than it was given.
    """

    FILES = "files"
    WRITES = "writes"
    NETWORK = "network"
    PROCESSES = "processes"
    LIMITS = "limits"


@dataclass(frozen=True)
class Limits:
    """What a subject's process may use.

    Attributes:
        memory_mb: memory beyond that of a process that has loaded NumPy and what else the subject needs, in MiB.
        cpu_seconds: processors' time of each process.
        processes: processes and threads.
        files: open files.
    """

    memory_mb: int = 2048
    cpu_seconds: int = 600
    processes: int = 64
    files: int = 256


# From the headers of Linux: linux/sched.h, linux/prctl.h, linux/mount.h, linux/landlock.h, asm-generic/unistd.h.
_NEW_USER, _NEW_MOUNTS, _NEW_NETWORK, _NEW_IPC, _NEW_PIDS = 0x10000000, 0x00020000, 0x40000000, 0x08000000, 0x20000000
_SET_NO_NEW_PRIVILEGES, _SET_PARENT_DEATH_SIGNAL, _SET_DUMPABLE, _SET_CHILD_SUBREAPER = 38, 1, 4, 36
_MOUNT_RECURSIVELY, _MOUNT_PRIVATE = 0x4000, 0x40000
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _READ_ONLY = 442, -100, 0x8000, 0x1
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
# How many kinds of file access each version of Landlock knows, from the first one on.
_FILE_RIGHTS_BY_VERSION = (13, 14, 15, 15, 16)
_NETWORK_VERSION, _SCOPE_VERSION = 4, 6
_CAPABILITY_VERSION = 0x20080522
# linux/keyctl.h, linux/seccomp.h, linux/audit.h, linux/bpf_common.h, and the tables of system calls.
_JOIN_SESSION_KEYRING = 1
_SET_SECCOMP, _SECCOMP_FILTER, _SECCOMP_ALLOW, _SECCOMP_ERRNO = 22, 2, 0x7FFF0000, 0x00050000
_BPF_LOAD_WORD, _BPF_JUMP_EQUAL, _BPF_JUMP_GREATER_OR_EQUAL, _BPF_RETURN = 0x20, 0x15, 0x35, 0x06
_SECCOMP_OFFSET_OF_NUMBER, _SECCOMP_OFFSET_OF_MACHINE = 0, 4
_X32_CALLS = 0x40000000  # the numbers of another interface of the same machine begin here


class _Machine(NamedTuple):
    """A kind of processor: its number in filters, and those of system calls.

    Attributes:
        number: of ``AUDIT_ARCH_…``.
        keyctl: the call that changes keyrings.
        lasting: the calls that make or find what outlives a process: keys, queues, semaphores, shared memory.
    """

    number: int
    keyctl: int
    lasting: tuple[int, ...]


# add_key, request_key, keyctl, shmget, semget, msgget, mq_open
_MACHINES = {
    "x86_64": _Machine(0xC000003E, 250, (248, 249, 250, 29, 64, 68, 240)),
    "aarch64": _Machine(0xC00000B7, 219, (217, 218, 219, 194, 190, 186, 180)),
}
_NOBODY = 65534
MIB = 2**20


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call(result: int) -> int:
    """Return the result of a system call, or raise the error that it set."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def hide_memory() -> None:
    """Keep other processes of the same user from reading the memory of this one."""
    if sys.platform == "linux":
        _libc().prctl(_SET_DUMPABLE, 0, 0, 0, 0)


def leave_the_system(scratch: str, scratch_mb: int) -> set[Protection]:
    """Move this process, which must have one thread, into namespaces of its own, with an empty scratch folder.

    What goes on is a fork of it, the first process of a namespace; this one waits for its end.

    Returns:
        What its descendants are kept from by that: all of it, or nothing where the system forbids user namespaces.
    """
    if sys.platform != "linux":
        return set()
    libc, user, group = _libc(), os.geteuid(), os.getegid()
    if user == 0:
        with suppress(OSError):  # Linux does not limit the number of root's processes, and counts by the real user
            os.setresuid(_NOBODY, user, user)
    try:
        _call(libc.unshare(_NEW_USER | _NEW_MOUNTS | _NEW_NETWORK | _NEW_IPC | _NEW_PIDS))
    except OSError:
        return set()
    with suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    first = os.fork()
    if first:
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0xFF)
    _end_with_the_parent(libc)
    protections = {Protection.NETWORK, Protection.PROCESSES}
    # Memory that no limit of a process counts: none that outlives a process, and whoever takes too much ends first.
    for setting, value in (("sys/kernel/shmall", 0), ("sys/kernel/shmmni", 0), ("self/oom_score_adj", 1000)):
        with suppress(OSError):
            Path("/proc", setting).write_text(str(value))
    with suppress(OSError):
        _call(libc.mount(None, b"/", None, _MOUNT_RECURSIVELY | _MOUNT_PRIVATE, None))
        read_only = struct.pack("QQQQ", _READ_ONLY, 0, 0, 0)
        _call(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, read_only, len(read_only)))
        options = f"size={scratch_mb}m,nr_inodes=4096".encode()
        _call(libc.mount(b"scratch", scratch.encode(), b"tmpfs", 0, options))
        protections.add(Protection.WRITES)
    return protections


def _end_with_the_parent(libc: ctypes.CDLL) -> None:
    libc.prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)


class ProcessNamespaces:
    """Gives each child of this process, by turns, a process namespace of its own."""

    def __init__(self) -> None:
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY)

    def enter(self) -> None:
        """Let the next child be the first process of a new namespace, whose other processes end with it."""
        _call(_libc().unshare(_NEW_PIDS))

    def leave(self) -> None:
        """Let further children be in the namespace of this process, so that `enter` can be called again."""
        _call(_libc().setns(self._own, _NEW_PIDS))


def adopt_orphans() -> None:
    """Let processes whose parent has ended become children of this one, and not of the system's first process."""
    if sys.platform == "linux":
        _libc().prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_children() -> None:
    """End all children of this process, and what becomes one by that: what a subject has left in the background."""
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    with suppress(OSError):
        while pids := listed.read_text().split():
            for pid in map(int, pids):
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)


def landlock_version() -> int:
    """Return the version of Landlock that the system has; 0 if none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, 1)))


def ruleset(readable: Iterable[str], listable: Iterable[str], writable: Iterable[str]) -> int | None:
    """Return a descriptor of the rules that only these paths can be opened; ``None`` without Landlock.

    Args:
        readable: files and folders that can be read and executed, with all that is in them.
        listable: folders of which the names can be listed.
        writable: folders and devices in which all is allowed.
    """
    version = landlock_version()
    if not version:
        return None
    libc = _libc()
    every = (1 << _FILE_RIGHTS_BY_VERSION[min(version, len(_FILE_RIGHTS_BY_VERSION)) - 1]) - 1
    network = 0b11 if version >= _NETWORK_VERSION else 0
    scope = 0b11 if version >= _SCOPE_VERSION else 0
    attributes = struct.pack("QQQ", every, network, scope)[: 24 if scope else 16 if network else 8]
    rules = _call(libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    of_files = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
    for paths, rights in (
        (readable, _EXECUTE | _READ_FILE | _READ_DIR), (listable, _READ_DIR), (writable, every),
    ):  # fmt: skip
        for path in paths:
            _allow(libc, rules, path, rights & every, of_files)
    return rules


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int, of_files: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)  # type: ignore[attr-defined, unused-ignore]  # Linux alone
    except OSError:
        return  # it does not exist, so it need not be allowed
    try:
        rights &= -1 if os.path.isdir(path) else of_files
        if rights:
            _call(libc.syscall(_ADD_RULE, rules, 1, struct.pack("=Qi", rights, opened), 0))
    finally:
        os.close(opened)


def paths_without(roots: Sequence[str], hidden: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what can be read and what can be listed, so that all in ``roots`` can be, but nothing in ``hidden``.

    Landlock allows a folder with all that is in it. A folder that contains something hidden is therefore allowed entry
    by entry.
    """
    secrets = {os.path.realpath(path) for path in hidden}
    readable: list[str] = []
    listable: list[str] = []
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        path = os.path.realpath(waiting.pop())  # a link may lead to what is hidden
        if path in seen or any(path == secret or path.startswith(secret + os.sep) for secret in secrets):
            continue
        seen.add(path)
        if not any(secret.startswith(path.rstrip(os.sep) + os.sep) for secret in secrets):
            readable.append(path)
            continue
        listable.append(path)
        with suppress(OSError):
            waiting += [entry.path for entry in os.scandir(path)]
    return readable, listable


def restrict(limits: Limits, rules: int | None) -> set[Protection]:
    """Take from this process what it does not need, for good; call this before a stranger's code runs.

    Args:
        limits: what it may use.
        rules: of `ruleset`.

    Returns:
        What it is kept from by that.
    """
    _limit(limits)
    protections = {Protection.LIMITS}
    if sys.platform != "linux":
        return protections
    libc = _libc()
    _end_with_the_parent(libc)
    libc.prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    _refuse_lasting_objects(libc)
    if rules is not None:
        _call(libc.syscall(_RESTRICT_SELF, rules, 0))
        protections.add(Protection.FILES)
        os.close(rules)
    header, none = struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(24)
    libc.capset(header, none)
    return protections


def _refuse_lasting_objects(libc: ctypes.CDLL) -> None:
    """Take the keys of the judge's session from this process, and the system calls for what outlives a process.

    A later subject would find it. A kernel or a processor without such a filter leaves it out.
    """
    machine = _MACHINES.get(platform.machine())
    if machine is None:
        return
    libc.syscall(machine.keyctl, _JOIN_SESSION_KEYRING, None)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))

    contents = _filter_of(machine)
    program = Program(len(contents) // 8, contents)
    libc.prctl(_SET_SECCOMP, _SECCOMP_FILTER, ctypes.byref(program), 0, 0)


def _filter_of(machine: _Machine) -> bytes:
    """Return the steps of a filter: EPERM for the calls of another machine or interface, and for the lasting ones."""
    refused = len(machine.lasting)
    tests = [
        (_BPF_LOAD_WORD, 0, 0, _SECCOMP_OFFSET_OF_MACHINE),
        (_BPF_JUMP_EQUAL, 0, refused + 3, machine.number),
        (_BPF_LOAD_WORD, 0, 0, _SECCOMP_OFFSET_OF_NUMBER),
        (_BPF_JUMP_GREATER_OR_EQUAL, refused + 1, 0, _X32_CALLS),
        *((_BPF_JUMP_EQUAL, refused - i, 0, number) for i, number in enumerate(machine.lasting)),
        (_BPF_RETURN, 0, 0, _SECCOMP_ALLOW),
        (_BPF_RETURN, 0, 0, _SECCOMP_ERRNO | errno.EPERM),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in tests)


def _limit(limits: Limits) -> None:
    import resource  # Windows has no such module

    in_use = _address_space()
    wanted = {
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_NOFILE: limits.files,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: min(limits.memory_mb, SCRATCH_MB) * MIB,
        resource.RLIMIT_NPROC: limits.processes,
    }
    if in_use is not None:
        wanted[resource.RLIMIT_AS] = in_use + limits.memory_mb * MIB
    for kind, value in wanted.items():
        most = resource.getrlimit(kind)[1]
        least = value if most == resource.RLIM_INFINITY else min(value, most)
        with suppress(ValueError, OSError):  # macOS does not know all of them
            resource.setrlimit(kind, (least, least))


def _address_space() -> int | None:
    """Return the size of the address space of this process in bytes; ``None`` where it is not known."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return None
    return pages * mmap.PAGESIZE
