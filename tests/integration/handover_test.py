#!/usr/bin/python3
"""Source process, destination process and connection, each lost in each phase: afterwards exactly one guest runs, or,
where the fault killed its owner, none; and the one that runs is whole. Faults happen at the phase gate."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import harness  # noqa: E402
from integration.harness import check  # noqa: E402
from integration.proxy import Proxy  # noqa: E402
from support import json_schema  # noqa: E402

BEFORE_COMMIT = ("connect", "negotiate", "preflight", "prepare", "copy", "pause", "final")
DESTINATION_BEFORE_COMMIT = ("configured", "receiving", "verified", "loaded")


class Move(threading.Thread):
    """`vmm migrate` while the test does something else."""

    def __init__(self, host, address, *args, name="guest"):
        super().__init__(daemon=True)
        self.command = [str(host.bed.binary), "migrate", name, address, "--json", *harness.LIMITS, *args]
        self.env = host.env
        self.start()

    def run(self):
        self.done = subprocess.run(self.command, env=self.env, capture_output=True, text=True, check=False)

    def result(self):
        self.join(harness.DEADLINE)
        check(not self.is_alive(), "migrate did not end")
        return self.done.returncode


class Scene:
    """A guest on host a, a receiver on host b, and a link between them that can be cut."""

    receive_options = ()

    def __init__(self, options):
        self.bed = harness.Bed(options, gated=True)
        self.gate = self.bed.gate

    def __enter__(self):
        bed = self.bed.__enter__()
        self.prepare()
        self.listener = bed.b.receive(*self.receive_options)
        self.link = Proxy(self.listener.address)
        self.start_guest()
        return self

    def prepare(self):
        """Before any process is there."""

    def start_guest(self):
        self.guest = self.bed.a.run("dirty.elf", append="fill=8 ws=4 pps=5000", memory="32M")
        self.guest.serial.expect("ready")

    def __exit__(self, *failure):
        self.link.close()
        return self.bed.__exit__(*failure)

    def migrate(self, *args):
        return Move(self.bed.a, self.link.address, "--verify", "full", *args)

    @contextlib.contextmanager
    def migration_held(self, role, phase, *args):
        """A migration, held at a phase while the block runs."""
        self.gate.hold_at(role, phase)
        move = self.migrate(*args)
        self.gate.wait_held(role, phase)
        yield move
        self.gate.release(role, phase)

    def source_is_well(self):
        self.guest.serial.check()
        self.guest.serial.send("finish")
        self.guest.serial.expect("PASS")
        check(self.guest.wait() == harness.PASS_STATUS, self.guest.log())

    def destination_is_well(self):
        serial = harness.Serial(self.bed.b.serial_path("guest")).connect()
        serial.check()
        serial.send("finish")
        serial.expect("PASS")

    def destination_is_empty(self):
        """Soon: the source may know before the copy and its process are gone."""
        harness.wait_for(lambda: not self.bed.b.json("list")["guests"])

    def kill_reception(self):
        """Kills the process that takes the guest in, if there is one yet; returns once the listener knows."""
        for child in harness.children(self.listener.pid):
            os.kill(child, signal.SIGKILL)
            self.listener.wait_line("killed by signal 9")

    def receives_again(self):
        """The receiver is ready for the next guest."""
        move = Move(self.bed.a, self.listener.address)
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        self.destination_is_well()


def cut_in_each_phase(options):
    for phase in BEFORE_COMMIT:
        with Scene(options) as scene:
            with scene.migration_held("source", phase) as move:
                if phase != "connect":
                    scene.link.wait_connected()
                scene.link.cut()
            status = move.result()
            if phase == "connect":  # nothing was open yet
                check(status == 0, f"cut in {phase}: {move.done.stdout}")
                scene.destination_is_well()
            else:
                check(status == 1, f"cut in {phase}: exit {status}: {move.done.stdout}")
                scene.source_is_well()
                scene.destination_is_empty()


class SmpScene(Scene):
    def start_guest(self):
        self.guest = self.bed.a.run("smp.elf", append="x2apic=1", cpus=4)
        self.guest.serial.expect("ready")


def several_vcpus_go_on(options):
    """All were stopped, and their state was saved: not one interrupt between them is lost."""
    for phase in ("pause", "final"):
        with SmpScene(options) as scene:
            with scene.migration_held("source", phase) as move:
                scene.link.wait_connected()
                scene.link.cut()
            check(move.result() == 1, f"cut in {phase}: {move.done.stdout}")
            scene.source_is_well()
            scene.destination_is_empty()


def one_stream_cut(options):
    """The loss of any data connection is the loss of the link."""
    for number in (1, 2):  # 0 is control
        with Scene(options) as scene:
            with scene.migration_held("source", "copy", "--streams", "2") as move:
                scene.link.wait_connected(3)
                scene.link.cut_one(number)
            check(move.result() == 1, f"stream {number}: {move.done.stdout}")
            scene.guest.serial.check()
            scene.destination_is_empty()
            scene.receives_again()


def cut_at_commit(options):
    """Commit never arrives: Query is answered `refused`, the source resumes."""
    with Scene(options) as scene:
        with scene.migration_held("source", "commit") as move:
            scene.link.cut()
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        scene.source_is_well()
        scene.destination_is_empty()


def cut_before_running(options):
    """The reply is lost: Query is answered `running`, the source lets go. Resuming here would make two."""
    with Scene(options) as scene:
        with scene.migration_held("destination", "started") as move:
            scene.link.cut()
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        check(scene.guest.wait() == 0, scene.guest.log())
        scene.destination_is_well()


def destination_killed_in_each_phase(options):
    for phase in BEFORE_COMMIT[1:]:
        with Scene(options) as scene:
            with scene.migration_held("source", phase) as move:
                scene.kill_reception()
            status = move.result()
            # In the earliest phase the listener may not have made the process yet.
            check(status == 1 or phase == "negotiate", f"{phase}: exit {status}: {move.done.stdout}")
            if status == 0:
                scene.destination_is_well()
                continue
            scene.guest.serial.check()
            scene.destination_is_empty()
            scene.receives_again()


def destination_killed_in_its_own_phases(options):
    """Where it has just taken a step of which the source has not heard."""
    for phase in DESTINATION_BEFORE_COMMIT:
        with Scene(options) as scene:
            with scene.migration_held("destination", phase) as move:
                scene.kill_reception()
            check(move.result() == 1, f"{phase}: exit {move.done.returncode}: {move.done.stdout}")
            scene.guest.serial.check()
            scene.destination_is_empty()
            scene.receives_again()


def destination_killed_with_streams(options):
    with Scene(options) as scene:
        with scene.migration_held("source", "copy", "--streams", "3") as move:
            scene.link.wait_connected(4)
            scene.kill_reception()
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        scene.guest.serial.check()
        scene.destination_is_empty()
        scene.receives_again()


def destination_killed_before_started(options):
    """Killed with Commit on its way: the listener answers `refused` from the record, the source resumes."""
    with Scene(options) as scene:
        with scene.migration_held("source", "commit") as move:
            scene.kill_reception()
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        scene.source_is_well()


def destination_killed_after_started(options):
    """The guest died with its owner: the source stays paused and whole until a person decides."""
    for resolution in ("--resume", "--discard"):
        with Scene(options) as scene:
            scene.gate.hold_at("destination", "started")
            move = scene.migrate()
            os.kill(scene.gate.wait_held("destination", "started"), signal.SIGKILL)
            check(move.result() == 4, f"exit {move.done.returncode}: {move.done.stdout}")
            status = scene.bed.a.status()
            json_schema.validate("status", status)
            check(status["state"] == "outcome_unknown", f"status {status}")
            for command in ("pause", "resume", "stop"):
                refused = scene.bed.a.call(command, "guest", status=None)
                check(refused.returncode != 0 and "resolve" in refused.stderr, f"{command}: {refused}")
            scene.bed.a.call("resolve", "guest", resolution)
            if resolution == "--resume":
                scene.source_is_well()
            else:
                check(scene.guest.wait() == 0, scene.guest.log())


def source_killed_in_each_phase(options):
    """Before Commit the guest dies with its owner, and the copy is destroyed."""
    for phase in (*BEFORE_COMMIT, "commit"):
        with Scene(options) as scene:
            scene.gate.hold_at("source", phase)
            move = scene.migrate()
            scene.gate.wait_held("source", phase)
            scene.guest.kill()
            # The client lost the process that knew: it cannot say more than `unknown`.
            check(move.result() == 4, f"{phase}: exit {move.done.returncode}")
            if phase not in ("connect", "negotiate"):  # there a destination has been made
                scene.gate.wait_seen("destination", "refused")
            scene.destination_is_empty()
            scene.gate.release("source", phase)
            scene.start_guest()
            scene.receives_again()


def source_killed_before_running(options):
    """Commit arrived and Running finds nobody: the guest is the destination's."""
    with Scene(options) as scene:
        with scene.migration_held("destination", "started") as move:
            scene.guest.kill()
            check(move.result() == 4, move.done.stdout + move.done.stderr)
        scene.destination_is_well()


