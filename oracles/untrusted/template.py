"""The process from which the processes of subjects are forked. It holds nothing of the judge.

It is a new interpreter that has loaded what subjects need, and has left the system (see `oracles.untrusted.sandbox`).
It runs no code of a subject: each is loaded in a fork of it, which takes milliseconds. It has one thread.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import secrets
import signal
import socket
import stat
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from oracles.constants import POLL_SECONDS
from oracles.untrusted.sandbox import (
    Limits,
    ProcessNamespaces,
    Protection,
    adopt_orphans,
    end_children,
    hide_memory,
    leave_the_system,
    paths_without,
    restrict,
    ruleset,
)

SYSTEM_PATHS = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom")
DEVICES = ("/dev/null", "/dev/zero")


@dataclass(frozen=True)
class Start:
    """What a subject's process is started with.

    Attributes:
        target: ``FILE.py:NAME``.
        source: the text of the file, if there is none on disk.
        folder: the folder of the file, which it may import from; "" if there is none.
        hidden: files and folders that it must not read.
        hidden_packages: packages that it must not import.
        forbids_autograd: whether it must not use torch's own derivatives.
        limits: what it may use.
    """

    target: str
    source: str
    folder: str
    hidden: tuple[str, ...]
    hidden_packages: tuple[str, ...]
    forbids_autograd: bool
    limits: Limits

    @classmethod
    def of_json(cls, contents: dict[str, Any]) -> Start:
        """Return what was sent as JSON, which has lists for tuples."""
        tuples = {name: tuple(contents[name]) for name in ("hidden", "hidden_packages")}
        return cls(**{**contents, **tuples, "limits": Limits(**contents["limits"])})


def main() -> None:
    """Serve the judge at the other end of the socket that is the standard input."""
    control = socket.socket(fileno=os.dup(0))
    hide_memory()
    options = json.loads(_line(control))
    scratch: str = options["scratch"]
    protections = leave_the_system(scratch, options["scratch_mb"])
    for name in options["preload"]:
        with suppress(ImportError):
            importlib.import_module(name)
    from oracles.untrusted.subject_process import serve, warm_up  # it loads NumPy, after the namespaces

    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    warm_up()
    gc.freeze()
    template = _Template(control, scratch, protections, serve)
    template.say({"protections": sorted(protections)})
    template.answer_all()


class _Rules(NamedTuple):
    """A descriptor of rules, and the state of the folders that these were made for."""

    rules: int | None
    listed: list[str]
    state: list[tuple[int, ...]]


def _state_of(folder: str, hidden: Iterable[str], listed: Iterable[str]) -> list[tuple[int, ...]]:
    """Return what changes where rules do not fit any more: they are about files, not about names.

    Args:
        folder: of the subject; another one of that name has other rules.
        hidden: what it must not read; a link may lead to another file by now.
        listed: the folders whose entries are allowed one by one, in which there may be a new one.
    """
    state: list[tuple[int, ...]] = []
    for path in hidden:
        with suppress(OSError):
            found = os.stat(path)
            state.append((found.st_dev, found.st_ino))
    with suppress(OSError):
        state.append((os.stat(folder or os.sep).st_ino,))
    for path in listed:
        with suppress(OSError):
            found = os.stat(path)
            state.append((found.st_dev, found.st_ino, found.st_mtime_ns))
    return state


def _close(descriptor: int | None) -> None:
    if descriptor is not None:
        os.close(descriptor)


class _Template:
    """Forks and ends processes of subjects on request, one line of JSON each."""

    def __init__(self, control: socket.socket, scratch: str, protections: set[Protection], serve: Any) -> None:
        self.control, self.scratch, self.protections, self.serve = control, scratch, protections, serve
        self.namespaces = ProcessNamespaces() if Protection.PROCESSES in protections else None
        if self.namespaces is None:
            adopt_orphans()
        self.rules: dict[Any, _Rules] = {}

    def say(self, answer: dict[str, Any]) -> None:
        """Send an answer to the judge."""
        self.control.sendall(json.dumps(answer).encode() + b"\n")

    def answer_all(self) -> None:
        """Answer until the judge ends."""
        while True:
            line, descriptors = _line_with_descriptors(self.control)
            if not line:
                os._exit(0)
            request = json.loads(line)
            if "start" in request:
                self.say(self.start(request["start"], descriptors[0]))
            else:
                status = _ended(request["end"], request["grace"])
                if self.namespaces is None:
                    end_children()
                self.say({"status": status})

    def start(self, options: dict[str, Any], descriptor: int) -> dict[str, Any]:
        """Fork a process that serves a subject at a connection, and return its number and what it is kept from."""
        start = Start.of_json(options)
        rules = self.rules_of(start)
        if self.namespaces:
            self.namespaces.enter()
        _empty(self.scratch)
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                self.control.close()
                _silence()
                os.chdir(self.scratch)
                restrict(start.limits, None if rules is None else os.dup(rules))
                _close_others(descriptor)
                self.serve(socket.socket(fileno=descriptor), start, self.scratch)
                status = 0
            finally:
                os._exit(status)
        os.close(descriptor)
        if self.namespaces:
            self.namespaces.leave()
        of_rules = {Protection.FILES} if rules is not None else set()
        return {"pid": pid, "protections": sorted(self.protections | of_rules | {Protection.LIMITS})}

    def rules_of(self, start: Start) -> int | None:
        """Return the rules of what a subject can open; subjects of one folder share them."""
        key = (start.folder, start.hidden, start.hidden_packages)
        if key in self.rules and self.rules[key].state != _state_of(start.folder, start.hidden, self.rules[key].listed):
            _close(self.rules.pop(key).rules)
        if key not in self.rules:
            while len(self.rules) >= 16:  # each is an open descriptor
                _close(self.rules.pop(next(iter(self.rules))).rules)
            packages = [path for name in start.hidden_packages for path in _places_of(name)]
            roots = [*SYSTEM_PATHS, sys.prefix, sys.base_prefix, *filter(None, sys.path), start.folder]
            existing = [root for root in roots if root and os.path.exists(root)]
            readable, listable = paths_without(existing, (*start.hidden, *packages))
            state = _state_of(start.folder, start.hidden, listable)
            rules = ruleset(readable, listable, (self.scratch, *DEVICES))
            self.rules[key] = _Rules(rules, listable, state)
        return self.rules[key].rules


def _silence() -> None:
    """Let the standard streams lead nowhere."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)


