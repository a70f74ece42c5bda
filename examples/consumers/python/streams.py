"""What is true of each stream, whatever order its events come in.

A state is a join: events may be applied in any order, any number of times, and it comes out the same. So it does not matter
that `ended` can arrive before `started`, and that a broker delivers some events again.
"""

import json
import sqlite3
from collections.abc import Iterable

# A recording or an asset goes through its phases in this order; each is told by a transition, the first time that it is reached.
PHASES = {
    "recordings": {
        "started": "RecordingStarted",
        "error": "RecordingFailed",
        "completed": "RecordingCompleted",
        "deleted": "RecordingDeleted",
    },
    "media": {
        "processing": "MediaProcessing",
        "errored": "MediaFailed",
        "completed": "MediaCompleted",
        "deleted": "MediaDeleted",
    },
}
TRANSCODER = ("active", "stopped", "deleted")
VIEWERS = ("viewerattempt", "firstviewerconnection", "noactiveviewers")


def read_event(message: bytes) -> dict | None:
    """The event of a message, or None if this is no structured CloudEvent: binary mode, a picture, somebody else's message."""
    try:
        event = json.loads(message)
    except (ValueError, RecursionError):
        return None
    attributes = ("id", "type", "time", "partitionkey")
    is_event = isinstance(event, dict) and all(isinstance(event.get(name), str) for name in attributes)
    return event if is_event else None


def apply(state: dict, event: dict) -> list[dict]:
    """Applies an event to the state of its stream, and returns the transitions: what a service acts on."""
    *_, kind, what = ("", *event["type"].split("."))
    data = event.get("data") if isinstance(event.get("data"), dict) else {}
    transitions = []

    def tell(name: str, **members: str) -> None:
        transitions.append({"type": name, "key": event["partitionkey"], **members})

    if kind == "feeds" and what in ("started", "ended"):
        if feed := text(event.get("feedid")):
            join_feed(state.setdefault("feeds", {}), feed, what, event["time"], tell)
    elif kind in PHASES and what in PHASES[kind]:
        member, word = ("recordFileId", "recording") if kind == "recordings" else ("mediaAssetId", "media")
        if id := text(data.get(member)):
            if join_phase(state.setdefault(kind, {}), id, list(PHASES[kind]), what, event["time"]):
                tell(PHASES[kind][what], **{word: id})
    elif kind == "transcoder" and what in TRANSCODER:
        if id := text(data.get("transcoderId")):
            if join_latest(state.setdefault("transcoders", {}), id, what, event):
                tell("TranscoderChanged", transcoder=id, status=what)
    elif kind == "viewerconnection" and what in VIEWERS:
        if join_latest(state, "viewers", what, event):
            tell("ViewersChanged", status=what)
    return transitions


def join_feed(feeds: dict, id: str, what: str, time: str, tell) -> None:
    """A stream is live while a feed of it has started and not ended. A feed that ended never starts again."""
    was_live = is_live(feeds)
    feed = feeds.setdefault(id, {})
    is_first = "endedAt" not in feed and f"{what}At" not in feed
    # Times are texts of one form and length: comparing them compares the times.
    feed[f"{what}At"] = min(time, feed.get(f"{what}At", time))
    if is_first:
        tell("FeedStarted" if what == "started" else "FeedEnded", feed=id)
    if was_live != is_live(feeds):
        tell("WentOffline" if was_live else "WentLive")


def is_live(feeds: dict) -> bool:
    return any("startedAt" in feed and "endedAt" not in feed for feed in feeds.values())


def join_phase(known: dict, id: str, order: list[str], phase: str, time: str) -> bool:
    """Keeps the latest phase and the smallest time of it. Returns whether the phase rose."""
    before = known.get(id)
    if before is None or order.index(phase) > order.index(before["phase"]):
        known[id] = {"phase": phase, "at": time}
        return True
    if phase == before["phase"]:
        before["at"] = min(time, before["at"])
    return False


def join_latest(known: dict, id: str, status: str, event: dict) -> bool:
    """The event with the greatest time wins, of equal times the one with the greatest id. Returns whether the status changed."""
    before = known.get(id)
    if before and (before["at"], before["id"]) >= (event["time"], event["id"]):
        return False
    known[id] = {"status": status, "at": event["time"], "id": event["id"]}
    return before is None or before["status"] != status


def text(id: object) -> str | None:
    """An id as text: some are numbers."""
    is_number = isinstance(id, int | float) and not isinstance(id, bool)
    return str(id) if is_number else id if isinstance(id, str) else None


class Store:
    """The states in SQLite, a row for each stream."""

    def __init__(self, path: str) -> None:
        self.db = sqlite3.connect(path, isolation_level=None, timeout=30)
        self.db.execute("PRAGMA journal_mode=WAL")
        # What is committed here is acknowledged to the broker next: it must survive a power cut.
        self.db.execute("PRAGMA synchronous=FULL")
        self.db.execute("CREATE TABLE IF NOT EXISTS streams (key TEXT PRIMARY KEY, state TEXT NOT NULL)")

    def apply(self, events: Iterable[dict]) -> list[dict]:
        """Applies events in one transaction, and returns the transitions once it is committed."""
        # IMMEDIATE: another instance with the same file must not read a state that this one is about to replace.
        self.db.execute("BEGIN IMMEDIATE")
        try:
            transitions = [transition for event in events for transition in self._apply(event)]
            self.db.execute("COMMIT")
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        return transitions

    def _apply(self, event: dict) -> list[dict]:
        key = event["partitionkey"]
        row = self.db.execute("SELECT state FROM streams WHERE key = ?", (key,)).fetchone()
        state = json.loads(row[0]) if row else {}
        transitions = apply(state, event)
        if state:
            self.db.execute("INSERT OR REPLACE INTO streams VALUES (?, ?)", (key, json.dumps(state)))
        return transitions


def check_vectors(path: str) -> str:
    """Compares this file with the rules that hold for every language. Exits where it differs from them."""
    with open(path, encoding="utf-8") as file:
        cases = json.load(file)["cases"]
    for case in cases:
        states: dict[str, dict] = {}
        transitions = [apply(states.setdefault(event["partitionkey"], {}), event) for event in case["events"]]
        states = {key: state for key, state in states.items() if state}
        if transitions != case["transitions"] or states != case["state"]:
            raise SystemExit(f"differs: {case['name']}\n{json.dumps([transitions, states], indent=2)}")
    return f"ok {len(cases)}"
