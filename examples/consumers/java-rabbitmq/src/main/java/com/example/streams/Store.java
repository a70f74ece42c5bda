package com.example.streams;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.sqlite.SQLiteConfig;

/** The states in SQLite, a row for each stream. */
final class Store implements AutoCloseable {
    private static final ObjectMapper MAPPER = new ObjectMapper();
    private final Connection connection;

    Store(String path) throws SQLException {
        SQLiteConfig config = new SQLiteConfig();
        config.setJournalMode(SQLiteConfig.JournalMode.WAL);
        // What is committed here is acknowledged to the broker next: it must survive a power cut.
        config.setSynchronous(SQLiteConfig.SynchronousMode.FULL);
        config.setBusyTimeout(30_000);
        connection = DriverManager.getConnection("jdbc:sqlite:" + path, config.toProperties());
        execute("CREATE TABLE IF NOT EXISTS streams (key TEXT PRIMARY KEY, state TEXT NOT NULL)");
    }

    /** Applies events in one transaction, and returns the transitions once it is committed. */
    List<Map<String, String>> apply(List<Event> events) throws SQLException, JsonProcessingException {
        List<Map<String, String>> transitions = new ArrayList<>();
        // Another instance with the same file must not read a state that this one is about to replace. With setAutoCommit(false)
        // the driver would begin the next transaction, and lock the file, right after a commit.
        execute("BEGIN IMMEDIATE");
        try (PreparedStatement select = connection.prepareStatement("SELECT state FROM streams WHERE key = ?");
                PreparedStatement replace = connection.prepareStatement("INSERT OR REPLACE INTO streams VALUES (?, ?)")) {
            for (Event event : events) {
                StreamState state = load(select, event.key());
                transitions.addAll(state.apply(event));
                if (!state.nothingKnown()) {
                    replace.setString(1, event.key());
                    replace.setString(2, MAPPER.writeValueAsString(state));
                    replace.executeUpdate();
                }
            }
            execute("COMMIT");
        } catch (SQLException | JsonProcessingException | RuntimeException error) {
            execute("ROLLBACK");
            throw error;
        }
        return transitions;
    }

    private void execute(String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    private static StreamState load(PreparedStatement select, String key) throws SQLException, JsonProcessingException {
        select.setString(1, key);
        try (ResultSet row = select.executeQuery()) {
            return row.next() ? MAPPER.readValue(row.getString(1), StreamState.class) : new StreamState();
        }
    }

    /** Prints transitions as lines of JSON. */
    static void tell(List<Map<String, String>> transitions) throws JsonProcessingException {
        for (Map<String, String> transition : transitions) {
            System.out.println(MAPPER.writeValueAsString(transition));
        }
    }

    @Override
    public void close() throws SQLException {
        connection.close();
    }
}
