package com.example.streams;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Options with their values: {@code --name value}, some more than once. */
final class CommandLine {
    private final Map<String, List<String>> options = new LinkedHashMap<>();

    CommandLine(String usage, String... arguments) {
        for (int i = 0; i < arguments.length; i += 2) {
            if (i + 1 == arguments.length || !usage.contains(arguments[i] + " ")) {
                throw new IllegalArgumentException(arguments[i] + "\nusage: " + usage);
            }
            options.computeIfAbsent(arguments[i], name -> new ArrayList<>()).add(arguments[i + 1]);
        }
    }

    boolean has(String name) {
        return options.containsKey(name);
    }

    List<String> all(String name) {
        if (!has(name)) {
            throw new IllegalArgumentException("missing: " + name);
        }
        return options.get(name);
    }

    String one(String name) {
        return all(name).get(0);
    }
}