def source_killed_after_commit(options):
    with Scene(options) as scene:
        scene.gate.hold_at("source", "done")
        scene.migrate()
        scene.gate.wait_held("source", "done")
        scene.guest.kill()
        scene.destination_is_well()


def listener_restarted(options):
    """A later listener on the same records answers for the session of a dead one."""
    with Scene(options) as scene:
        with scene.migration_held("source", "commit") as move:
            scene.kill_reception()
            scene.listener.kill()
            port = scene.listener.address.rsplit(":", 1)[1]
            second = scene.bed.b.vmm("receive", "--listen", f"tcp:127.0.0.1:{port}", "--serial", "null")
            second.wait_line(r"tcp:127\.0\.0\.1:\d+")
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        scene.source_is_well()


def goes_on_after_a_cut(options):
    """With --retry: what the destination holds is not sent again, wherever the connection broke before Commit."""
    for streams in ("0", "1", "3"):
        for side, fault in (("a", "cut@copy:5"), ("a", "truncate@copy:4=300000"), ("a", "cut@final:1"),
                            ("b", f"cut@receiving:{int(streams) + 2}"), ("b", "cut@loaded:1")):
            with harness.Bed(options) as bed:
                words = {"a": [], "b": [], side: ["--fault", fault]}
                receiver = bed.b.receive(*words["b"])
                guest = bed.a.run("dirty.elf", append="fill=24 ws=4 pps=5000", memory="64M")
                guest.serial.expect("ready")
                events = bed.a.vmm("events", "guest")
                bed.a.status()
                report = bed.a.migrate(receiver.address, *harness.LIMITS, "--retry", "30s", "--verify", "full", "--streams",
                                       streams, *words["a"])
                json_schema.validate("report", report)
                check(events.wait() == 0, events.log())
                seen = [json.loads(line) for line in events.lines]
                for event in seen:
                    json_schema.validate_event(event)
                kinds = [event["event"] for event in seen if event["event"] in ("interrupted", "resumed")]
                check(kinds == ["interrupted", "resumed"], f"{fault}, {streams} streams: {kinds}")
                check(len(report["resumes"]) == 1, f"{fault}, {streams} streams: {report}")
                # Of what was under way when the link broke none may have arrived; after the rounds all has.
                check("copy" in fault or report["resumes"][0]["kept_pages"] > 5000, f"{fault}: {report['resumes']}")
                serial = bed.b.serial()
                serial.check()
                serial.send("finish")
                serial.expect("PASS")


