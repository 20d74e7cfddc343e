#!/usr/bin/python3
"""What is refused, what queues, and what goes on: reasons, second migrations, and commands in the middle of one."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import harness  # noqa: E402
from integration.handover_test import Move, Scene  # noqa: E402
from integration.harness import check  # noqa: E402
from support import json_schema  # noqa: E402


def all_reasons_at_once(options):
    """Every reason in one reply, before any page was sent; `preflight` gives the same."""
    with harness.Bed(options) as bed:
        listener = bed.b.receive("--max-memory", "16M", "--max-cpus", "1", "--cpuid-mask", "0x1:edx=0x04000000")
        bed.b.run("hello.elf", append="wait=1").serial.expect("ready")
        guest = bed.a.run("hello.elf", append="wait=1", memory="64M", cpus=2)
        guest.serial.expect("ready")
        # The guest that has the name has the socket of the serial port too.
        wanted = {"memory_limit", "cpu_limit", "cpu_feature", "name_in_use", "serial_unusable"}
        report = bed.a.migrate(listener.address, status=1)
        json_schema.validate("migrate", report)
        codes = {reason["code"] for reason in report["reasons"]}
        check(codes == wanted, f"reasons {codes}")
        check(not report["rounds"], "pages were sent all the same")
        check(any("sse2" in r["what"] for r in report["reasons"]), f"the feature is not named: {report['reasons']}")
        answer = bed.a.json("preflight", "guest", listener.address, status=1)
        json_schema.validate("preflight", answer)
        check({reason["code"] for reason in answer["reasons"]} == codes, f"preflight says {answer}")
        check(answer["would_migrate"] is False, f"preflight says {answer}")
        guest.serial.ask("status")
        text = bed.a.call("migrate", "guest", listener.address, status=1)
        for code in ("memory", "vCPU", "sse2", "named"):
            check(code in text.stderr + text.stdout, f"the text does not mention {code}: {text}")


def preflight_says_yes(options):
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        answer = bed.a.json("preflight", "guest", listener.address)
        json_schema.validate("preflight", answer)
        check(answer["would_migrate"] is True and not answer["reasons"], f"preflight says {answer}")
        check(not bed.b.json("list")["guests"], "preflight left something behind")


def hostile_manifest(options):
    """A manifest that names paths opens nothing."""
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        codes, details = bed.show_manifests(listener.address)
        # The plain one is accepted: the others are refused for what they name.
        for shown, wanted in (("plain", set()), ("path_as_name", {"bad_name"}), ("name_of_parent", {"bad_name"}),
                              ("path_as_device", {"unknown_device", "surplus_device"}),
                              ("path_as_another_device", {"unknown_device"})):
            check(codes[shown] == wanted, f"{shown}: {codes[shown]}: {details}")
        left = [str(path) for path in bed.directory.rglob("*") if "bait" in path.name]
        check(not left, f"it made {left}")
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        bed.a.migrate(listener.address)


def everything_wrong_at_once(options):
    """One manifest with every reason that can be had together, one reply with all of them."""
    with harness.Bed(options) as bed:
        listener = bed.b.receive("--max-memory", "64M", "--max-cpus", "1")
        # A guest that has come holds its name and the serial port of the listener.
        bed.a.run("hello.elf", append="wait=1").serial.expect("ready")
        bed.a.migrate(listener.address)
        codes, details = bed.show_manifests(listener.address)
        wanted = {"memory_limit", "memory_available", "cpu_limit", "cpu_feature", "bad_manifest", "unknown_device",
                  "device_version", "surplus_device", "name_in_use", "serial_in_use"}
        check(codes["everything"] == wanted, f"{codes['everything'] ^ wanted}: {details}")
        for text in ("MSR 0xdeadbeef", "leaf 0x7 ebx"):
            check(text in details, f"no word of {text}: {details}")
        check(("TSC runs at" in details) != ("tsc_scaling" in codes["host"]), f"{codes['host']}: {details}")
        bed.b.call("stop", "guest")


def two_at_once(options):
    with Scene(options) as scene:
        with scene.migration_held("source", "copy") as first:
            second = Move(scene.bed.a, scene.listener.address)
            check(second.result() == 1, second.done.stdout + second.done.stderr)
        check(first.result() == 0, first.done.stdout + first.done.stderr)
        scene.destination_is_well()


def receiver_is_busy(options):
    with Scene(options) as scene:
        with scene.migration_held("source", "copy") as first:
            other = scene.bed.a.run("hello.elf", name="other", append="wait=1")
            other.serial.expect("ready")
            report = scene.bed.a.migrate(scene.listener.address, name="other", status=1)
            check("busy" in report["reasons"][0]["what"], f"{report['reasons']}")
        check(first.result() == 0, first.done.stdout + first.done.stderr)


def room_for_the_next(options):
    """Who comes while the process of a failed attempt is on its way out waits until it has gone."""
    with Scene(options) as scene:
        scene.gate.hold_at("destination", "refused")
        with scene.migration_held("source", "copy") as first:
            control = scene.bed.a.control()
            control.send(command="cancel", id=1)
            control.taken()
        check(first.result() == 3, first.done.stdout + first.done.stderr)
        scene.gate.wait_held("destination", "refused")
        with scene.migration_held("source", "negotiate") as second:
            pass
        scene.gate.release("destination", "refused")
        check(second.result() == 0, second.done.stdout + second.done.stderr)
        scene.destination_is_well()


def paused_guest_arrives_paused(options):
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        guest = bed.a.run("pulse.elf")
        guest.serial.expect("ready")
        bed.a.call("pause", "guest")
        check(bed.a.status()["state"] == "paused", "pause did not pause")
        bed.a.migrate(listener.address, "--verify", "full")
        check(bed.b.status()["state"] == "paused", f"it arrived {bed.b.status()}")
        serial = harness.Serial(bed.b.serial_path("guest")).connect()
        bed.b.call("resume", "guest")
        serial.send("finish")
        serial.expect("PASS")


def commands_in_the_copy(options):
    """Pause and resume in the copy are ordinary; the run state of that moment travels."""
    with Scene(options) as scene:
        with scene.migration_held("source", "copy") as move:
            scene.bed.a.call("pause", "guest")
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        check(scene.bed.b.status()["state"] == "paused", "the pause was lost on the way")
        scene.bed.b.call("resume", "guest")
        scene.destination_is_well()


def pause_queues_behind_the_handover(options):
    with Scene(options) as scene:
        with scene.migration_held("source", "final", "--max-pause", "60s") as move:
            answer = {}

            def pause():
                answer["done"] = scene.bed.a.call("pause", "guest", status=None)

            waiting = threading.Thread(target=pause)
            waiting.start()
            scene.bed.a.control().taken()
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        waiting.join(harness.DEADLINE)
        check(answer["done"].returncode != 0, "pause claims to have paused a guest that has left")
        scene.destination_is_well()


def stop_queues_behind_the_handover(options):
    """Asked before the handover was decided, served after it: there is nothing left to stop here."""
    with Scene(options) as scene:
        with scene.migration_held("source", "final", "--max-pause", "60s") as move:
            control = scene.bed.a.control()
            control.send(command="stop", id=1)
            control.taken()
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        check(not control.answer(1)["ok"], "stop claims to have stopped a guest that has left")
        check(scene.guest.wait() == 0, scene.guest.log())
        scene.destination_is_well()


def stop_in_the_copy(options):
    with Scene(options) as scene:
        with scene.migration_held("source", "copy") as move:
            control = scene.bed.a.control()
            control.send(command="stop", id=1)
            while control.taken()["state"] == "running":
                pass
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        check(scene.guest.wait() == 0, scene.guest.log())
        scene.destination_is_empty()


def guest_exits_in_the_copy(options):
    with Scene(options) as scene:
        control = scene.bed.a.control()
        with scene.migration_held("source", "copy") as move:
            scene.guest.serial.send("finish")
            while control.taken()["state"] == "running":
                pass
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        check("guest_ended" in move.done.stdout, move.done.stdout)
        scene.guest.serial.expect("PASS")
        check(scene.guest.wait() == harness.PASS_STATUS, scene.guest.log())
        scene.destination_is_empty()


def guest_resets_in_the_copy(options):
    """A reset writes the boot image again: ordinary writes, seen by the device-write tracker."""
    with Scene(options) as scene:
        with scene.migration_held("source", "pause") as move:
            scene.guest.serial.send("reset")
            scene.guest.serial.expect("ready")
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        serial = harness.Serial(scene.bed.b.serial_path("guest")).connect()
        serial.send("reset")  # and it can be reset where it has never been booted
        serial.expect("ready")
        serial.send("finish")
        serial.expect("PASS")


def cancel_in_the_copy(options):
    with Scene(options) as scene:
        with scene.migration_held("source", "copy") as move:
            control = scene.bed.a.control()
            control.send(command="cancel", id=1)
            control.taken()
        check(move.result() == 3, move.done.stdout + move.done.stderr)
        check(control.answer(1)["ok"], "cancel was refused")
        scene.guest.serial.check()
        scene.receives_again()


def client_vanishes(options):
    """The migration goes on when whoever asked for it has gone."""
    with Scene(options) as scene:
        scene.gate.hold_at("source", "copy")
        client = scene.bed.a.vmm("migrate", "guest", scene.link.address)
        scene.gate.wait_held("source", "copy")
        client.kill()
        status = scene.bed.a.status()
        json_schema.validate("status", status)
        check(status["migration"] is not None, f"status does not show it: {status}")
        scene.gate.release("source", "copy")
        check(scene.guest.wait() == 0, scene.guest.log())
        scene.destination_is_well()


def second_interrupt_leaves(options):
    """A client can leave a guest's process that does not answer."""
    with Scene(options) as scene:
        os.kill(scene.guest.pid, signal.SIGSTOP)
        client = scene.bed.a.vmm("migrate", "guest", scene.link.address, "--json")
        client.interrupt()
        client.interrupt()
        check(client.wait() == 4, client.log())
        report = harness.json.loads(client.log())
        check(report["reasons"][0]["code"] == "no_answer", f"{report}")


