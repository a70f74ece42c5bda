package com.example.streams;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import java.io.File;
import java.io.IOException;
import java.util.Map;
import java.util.TreeMap;

/** Compares {@link StreamState} with the rules that hold for every language. */
final class Vectors {
    private static final ObjectMapper MAPPER = new ObjectMapper();

    private Vectors() {}

    /** Says how many cases there are; throws where one differs. */
    static String check(String path) throws IOException {
        JsonNode cases = MAPPER.readTree(new File(path)).path("cases");
        for (JsonNode one : cases) {
            Map<String, StreamState> states = new TreeMap<>();
            ArrayNode transitions = MAPPER.createArrayNode();
            for (JsonNode json : one.path("events")) {
                Event event = Event.read(json).orElseThrow();
                StreamState state = states.computeIfAbsent(event.key(), key -> new StreamState());
                transitions.add(MAPPER.valueToTree(state.apply(event)));
            }
            states.values().removeIf(StreamState::nothingKnown);
            if (!transitions.equals(one.path("transitions")) || !MAPPER.valueToTree(states).equals(one.path("state"))) {
                String got = transitions + "\n" + MAPPER.writeValueAsString(states);
                throw new IllegalStateException("differs: " + one.path("name").asText() + "\n" + got);
            }
        }
        return "ok " + cases.size();
    }
}
