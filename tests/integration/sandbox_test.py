#!/usr/bin/python3
"""What a guest's process may still do on its host: who it is, what it has open, and which calls end it."""

import contextlib
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import disk, harness  # noqa: E402
from integration.harness import check  # noqa: E402

USER = "nobody"
SYS_GETPID, SYS_SOCKET, SYS_EXECVE, SYS_PTRACE, SYS_IO_URING_SETUP = 39, 41, 59, 101, 425
AF_INET = 2
# What a guest with a disk and a serial port on a socket holds: its standard descriptors and its machine.
KINDS = {"/dev/null", "pipe", "/dev/kvm", "kvm-vm", "kvm-vcpu", "io_uring", "eventfd", "eventpoll", "signalfd",
         "socket", "disk"}
# One that has moved keeps its record, to answer the source from, and the directory of it.
RECEIVED = KINDS | {"record", "records"}


def need_root():
    if os.geteuid() != 0:
        raise harness.Skipped("only root can become another user")


@contextlib.contextmanager
def bed_of(user, options):
    """Two hosts whose directories belong to the user, and a disk of his."""
    with harness.Bed(options) as bed:
        bed.image = disk.make(bed.directory / "disk")
        bed.directory.chmod(0o711)
        for path in (bed.a.directory, bed.b.directory, bed.image):
            shutil.chown(path, user, pwd.getpwnam(user).pw_gid)
        yield bed


def start(bed, *args):
    guest = bed.a.run("blkcheck.elf", *disk.option(bed.image), *args, append="area=1 depth=16", memory="32M")
    guest.serial.expect("ready")
    return guest


def fields(path):
    return dict(line.split(":\t", 1) for line in path.read_text().splitlines() if ":\t" in line)


def threads(pid):
    """The status of each thread, by its name."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        status = fields(task / "status")
        found[status["Name"]] = status
    return found


def check_confined(pid, user, filters):
    """Every thread of the process; `filters` is how many each of them has."""
    found = threads(pid)
    check({"io", "vcpu0", "lifecycle", "commands", "preflight"} <= set(found), f"threads: {sorted(found)}")
    for name, status in found.items():
        check(status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", f"{name} is not confined: {status}")
        check(int(status["Seccomp_filters"]) == filters, f"{name} has {status['Seccomp_filters']} filters")
        if user:
            entry = pwd.getpwnam(user)
            check(status["Uid"].split() == [str(entry.pw_uid)] * 4, f"{name}: users {status['Uid']}")
            check(status["Gid"].split() == [str(entry.pw_gid)] * 4, f"{name}: groups {status['Gid']}")
            groups = {str(group) for group in os.getgrouplist(user, entry.pw_gid)}
            check(set(status["Groups"].split()) <= groups, f"{name}: more groups: {status['Groups']}")
            for which in ("CapPrm", "CapEff", "CapInh", "CapAmb"):
                check(int(status[which], 16) == 0, f"{name} has capabilities: {which} {status[which]}")


def descriptors(bed, pid):
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        found[int(entry.name)] = os.readlink(entry)
    return found


def kind(bed, target):
    if target == str(bed.image):
        return "disk"
    if "/records" in target:
        return "records" if target.endswith("/records") else "record"
    match = re.fullmatch(r"(?:anon_inode:\[?)?([\w/-]+?)\]?(?::.*)?", target)
    return match.group(1) if match else target


def check_descriptors(bed, pid, expected):
    found = {kind(bed, target) for target in descriptors(bed, pid).values()}
    check(found == expected, f"descriptors: too many {found - expected}, missing {expected - found}")


def sockets(bed, pid):
    return {target for target in descriptors(bed, pid).values() if target.startswith("socket:")}


def inject(bed, thread, number, *args):
    """The answer to a system call that the thread is made to make."""
    done = subprocess.run([bed.build / "bin" / "inject_call", *map(str, (thread, number, *args))], capture_output=True,
                          text=True, timeout=harness.DEADLINE, check=False)
    check(done.returncode == 0, done.stderr)
    return done.stdout.strip()


def a_migration_as_another_user(options):
    """There and back, at both sides as a user who owns nothing but the directories and the image."""
    need_root()
    with bed_of(USER, options) as bed:
        guest = start(bed, "--user", USER)
        status = bed.a.status()
        check((status["sandbox"], status["user"]) == ("on", USER), f"status: {status}")
        check("on, as user nobody" in bed.a.call("status", "guest").stdout, "status does not tell of the user")
        check_confined(guest.pid, USER, 1)
        check_descriptors(bed, guest.pid, KINDS)
        pid = guest.pid
        for source, target in ((bed.a, bed.b), (bed.b, bed.a)):
            listener = target.receive("--user", USER, *disk.option(bed.image))
            # Somebody else, whose connection is none of the guest's.
            other = socket.create_connection(("127.0.0.1", int(listener.address.rsplit(":", 1)[1])))
            source.call("preflight", "guest", listener.address)
            report = source.migrate(listener.address, *harness.LIMITS, "--verify", "full")
            check(report["result"] == "completed", f"{report}")
            # The old process is gone with its user's files: the name is free.
            harness.wait_for(lambda: not (source.directory / "vmm" / "guest.sock").exists())
            harness.wait_for(lambda: target.status()["state"] == "running")
            pid = target.status()["pid"]
            serial = target.serial()
            serial.check()
            harness.wait_for(lambda: "destination" not in threads(pid))
            check_confined(pid, USER, 2)
            check_descriptors(bed, pid, RECEIVED)
            shared = sockets(bed, pid) & sockets(bed, listener.pid)
            check(not shared, f"the guest's process holds sockets of its listener: {shared}")
            check(int(fields(Path(f"/proc/{listener.pid}/status"))["CapEff"], 16) == 0, "the listener has capabilities")
            check(threads(listener.pid)["vmm"]["Seccomp"] == "2", "the listener is not confined")
            serial.close()
            other.close()
        bed.a.call("stop", "guest")


def hosts_by_name(options):
    """A name is found under the filter; one that nobody knows is a failure, and the guest runs on."""
    with harness.Bed(options) as bed:
        bed.image = disk.make(bed.directory / "disk")
        guest = start(bed)
        for name in ("no-such-host.invalid", "fe80::1%lo"):
            report = bed.a.migrate(f"tcp:[{name}]:1", status=1)
            check(report["result"] == "failed" and len(report["reasons"]) == 1, f"{name}: {report}")
        guest.serial.check()
        listener = bed.b.receive(*disk.option(bed.image))
        report = bed.a.migrate(listener.address.replace("127.0.0.1", "localhost"), *harness.LIMITS)
        check(report["result"] == "completed", f"{report}")


def forbidden_calls_end_the_process(options):
    """From each thread of a running guest: what its role does not need, another's role may."""
    connect = (SYS_SOCKET, (AF_INET, 1))
    ring = (SYS_IO_URING_SETUP, (1, 0))
    cases = (("vcpu0", *connect), ("io", *connect), ("lifecycle", *connect), ("commands", *connect),
             ("vmm", SYS_EXECVE, (0,)), ("preflight", SYS_PTRACE, (0,)), ("vmm", *ring), ("io", *ring))
    for name, number, args in cases:
        with harness.Bed(options) as bed:
            bed.image = disk.make(bed.directory / "disk")
            guest = start(bed)
            thread = threads(guest.pid)[name]["Pid"]
            answer = inject(bed, thread, SYS_GETPID)
            check(answer == f"returned {guest.pid}", f"{name}: getpid {answer}")
            guest.serial.check()
            answer = inject(bed, thread, number, *args)
            check(answer == "killed by signal 31", f"{name}, call {number}: {answer}")
            check(guest.wait() == -31, f"{name}, call {number}: the process lives on")


