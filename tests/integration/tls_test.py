#!/usr/bin/python3
"""Migrations over TLS: what moves, who is turned away, and what plain TCP may still do."""

import contextlib
import ctypes
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from integration import harness, netns  # noqa: E402
from integration.handover_test import Move, Scene  # noqa: E402
from integration.harness import check  # noqa: E402
from support import json_schema  # noqa: E402

MAKE_CERTS = Path(__file__).resolve().parents[2] / "tools" / "make-certs"


def certificates(directory, *hosts):
    """What the tool for users makes: a directory for each of `hosts`, and their fingerprints."""
    done = subprocess.run([MAKE_CERTS, directory, *hosts], capture_output=True, text=True, check=False)
    check(done.returncode == 0, done.stdout + done.stderr)
    return dict(line.split(": ", 1) for line in done.stdout.splitlines())


class TlsBed(harness.Bed):
    """Both hosts have certificates of one CA, for localhost and 127.0.0.1."""

    def __init__(self, options, **settings):
        super().__init__(options, **settings)
        self.prints = certificates(self.directory / "certs", "a,localhost,127.0.0.1", "b,localhost,127.0.0.1")
        certificates(self.directory / "foreign", "a,localhost,127.0.0.1")

    def tls(self, host):
        return ("--tls-dir", str(self.directory / "certs" / host))

    def foreign(self):
        return ("--tls-dir", str(self.directory / "foreign" / "a"))

    def fingerprint(self, host):
        return self.prints[str(self.directory / "certs" / host)]


def said(report, *words):
    text = json.dumps(report["reasons"])
    check(all(word in text for word in words), f"{words} not in {text}")


def moves(options):
    with TlsBed(options) as bed:
        for host in (bed.a, bed.b):
            host.listener = host.receive("--tls-dir", os.path.relpath(bed.tls(host.name)[1], host.directory))
        guest = bed.a.run("dirty.elf", append="fill=16 ws=4 pps=5000", memory="64M")
        serial = guest.serial
        serial.expect("ready")
        here, there = bed.a, bed.b
        for streams in (0, 1, 4):
            answer = here.json("preflight", "guest", there.listener.address, *bed.tls(here.name))
            json_schema.validate("preflight", answer)
            check(answer["would_migrate"] and not answer["warnings"] and answer["link_mib_s"], f"{answer}")
            report = here.migrate(there.listener.address, "--verify", "full", "--streams", streams, *harness.LIMITS,
                                  *bed.tls(here.name))
            json_schema.validate("migrate", report)
            check(report["tls"]["version"] == "TLSv1.3" and report["digest"]["verified"], f"{report}")
            there.listener.wait_line(r"receiving guest .* TLSv1\.3 TLS_")
            serial = there.serial()
            serial.check()
            here, there = there, here
        serial.send("finish")
        serial.expect("PASS")


class TlsScene(Scene):
    def __init__(self, options):
        self.bed = TlsBed(options, gated=True)
        self.gate = self.bed.gate
        self.receive_options = self.bed.tls("b")

    def migrate(self, *args):
        return Move(self.bed.a, self.link.address, "--verify", "full", *self.bed.tls("a"), *args)


def cut_before_running(options):
    """Query travels over TLS too."""
    with TlsScene(options) as scene:
        with scene.migration_held("destination", "started") as move:
            scene.link.cut()
        check(move.result() == 0, move.done.stdout + move.done.stderr)
        check(scene.guest.wait() == 0, scene.guest.log())
        scene.destination_is_well()


def cut_at_commit(options):
    with TlsScene(options) as scene:
        with scene.migration_held("source", "commit") as move:
            scene.link.cut()
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        scene.source_is_well()
        scene.destination_is_empty()


def cut_in_the_copy(options):
    """Of four data connections one ends; the next migration moves the guest."""
    with TlsScene(options) as scene:
        with scene.migration_held("source", "copy", "--streams", "4") as move:
            scene.link.wait_connected(5)
            scene.link.cut_one(2)
        check(move.result() == 1, move.done.stdout + move.done.stderr)
        scene.guest.serial.check()
        scene.destination_is_empty()
        again = scene.migrate()
        check(again.result() == 0, again.done.stdout + again.done.stderr)
        scene.destination_is_well()


