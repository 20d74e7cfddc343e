#!/usr/bin/python3
"""json_schemas.py VMM: what needs no KVM of docs/json.md: its schemas, and real output of commands that find no guest."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "support"))
import json_schema  # noqa: E402
import jsonschema  # noqa: E402


def output(vmm, *arguments, expect):
    run = subprocess.run([vmm, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=30)
    if run.returncode != expect:
        sys.exit(f"vmm {' '.join(arguments)}: status {run.returncode}, expected {expect}\n{run.stderr}")
    return run


def refused(name, value):
    try:
        json_schema.validate(name, value)
    except jsonschema.ValidationError:
        return
    sys.exit(f"schema {name} takes {value}")


def main():
    vmm = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        json_schema.validate("list", json.loads(output(vmm, "list", "--json", expect=0).stdout))
        report = json.loads(output(vmm, "migrate", "--json", "nobody", "tcp:127.0.0.1:1", expect=1).stdout)
        json_schema.validate("migrate", report)
        for command in ("status", "events", "pause", "resume", "stop", "cancel"):
            run = output(vmm, command, "nobody", expect=1)
            if run.stdout or run.stderr.count("\n") != 1:
                sys.exit(f"vmm {command} nobody: an error is one line on standard error, not: {run.stdout}{run.stderr}")
        for command in ("pause", "resume", "stop", "cancel", "resolve"):
            decision = ["--discard"] if command == "resolve" else []
            answer = json.loads(output(vmm, command, "nobody", *decision, "--json", expect=1).stdout)
            json_schema.validate(command, answer)
            refused(command, answer | {"done": True})
        answer = json.loads(output(vmm, "preflight", "nobody", "tcp:127.0.0.1:1", "--json", expect=1).stdout)
        json_schema.validate("preflight", answer)
        output(vmm, "status", "../nobody\n", expect=1)
        for command in ("status", "events", "pause", "stop"):
            output(vmm, command, "no body", expect=2)
        for arguments, words in ((("bogus",), "bogus"), (("run", "-m", "100T", "x"), "8T"),
                                 (("run", "-m", "1000", "x"), "512M"), (("run", "--serial", "foo", "x"), "stdio"),
                                 (("run", "--name", ".x", "x"), "begin with"),
                                 (("migrate", "a", "tcp:h:1", "--max-pause", "200ms"), "--max-downtime")):
            text = output(vmm, *arguments, expect=2).stderr
            if words not in text or text.count("\n") != 1 or text.count("--serial") > 1:
                sys.exit(f"vmm {' '.join(arguments)}: {text}")
        if "protocol" not in output(vmm, "--version", expect=0).stdout:
            sys.exit("--version does not say what it speaks")
        output(vmm, "run", expect=2)
        output(vmm, "run", "--disk", "x", "image", expect=2)
        output(vmm, "migrate", "a", "127.0.0.1:1", expect=2)

    # A schema that takes anything would prove nothing.
    report["surprise"] = 1
    refused("migrate", report)
    del report["surprise"]
    refused("migrate", report | {"result": None})
    json_schema.validate("report", report | {"result": None})
    refused("report", report | {"downtime": {}})
    json_schema.validate("request", {"command": "migrate", "to": "tcp:h:1", "max_downtime_ms": 300})
    refused("request", {"command": "migrate"})
    json_schema.validate("reply", {"ok": True, "report": report, "id": 3})
    refused("reply", {"ok": True, "error": {}})


main()
