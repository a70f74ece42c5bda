#!/usr/bin/env python3
"""Writes forebay.json, the dashboard, beside this file. What is in it is said here; Grafana's JSON says each of it thrice.

deploy/grafana/dashboard.py            writes it
deploy/grafana/dashboard.py --check    exit code 1 when what is there is another
"""

import json
import pathlib
import sys

FILE = pathlib.Path(__file__).with_name("forebay.json")
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
# What every query selects by; `~` because each variable may be several, or all.
BY = 'job=~"$job", namespace=~"$namespace", instance=~"$instance"'
# `none` is the endpoint of paths that no endpoint has: nothing of it is ever accepted.
ENDPOINT = BY + ', endpoint!="none"'
ROUTE = BY + ', route=~"$route"'
SINK = ROUTE + ', sink=~"$sink"'
GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "#8e8e8e"


def variable(name, label, query, **more):
    """A variable of the labels that are there; where none is (no namespace outside Kubernetes), `All` matches all the same."""
    return {
        "name": name, "label": label, "type": "query", "datasource": DATASOURCE,
        "query": {"query": query, "refId": name}, "definition": query,
        "refresh": 2, "sort": 1, "multi": True, "includeAll": True, "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]}, **more,
    }  # fmt: skip


VARIABLES = [
    {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "refresh": 1, "includeAll": False, "multi": False, "current": {},
    },
    variable("job", "Job", "label_values(forebay_build_info, job)"),
    variable("namespace", "Namespace", 'label_values(forebay_build_info{job=~"$job"}, namespace)'),
    variable("instance", "Instance", 'label_values(forebay_build_info{job=~"$job", namespace=~"$namespace"}, instance)'),
    variable("route", "Route", f"label_values(forebay_route_backlog_records{{{BY}}}, route)"),
    variable("sink", "Sink", f'label_values({{__name__=~"forebay_(kafka|rabbitmq)_sessions_total", {BY}}}, sink)'),
    {
        "name": "runbooks", "label": "Runbooks", "type": "textbox", "hide": 2,
        "query": "https://forebay.example/docs/runbooks",
        "current": {"text": "https://forebay.example/docs/runbooks", "value": "https://forebay.example/docs/runbooks"},
        "options": [{
            "selected": True,
            "text": "https://forebay.example/docs/runbooks", "value": "https://forebay.example/docs/runbooks",
        }],
    },
]  # fmt: skip


def quantile(q, metric, by=BY, labels=""):
    """Of a histogram, over all that is selected or by labels."""
    return f"histogram_quantile({q}, sum by (le{labels}) (rate({metric}_bucket{{{by}}}[$__rate_interval])))"


def rate(metric, by=BY, labels="", more=""):
    total = f"sum by ({labels}) " if labels else "sum"
    return f"{total}(rate({metric}{{{by}{more}}}[$__rate_interval]))"


def steps(*pairs):
    """Thresholds: the colour from the bottom up, then (from, colour)."""
    return [{"color": colour, "value": value} for value, colour in pairs]


def panel(kind, title, width, height, unit, description, targets, *, thresholds=None, runbook=None, defaults=None,
          options=None, overrides=(), style=None):  # fmt: skip
    """`targets`: pairs of query and legend."""
    fields = {"unit": unit, "min": 0, **(defaults or {})}
    fields["thresholds"] = {"mode": "absolute", "steps": thresholds or steps((None, GREEN))}
    if kind == "timeseries":
        line = {"lineWidth": 1, "fillOpacity": 10, "showPoints": "never", "spanNulls": False, **(style or {})}
        if thresholds:
            line["thresholdsStyle"] = {"mode": "dashed"}
        fields["custom"] = line
        fields["color"] = {"mode": "palette-classic"}
        options = {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
            **(options or {}),
        }
    else:
        fields["color"] = {"mode": "thresholds"}
    return {
        "type": kind, "title": title, "description": description, "datasource": DATASOURCE,
        "size": (width, height),
        "targets": [
            {
                "refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend,
                "instant": kind in ("stat", "bargauge"), "range": kind not in ("stat", "bargauge"),
                "format": "heatmap" if kind == "heatmap" else "time_series",
            }
            for i, (expr, legend) in enumerate(targets)
        ],
        "fieldConfig": {"defaults": fields, "overrides": list(overrides)},
        "options": options or {},
        "links": [{"title": f"Runbook: {runbook}", "url": f"${{runbooks}}/{runbook}.md", "targetBlank": True}] if runbook else [],
    }  # fmt: skip