def strangers_are_turned_away(options):
    """A wrong CA, a wrong name, a wrong fingerprint, on either side: the guest runs on, and the right one still moves."""
    with TlsBed(options) as bed:
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        listener = bed.b.receive(*bed.tls("b"))
        wrong = "sha256:" + "0" * 64
        for args, words in ((bed.foreign(), ("certificates of one CA",)),
                            ((*bed.tls("a"), "--tls-peer", "elsewhere"), ("elsewhere", bed.fingerprint("b"))),
                            ((*bed.tls("a"), "--tls-peer", wrong), (wrong, bed.fingerprint("b"))),
                            ((), ("takes TLS only",))):
            report = bed.a.migrate(listener.address, *args, status=1)
            json_schema.validate("migrate", report)
            said(report, *words)
            check(report["tls"] is None, f"{report}")
            said(bed.a.json("preflight", "guest", listener.address, *args, status=1), *words)
            guest.serial.ask("status")
        listener.wait_line("turned away: .*TLS alert")
        listener.wait_line("does not use TLS")
        # The other way round: it is the listener that does not like the source.
        picky = bed.b.receive(*bed.tls("b"), "--tls-peer", bed.fingerprint("b"), name="picky")
        report = bed.a.migrate(picky.address, *bed.tls("a"), status=1)
        said(report, "does not accept our certificate")
        picky.wait_line(f"turned away: .*{bed.fingerprint('a')}")
        plain = bed.b.receive(name="plain")
        report = bed.a.migrate(plain.address, *bed.tls("a"), status=1)
        said(report, "has no --tls-dir")
        plain.wait_line("wants TLS")
        guest.serial.ask("status")
        bed.a.migrate(listener.address, *bed.tls("a"), "--tls-peer", bed.fingerprint("b"))
        bed.b.serial().ask("status")


PURPOSE_DATA, PURPOSE_RESUME = 1, 4
XXH3_64bits = ctypes.CDLL("libxxhash.so.0").XXH3_64bits
XXH3_64bits.argtypes = (ctypes.c_char_p, ctypes.c_size_t)
XXH3_64bits.restype = ctypes.c_uint64


def preamble(purpose, session):
    """The first bytes of a connection, as PROTOCOL.md section 1 has them, but for the checksum."""
    return b"GWT1" + struct.pack("<I", purpose) + session


def silent_strangers_stop_nothing(options):
    """Connections that say nothing, too little, or something else: a guest gets past them, and they are dropped."""
    with TlsBed(options) as bed, contextlib.ExitStack() as open_sockets:
        listener = bed.b.receive(*bed.tls("b"))
        host, port = listener.address.removeprefix("tcp:").rsplit(":", 1)
        strangers = []
        for index in range(40):
            stranger = open_sockets.enter_context(socket.create_connection((host, int(port))))
            strangers.append(stranger)
            stranger.sendall((b"", b"GWT1", preamble(0, bytes(16)), bytes(2000), b"\x16\x03\x01\x02\x00")[index % 5])
        context = ssl.create_default_context(cafile=bed.directory / "certs" / "ca" / "cert.pem")
        with socket.create_connection((host, int(port))) as raw:
            try:
                context.wrap_socket(raw, server_hostname="localhost")
                raise harness.Failure("a client without our preamble got TLS")
            except (ssl.SSLError, OSError):
                pass
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        bed.a.migrate(listener.address, *bed.tls("a"))
        bed.b.serial().ask("status")
        for stranger in strangers:
            harness.wait_closed(stranger)


def an_arrived_guest_hears_no_strangers(options):
    """Whoever knows its session, which is no secret, gets no handshake with its process any more."""
    with TlsBed(options) as bed:
        listener = bed.b.receive(*bed.tls("b"))
        host, port = listener.address.removeprefix("tcp:").rsplit(":", 1)
        bed.a.run("hello.elf", append="wait=1").serial.expect("ready")
        session = bytes.fromhex(bed.a.migrate(listener.address, *bed.tls("a"))["session"])

        def answer(purpose):
            with socket.create_connection((host, int(port)), harness.DEADLINE) as stranger:
                raw = preamble(purpose, session)
                stranger.sendall(raw + struct.pack("<Q", XXH3_64bits(raw, len(raw))))
                return stranger.makefile("rb").read()

        for purpose in (PURPOSE_DATA, PURPOSE_RESUME):
            harness.wait_for(lambda: b"no session waits for this connection" in answer(purpose))
        bed.b.serial().ask("status")