def _places_of(package: str) -> list[str]:
    """Return the files and folders of a package: in those that Python imports from, and that it could."""
    found = []
    prefixes = {sys.prefix, sys.base_prefix, "/usr", "/usr/local"}
    others = (str(path) for prefix in prefixes for path in Path(prefix).glob("lib*/python*/*-packages"))
    for folder in dict.fromkeys((*filter(None, sys.path), *others)):
        for path in (Path(folder, package), Path(folder, f"{package}.py"), *Path(folder).glob(f"{package}.*.so")):
            if path.exists():
                found.append(str(path))
    return found


def _line(connection: socket.socket) -> bytes:
    return _line_with_descriptors(connection)[0]


def _line_with_descriptors(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return the next line, and the descriptors that were sent with it; an empty line at the end."""
    line = bytearray()
    descriptors: list[int] = []
    while not line.endswith(b"\n"):
        part, received, _, _ = socket.recv_fds(connection, 2**16, 4)
        if not part:
            return b"", descriptors
        line += part
        descriptors += received
    return bytes(line), descriptors


def _ended(pid: int, grace: float) -> int | None:
    """End a process that has not ended by itself after so many seconds.

    Returns:
        The status with which it ended by itself, negative for a signal; ``None`` if it did not.
    """
    until = time.monotonic() + grace
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            break
        time.sleep(POLL_SECONDS / 50)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _empty(folder: str) -> None:
    """Remove what an earlier subject has left in a folder: paths that are longer than the system takes, too."""
    os.chmod(folder, 0o700)
    for name in os.listxattr(folder):
        with suppress(OSError):
            os.removexattr(folder, name)
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    token, count, before = secrets.token_hex(8), 0, [""]
    while (names := os.listdir(top)) and names != before:
        before = names
        for name in names:
            with suppress(OSError):
                if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=top)
                    continue
                os.chmod(name, 0o700, dir_fd=top)
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
                try:
                    for each in os.listdir(inner):  # what is deep inside comes up level by level
                        count += 1
                        os.rename(each, f"{token}{count}", src_dir_fd=inner, dst_dir_fd=top)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
    os.close(top)


def _close_others(descriptor: int) -> None:
    """Close all open files but the standard streams and one connection."""
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, 4096)


if __name__ == "__main__":
    main()
