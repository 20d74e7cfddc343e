#!/usr/bin/python3
"""What a user of the command line sees: JSON of every command, errors that say what to do, and no command that hangs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import harness  # noqa: E402
from integration.handover_test import Scene  # noqa: E402
from integration.harness import check  # noqa: E402
from support import json_schema  # noqa: E402


def order(host, command, *args, name="guest", done=True):
    """A command that asks for one thing, with --json; its reason's code, if there is one."""
    answer = host.json(command, name, *args, status=0 if done else 1)
    json_schema.validate(command, answer)
    check(answer["done"] is done, f"{command}: {answer}")
    return answer["reasons"][0]["code"] if answer["reasons"] else None


def orders_in_json(options):
    with Scene(options) as scene:
        guest = scene.bed.a
        order(guest, "pause")
        check(guest.status()["state"] == "paused", "pause did not pause")
        order(guest, "resume")
        check(order(guest, "cancel", done=False) == "no_migration", "cancel without a migration")
        check(order(guest, "resolve", "--resume", done=False) == "nothing_to_resolve", "resolve without a question")
        check(order(guest, "pause", name="nobody", done=False) == "no_guest", "pause of nobody")
        with scene.migration_held("source", "copy") as move:
            report = guest.migrate(scene.listener.address, status=1)
            json_schema.validate("migrate", report)
            check(report["reasons"][0]["code"] == "busy", f"{report['reasons']}")
            answer = guest.json("preflight", "guest", scene.listener.address, status=1)
            json_schema.validate("preflight", answer)
            check(answer["reasons"][0]["code"] == "busy", f"{answer}")
            control = guest.control()
            control.send(command="cancel", id=1)
            control.taken()
        check(move.result() == 3, move.done.stdout + move.done.stderr)
        events = guest.vmm("events", "guest", "--json")
        events.wait_line("guest_state")
        order(guest, "stop")
        check(events.wait() == 0, events.log())
        for line in events.lines:
            json_schema.validate_event(json.loads(line))


def a_stopped_process(options):
    """No command waits for ever for a process that is stopped."""
    with harness.Bed(options) as bed:
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        os.kill(guest.pid, signal.SIGSTOP)
        commands = [("pause",), ("resume",), ("stop",), ("cancel",), ("resolve", "--resume"),
                    ("preflight", "tcp:127.0.0.1:1"), ("status",)]
        waiting = [bed.a.vmm(command[0], "guest", *command[1:]) for command in commands]
        waiting += [bed.a.vmm(command[0], "guest", *command[1:], "--json") for command in commands[:-1]]
        for process in waiting:
            check(process.wait() == 1, f"{process.args}: {process.log()}")
            check(len(process.lines) == 1, f"{process.args}: {process.log()}")
            if process.args[-1] == "--json":
                answer = json.loads(process.log())
                json_schema.validate(process.args[1], answer)
                check(answer["reasons"][0]["code"] == "no_answer", f"{process.args}: {answer}")
            else:
                check("does not answer" in process.log(), f"{process.args}: {process.log()}")
        os.kill(guest.pid, signal.SIGCONT)
        check(bed.a.status()["state"] == "running", "a request was carried out after all")
        guest.serial.ask("status")


def preflight_tries_what_prepare_does(options):
    """What would fail in Prepare is a reason, and all of it comes at once."""
    with harness.Bed(options) as bed:
        serial = bed.directory / "serial"
        serial.mkdir()
        control = bed.directory / "control"
        control.mkdir()
        listener = bed.b.vmm("receive", "--listen", "tcp:127.0.0.1:0", "--serial", f"unix:{serial}/s", "--control",
                             control / "s.sock", "--backing", "hugetlb")
        listener.address = listener.wait_line(r"(tcp:127\.0\.0\.1:\d+)").group(1)
        serial.rmdir()
        control.rmdir()
        # More than the pool of any machine of ours, and no more than the memory of one.
        guest = bed.a.run("hello.elf", append="wait=1", memory="2G")
        guest.serial.expect("ready")
        pool = int(Path("/proc/sys/vm/nr_hugepages").read_text()) + int(
            Path("/proc/sys/vm/nr_overcommit_hugepages").read_text())
        wanted = {"serial_unusable", "control_unusable"} | ({"huge_pages"} if pool < 1024 else set())
        answer = bed.a.json("preflight", "guest", listener.address, status=1)
        json_schema.validate("preflight", answer)
        check(wanted == {reason["code"] for reason in answer["reasons"]}, f"{answer['reasons']}")
        report = bed.a.migrate(listener.address, status=1)
        check(wanted == {reason["code"] for reason in report["reasons"]}, f"{report['reasons']}")
        serial.mkdir()
        other = bed.b.vmm("run", "--serial", f"unix:{serial}/s", "--name", "other", "--append", "wait=1",
                          bed.guests / "hello.elf")
        harness.Serial(serial / "s").connect().expect("ready")
        answer = bed.a.json("preflight", "guest", listener.address, status=1)
        what = [reason["what"] for reason in answer["reasons"] if reason["code"] == "serial_unusable"]
        check(what and "in use" in what[0], f"{answer['reasons']}")
        other.kill()


