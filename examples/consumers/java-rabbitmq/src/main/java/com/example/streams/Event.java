package com.example.streams;

import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.util.Optional;
import java.util.stream.Stream;

/** An event as Forebay publishes it, as far as the state of its stream depends on it. */
record Event(String id, String type, String time, String key, JsonNode json) {
    private static final ObjectMapper MAPPER =
            new ObjectMapper().enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS);

    /** The event of a message, if this is a structured CloudEvent: not binary mode, a picture, somebody else's message. */
    static Optional<Event> read(byte[] message) {
        try {
            return message == null ? Optional.empty() : read(MAPPER.readTree(message));
        } catch (IOException notJson) {
            return Optional.empty();
        }
    }

    static Optional<Event> read(JsonNode json) {
        boolean isEvent = Stream.of("id", "type", "time", "partitionkey").allMatch(name -> json.path(name).isTextual());
        return isEvent
                ? Optional.of(new Event(text(json, "id"), text(json, "type"), text(json, "time"), text(json, "partitionkey"), json))
                : Optional.empty();
    }

    /** The word of the type that is so far from its end: 0 is what happened, 1 the kind of thing that it happened to. */
    String word(int fromEnd) {
        String[] words = type.split("\\.");
        return fromEnd < words.length ? words[words.length - 1 - fromEnd] : "";
    }

    /** The feed that it is about, or null. */
    String feed() {
        return text(json, "feedid");
    }

    /** An id in the data, or null. Some are numbers. */
    String data(String name) {
        return text(json.path("data"), name);
    }

    private static String text(JsonNode json, String name) {
        JsonNode value = json.path(name);
        return value.isTextual() || value.isNumber() ? value.asText() : null;
    }
}
