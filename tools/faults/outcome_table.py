"""The outcome table of the fault lab, as text and as HTML."""

import collections
import html
import textwrap

from faults import matrix, row

COLUMNS = (*row.OUTCOMES, "error")
SHORT = ("source", "destination", "paused", "died", "BOTH", "NONE", "error")


class Table:
    def __init__(self, results):
        self.counts = collections.defaultdict(collections.Counter)
        for result in results:
            self.counts[result["cell"]][result["outcome"]] += 1
        self.tls = sum(result["tls"] for result in results)
        self.retry = sum(bool(result["retry"]) for result in results)
        self.all = sum(self.counts.values(), collections.Counter())
        self.cells = [cell for cell in matrix.cells() if str(cell) in self.counts]
        critical = [cell for cell in self.cells if cell.what.critical]
        self.critical = sum(sum(self.counts[str(cell)].values()) for cell in critical)

    def wrong(self):
        """Rows that must not be."""
        return sum(self.all[outcome] for outcome in (*row.WRONG, "error"))

    def rows(self):
        for cell in self.cells:
            counts = self.counts[str(cell)]
            yield (cell.side, cell.phase, cell.kind, *(counts[column] or "" for column in COLUMNS))
        yield ("all", "", "", *(self.all[column] for column in COLUMNS))

    @staticmethod
    def unreachable():
        """By reason: the cells."""
        reasons = collections.defaultdict(list)
        for cell in matrix.cells():
            if cell.unreachable():
                reasons[cell.unreachable()].append(str(cell))
        return reasons

    def summary(self):
        total = sum(self.all.values())
        return (f"{total} faults, {self.critical} of them between Pause and Running, {self.tls} over TLS, {self.retry} "
                f"with --retry; both: {self.all['both']}, none: {self.all['none']}, errors of the lab: {self.all['error']}")

    def text(self):
        lines = [f"{'side':12}{'phase':12}{'fault':11}" + "".join(f"{name:>12}" for name in SHORT)]
        for side, phase, kind, *counts in self.rows():
            lines.append(f"{side:12}{phase:12}{kind:11}" + "".join(f"{count!s:>12}" for count in counts))
        lines.append("")
        for reason, cells in self.unreachable().items():
            lines += textwrap.wrap(f"not reachable, {reason}: {', '.join(cells)}", 119, subsequent_indent="    ",
                                   break_on_hyphens=False)
        lines.append(self.summary())
        return "\n".join(lines)

    def html(self, seed):
        def line(tag, values):
            return "<tr>" + "".join(f"<{tag}>{html.escape(str(value))}</{tag}>" for value in values) + "</tr>"

        body = [line("th", ("side", "phase", "fault", *COLUMNS)), *(line("td", values) for values in self.rows())]
        missing = [f"<li>{html.escape(reason)}: {html.escape(', '.join(cells))}</li>"
                   for reason, cells in self.unreachable().items()]
        return ("<!doctype html><meta charset=utf-8><title>Fault lab</title><style>body{font-family:sans-serif}"
                "td,th{padding:.1em .7em;text-align:right;border-bottom:1px solid #ddd}"
                "td:nth-child(-n+3),th:nth-child(-n+3){text-align:left}</style>"
                f"<h1>Who runs the guest after a fault</h1><p>{html.escape(self.summary())}. Seed {seed}.</p>"
                f"<table>{''.join(body)}</table><h2>Cells that cannot be reached</h2><ul>{''.join(missing)}</ul>\n")
