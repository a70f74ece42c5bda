"""Draws the dashboard as Grafana lays it out: its panels in their grid, from their own queries, asked of a Prometheus.

draw.py DASHBOARD.json PROMETHEUS_URL FROM TO PICTURE.png        FROM and TO in seconds since the Unix epoch

It is here because Grafana cannot be had as a package. It knows what the dashboard uses of Grafana, and no more.
"""

import json
import math
import re
import sys
import urllib.parse
import urllib.request
from datetime import datetime, timezone

import matplotlib

matplotlib.use("Agg")
from matplotlib import dates, pyplot, ticker  # noqa: E402
from matplotlib.patches import FancyBboxPatch  # noqa: E402

DPI = 100
COLUMN_PX, ROW_PX, GAP_PX = 66, 30, 8
BACK, PANEL, EDGE, TEXT, FAINT, GRID = "#111217", "#181b1f", "#2c3235", "#ccccdc", "#8e8e9c", "#2a2e33"
NAMED = {"green": "#73bf69", "yellow": "#fade2a", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}
PALETTE = ["#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a",
           "#447ebc", "#c15c17", "#890f02", "#0a437c", "#6d1f62"]  # fmt: skip
LEGEND_MAX = 7


def colour(name):
    return NAMED.get(name, name)


class Source:
    def __init__(self, url, start, end):
        self.url, self.start, self.end = url, start, end
        self.step = max(1, round((end - start) / 300))

    def ask(self, path, **parameters):
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}") as answer:
            return json.load(answer)["data"]["result"]

    def filled_in(self, query):
        span = f"{round(self.end - self.start)}s"
        for name, value in [("$__rate_interval", f"{max(8, 4 * self.step)}s"), ("$__range", span)]:
            query = query.replace(name, value)
        for name in ("job", "namespace", "instance", "route", "sink"):
            query = query.replace(f'"${name}"', '".*"')
        return query

    def series(self, target):
        """Pairs of legend and points; of what is asked for once, one point."""
        query = self.filled_in(target["expr"])
        if target["instant"]:
            found = self.ask("query", query=query, time=self.end)
        else:
            found = self.ask("query_range", query=query, start=self.start, end=self.end, step=self.step)
        for one in found:
            points = [(float(at), float(value)) for at, value in one.get("values") or [one["value"]]]
            yield legend(target["legendFormat"], one["metric"]), points


def legend(template, labels):
    for name, value in labels.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def scaled(value, units, base):
    for i, unit in enumerate(units):
        if abs(value) < base or i == len(units) - 1:
            return value, unit
        value /= base
    raise AssertionError("there is a last unit")


def plain(value):
    if value == round(value) and abs(value) < 1000:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def worded(value, unit):
    """A value as Grafana writes it."""
    if math.isnan(value):
        return "–"
    if unit == "s" and value == 0:
        return "0 s"
    if unit == "s":
        for below, factor, name in [(1e-3, 1e6, "µs"), (1, 1e3, "ms"), (60, 1, "s"), (3600, 1 / 60, "min"), (86400, 1 / 3600, "h")]:
            if abs(value) < below:
                return f"{plain(value * factor)} {name}"
        return f"{plain(value / 86400)} days"
    if unit == "percentunit":
        return f"{plain(value * 100)} %"
    if unit == "bytes":
        value, name = scaled(value, ["B", "KiB", "MiB", "GiB", "TiB"], 1024)
        return f"{plain(value)} {name}"
    after = {"reqps": " req/s", "eps": " evt/s", "mps": " msg/s", "ops": " ops/s"}.get(unit, "")
    value, thousand = scaled(value, ["", " K", " M", " G"], 1000)
    return f"{plain(value)}{thousand}{after}"


