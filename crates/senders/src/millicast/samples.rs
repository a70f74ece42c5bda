//! Requests as the provider sends them, one of every kind and event.

use forebay_event::Time;
use serde_json::{Value, json};

use super::{FEED_ID, STREAM_ID, TIMESTAMP, TOKEN_ID};
use crate::{Sample, SampleKind, SampleParameters};

/// Every documented kind and event, in the order in which a stream's life has them.
pub const ALL: &[SampleKind] = &[
    sample_kind("viewerConnection", "ViewerAttempt"),
    sample_kind("feeds", "started"),
    sample_kind("viewerConnection", "FirstViewerConnection"),
    sample_kind("thumbnail", "captured"),
    sample_kind("transcoder", "ACTIVE"),
    sample_kind("recordings", "started"),
    sample_kind("feeds", "ended"),
    sample_kind("viewerConnection", "NoActiveViewers"),
    sample_kind("recordings", "completed"),
    sample_kind("recordings", "error"),
    sample_kind("recordings", "deleted"),
    sample_kind("media", "processing"),
    sample_kind("media", "completed"),
    sample_kind("media", "errored"),
    sample_kind("media", "deleted"),
    sample_kind("transcoder", "STOPPED"),
    sample_kind("transcoder", "DELETED"),
];

/// A stream's life, as it goes when nothing fails; then a new feed begins another one.
pub const LIFE: &[SampleKind] = &[
    sample_kind("viewerConnection", "ViewerAttempt"),
    sample_kind("feeds", "started"),
    sample_kind("viewerConnection", "FirstViewerConnection"),
    sample_kind("transcoder", "ACTIVE"),
    sample_kind("recordings", "started"),
    sample_kind("thumbnail", "captured"),
    sample_kind("feeds", "ended"),
    sample_kind("transcoder", "STOPPED"),
    sample_kind("recordings", "completed"),
    sample_kind("media", "processing"),
    sample_kind("media", "completed"),
    sample_kind("viewerConnection", "NoActiveViewers"),
    sample_kind("transcoder", "DELETED"),
    sample_kind("recordings", "deleted"),
    sample_kind("media", "deleted"),
];

const fn sample_kind(kind: &'static str, event: &'static str) -> SampleKind {
    SampleKind::new(kind, event)
}

/// Makes a sample.
pub fn sample(SampleKind { kind, event }: SampleKind, parameters: &SampleParameters<'_>) -> Sample {
    if kind == "thumbnail" {
        return thumbnail(parameters);
    }
    let data = match kind {
        "feeds" => feeds(event, parameters),
        "viewerConnection" => viewer_connection(parameters),
        "recordings" => recordings(event, parameters),
        "media" => media(event, parameters),
        _ => transcoder(event, parameters),
    };
    // Written by hand, because the provider's order of members is not the alphabet's.
    let body = format!(
        r#"{{"type":"{kind}","event":"{event}","timestamp":{},"data":{data}}}"#,
        parameters.sent.0
    );
    Sample {
        kind,
        event,
        content_type: "application/json",
        headers: Vec::new(),
        body: body.into_bytes(),
    }
}

fn feeds(event: &str, p: &SampleParameters<'_>) -> Value {
    // The published captures take 20 to 150 ms from the occurrence to the sending.
    let occurred = p.sent.0.saturating_sub(130);
    let mut data = json!({
        "feedId": p.feed_id, "accountId": p.account, "name": p.stream_name, "streamId": stream_id(p),
        "active": event == "started",
    });
    if event == "started" {
        data["started"] = json!(occurred);
    } else {
        data["ended"] = json!(occurred);
    }
    data
}

fn viewer_connection(p: &SampleParameters<'_>) -> Value {
    json!({ "name": p.stream_name, "accountId": p.account, "streamId": stream_id(p) })
}

fn recordings(event: &str, p: &SampleParameters<'_>) -> Value {
    let mut data = json!({
        "recordFileId": 1_000_000 + p.counter, "tokenId": 4711, "streamName": p.stream_name,
        "recordedOn": p.sent.0.saturating_sub(60_000),
    });
    match event {
        "completed" => {
            data["metadata"] = json!({
                "format": "mp4", "sizes": { "full": 12_345_678, "thumbnail": 1234 }, "duration": 60.04,
                "tracks": [
                    { "type": "video", "codec": "h264", "bitrate": 2_500_000, "width": 1920, "height": 1080, "framerate": 29.97 },
                    { "type": "audio", "codec": "opus", "bitrate": 64_000, "channels": 2, "samplerate": 48_000 },
                ],
            });
        }
        "deleted" => data["removedOn"] = json!(p.sent.0.saturating_sub(90)),
        _ => {}
    }
    data
}

fn media(event: &str, p: &SampleParameters<'_>) -> Value {
    let mut data = json!({
        "mediaAssetId": format!("{:032x}", p.feed_id.as_u128() ^ u128::from(p.counter)), "type": "clip",
        "startTime": p.sent.0.saturating_sub(120_000), "streamId": stream_id(p), "streamName": p.stream_name,
        "tokenId": 4711,
    });
    if event == "completed" {
        data["expiration"] = json!(p.sent.0.saturating_add(86_400_000));
        data["metadata"] = json!({});
    }
    data
}

fn transcoder(event: &str, p: &SampleParameters<'_>) -> Value {
    let status = match event {
        "ACTIVE" => "Active",
        "STOPPED" => "Shutdown",
        _ => "Deleted",
    };
    json!({
        "transcoderId": format!("{:032x}", p.feed_id.as_u128()), "transcoderName": "sample_transcoder",
        "cluster": "phx-1", "createdOn": Time(p.sent.0.saturating_sub(3_600_000)).to_rfc3339(), "status": status,
    })
}

fn thumbnail(p: &SampleParameters<'_>) -> Sample {
    Sample {
        kind: "thumbnail",
        event: "captured",
        content_type: "image/jpeg",
        headers: vec![
            (TIMESTAMP, p.sent.0.saturating_sub(2000).to_string()),
            (FEED_ID, p.feed_id.to_string()),
            (STREAM_ID, stream_id(p)),
            (TOKEN_ID, "4711".to_owned()),
        ],
        body: jpeg(p.counter),
    }
}

fn stream_id(p: &SampleParameters<'_>) -> String {
    format!("{}/{}", p.account, p.stream_name)
}

/// A grey picture of 8 × 8 pixels, with `counter` as its comment.
fn jpeg(counter: u64) -> Vec<u8> {
    const QUANTIZATION: [u8; 69] = {
        let mut segment = [1; 69];
        (segment[0], segment[1], segment[2], segment[3], segment[4]) = (0xff, 0xdb, 0, 67, 0);
        segment
    };
    let mut jpeg = Vec::with_capacity(256);
    jpeg.extend_from_slice(b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00");
    let comment = format!("forebay {counter:020}");
    jpeg.extend_from_slice(&[0xff, 0xfe, 0, 30]);
    jpeg.extend_from_slice(comment.as_bytes());
    jpeg.extend_from_slice(&QUANTIZATION);
    jpeg.extend_from_slice(&[0xff, 0xc0, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0]);
    // Tables of one code, `0`: no difference from the mean, and the end of the block.
    for class in [0x00, 0x10] {
        jpeg.extend_from_slice(&[0xff, 0xc4, 0, 20, class, 1]);
        jpeg.extend_from_slice(&[0; 16]);
    }
    jpeg.extend_from_slice(&[0xff, 0xda, 0, 8, 1, 1, 0, 0, 63, 0, 0x3f, 0xff, 0xd9]);
    jpeg
}
