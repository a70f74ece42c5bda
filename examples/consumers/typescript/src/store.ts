import { DatabaseSync, type DatabaseSyncInstance } from "@photostructure/sqlite";

import type { StreamEvent } from "./event.js";
import { Stream, type StreamState, type Transition } from "./stream.js";

/** Keeps the state of every stream in SQLite. The API is that of `node:sqlite`, which Node has from version 22 on. */
export class Store {
  readonly #db: DatabaseSyncInstance;
  readonly #load;
  readonly #save;

  constructor(path: string) {
    this.#db = new DatabaseSync(path);
    this.#db.exec("PRAGMA busy_timeout = 10000; PRAGMA journal_mode = WAL");
    this.#db.exec("CREATE TABLE IF NOT EXISTS streams(key TEXT PRIMARY KEY, state TEXT NOT NULL)");
    this.#load = this.#db.prepare("SELECT state FROM streams WHERE key = ?");
    this.#save = this.#db.prepare(
      `INSERT INTO streams(key, state) VALUES(?, ?)
       ON CONFLICT(key) DO UPDATE SET state = excluded.state WHERE state <> excluded.state`,
    );
  }

  close(): void {
    this.#db.close();
  }

  /** Applies events in one transaction. What it returns is stored. */
  apply(events: readonly StreamEvent[]): Transition[] {
    // The write lock is taken here, so that nobody writes between our reading of a state and our writing of it.
    this.#db.exec("BEGIN IMMEDIATE");
    try {
      const streams = new Map<string, Stream>();
      const transitions = events.flatMap((event) => {
        const stream = streams.get(event.key) ?? this.#stream(event.key);
        streams.set(event.key, stream);
        return stream.apply(event);
      });
      for (const [key, stream] of streams) {
        const state = JSON.stringify(stream);
        // A stream of which nothing is known is left out.
        if (state !== "{}") this.#save.run(key, state);
      }
      this.#db.exec("COMMIT");
      return transitions;
    } catch (error) {
      this.#db.exec("ROLLBACK");
      throw error;
    }
  }

  #stream(key: string): Stream {
    const row = this.#load.get(key) as { state: string } | undefined;
    return new Stream(row && (JSON.parse(row.state) as StreamState));
  }
}