class Picture:
    def __init__(self, dashboard, source):
        self.dashboard, self.source = dashboard, source
        last = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"])
        self.top_px = 46
        self.width = 24 * COLUMN_PX + GAP_PX
        self.height = last * ROW_PX + self.top_px + GAP_PX
        self.figure = pyplot.figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor=BACK)

    def draw(self, path):
        self.text(GAP_PX + 4, 30, self.dashboard["title"], size=15, weight="bold")
        span = [datetime.fromtimestamp(at, timezone.utc).strftime("%H:%M:%S") for at in (self.source.start, self.source.end)]
        self.text(self.width - GAP_PX - 4, 30, f"{span[0]} to {span[1]}", size=10, ha="right", color=FAINT)
        for panel in self.dashboard["panels"]:
            grid = panel["gridPos"]
            x, y = grid["x"] * COLUMN_PX + GAP_PX, grid["y"] * ROW_PX + self.top_px
            w, h = grid["w"] * COLUMN_PX - GAP_PX, grid["h"] * ROW_PX - GAP_PX
            if panel["type"] == "row":
                self.text(x + 4, y + 18, "⌄  " + panel["title"], size=12, weight="bold")
                continue
            self.box(x, y, w, h)
            self.text(x + 10, y + 19, panel["title"], size=10, weight="medium")
            drawn = {"timeseries": self.lines, "stat": self.stat, "state-timeline": self.states, "heatmap": self.heat,
                     "bargauge": self.bars}[panel["type"]]  # fmt: skip
            drawn(panel, x, y, w, h)
        self.figure.savefig(path, dpi=DPI, facecolor=BACK)
        shrink(path)

    def text(self, x, y, text, **style):
        style = {"color": TEXT, "size": 9, "va": "baseline", **style}
        self.figure.text(x / self.width, 1 - y / self.height, text, **style)

    def box(self, x, y, w, h, face=PANEL, edge=EDGE):
        at = (x / self.width, 1 - (y + h) / self.height)
        style = f"round,pad=0,rounding_size={3 / self.width}"
        self.figure.add_artist(FancyBboxPatch(at, w / self.width, h / self.height, boxstyle=style, facecolor=face, edgecolor=edge,
                                              linewidth=0.8, zorder=-1, mutation_aspect=self.width / self.height))  # fmt: skip

    def axes(self, x, y, w, h, left=62, right=12, top=32, bottom=42):
        place = [(x + left) / self.width, 1 - (y + h - bottom) / self.height, (w - left - right) / self.width, (h - top - bottom) / self.height]
        axes = self.figure.add_axes(place, facecolor=PANEL)
        axes.tick_params(colors=FAINT, labelsize=8, length=0)
        axes.tick_params(axis="x", pad=6)
        for side in axes.spines.values():
            side.set_visible(False)
        axes.grid(color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        return axes

    def time(self, axes):
        start, end = (datetime.fromtimestamp(at, timezone.utc) for at in (self.source.start, self.source.end))
        axes.set_xlim(start, end)
        axes.xaxis.set_major_locator(dates.AutoDateLocator(minticks=2, maxticks=5))
        axes.xaxis.set_major_formatter(dates.DateFormatter("%H:%M:%S"))

    def below(self, names, x, y, w, h):
        """The legend: names and colours, as many as there is room for."""
        at, bottom = x + 12, y + h - 9
        for i, (name, shade, style) in enumerate(names):
            needed = 30 + 6.1 * len(name)
            rest = len(names) - i
            if i >= LEGEND_MAX or (at + needed > x + w - (40 if rest > 1 else 4) and i > 0):
                self.text(at, bottom, f"+ {rest}", size=8, color=FAINT)
                return
            self.figure.add_artist(pyplot.Line2D([at / self.width, (at + 12) / self.width], [1 - (bottom - 3) / self.height] * 2, color=shade,
                                                 linestyle=style, linewidth=2))  # fmt: skip
            self.text(at + 17, bottom, name, size=8)
            at += needed

    def lines(self, panel, x, y, w, h):
        defaults = panel["fieldConfig"]["defaults"]
        axes = self.axes(x, y, w, h)
        stacked = "stacking" in defaults["custom"]
        series = [one for target in panel["targets"] for one in self.source.series(target)]
        names, highest, floor = [], 0, {}
        for i, (name, points) in enumerate(series):
            shade, style, fill = self.looks(panel, name, PALETTE[i % len(PALETTE)])
            names.append((name, shade, style))
            times = [datetime.fromtimestamp(at, timezone.utc) for at, _ in points]
            below = [floor.get(at, 0) if stacked else 0 for at, _ in points]
            values = [value if math.isnan(value) else value + under for (_, value), under in zip(points, below)]
            if stacked:
                floor.update({at: value for (at, _), value in zip(points, values) if not math.isnan(value)})
            axes.plot(times, values, color=shade, linestyle=style, linewidth=1.3 * defaults["custom"]["lineWidth"])
            if fill:
                axes.fill_between(times, values, below, color=shade, alpha=fill / 100, linewidth=0)
            highest = max([highest, *(value for value in values if not math.isnan(value))])
        for step in defaults["thresholds"]["steps"][1:]:
            if step["value"] <= highest * 1.6:
                axes.axhline(step["value"], color=colour(step["color"]), linestyle=(0, (6, 4)), linewidth=1)
                highest = max(highest, step["value"])
        axes.set_ylim(0, highest * 1.12 or 1)
        axes.yaxis.set_major_locator(ticker.MaxNLocator(5, integer=defaults["unit"] == "none"))
        axes.yaxis.set_major_formatter(lambda value, _: worded(value, defaults["unit"]))
        self.time(axes)
        self.below(names, x, y, w, h)

    def looks(self, panel, name, shade):
        style, fill = "-", panel["fieldConfig"]["defaults"]["custom"]["fillOpacity"]
        for override in panel["fieldConfig"]["overrides"]:
            if re.search(override["matcher"]["options"], name):
                for known in override["properties"]:
                    if known["id"] == "color":
                        shade = colour(known["value"]["fixedColor"])
                    elif known["id"] == "custom.lineStyle":
                        style = (0, (5, 3))
                    elif known["id"] == "custom.fillOpacity":
                        fill = known["value"]
        return shade, style, fill

    def shade(self, panel, value):
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        passed = [step["color"] for step in steps if step["value"] is None or value >= step["value"]]
        return colour(passed[-1])

    def latest(self, panel):
        return [(name, points[-1][1]) for target in panel["targets"] for name, points in self.source.series(target)]

    def stat(self, panel, x, y, w, h):
        values = self.latest(panel)
        unit = panel["fieldConfig"]["defaults"]["unit"]
        share = w / max(1, len(values))
        for i, (name, value) in enumerate(values):
            filled = panel["options"]["colorMode"] == "background"
            if filled:
                self.box(x + i * share + 6, y + 28, share - 12, h - 34, face=self.shade(panel, value), edge=PANEL)
            middle = x + (i + 0.5) * share
            ink = "#111217" if filled else self.shade(panel, value)
            named = panel["options"]["textMode"] == "value_and_name"
            if named:
                self.text(middle, y + 48, name, size=10, ha="center")
            self.text(middle, y + (84 if named else 78), worded(value, unit), size=22, weight="bold", ha="center", color=ink)

    def bars(self, panel, x, y, w, h):
        values, defaults = self.latest(panel), panel["fieldConfig"]["defaults"]
        if not values:
            return
        height = (h - 38) / len(values)
        left, right = x + 12 + min(0.45 * w, 12 + 6.6 * max(len(name) for name, _ in values)), x + w - 90
        for i, (name, value) in enumerate(values):
            at = y + 32 + i * height
            self.box(left, at + height * 0.15, right - left, height * 0.7, face="#22252b", edge="#22252b")
            share = min(1, max(value / defaults["max"], 0.004))
            shade = self.shade(panel, value)
            self.box(left, at + height * 0.15, (right - left) * share, height * 0.7, face=shade, edge=shade)
            self.text(left - 8, at + height / 2 + 4, name, size=9, ha="right")
            self.text(x + w - 12, at + height / 2 + 4, worded(value, defaults["unit"]), size=10, ha="right", color=shade, weight="bold")

    def states(self, panel, x, y, w, h):
        words = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
        series = [one for target in panel["targets"] for one in self.source.series(target)]
        longest = max((len(name) for name, _ in series), default=0)
        axes = self.axes(x, y, w, h, left=min(18 + 6.2 * longest, 0.5 * w), bottom=24)
        for i, (_, points) in enumerate(series):
            for (since, value), until in zip(points, [at for at, _ in points[1:]] + [None]):
                # Where there is no value, there is no bar.
                wide = min((until or since) - since, 2 * self.source.step) or self.source.step
                begin = dates.date2num(datetime.fromtimestamp(since, timezone.utc))
                axes.broken_barh([(begin, wide / 86400)], (i - 0.38, 0.76), color=colour(words[str(int(value))]["color"]), linewidth=0)
        axes.set_ylim(max(len(series), 1) - 0.5, -0.5)
        axes.set_yticks(range(len(series)), [name for name, _ in series])
        axes.tick_params(axis="y", colors=TEXT)
        axes.grid(visible=False)
        self.time(axes)

    def heat(self, panel, x, y, w, h):
        axes = self.axes(x, y, w, h, bottom=24)
        series = sorted(((float(name), points) for target in panel["targets"] for name, points in self.source.series(target)))
        series = [one for one in series if not math.isinf(one[0])]
        times = sorted({at for _, points in series for at, _ in points})
        counted, rows = {}, []
        for _, points in series:
            values = dict(points)
            rows.append([max(0, values.get(at, 0) - counted.get(at, 0)) or math.nan for at in times])
            counted.update(values)
        used = [i for i, row in enumerate(rows) if any(not math.isnan(value) for value in row)] or [0]
        low, high = used[0], used[-1] + 1
        axes.imshow(rows[low:high], aspect="auto", origin="lower", cmap="Oranges", interpolation="nearest", vmin=0,
                    extent=[*(dates.date2num(datetime.fromtimestamp(at, timezone.utc)) for at in (times[0], times[-1])), 0, high - low])  # fmt: skip
        axes.set_yticks([i + 1 for i in range(high - low)], [worded(series[i][0], "s") for i in range(low, high)])
        axes.grid(visible=False)
        axes.xaxis_date()
        self.time(axes)


def shrink(path):
    """To a palette: a third of the size, and no difference to be seen."""
    from PIL import Image

    Image.open(path).convert("RGB").quantize(160, dither=Image.Dither.NONE).save(path, optimize=True)


def main():
    dashboard, url, start, end, path = sys.argv[1:]
    with open(dashboard, encoding="utf-8") as file:
        Picture(json.load(file), Source(url, float(start), float(end))).draw(path)


if __name__ == "__main__":
    main()