def nobody_answers(options):
    with harness.Bed(options) as bed:
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        report = bed.a.migrate(f"tcp:127.0.0.1:{port}", status=1)
        check("vmm receive" in report["reasons"][0]["what"], f"{report['reasons']}")
        guest.serial.ask("status")


def somebody_else_answers(options):
    """A port where something that is not `vmm receive` answers."""
    with harness.Bed(options) as bed:
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        with socket.create_server(("127.0.0.1", 0)) as server:

            def answer():
                connection, _ = server.accept()
                connection.sendall(b"220 mail.example.org ESMTP ready, say EHLO\r\n")
                connection.recv(4096)

            threading.Thread(target=answer, daemon=True).start()
            report = bed.a.migrate(f"tcp:127.0.0.1:{server.getsockname()[1]}", status=1)
        check(report["reasons"][0]["code"] == "not_vmm", f"{report['reasons']}")
        guest.serial.ask("status")


def serial_back_ends(options):
    """null, file and stdio; unix is what every other test uses."""
    with harness.Bed(options) as bed:
        path = bed.directory / "out"
        for back_end in ("null", f"file:{path}", "stdio"):
            done = subprocess.run([str(bed.binary), "run", "--serial", back_end, str(bed.guests / "hello.elf")],
                                  env=bed.a.env, stdin=subprocess.DEVNULL, capture_output=True, check=False,
                                  timeout=harness.DEADLINE)
            check(done.returncode == harness.PASS_STATUS, f"{back_end}: {done}")
            check((b"hello PASS" in done.stdout) == (back_end == "stdio"), f"{back_end}: {done}")
        check("hello PASS" in path.read_text(), "nothing in the file")


