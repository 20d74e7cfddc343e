#!/usr/bin/python3
"""What a user of the command line sees: JSON of every command, errors that say what to do, and no command that hangs."""

import json
import os
import signal
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


TESTS = {name: f for name, f in list(globals().items())
         if callable(f) and getattr(f, "__module__", "") == __name__ and not isinstance(f, type) and name != "order"}

if __name__ == "__main__":
    harness.main(TESTS)
