import { readFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";

import { readEvent } from "./event.js";
import { Stream, type StreamState, type Transition } from "./stream.js";

interface Case {
  name: string;
  events: unknown[];
  transitions: Transition[][];
  state: Record<string, StreamState>;
}

/** Applies the events of every case and compares what comes of them. Returns how many cases there are; throws at the first that differs. */
export function checkVectors(path: string): number {
  const { cases } = JSON.parse(readFileSync(path, "utf8")) as { cases: Case[] };
  for (const { name, events, transitions, state } of cases) {
    const streams = new Map<string, Stream>();
    for (const [i, value] of events.entries()) {
      const event = readEvent(value);
      const stream = streams.get(event.key) ?? new Stream();
      streams.set(event.key, stream);
      expectEqual(`${name}: event ${i}`, stream.apply(event), transitions[i]);
    }
    const known = [...streams].map(([key, stream]) => [key, stream.toJSON()] as const);
    const states = Object.fromEntries(known.filter(([, state]) => Object.keys(state).length > 0));
    expectEqual(`${name}: state`, states, state);
  }
  return cases.length;
}

function expectEqual(what: string, got: unknown, want: unknown): void {
  if (!isDeepStrictEqual(got, want)) {
    throw new Error(`${what}: ${JSON.stringify(got)} instead of ${JSON.stringify(want)}`);
  }
}