def other_images(options):
    with harness.Bed(options) as bed:
        for image in ("hello_multiboot.elf", "flat16.bin"):
            done = bed.a.vmm("run", "--serial", "stdio", bed.guests / image)
            check(done.wait() == harness.PASS_STATUS, f"{image}: {done.log()}")
        for bad, text in ((os.devnull, "regular"), (bed.directory / "missing", "No such file")):
            done = bed.a.vmm("run", bad)
            check(done.wait() == 4, f"{bad}: {done.log()}")
            check(text in done.log() and len(done.log().splitlines()) == 1, f"{bad}: {done.log()}")


def events_and_list(options):
    with harness.Bed(options) as bed:
        listener = bed.b.receive()
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        listing = bed.a.json("list")
        json_schema.validate("list", listing)
        check([entry["name"] for entry in listing["guests"]] == ["guest"], f"{listing}")
        status = bed.a.status()
        json_schema.validate("status", status)
        events = bed.a.vmm("events", "guest")
        bed.a.json("status", "guest")
        bed.a.migrate(listener.address)
        check(events.wait() == 0, events.log())
        seen = [harness.json.loads(line) for line in events.lines]
        for event in seen:
            json_schema.validate_event(event)
        check({"round_finished", "moment", "ended", "guest_ended"} <= {event["event"] for event in seen}, events.log())
        json_schema.validate("list", bed.b.json("list"))
        json_schema.validate("status", bed.b.status())
        bed.b.call("stop", "guest")


def silent_preflight_holds_nobody(options):
    """While a preflight waits for a peer that says nothing a second one is refused, and the guest can end."""
    with harness.Bed(options) as bed, socket.create_server(("127.0.0.1", 0)) as server:
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        address = f"tcp:127.0.0.1:{server.getsockname()[1]}"
        first = bed.a.vmm("preflight", "guest", address)
        with server.accept()[0]:
            refused = bed.a.call("preflight", "guest", address, status=1)
            check("under way" in refused.stderr + refused.stdout, f"{refused}")
            asked = time.monotonic()
            bed.a.call("stop", "guest")
            # A silent peer is waited for 30 s; the guest's end must not be.
            check(time.monotonic() - asked < 20, "the guest's end waited for the preflight")
            check(first.wait() != 0 and "ended" in first.log(), first.log())


def one_client_asks_too_much(options):
    with Scene(options) as scene:
        with scene.migration_held("source", "copy") as move:
            control = scene.bed.a.control()
            for number in range(17):
                control.send(command="cancel", id=number)
            check(control.answer(16)["error"]["code"] == "busy", "more requests wait than one client may have")
            check(control.taken()["name"] == "guest", "no status for a busy client")
        check(move.result() == 3, move.done.stdout + move.done.stderr)


TESTS = {name: f for name, f in list(globals().items())
         if callable(f) and getattr(f, "__module__", "") == __name__ and not isinstance(f, type)}

if __name__ == "__main__":
    harness.main(TESTS)