def graph(title, width, unit, description, targets, **more):
    return panel("timeseries", title, width, more.pop("height", 7), unit, description, targets, **more)


def stat(title, unit, description, expr, *, legend="", width=4, sparkline=False, text="value", **more):
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "colorMode": "background" if more.get("thresholds") else "value", "graphMode": "none",
        "textMode": text, "justifyMode": "center", "orientation": "horizontal",
    }  # fmt: skip
    return panel("stat", title, width, 4, unit, description, [(expr, legend)], options=options, **more)


def timeline(title, width, description, targets, words, **more):
    """States as bars: `words` are value, text, colour."""
    mappings = [{
        "type": "value",
        "options": {str(value): {"text": text, "color": colour, "index": i} for i, (value, text, colour) in enumerate(words)},
    }]  # fmt: skip
    options = {
        "showValue": "auto", "mergeValues": True, "rowHeight": 0.8,
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
    }  # fmt: skip
    return panel("state-timeline", title, width, 7, "none", description, targets,
                 defaults={"mappings": mappings}, options=options, **more)  # fmt: skip


def coloured(pattern, colour):
    """A series by the name in its legend."""
    return {
        "matcher": {"id": "byRegexp", "options": pattern},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
    }


def dashed(pattern, colour):
    line = {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}}
    fill = {"id": "custom.fillOpacity", "value": 0}
    override = coloured(pattern, colour)
    override["properties"] += [line, fill]
    return override


STACKED = {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 60, "lineWidth": 0}
BY_CODE = [
    coloured("^200$", GREEN), coloured("^400$", YELLOW), coloured("^40[45]$", GREY),
    coloured("^4(08|13)$", ORANGE), coloured("^50[03]$", RED),
]  # fmt: skip

