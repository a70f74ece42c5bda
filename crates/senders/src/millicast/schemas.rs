//! The schemas of `docs/schemas/`, by kind; `event` is what all have in common.

pub(super) const SCHEMAS: &[(&str, &str)] = &[
    ("event", include_str!("../../../../docs/schemas/event.schema.json")),
    ("feeds", include_str!("../../../../docs/schemas/feeds.schema.json")),
    ("media", include_str!("../../../../docs/schemas/media.schema.json")),
    (
        "recordings",
        include_str!("../../../../docs/schemas/recordings.schema.json"),
    ),
    (
        "thumbnail",
        include_str!("../../../../docs/schemas/thumbnail.schema.json"),
    ),
    (
        "transcoder",
        include_str!("../../../../docs/schemas/transcoder.schema.json"),
    ),
    (
        "unreadable",
        include_str!("../../../../docs/schemas/unreadable.schema.json"),
    ),
    (
        "viewerconnection",
        include_str!("../../../../docs/schemas/viewerconnection.schema.json"),
    ),
];