def a_received_guest_is_confined(options):
    """The listener says which signal it was."""
    with harness.Bed(options) as bed:
        bed.image = disk.make(bed.directory / "disk")
        start(bed)
        listener = bed.b.receive(*disk.option(bed.image))
        bed.a.migrate(listener.address, *harness.LIMITS)
        serial = bed.b.serial()
        serial.check()
        pid = bed.b.status()["pid"]
        harness.wait_for(lambda: "destination" not in threads(pid))
        check_confined(pid, None, 2)
        thread = threads(pid)["vcpu0"]["Pid"]
        answer = inject(bed, thread, SYS_SOCKET, AF_INET, 1)
        check(answer == "killed by signal 31", f"a call of a received guest: {answer}")
        listener.wait_line("was killed by signal 31")


def nothing_is_inherited(options):
    """A descriptor that the caller left open is closed; with --no-sandbox it is not, and nothing else is forbidden."""
    script = 'exec 9<"$1"; shift; exec "$@"'
    for extra, state in ((), "on"), (("--no-sandbox",), "off"):
        with harness.Bed(options) as bed:
            secret = disk.make(bed.directory / "secret")
            bed.a.vmm("-c", script, "sh", secret, bed.binary, "run", *extra, "--name", "guest", "--serial", "null",
                      "--append", "wait=1", bed.guests / "hello.elf", binary="/bin/sh")
            harness.wait_for(lambda: (bed.a.directory / "vmm" / "guest.sock").exists())
            harness.wait_for(lambda: bed.a.call("status", "guest", status=None).returncode == 0)
            status = bed.a.status()
            check((status["sandbox"], status["user"]) == (state, None), f"status: {status}")
            bed.image = None
            inherited = str(secret) in descriptors(bed, status["pid"]).values()
            check(inherited == (state == "off"), f"sandbox {state}: inherited {inherited}")
            modes = {thread["Seccomp"] for thread in threads(status["pid"]).values()}
            check(modes == {"2" if state == "on" else "0"}, f"sandbox {state}: seccomp {modes}")


def bad_users(options):
    need_root()
    with bed_of(USER, options) as bed:
        image = bed.guests / "hello.elf"

        def complaint(*args, **how):
            done = subprocess.run([bed.binary, *map(str, args)], env=bed.a.env, capture_output=True, text=True,
                                  timeout=harness.DEADLINE, check=False, **how)
            lines = done.stderr.splitlines()
            check(done.returncode == 4 and len(lines) == 1, f"{args}: exit {done.returncode}: {done.stderr}")
            return lines[0]

        for command in (("run", image), ("receive", "--listen", "tcp:127.0.0.1:0")):
            check("no such user" in complaint(*command, "--user", "no-such-user"), "an unknown user")
            check("root" in complaint(*command, "--user", "root"), "root as another user")
            check("leave --user out" in complaint(*command, "--user", "daemon", user=USER), "not root")
            # What it would have to write to later belongs to somebody else.
            mine = bed.directory / "mine"
            mine.mkdir(exist_ok=True)
            for what in (("--state-dir", mine), ("--control", mine / "control"), ("--serial", f"unix:{mine}/serial")):
                text = complaint(*command, "--user", USER, *what)
                check(str(mine) in text, f"{what}: {text}")


if __name__ == "__main__":
    harness.main({
        "a_migration_as_another_user": a_migration_as_another_user,
        "hosts_by_name": hosts_by_name,
        "forbidden_calls_end_the_process": forbidden_calls_end_the_process,
        "a_received_guest_is_confined": a_received_guest_is_confined,
        "nothing_is_inherited": nothing_is_inherited,
        "bad_users": bad_users,
    })