def complaint(host, *args, status=4):
    """The one line that a command ends with at once."""
    done = host.call(*args, status=status)
    check(not done.stdout and len(done.stderr.splitlines()) == 1, f"{args}: {done.stdout}{done.stderr}")
    return done.stderr


def paths_are_checked_at_the_start(options):
    with harness.Bed(options) as bed:
        image = bed.guests / "hello.elf"
        listen = ("receive", "--listen", "tcp:127.0.0.1:0")
        (bed.directory / "file").write_text("")
        long = bed.directory / ("x" * 120)
        for start in (("run", image), listen):
            for bad, words in (
                    (("--control", long), "use a shorter one"),
                    (("--control", "/nonexistent/s"), "make it, or choose another path"),
                    (("--control", bed.directory / "file"), "not a socket"),
                    (("--serial", "unix:/nonexistent/s"), "make it, or choose another path"),
                    (("--serial", f"unix:{long}"), "use a shorter one"),
                    (("--serial", "file:/nonexistent/s"), "make it, or choose another path"),
                    (("--serial", f"file:{bed.directory}"), "choose another path"),
                    (("--state-dir", "/nonexistent/records"), "another --state-dir")):
                text = complaint(bed.a, *start, *bad)
                check(words in text, f"{start} {bad}: {text}")
            for option in ("--control", "--state-dir"):
                check(option in complaint(bed.a, *start, option, "", status=2), f"{start} {option}: not named")
        for path, words in (("/nonexistent/i", "leave --initrd away"), (bed.directory, "not a regular file"),
                            (bed.directory / "file", "the file is empty")):
            text = complaint(bed.a, "run", image, "--initrd", path)
            check(words in text, f"--initrd {path}: {text}")
        text = complaint(bed.a, "run", bed.guests / "flat16.bin", "--initrd", image)
        check("takes no initrd" in text, text)
        check("--initrd" in complaint(bed.a, "run", image, "--initrd", "", status=2), "--initrd: not named")
        # A directory whose sockets have too long a name is tried once, not for every number behind the name.
        deep = bed.directory / ("d" * 100)
        deep.mkdir()
        bed.a.env["XDG_RUNTIME_DIR"] = str(deep)
        check("use a shorter one" in complaint(bed.a, "run", image), "the length is not the reason")


def names_in_use(options):
    with harness.Bed(options) as bed:
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        text = complaint(bed.a, "run", "--name", "guest", "--serial", "null", bed.guests / "hello.elf")
        check("in use" in text and "choose another" in text, text)
        listener = bed.b.receive()
        text = complaint(bed.b, "receive", "--listen", listener.address)
        check("choose another port" in text, text)


def list_shows_who_cannot_be_asked(options):
    with harness.Bed(options) as bed:
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        os.kill(guest.pid, signal.SIGSTOP)
        listing = bed.a.json("list")
        json_schema.validate("list", listing)
        entry = listing["guests"][0]
        check(entry["name"] == "guest" and entry["state"] is None and entry["pid"] is None, f"{listing}")
        done = bed.a.call("list")
        check("guest" in done.stdout and "does not answer" in done.stderr, f"{done}")
        os.kill(guest.pid, signal.SIGCONT)
        check(bed.a.json("list")["guests"][0]["state"] == "running", "it is not listed as before")
        guest.kill()
        check(not bed.a.json("list")["guests"], "a dead process is listed")


def standard_descriptors(options):
    """Output that cannot be written is a failure; descriptors that are closed at the start are not reused."""
    with harness.Bed(options) as bed:
        with open("/dev/full", "w", encoding="utf-8") as full:
            for arguments in (("list", "--json"), ("--help",)):
                done = subprocess.run([str(bed.binary), *arguments], env=bed.a.env, stdout=full, stderr=subprocess.PIPE,
                                      text=True, check=False, timeout=harness.DEADLINE)
                check(done.returncode == 4 and len(done.stderr.splitlines()) == 1, f"{arguments}: {done}")
        vmm = bed.a.vmm("-c", 'exec "$0" run --name guest --serial null --append wait=1 "$1" <&- >&- 2>&-', bed.binary,
                        bed.guests / "hello.elf", binary="/bin/sh")
        harness.wait_for(lambda: bed.a.call("status", "guest", status=None).returncode == 0)
        targets = [os.readlink(f"/proc/{vmm.pid}/fd/{number}") for number in range(3)]
        check(targets == ["/dev/null"] * 3, f"{targets}")
        bed.a.call("stop", "guest")


TESTS = {name: f for name, f in list(globals().items())
         if callable(f) and getattr(f, "__module__", "") == __name__ and not isinstance(f, type) and name not in ("order", "complaint")}

if __name__ == "__main__":
    harness.main(TESTS)