ROWS = [
    ("At a glance", [
        stat("Replicas", "none", "Replicas that can be scraped.",
             f"count(forebay_build_info{{{BY}}}) or vector(0)", runbook="ForebayReplicaMissing",
             thresholds=steps((None, RED), (1, BLUE))),
        stat("Events coming in", "eps", "Verified and on disk, per second.", rate("forebay_events_total")),
        stat("Answered 500 or 503", "none",
             "In the time shown. The sender does not send again: unless a proxy tried another replica, these are lost.",
             f'sum(round(increase(forebay_requests_total{{{BY}, code=~"500|503"}}[$__range])))', runbook="ForebayEventsRefused",
             thresholds=steps((None, GREEN), (1, RED))),
        stat("Spool used", "percentunit", "Of the fullest replica. When it is full, events are refused.",
             f"max(forebay_spool_bytes{{{BY}}} / forebay_spool_bytes_max{{{BY}}})", runbook="ForebaySpoolFilling",
             thresholds=steps((None, GREEN), (0.5, ORANGE), (0.8, RED)), defaults={"max": 1}),
        stat("Routes blocked", "none", "Routes of replicas that cannot publish now. Their events wait on disk.",
             f"sum(max without (reason) (forebay_route_blocked{{{ROUTE}}}))", runbook="ForebayRouteBlocked",
             thresholds=steps((None, GREEN), (1, RED))),
        stat("Oldest event not published", "s", "Its age, of all routes.",
             f"max(forebay_route_oldest_seconds{{{ROUTE}}})", runbook="ForebayRouteBehind",
             thresholds=steps((None, GREEN), (60, ORANGE), (600, RED))),
    ]),
    ("Coming in", [
        graph("Requests by answer", 8, "reqps", "200 follows the fsync. 503: the spool is full or cannot sync, or it is stopping. docs/errors.md has all.",
              [(rate("forebay_requests_total", labels="code"), "{{code}}")],
              overrides=BY_CODE, style=STACKED, runbook="ForebayEventsRefused"),
        graph("Events by kind", 8, "eps", "Verified and on disk.",
              [(rate("forebay_events_total", labels="kind"), "{{kind}}")], style=STACKED, runbook="ForebayNoEvents"),
        graph("Events behind their stream", 8, "eps",
              "Events whose time lies behind the newest of their stream: the sender delivers out of order. They carry `lateby`.",
              [(rate("forebay_late_events_total", by=ENDPOINT, labels="endpoint"), "{{endpoint}}")]),
        graph("Events of an hour by endpoint", 12, "none", "What ForebayNoEvents compares with the same hour of another day.",
              [(f"sum by (endpoint) (increase(forebay_events_total{{{ENDPOINT}}}[1h]))", "{{endpoint}}")], runbook="ForebayNoEvents"),
        graph("Connections", 12, "none", "Open connections of the public server; and the streams whose newest event is remembered.",
              [(f"sum by (instance) (forebay_connections{{{BY}}})", "connections, {{instance}}"),
               (f"sum by (instance) (forebay_streams_remembered{{{BY}}})", "streams, {{instance}}")]),
    ]),
    ("Refused", [
        graph("Refused by answer", 12, "reqps", "Everything but 200, by endpoint. `none`: paths that no endpoint has.",
              [(rate("forebay_requests_total", labels="endpoint, code", more=', code!="200"') + " > 0", "{{code}} {{endpoint}}")],
              runbook="ForebayBodiesRefused",
              overrides=[coloured("^400", YELLOW), coloured("^4(08|13)", ORANGE), coloured("^50[03]", RED)]),
        graph("Bad signatures", 12, "reqps", "`wrong`: a secret was changed on one side, or somebody tries. `missing`: not from the provider.",
              [(rate("forebay_signature_failures_total", by=ENDPOINT, labels="endpoint, reason"), "{{endpoint}} {{reason}}")],
              runbook="ForebaySecretWrong"),
        graph("Limits in use", 12, "percentunit", "How much of each limit is in use. At 1 somebody is refused, or a connection closed.",
              [(f"max by (limit) (forebay_limit_used{{{BY}}} / forebay_limit_max{{{BY}}})", "{{limit}}")],
              thresholds=steps((None, GREEN), (0.8, ORANGE), (1, RED)), runbook="ForebayLimitNear"),
        graph("Connections closed by Forebay", 12, "cps", "By why. `made_room`: at a limit the one that never carried a verified request, and was idle for longest, went.",
              [(rate("forebay_connections_closed_total", labels="server, reason"), "{{server}}: {{reason}}")]),
    ]),
    ("On disk", [
        graph("Size of the spool", 8, "bytes", "What it takes, what it may take, and what it would take in 4 hours at this pace, up to half as much again.",
              [(f"forebay_spool_bytes{{{BY}}}", "{{instance}}"),
               (f"forebay_spool_bytes_max{{{BY}}}", "limit, {{instance}}"),
               (f"clamp_min(predict_linear(forebay_spool_bytes{{{BY}}}[30m], 4 * 3600), 0) < 1.5 * forebay_spool_bytes_max{{{BY}}}"
                f" or 1.5 * forebay_spool_bytes_max{{{BY}}}", "in 4 h, {{instance}}")],
              overrides=[dashed("^limit", RED), dashed("^in 4 h", ORANGE)], runbook="ForebaySpoolFilling"),
        graph("Records in the spool", 8, "none", "Of its segments; one is deleted when every route has passed all of it.",
              [(f"forebay_spool_records{{{BY}}}", "{{instance}}")], runbook="ForebaySpoolFilling"),
        graph("Records that share an fsync", 8, "none", "On average. More under load is as it should be: group commit.",
              [(f"sum by (instance) (rate(forebay_spool_batch_records_sum{{{BY}}}[$__rate_interval]))"
                f" / sum by (instance) (rate(forebay_spool_batch_records_count{{{BY}}}[$__rate_interval]))", "{{instance}}")]),
        graph("How long an fsync takes", 16, "s", "From 2.5 s on, events are answered 503.",
              [(quantile(0.5, "forebay_spool_fsync_seconds", labels=", instance"), "50 %, {{instance}}"),
               (quantile(0.99, "forebay_spool_fsync_seconds", labels=", instance"), "99 %, {{instance}}"),
               (f"forebay_spool_disk_works_seconds{{{BY}}}", "under way, {{instance}}"),
               (f"forebay_spool_append_waits_seconds{{{BY}}}", "waits for it, {{instance}}")],
              thresholds=steps((None, GREEN), (0.5, ORANGE), (2.5, RED)), runbook="ForebayFsyncSlow"),
        panel("bargauge", "Damage found", 8, 7, "none", "Places of the spool that were found damaged since the start, and set aside. More than 0: distrust the disk.",
              [(f"sum by (kind) (forebay_spool_damage_total{{{BY}}})", "{{kind}}")],
              thresholds=steps((None, GREEN), (1, RED)), defaults={"max": 10}, runbook="ForebaySpoolDamaged",
              options={"orientation": "horizontal", "displayMode": "basic",
                       "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}),
    ]),
    ("Going out, per route", [
        graph("Published", 8, "mps", "Confirmed by the broker.",
              [(rate("forebay_published_total", by=ROUTE, labels="route"), "{{route}}")], runbook="ForebayRouteBehind"),
        graph("Waiting", 8, "none", "Records of the spool that the route has not settled.",
              [(f"sum by (route) (forebay_route_backlog_records{{{ROUTE}}})", "{{route}}")], runbook="ForebayRouteBehind"),
        graph("Age of the oldest waiting", 8, "s", "0 when nothing waits.",
              [(f"max by (route) (forebay_route_oldest_seconds{{{ROUTE}}})", "{{route}}")],
              thresholds=steps((None, GREEN), (600, RED)), runbook="ForebayRouteBehind"),
        graph("Pinned of the spool", 8, "bytes", "Events that the route wants and has not settled; dashed, what it may pin where it has a limit.",
              [(f"sum by (route) (forebay_route_pinned_bytes{{{ROUTE}}})", "{{route}}"),
               (f"sum by (route) (forebay_route_pinned_bytes_max{{{ROUTE}}})", "{{route}}: limit")],
              overrides=[dashed(": limit$", RED)], runbook="ForebayRouteFull"),
        graph("Of the limit", 8, "percentunit", "What a route pins, of what it may.",
              [(f"max by (route) (forebay_route_pinned_bytes{{{ROUTE}}} / forebay_route_pinned_bytes_max{{{ROUTE}}})", "{{route}}")],
              thresholds=steps((None, GREEN), (0.8, RED)), runbook="ForebayRouteFull"),
        graph("Given up", 8, "none", "Since the start: events that a route gave up at its limit.",
              [(f"sum by (route) (forebay_backlog_dropped_total{{{ROUTE}}})", "{{route}}")], runbook="ForebayRouteFull"),
        timeline("Blocked", 12, "Whether a route publishes; while it does not, the reason too.",
                 [(f"max by (route) (forebay_route_blocked{{{ROUTE}}})", "{{route}}"),
                  (f"max by (route, reason) (forebay_route_blocked{{{ROUTE}}}) > 0", "{{route}}: {{reason}}")],
                 [(0, "publishes", GREEN), (1, "blocked", RED)], runbook="ForebayRouteBlocked"),
        graph("Failures to publish", 12, "ops", "By kind. A message that is retried is counted each time.",
              [(rate("forebay_publish_errors_total", by=ROUTE, labels="route"), "{{route}}"),
               (rate("forebay_publish_errors_total", by=ROUTE, labels="route, kind") + " > 0", "{{route}}: {{kind}}")],
              runbook="ForebayRouteBlocked"),
        graph("Dead letters", 12, "none", "Since the start: records that no broker takes. They are kept on disk, and nobody gets them.",
              [(f"sum by (route, reason) (forebay_dead_letters_total{{{ROUTE}}})", "{{route}}: {{reason}}")],
              runbook="ForebayDeadLetters"),
        graph("In flight", 12, "none", "Handed to the broker and not yet confirmed.",
              [(f"sum by (route) (forebay_in_flight_records{{{ROUTE}}})", "{{route}}")]),
        graph("No route wants", 24, "eps", "Events that were taken in and are published nowhere, by kind. They are kept among the dead letters of `unrouted`.",
              [(rate("forebay_unrouted_total", labels="endpoint, kind"), "{{endpoint}}: {{kind}}")], runbook="ForebayUnrouted"),
    ]),
    ("How long each step takes", [
        graph("Every step, 99 in 100 are faster", 12, "s", "From the request to the answer (the fsync is a part of it), and from there to the broker's confirmation.",
              [(quantile(0.99, "forebay_ack_seconds"), "request to answer"),
               (quantile(0.99, "forebay_spool_fsync_seconds"), "fsync"),
               (quantile(0.99, "forebay_publish_seconds", by=ROUTE), "accepted to confirmed"),
               (f"max(forebay_kafka_broker_round_trip_seconds{{{SINK}}})", "round trip to a Kafka broker")]),
        panel("heatmap", "Request to answer", 12, 7, "s", "How many requests a second were answered within which time.",
              [(f"sum by (le) (rate(forebay_ack_seconds_bucket{{{BY}}}[$__rate_interval]))", "{{le}}")],
              options={"calculate": False, "cellGap": 1, "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
                       "yAxis": {"unit": "s"}, "cellValues": {"unit": "reqps"}}),
        graph("Request to answer, by endpoint", 12, "s", "Of requests answered 200. A sender does not wait for ever.",
              [(quantile(0.5, "forebay_ack_seconds", by=ENDPOINT, labels=", endpoint"), "50 %, {{endpoint}}"),
               (quantile(0.99, "forebay_ack_seconds", by=ENDPOINT, labels=", endpoint"), "99 %, {{endpoint}}")],
              thresholds=steps((None, GREEN), (1, ORANGE)), runbook="ForebayFsyncSlow"),
        graph("Accepted to confirmed, by route", 12, "s", "Includes the time that an event waits on disk while a route is blocked.",
              [(quantile(0.5, "forebay_publish_seconds", by=ROUTE, labels=", route"), "50 %, {{route}}"),
               (quantile(0.99, "forebay_publish_seconds", by=ROUTE, labels=", route"), "99 %, {{route}}")],
              runbook="ForebayRouteBehind"),
    ]),
    ("Brokers", [
        timeline("Connected", 12, "Kafka: each broker that a route's producer knows (one that it has nothing for may be idle). RabbitMQ: the route's connection.",
                 [(f"max by (sink, broker) (forebay_kafka_broker_up{{{SINK}}})", "Kafka {{sink}}, broker {{broker}}"),
                  (f"max by (sink, route) (forebay_rabbitmq_connected{{{SINK}}})", "RabbitMQ {{sink}}, {{route}}")],
                 [(0, "no", ORANGE), (1, "connected", GREEN)], runbook="ForebayRouteBlocked"),
        graph("Kafka: round trips", 12, "s", "99th percentile of the last interval of librdkafka's statistics, by broker.",
              [(f"max by (sink, broker) (forebay_kafka_broker_round_trip_seconds{{{SINK}}})", "{{sink}}, broker {{broker}}")],
              runbook="ForebayRouteBehind"),
        graph("Kafka: messages in the producers", 8, "none", "Waiting, or sent and not confirmed.",
              [(f"sum by (sink, route) (forebay_kafka_queue_records{{{SINK}}})", "{{sink}}, {{route}}")]),
        graph("Kafka: bytes in the producers", 8, "bytes", "Of those messages: memory of the process.",
              [(f"sum by (sink, route) (forebay_kafka_queue_bytes{{{SINK}}})", "{{sink}}, {{route}}")]),
        graph("Kafka: partitions", 8, "none", "When their number changes, keys are spread anew from there on.",
              [(f"max by (sink, topic) (forebay_kafka_topic_partitions{{{SINK}}})", "{{sink}}, {{topic}}")]),
        graph("RabbitMQ: refused and returned", 8, "mps", "Refused: a queue at its limit, or without a majority. Returned: no queue is bound.",
              [(rate("forebay_rabbitmq_nacks_total", by=SINK, labels="sink, route"), "refused, {{sink}}, {{route}}"),
               (rate("forebay_rabbitmq_returned_total", by=SINK, labels="sink, route"), "returned, {{sink}}, {{route}}")],
              runbook="ForebayDeadLetters"),
        graph("RabbitMQ: channels, and blocked", 8, "none", "A channel for each partition in use. Blocked is 1 while an alarm of memory or disk holds RabbitMQ's publishers back.",
              [(f"sum by (sink, route) (forebay_rabbitmq_channels{{{SINK}}})", "channels, {{sink}}, {{route}}"),
               (f"max by (sink, route) (forebay_rabbitmq_blocked{{{SINK}}})", "blocked, {{sink}}, {{route}}")],
              overrides=[coloured("^blocked", RED)], runbook="ForebayRouteBlocked"),
        graph("Sessions", 8, "none", "Producers built and connections made since the start. What rises again and again fails again and again.",
              [(f"sum by (sink, route) (forebay_kafka_sessions_total{{{SINK}}})", "Kafka {{sink}}, {{route}}"),
               (f"sum by (sink, route) (forebay_rabbitmq_sessions_total{{{SINK}}})", "RabbitMQ {{sink}}, {{route}}")],
              runbook="ForebayRouteBlocked"),
        panel("bargauge", "Certificates: time left", 24, 5, "s", "Until the files that the sinks name run out.",
              [(f'min by (sink, file) (forebay_certificate_not_after_timestamp_seconds{{{BY}, sink=~"$sink"}}) - time()', "{{sink}}: {{file}}")],
              thresholds=steps((None, RED), (3 * 86400, ORANGE), (14 * 86400, GREEN)), defaults={"max": 90 * 86400},
              runbook="ForebayCertificateExpires",
              options={"orientation": "horizontal", "displayMode": "basic",
                       "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}),
    ]),
    ("Process", [
        graph("CPU", 6, "percentunit", "100 % is one core.",
              [(f"sum by (instance) (rate(process_cpu_seconds_total{{{BY}}}[$__rate_interval]))", "{{instance}}")]),
        graph("Memory", 6, "bytes", "Resident.", [(f"process_resident_memory_bytes{{{BY}}}", "{{instance}}")]),
        graph("File descriptors", 6, "percentunit", "Open, of those that the process may open.",
              [(f"process_open_fds{{{BY}}} / process_max_fds{{{BY}}}", "{{instance}}")],
              thresholds=steps((None, GREEN), (0.8, RED))),
        graph("Threads", 6, "none", "They are few and their number does not grow with the load.",
              [(f"process_threads{{{BY}}}", "{{instance}}")]),
        stat("Running for", "s", "Since the youngest process was started.",
             f"time() - max(process_start_time_seconds{{{BY}}})", width=12),
        stat("Version", "none", "The versions that run, with how many replicas each.",
             f"count by (version, revision) (forebay_build_info{{{BY}}})", legend="{{version}} ({{revision}})", width=12,
             text="value_and_name"),
    ]),
]  # fmt: skip

ANNOTATIONS = [
    {
        "name": "Alerts", "datasource": DATASOURCE, "enable": True, "iconColor": RED,
        "expr": 'ALERTS{alertname=~"Forebay.+", alertstate="firing", job=~"$job"}',
        "titleFormat": "{{alertname}}", "textFormat": "{{instance}} {{endpoint}} {{route}} {{severity}}", "tagKeys": "severity",
    },
    {
        "name": "Starts", "datasource": DATASOURCE, "enable": True, "iconColor": BLUE,
        "expr": f"process_start_time_seconds{{{BY}}} * 1000", "useValueForTime": True,
        "titleFormat": "Started", "textFormat": "{{instance}}",
    },
]  # fmt: skip


def laid_out(rows):
    """Every panel at its place, from left to right and top to bottom, with a number."""
    panels, y, number = [], 0, 1
    for title, members in rows:
        panels.append({"type": "row", "title": title, "collapsed": False, "panels": [], "id": number,
                       "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}})  # fmt: skip
        y, x, number, tallest = y + 1, 0, number + 1, 0
        for member in members:
            member = dict(member)
            width, height = member.pop("size")
            if x + width > 24:
                x, y, tallest = 0, y + tallest, 0
            member["id"] = number
            member["gridPos"] = {"x": x, "y": y, "w": width, "h": height}
            panels.append(member)
            x, number, tallest = x + width, number + 1, max(tallest, height)
        y += tallest
    return panels


def dashboard():
    return {
        "uid": "forebay", "title": "Forebay", "tags": ["forebay"], "schemaVersion": 39, "version": 1, "editable": True,
        "description": "The life of a webhook, from top to bottom. docs/metrics.md says what each metric means.",
        "time": {"from": "now-1h", "to": "now"}, "refresh": "30s", "timezone": "", "graphTooltip": 1,
        "links": [{
            "type": "link", "title": "Runbooks", "icon": "doc", "url": "${runbooks}/README.md", "targetBlank": True,
        }],
        "templating": {"list": VARIABLES},
        "annotations": {"list": ANNOTATIONS},
        "panels": laid_out(ROWS),
    }  # fmt: skip


def main():
    text = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if sys.argv[1:] == ["--check"]:
        if FILE.read_text(encoding="utf-8") != text:
            sys.exit("forebay.json is not what dashboard.py writes: run deploy/grafana/dashboard.py")
    else:
        FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
