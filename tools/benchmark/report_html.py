"""report.html: one file with its plots inside."""

import base64
import html
import io
import statistics

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

PARTS = ("pause_ms", "save_ms", "last_round_ms", "send_ms", "restore_ms", "commit_ms", "resume_ms", "other_ms")


def picture(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    pyplot.close(figure)
    return f'<img src="data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}">'


def plot_lines(results, axes, axis, measure, log=True):
    found = results.by_axis().get(axis, [])
    for system in results.systems():
        pairs = [(str(value), results.median(point, system, measure)) for value, point in found]
        pairs = [pair for pair in pairs if pair[1] is not None]
        if pairs:
            axes.plot(*zip(*pairs), marker="o", label=system)
    if log:
        axes.set_yscale("log")
    axes.grid(True, alpha=0.3)
    if axes.lines:
        axes.legend()


def against(results, axis, measure, label, log=True):
    """Medians of a measure along an axis, a line for each system."""
    found = results.by_axis().get(axis)
    if not found:
        return ""
    figure, axes = pyplot.subplots(figsize=(7, 4))
    plot_lines(results, axes, axis, measure, log)
    axes.set_xlabel(axis)
    axes.set_ylabel(label)
    return f"<h2>{html.escape(label)} against {html.escape(axis)}</h2>{picture(figure)}"


def median_run(samples, measure):
    middle = statistics.median(sample[measure] for sample in samples)
    return min(samples, key=lambda sample: abs(sample[measure] - middle))


def timeline(results):
    """The rounds of the run with most of them, and where its pause went."""
    runs = [sample for sample in results.samples if sample.get("rounds")]
    if not runs:
        return ""
    busiest = max(runs, key=lambda sample: len(sample["rounds"]))
    run = median_run([sample for sample in runs if sample["point"] == busiest["point"]], "downtime_ms")
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 5), sharex=True)
    at = run["setup_ms"] or 0
    for each in run["rounds"]:
        above.bar(at, each["bytes"] / 2**20, width=max(each["ms"], 0.2), align="edge", edgecolor="black")
        below.bar(at, each["owed_after"], width=max(each["ms"], 0.2), align="edge", edgecolor="black", color="tab:orange")
        at += each["ms"]
    above.set_ylabel("MiB sent")
    below.set_ylabel("pages owed after")
    for axes in (above, below):
        axes.axvspan(run["total_ms"] - run["downtime_ms"], run["total_ms"], color="tab:red", alpha=0.3)
        axes.axvline(run["total_ms"] - run["downtime_ms"] + run["predicted_ms"], color="black", linestyle=":")
    below.set_xlabel(f"ms; total {run['total_ms']:.1f}; the pause in red, its predicted end dotted: predicted {run['predicted_ms']:.2f}, "
                     f"actual {run['downtime_ms']:.2f}")
    return f"<h2>One migration: {html.escape(run['point'])}</h2>{picture(figure)}"


def pauses(results):
    """Where the pause of the median run of each point went."""
    rows = []
    for point in results.points():
        samples = [sample for sample in results.samples if sample["point"] == point and sample.get("parts")]
        if samples:
            rows.append((point, median_run(samples, "downtime_ms")["parts"]))
    if not rows:
        return ""
    figure, axes = pyplot.subplots(figsize=(8, 0.35 * len(rows) + 1.5))
    left = [0.0] * len(rows)
    for part in PARTS:
        widths = [parts.get(part) or 0.0 for _, parts in rows]
        axes.barh([point for point, _ in rows], widths, left=left, label=part.removesuffix("_ms"))
        left = [begin + width for begin, width in zip(left, widths)]
    axes.invert_yaxis()
    axes.set_xlabel("ms of downtime, median run")
    axes.legend(ncol=4, fontsize="small")
    return f"<h2>Where the pause goes</h2>{picture(figure)}"


def brownouts(results):
    """What guests lose while rounds run and just after the pause, along the dirty rate."""
    return against(results, "pages/s over 256 MiB", "brownout_copy_percent", "vCPU kept waiting while rounds run, %", log=False) + \
        against(results, "pages/s over 256 MiB", "brownout_after_percent", "vCPU kept waiting in 0.1 s after the pause, %", log=False)


def notes(results):
    found = "".join(f"<li>{html.escape(line)}</li>" for line in results.differences())
    return ("<h2>How to read this</h2><p>Medians. <i>downtime</i> is what the engine says, <i>blackout</i> the longest gap "
            "that the guest saw in its TSC from before the move to after it, <i>outside</i> the longest gap between its "
            "heartbeats that somebody on its serial port saw; one of these is due every millisecond. All three count "
            "whatever else happened in that time: <i>quiet</i> windows of the same length, without a move, are in "
            "results.json. <i>brownout</i>: the share of the time while rounds ran in which the vCPU was ready but waited for "
            "a CPU (schedstat). <i>cpu s</i> is all CPU time of the "
            "machine, the guest's included. <i>of link</i>: of one raw TCP stream beside a guest that spins.</p>"
            + (f"<p>Where guest and outside differ by more than 0.5 ms (ms): the beats of <code>vmm</code> pass its I/O thread, "
               "which on a host without a free CPU may wait a tick of the scheduler (4 ms at 250 Hz) behind a vCPU; QEMU "
               f"writes them on the vCPU's own thread.</p><ul>{found}</ul>" if found else ""))


def overview(results):
    """The plot of the README: blackout along memory and dirty rate, one line a system."""
    figure, both = pyplot.subplots(1, 2, figsize=(10, 3.6), sharey=True)
    for axes, axis, label in zip(both, ("idle memory MiB", "pages/s over 256 MiB"),
                                 ("memory of an idle guest, MiB", "pages written a second, over 256 MiB")):
        plot_lines(results, axes, axis, "blackout_ms")
        axes.set_xlabel(label)
    both[0].set_ylabel("blackout, ms (median)")
    return figure


def write(results):
    parts = ["<!DOCTYPE html><meta charset=utf-8><title>Godwit benchmark</title>"
             "<style>body{font-family:sans-serif;max-width:60em;margin:auto}pre{font-size:80%;overflow-x:auto}</style>"
             "<h1>Live migration benchmark</h1>",
             f"<p><code>{html.escape(results.facts['command'])}</code></p>",
             f"<pre>{html.escape(chr(10).join([*results.host_lines(), '', *results.table()]))}</pre>",
             notes(results)]
    for measure, label in (("downtime_ms", "downtime, ms"), ("blackout_ms", "blackout, ms")):
        for axis in ("idle memory MiB", "pages/s over 256 MiB"):
            parts.append(against(results, axis, measure, label))
    parts.append(against(results, "streams", "throughput_mib_s", "throughput, MiB/s", log=False))
    parts.append(against(results, "link", "share_of_link", "share of one raw TCP stream, %", log=False))
    parts.append(against(results, "used MiB", "total_ms", "total, ms", log=False))
    parts.append(brownouts(results))
    parts.append(timeline(results))
    parts.append(pauses(results))
    (results.directory / "report.html").write_text("\n".join(parts), encoding="utf-8")
    figure = overview(results)
    figure.savefig(results.directory / "overview.svg", bbox_inches="tight")
    pyplot.close(figure)