def bad_directories(options):
    """Said at once, in one line, by whoever reads the files."""
    with TlsBed(options) as bed:
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        listener = bed.b.receive(*bed.tls("b"))
        key = Path(bed.tls("a")[1]) / "key.pem"

        def complaints(*words):
            report = bed.a.migrate(listener.address, *bed.tls("a"), status=1)
            check([reason["code"] for reason in report["reasons"]] == ["tls_unusable"], f"{report}")
            said(report, *words)
            answer = bed.a.json("preflight", "guest", listener.address, *bed.tls("a"), status=1)
            said(answer, *words)
            started = bed.a.call("receive", "--listen", "tcp:127.0.0.1:0", *bed.tls("a"), status=4)
            check(len(started.stderr.splitlines()) == 1, started.stderr)
            check(all(word in started.stderr for word in words), started.stderr)

        key.chmod(0o644)
        complaints("chmod 600")
        key.unlink()
        complaints("key.pem", "No such file")
        for wrong in (("--tls-peer", "x"), (*bed.tls("a"), "--insecure"), (*bed.tls("a"), "--tls-peer", "sha256:1")):
            done = bed.a.call("migrate", "guest", listener.address, *wrong, status=2)
            check(len(done.stderr.splitlines()) == 1, done.stderr)
        guest.serial.ask("status")


def plain_needs_a_word(options):
    """Off this host plain TCP is refused, but for --insecure, which is warned of; TLS needs no word."""
    with netns.Bed(options) as bed:
        tool = certificates(bed.directory / "certs", *(f"{name},{netns.HOST_ADDRESSES[name]}" for name in "ab"))
        check(len(tool) == 2, f"{tool}")
        guest = bed.a.run("hello.elf", append="wait=1")
        guest.serial.expect("ready")
        for host in (bed.a, bed.b):
            host.LINK = ()
        address = f"tcp:{bed.b.ADDRESS}:0"
        refused = bed.b.vmm("receive", "--listen", address, "--serial", "null")
        check(refused.wait() == 4 and len(refused.lines) == 1, refused.log())
        check("--insecure" in refused.log() and "--tls-dir" in refused.log(), refused.log())
        # A wildcard is no loopback address either.
        everywhere = bed.b.vmm("receive", "--listen", "tcp:0.0.0.0:0", "--serial", "null")
        check(everywhere.wait() == 4, everywhere.log())
        listener = bed.b.receive("--insecure")
        check("warning" in listener.log(), listener.log())
        report = bed.a.migrate(listener.address, status=1)
        said(report, "--insecure", "--tls-dir")
        said(bed.a.json("preflight", "guest", listener.address, status=1), "--insecure")
        guest.serial.ask("status")
        answer = bed.a.json("preflight", "guest", listener.address, "--insecure")
        check([warning["code"] for warning in answer["warnings"]] == ["insecure"], f"{answer}")
        report = bed.a.migrate(listener.address, "--insecure")
        check("insecure" in [warning["code"] for warning in report["warnings"]], f"{report}")
        check(report["tls"] is None, f"{report}")
        bed.b.serial().ask("status")
        back = bed.a.receive("--tls-dir", bed.directory / "certs" / "a", name="back")
        report = bed.b.migrate(back.address, "--tls-dir", bed.directory / "certs" / "b")
        check(report["tls"] and not report["warnings"], f"{report}")
        bed.a.serial("back").ask("status")


TESTS = {f.__name__: f for f in (moves, cut_before_running, cut_at_commit, cut_in_the_copy, strangers_are_turned_away,
                                 silent_strangers_stop_nothing, an_arrived_guest_hears_no_strangers, bad_directories,
                                 plain_needs_a_word)}

if __name__ == "__main__":
    harness.main(TESTS)
