"""The fault lab: every kind of fault, in every phase, on either side of a migration, and who runs the guest afterwards.

Never two, never none: the lab fails when both copies ran, or when none is left that could."""

import argparse
import concurrent.futures
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]
from faults import matrix, outcome_table, row  # noqa: E402
from integration import harness  # noqa: E402

FAULTS_IN_A_CELL = 20
ATTEMPTS = 3  # of a row whose fault did not strike: the phase sent fewer messages this time


def parse():
    parser = argparse.ArgumentParser(prog="tools/faultlab", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one fault in each cell")
    parser.add_argument("--each", type=int, default=FAULTS_IN_A_CELL,
                        help=f"faults in each cell, more between Pause and Running (default {FAULTS_IN_A_CELL})")
    parser.add_argument("--cell", action="append", help="KIND@PHASE/SIDE: only this one; may be repeated")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--row", type=int, help="the seed of a row, which is repeated; with --cell")
    parser.add_argument("--jobs", type=int, default=6, help="faults at one time (default 6)")
    parser.add_argument("--out", type=Path, help="a directory for outcome.html and rows.jsonl")
    parser.add_argument("--build", default=ROOT / "build")
    options = parser.parse_args()
    known = {str(cell): cell for cell in matrix.cells()}
    for name in options.cell or ():
        if name not in known:
            parser.error(f"there is no cell {name}; they are KIND@PHASE/SIDE, as cut@commit/source")
        if known[name].unreachable():
            parser.error(f"{name} cannot be reached: {known[name].unreachable()}")
    if options.row is not None and len(options.cell or ()) != 1:
        parser.error("--row repeats a row of one --cell")
    options.cells = [known[name] for name in options.cell or ()]
    return options


def planned(options):
    """(cell, seed) of all rows."""
    if options.row is not None:
        return [(options.cells[0], options.row)]
    draw = random.Random(options.seed)
    if options.cells:
        cells = [cell for cell in options.cells for _ in range(1 if options.quick else options.each)]
    else:
        cells = matrix.reachable() if options.quick else matrix.rows(options.each)
    draw.shuffle(cells)  # slow ones side by side with quick ones
    return [(cell, draw.randrange(1 << 32)) for cell in cells]


def carried_out(options, cell, seed):
    for attempt in range(ATTEMPTS):
        verdict = row.run(options, cell, seed + attempt)
        if "never struck" not in verdict.text:
            break
    return {"cell": str(cell), "seed": seed + attempt, **vars(cell.plan(seed + attempt)), **vars(verdict)}


def make_certificates(directory):
    """For both hosts of the rows that migrate over TLS."""
    subprocess.run([ROOT / "tools" / "make-certs", directory, "a,127.0.0.1", "b,127.0.0.1"], check=True,
                   stdout=subprocess.DEVNULL)
    return directory


def run(options):
    plan = planned(options)
    print(f"{len(plan)} faults, {options.jobs} at a time; seed {options.seed} (--seed {options.seed} repeats this)",
          flush=True)
    begin = time.monotonic()
    results = []
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(carried_out, options, cell, seed) for cell, seed in plan]
        for future in concurrent.futures.as_completed(futures):
            result = future.result()
            results.append(result)
            if result["outcome"] in (*row.WRONG, "error"):
                print(f"{result['outcome'].upper()}: {result['fault']} (tools/faultlab --cell {result['cell']} --row "
                      f"{result['seed']})\n{result['text']}", flush=True)
            if len(results) % 100 == 0:
                left = (time.monotonic() - begin) / len(results) * (len(plan) - len(results))
                print(f"  {len(results)} of {len(plan)}, about {left / 60:.0f} min left", flush=True)
    return results, time.monotonic() - begin


def main():
    options = parse()
    reason = harness.kvm_reason()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(harness.SKIP)
    with tempfile.TemporaryDirectory(prefix="godwit-certs-") as directory:
        options.certs = make_certificates(Path(directory))
        results, seconds = run(options)
    table = outcome_table.Table(results)
    print(f"\n{table.text()}\n{len(results)} faults in {seconds / 60:.1f} min, seed {options.seed}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "outcome.html").write_text(table.html(options.seed))
        (options.out / "rows.jsonl").write_text("".join(json.dumps(result) + "\n" for result in results))
    sys.exit(1 if table.wrong() else 0)


if __name__ == "__main__":
    main()
