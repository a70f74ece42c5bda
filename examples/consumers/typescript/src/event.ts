/** The members of a structured CloudEvent that the state of a stream depends on. */
export interface StreamEvent {
  id: string;
  /** The last two words of the type: `feeds` and `started` of `com.millicast.feeds.started`. */
  kind: string;
  name: string;
  /** RFC 3339. All of one length and in UTC, so that comparing the texts compares the times. */
  time: string;
  /** The attribute `partitionkey`. */
  key: string;
  feed: string | undefined;
  recording: string | undefined;
  media: string | undefined;
  transcoder: string | undefined;
}

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

/** Reads a structured event, as Forebay publishes it. Throws when it is something else. */
export function parseEvent(json: string): StreamEvent {
  return readEvent(JSON.parse(json));
}

/** As {@link parseEvent}, of JSON that is parsed already. */
export function readEvent(value: unknown): StreamEvent {
  if (!isObject(value)) throw new Error("not a structured CloudEvent");
  const time = attribute(value, "time");
  if (!TIME.test(time)) throw new Error(`a CloudEvent of another kind of time: ${time}`);
  const [kind = "", name = ""] = attribute(value, "type").split(".").slice(-2);
  const data = isObject(value.data) ? value.data : {};
  return {
    id: attribute(value, "id"),
    kind,
    name,
    time,
    key: attribute(value, "partitionkey"),
    feed: idText(value.feedid),
    recording: idText(data.recordFileId),
    media: idText(data.mediaAssetId),
    transcoder: idText(data.transcoderId),
  };
}

function attribute(event: Record<string, unknown>, name: string): string {
  const value = event[name];
  if (typeof value !== "string") throw new Error(`a CloudEvent without the attribute ${name}`);
  return value;
}

/** An id as text. The provider writes some of them as numbers; anything but a text or a number is no id. */
function idText(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  return typeof value === "number" ? String(value) : undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