def gives_up_to_come_back(options):
    """The link stays down: the guest runs on at the source, and the destination is free again."""
    with Scene(options) as scene:
        scene.gate.hold_at("source", "final")
        move = scene.migrate("--retry", "1s")
        scene.gate.wait_held("source", "final")
        scene.link.close()
        scene.link = Proxy(scene.listener.address)  # at another port, which the source does not know
        scene.gate.wait_seen("destination", "parked")
        scene.gate.release("source", "final")
        check(move.result() == 1, move.done.stdout)
        check("--retry" in move.done.stdout, move.done.stdout)
        scene.guest.serial.check()
        scene.gate.wait_seen("destination", "refused")
        scene.receives_again()


def a_session_answers_for_itself_only(options):
    """While a session cannot answer, another's process, which its guest has taken over, says that it has refused."""
    with harness.Bed(options, gated=True) as bed:
        guests = {name: bed.a.run("dirty.elf", append="fill=8 ws=4", memory="32M", name=name) for name in ("guest", "forger")}
        for guest in guests.values():
            guest.serial.expect("ready")
        listener = bed.b.vmm("receive", "--listen", "tcp:127.0.0.1:0", "--serial", "null", "--max-incoming", "2")
        link = Proxy(listener.wait_line(r"(tcp:[\d.]+:\d+)").group(1))
        bed.gate.hold_at("destination", "receiving")
        Move(bed.a, link.address, name="forger")
        forger = bed.gate.wait_held("destination", "receiving")
        bed.gate.let_others_pass("destination", "receiving")
        bed.gate.hold_at("destination", "started")
        move = Move(bed.a, link.address)
        session = bed.gate.wait_held("destination", "started")
        harness.stop_process(session)
        link.cut()
        while move.is_alive():
            forged = subprocess.run([bed.build / "bin" / "forge_answers", str(forger)], capture_output=True, text=True,
                                    check=False)
            check(forged.returncode == 0, forged.stderr)
        check(move.result() == 4, f"the source believed it: {move.done.stdout}")
        os.kill(session, signal.SIGCONT)
        bed.gate.release("destination", "started")
        check(guests["guest"].wait() == 0, guests["guest"].log())
        check({"guest": "running"} == {entry["name"]: entry["state"] for entry in bed.b.json("list")["guests"]
                                       if entry["name"] == "guest"}, "the guest runs nowhere")
        link.close()


TESTS = {f.__name__: f for f in (
    cut_in_each_phase, several_vcpus_go_on, one_stream_cut, cut_at_commit, cut_before_running,
    destination_killed_in_each_phase, destination_killed_in_its_own_phases, destination_killed_with_streams,
    destination_killed_before_started, destination_killed_after_started, source_killed_in_each_phase,
    source_killed_before_running, source_killed_after_commit, listener_restarted,
    goes_on_after_a_cut, gives_up_to_come_back, a_session_answers_for_itself_only)}

if __name__ == "__main__":
    harness.main(TESTS)
