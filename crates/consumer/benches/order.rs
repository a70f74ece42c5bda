//! How many events a second the consumer kit applies, on one core.
//!
//! Method: events are made before, and read from JSON before, where the reading is not what is measured. *Many
//! streams*: 100,000 streams, each with a feed that starts, viewers, a recording, and the feed's end; round after round
//! over all streams, so that each event meets another stream than the one before. *One stream*: as many feeds of one
//! stream, one after another, forgotten a thousand at a time. Each is run five times, from an empty state, which is
//! dropped after the clock stopped; reported are the median and the lowest.
//!
//! `cargo bench --bench order` (no server needed)

#![allow(clippy::print_stdout, reason = "it is what the program is for")]

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use forebay_consumer::{Dedupe, ParseError, StreamEvent, Streams, Time};

const STREAMS: usize = 100_000;
const RUNS: usize = 5;
const KEPT_FEEDS: usize = 1000;

fn main() -> Result<(), ParseError> {
    let texts = many_streams();
    let events = read(&texts)?;
    measure("apply, 100,000 streams", events.len(), || {
        let mut streams = Streams::default();
        events.iter().for_each(|event| drop(black_box(streams.apply(event))));
        streams
    });
    let one = read(&one_stream())?;
    measure("apply, one stream", one.len(), || {
        let mut streams = Streams::default();
        for events in one.chunks(2 * KEPT_FEEDS) {
            events.iter().for_each(|event| drop(black_box(streams.apply(event))));
            streams.forget(events[0].time);
        }
        streams
    });
    measure("apply, all duplicates", events.len(), {
        let mut streams = Streams::default();
        events.iter().for_each(|event| drop(black_box(streams.apply(event))));
        let events = &events;
        move || events.iter().for_each(|event| drop(black_box(streams.apply(event))))
    });
    measure("read from JSON and apply, 100,000 streams", texts.len(), || {
        let mut streams = Streams::default();
        let events = texts
            .iter()
            .filter_map(|text| StreamEvent::from_structured(text.as_bytes()).ok());
        events.for_each(|event| drop(black_box(streams.apply(&event))));
        streams
    });
    measure("dedupe, a window of 100,000", events.len(), || {
        let mut dedupe = Dedupe::new(100_000, Duration::from_secs(600));
        events
            .iter()
            .filter(|event| dedupe.is_new(&event.id, event.time))
            .count()
    });
    Ok(())
}

/// The time until `run` returns: what it returns is dropped after that.
fn measure<T>(what: &str, events: usize, mut run: impl FnMut() -> T) {
    let mut rates: Vec<f64> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            let state = black_box(run());
            let taken = started.elapsed();
            drop(state);
            events as f64 / taken.as_secs_f64() / 1e6
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    println!("{what}: {:.2} M events/s (lowest {:.2})", rates[RUNS / 2], rates[0]);
}

fn many_streams() -> Vec<String> {
    let kinds = [
        "feeds.started",
        "viewerconnection.firstviewerconnection",
        "recordings.completed",
        "feeds.ended",
    ];
    let rounds = kinds.iter().enumerate();
    rounds
        .flat_map(|(round, kind)| (0..STREAMS).map(move |stream| event(kind, stream, stream, round * STREAMS + stream)))
        .collect()
}

fn one_stream() -> Vec<String> {
    let feeds = 0..2 * STREAMS;
    feeds
        .flat_map(|feed| {
            [
                event("feeds.started", 0, feed, 2 * feed),
                event("feeds.ended", 0, feed, 2 * feed + 1),
            ]
        })
        .collect()
}

fn event(kind: &str, stream: usize, subject: usize, number: usize) -> String {
    let time = Time(1_638_463_486_359 + number as i64).to_rfc3339();
    format!(
        r#"{{"specversion":"1.0","id":"{number:08x}-e188-5a8b-afba-3bf99fbc2c36","source":"//millicast.com/accounts/ZG6NWV","type":"com.millicast.{kind}","subject":"ZG6NWV/stream-{stream}","time":"{time}","datacontenttype":"application/json","partitionkey":"ZG6NWV/stream-{stream}","replicasequence":"{number:020}","replica":"forebay-0","endpoint":"acme","account":"ZG6NWV","streamname":"stream-{stream}","feedid":"{subject:08x}-f937-4254-bd9f-99dc484d2bd6","senttime":"{time}","recordedtime":"{time}","data":{{"streamId":"ZG6NWV/stream-{stream}","accountId":"ZG6NWV","streamName":"stream-{stream}","recordFileId":{subject}}}}}"#
    )
}

fn read(texts: &[String]) -> Result<Vec<StreamEvent>, ParseError> {
    texts
        .iter()
        .map(|text| StreamEvent::from_structured(text.as_bytes()))
        .collect()
}
