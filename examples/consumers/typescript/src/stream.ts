import type { StreamEvent } from "./event.js";

/** A publish session. It is open from its start until it is seen to have ended, and never starts again. */
export interface Feed {
  startedAt?: string;
  endedAt?: string;
}

/** How far a recording or a media asset has come, and the earliest time that tells of it. */
export interface Progress {
  phase: string;
  at: string;
}

/** What the latest event says, by time and then by id. */
export interface Status {
  status: string;
  at: string;
  id: string;
}

/** Something that a service acts on. */
export interface Transition {
  type: string;
  key: string;
  feed?: string;
  recording?: string;
  media?: string;
  transcoder?: string;
  status?: string;
}

/** A stream as it is stored. What is empty is left out. */
export interface StreamState {
  feeds?: Record<string, Feed>;
  recordings?: Record<string, Progress>;
  media?: Record<string, Progress>;
  transcoders?: Record<string, Status>;
  viewers?: Status;
}

/** The phases, in their order, each with what is told when it is reached. */
const RECORDING: ReadonlyMap<string, string> = new Map([
  ["started", "RecordingStarted"],
  ["error", "RecordingFailed"],
  ["completed", "RecordingCompleted"],
  ["deleted", "RecordingDeleted"],
]);
const MEDIA: ReadonlyMap<string, string> = new Map([
  ["processing", "MediaProcessing"],
  ["errored", "MediaFailed"],
  ["completed", "MediaCompleted"],
  ["deleted", "MediaDeleted"],
]);
const TRANSCODER = new Set(["active", "stopped", "deleted"]);
const VIEWERS = new Set(["viewerattempt", "firstviewerconnection", "noactiveviewers"]);

/**
 * What is known of one stream. Events may be applied in any order and any number of times: the state comes out the same.
 *
 * Ids are the provider's own, so they are keys of maps and not of objects.
 */
export class Stream {
  readonly #feeds: Map<string, Feed>;
  readonly #recordings: Map<string, Progress>;
  readonly #media: Map<string, Progress>;
  readonly #transcoders: Map<string, Status>;
  #viewers: Status | undefined;

  constructor(state: StreamState = {}) {
    this.#feeds = new Map(Object.entries(state.feeds ?? {}));
    this.#recordings = new Map(Object.entries(state.recordings ?? {}));
    this.#media = new Map(Object.entries(state.media ?? {}));
    this.#transcoders = new Map(Object.entries(state.transcoders ?? {}));
    this.#viewers = state.viewers;
  }

  toJSON(): StreamState {
    return {
      ...(this.#feeds.size > 0 && { feeds: Object.fromEntries(this.#feeds) }),
      ...(this.#recordings.size > 0 && { recordings: Object.fromEntries(this.#recordings) }),
      ...(this.#media.size > 0 && { media: Object.fromEntries(this.#media) }),
      ...(this.#transcoders.size > 0 && { transcoders: Object.fromEntries(this.#transcoders) }),
      ...(this.#viewers && { viewers: this.#viewers }),
    };
  }

  /** Any feed is open. */
  get live(): boolean {
    return [...this.#feeds.values()].some((feed) => feed.startedAt && !feed.endedAt);
  }

  /** Joins an event into the state and tells what that changed. An event that it does not know changes nothing. */
  apply(event: StreamEvent): Transition[] {
    const { key, name, recording, media, transcoder } = event;
    switch (event.kind) {
      case "feeds":
        return this.#applyFeed(event);
      case "recordings": {
        const type = advance(this.#recordings, recording, event, RECORDING);
        return type && recording ? [{ type, key, recording }] : [];
      }
      case "media": {
        const type = advance(this.#media, media, event, MEDIA);
        return type && media ? [{ type, key, media }] : [];
      }
      case "transcoder": {
        if (!transcoder || !TRANSCODER.has(name)) return [];
        const known = this.#transcoders.get(transcoder);
        const status = latest(known, event);
        this.#transcoders.set(transcoder, status);
        return status.status === known?.status ? [] : [{ type: "TranscoderChanged", key, transcoder, status: name }];
      }
      case "viewerconnection": {
        if (!VIEWERS.has(name)) return [];
        const known = this.#viewers;
        this.#viewers = latest(known, event);
        return this.#viewers.status === known?.status ? [] : [{ type: "ViewersChanged", key, status: name }];
      }
      default:
        return [];
    }
  }

  #applyFeed({ key, feed, name, time }: StreamEvent): Transition[] {
    if (!feed || (name !== "started" && name !== "ended")) return [];
    const wasLive = this.live;
    const known = this.#feeds.get(feed);
    const transitions: Transition[] = [];
    if (name === "started") {
      if (!known) transitions.push({ type: "FeedStarted", key, feed });
      this.#feeds.set(feed, { ...known, startedAt: earliest(known?.startedAt, time) });
    } else {
      if (!known?.endedAt) transitions.push({ type: "FeedEnded", key, feed });
      this.#feeds.set(feed, { ...known, endedAt: earliest(known?.endedAt, time) });
    }
    if (this.live !== wasLive) transitions.push({ type: this.live ? "WentLive" : "WentOffline", key });
    return transitions;
  }
}

/** Moves what `id` names to the event's phase, unless it has come further. Returns what is told if the phase rises. */
function advance(
  of: Map<string, Progress>,
  id: string | undefined,
  { name: phase, time: at }: StreamEvent,
  phases: ReadonlyMap<string, string>,
): string | undefined {
  if (!id || !phases.has(phase)) return undefined;
  const order = [...phases.keys()];
  const known = of.get(id);
  const rise = known ? order.indexOf(phase) - order.indexOf(known.phase) : 1;
  if (rise === 0) of.set(id, { phase, at: earliest(known?.at, at) });
  if (rise <= 0) return undefined;
  of.set(id, { phase, at });
  return phases.get(phase);
}

function latest(known: Status | undefined, { name: status, time: at, id }: StreamEvent): Status {
  const wins = !known || at > known.at || (at === known.at && id > known.id);
  return wins ? { status, at, id } : known;
}

function earliest(known: string | undefined, at: string): string {
  return known !== undefined && known < at ? known : at;
}
