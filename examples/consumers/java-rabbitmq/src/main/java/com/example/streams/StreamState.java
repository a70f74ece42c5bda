package com.example.streams;

import com.fasterxml.jackson.annotation.JsonInclude;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * What is true of a stream, whatever order its events come in.
 *
 * <p>It is a join: events may be applied in any order, any number of times, and it comes out the same. So it does not matter that
 * {@code ended} can arrive before {@code started}, and that a broker delivers some events again.
 */
@JsonInclude(JsonInclude.Include.NON_EMPTY)
final class StreamState {
    /** What a recording goes through, in this order, with the transition that tells of it. */
    private static final List<Phase> RECORDING = List.of(
            new Phase("started", "RecordingStarted"),
            new Phase("error", "RecordingFailed"),
            new Phase("completed", "RecordingCompleted"),
            new Phase("deleted", "RecordingDeleted"));

    private static final List<Phase> MEDIA = List.of(
            new Phase("processing", "MediaProcessing"),
            new Phase("errored", "MediaFailed"),
            new Phase("completed", "MediaCompleted"),
            new Phase("deleted", "MediaDeleted"));

    private static final List<String> TRANSCODER = List.of("active", "stopped", "deleted");
    private static final List<String> VIEWERS = List.of("viewerattempt", "firstviewerconnection", "noactiveviewers");

    private record Phase(String event, String transition) {}

    /** A publish session. Times are texts of one form and length: comparing them compares the times. */
    @JsonInclude(JsonInclude.Include.NON_NULL)
    record Feed(String startedAt, String endedAt) {
        boolean open() {
            return startedAt != null && endedAt == null;
        }
    }

    record Progress(String phase, String at) {}

    record Latest(String status, String at, String id) {}

    public Map<String, Feed> feeds = new TreeMap<>();
    public Map<String, Progress> recordings = new TreeMap<>();
    public Map<String, Progress> media = new TreeMap<>();
    public Map<String, Latest> transcoders = new TreeMap<>();
    public Latest viewers;

    /** Applies an event of this stream, and returns the transitions: what a service acts on. */
    List<Map<String, String>> apply(Event event) {
        List<Map<String, String>> transitions = new ArrayList<>();
        switch (event.word(1)) {
            case "feeds" -> joinFeed(event, transitions);
            case "recordings" -> joinPhase(recordings, RECORDING, "recording", event.data("recordFileId"), event, transitions);
            case "media" -> joinPhase(media, MEDIA, "media", event.data("mediaAssetId"), event, transitions);
            case "transcoder" -> joinTranscoder(event, transitions);
            case "viewerconnection" -> joinViewers(event, transitions);
            default -> { } // a picture, or what is not known
        }
        return transitions;
    }

    boolean nothingKnown() {
        return feeds.isEmpty() && recordings.isEmpty() && media.isEmpty() && transcoders.isEmpty() && viewers == null;
    }

    /** A stream is live while a feed of it has started and not ended. A feed that ended never starts again. */
    private void joinFeed(Event event, List<Map<String, String>> transitions) {
        String id = event.feed();
        boolean starts = event.word(0).equals("started");
        if (id == null || !starts && !event.word(0).equals("ended")) {
            return;
        }
        boolean wasLive = live();
        Feed before = feeds.getOrDefault(id, new Feed(null, null));
        feeds.put(id, starts
                ? new Feed(earliest(before.startedAt, event.time()), before.endedAt)
                : new Feed(before.startedAt, earliest(before.endedAt, event.time())));
        if (before.endedAt == null && (!starts || before.startedAt == null)) {
            transitions.add(transition(event, starts ? "FeedStarted" : "FeedEnded", "feed", id));
        }
        if (wasLive != live()) {
            transitions.add(transition(event, wasLive ? "WentOffline" : "WentLive"));
        }
    }

    private boolean live() {
        return feeds.values().stream().anyMatch(Feed::open);
    }

    /** Keeps the latest phase and the smallest time of it. */
    private static void joinPhase(Map<String, Progress> known, List<Phase> phases, String what, String id, Event event,
            List<Map<String, String>> transitions) {
        int rank = rank(phases, event.word(0));
        if (id == null || rank < 0) {
            return;
        }
        Progress before = known.get(id);
        int rankBefore = before == null ? -1 : rank(phases, before.phase);
        if (rank > rankBefore) {
            known.put(id, new Progress(event.word(0), event.time()));
            transitions.add(transition(event, phases.get(rank).transition, what, id));
        } else if (rank == rankBefore) {
            known.put(id, new Progress(before.phase, earliest(before.at, event.time())));
        }
    }

    private static int rank(List<Phase> phases, String event) {
        return phases.stream().map(Phase::event).toList().indexOf(event);
    }

    private void joinTranscoder(Event event, List<Map<String, String>> transitions) {
        String id = event.data("transcoderId");
        if (id == null || !TRANSCODER.contains(event.word(0))) {
            return;
        }
        Latest before = transcoders.get(id);
        Latest after = latest(before, event);
        transcoders.put(id, after);
        if (before == null || !before.status.equals(after.status)) {
            transitions.add(transition(event, "TranscoderChanged", "transcoder", id, "status", after.status));
        }
    }

    private void joinViewers(Event event, List<Map<String, String>> transitions) {
        if (!VIEWERS.contains(event.word(0))) {
            return;
        }
        Latest before = viewers;
        viewers = latest(before, event);
        if (before == null || !before.status.equals(viewers.status)) {
            transitions.add(transition(event, "ViewersChanged", "status", viewers.status));
        }
    }

    /** The event with the greatest time wins, of equal times the one with the greatest id. */
    private static Latest latest(Latest before, Event event) {
        if (before != null) {
            int later = event.time().compareTo(before.at);
            if (later < 0 || later == 0 && event.id().compareTo(before.id) <= 0) {
                return before;
            }
        }
        return new Latest(event.word(0), event.time(), event.id());
    }

    private static String earliest(String one, String other) {
        return one == null || other.compareTo(one) < 0 ? other : one;
    }

    /** A transition, with more members in pairs of name and value. */
    private static Map<String, String> transition(Event event, String type, String... members) {
        Map<String, String> transition = new LinkedHashMap<>();
        transition.put("type", type);
        transition.put("key", event.key());
        for (int i = 0; i < members.length; i += 2) {
            transition.put(members[i], members[i + 1]);
        }
        return transition;
    }
}
