//! Random histories of one stream.

use std::ops::Range;

use proptest::{prelude::*, sample::Index};

use crate::{Change, MediaPhase, RecordingPhase, StreamEvent, TranscoderStatus, ViewersStatus};
use forebay_event::Time;

pub const KEY: &str = "A/s";

/// Events of a few feeds, recordings, assets, transcoders and of viewers, so many that they meet, at times that are
/// often the same.
pub fn history(events: Range<usize>) -> impl Strategy<Value = Vec<StreamEvent>> {
    prop::collection::vec((change(), 0..20_i64), events).prop_map(|changes| {
        let events = changes.into_iter().enumerate();
        events
            .map(|(number, (change, time))| StreamEvent {
                id: format!("{number:03}"),
                key: KEY.to_owned(),
                time: Time(time),
                change,
            })
            .collect()
    })
}

/// A history, and its events in an order of arrival, some of them several times.
pub fn arrivals(
    history: impl Strategy<Value = Vec<StreamEvent>>,
) -> impl Strategy<Value = (Vec<StreamEvent>, Vec<StreamEvent>)> {
    (history, prop::collection::vec(any::<Index>(), 0..20)).prop_flat_map(|(events, again)| {
        let mut arrivals = events.clone();
        arrivals.extend(again.iter().map(|index| index.get(&events).clone()));
        (Just(events), Just(arrivals).prop_shuffle())
    })
}

/// Every order of `events`.
pub fn permutations(events: &[StreamEvent]) -> Vec<Vec<StreamEvent>> {
    let Some((first, rest)) = events.split_first() else {
        return vec![Vec::new()];
    };
    let mut all = Vec::new();
    for permutation in permutations(rest) {
        for at in 0..=permutation.len() {
            let mut longer = permutation.clone();
            longer.insert(at, first.clone());
            all.push(longer);
        }
    }
    all
}

fn change() -> impl Strategy<Value = Change> {
    use prop::sample::select;

    let recording = select(&[
        RecordingPhase::Started,
        RecordingPhase::Error,
        RecordingPhase::Completed,
        RecordingPhase::Deleted,
    ]);
    let media = select(&[
        MediaPhase::Processing,
        MediaPhase::Errored,
        MediaPhase::Completed,
        MediaPhase::Deleted,
    ]);
    let transcoder = select(&[
        TranscoderStatus::Active,
        TranscoderStatus::Stopped,
        TranscoderStatus::Deleted,
    ]);
    let viewers = select(&[
        ViewersStatus::ViewerAttempt,
        ViewersStatus::FirstViewerConnection,
        ViewersStatus::NoActiveViewers,
    ]);
    let id = || (0..4_u8).prop_map(|number| number.to_string());
    prop_oneof![
        3 => id().prop_map(|feed| Change::FeedStarted { feed }),
        3 => id().prop_map(|feed| Change::FeedEnded { feed }),
        2 => (id(), recording).prop_map(|(recording, phase)| Change::Recording { recording, phase }),
        1 => (id(), media).prop_map(|(media, phase)| Change::Media { media, phase }),
        1 => (id(), transcoder).prop_map(|(transcoder, status)| Change::Transcoder { transcoder, status }),
        1 => viewers.prop_map(|status| Change::Viewers { status }),
        1 => Just(Change::None),
    ]
}
