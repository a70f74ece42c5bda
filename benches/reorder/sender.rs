//! A sender that delivers as Millicast does: each event by itself, after a delay of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use forebay::{
    event::Time,
    senders::{self, Secret},
};
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

pub const PATH: &str = "/millicast/bench";
pub const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What the published captures have between an event and its sending.
const DELAY_MS: std::ops::Range<u64> = 20..150;
/// One in so many takes longer: this much.
const SLOW_ONE_IN: u64 = 100;
const SLOW_DELAY_MS: std::ops::Range<u64> = 150..1500;

pub struct Load {
    pub url: String,
    pub rate: u64,
    pub streams: u64,
    pub count: u64,
}

impl Load {
    /// Sends all; each must be answered 200.
    pub async fn send(&self) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let secret = Secret::from_base64(SECRET)?;
        let start = tokio::time::Instant::now();
        let began = Time::now();
        let mut random = Random(7);
        let mut under_way = JoinSet::new();
        for number in 0..self.count {
            let happens_ms = number * 1000 / self.rate;
            let delay_ms = match random.below(SLOW_ONE_IN) {
                0 => random.within(SLOW_DELAY_MS),
                _ => random.within(DELAY_MS),
            };
            tokio::time::sleep_until(start + Duration::from_millis(happens_ms)).await;
            let body = body(
                number,
                random.below(self.streams),
                began.0 + happens_ms as i64,
                delay_ms,
            );
            let mut request = client.post(&self.url).header("content-type", "application/json");
            for (name, value) in senders::usual().sign(&secret, body.as_bytes()) {
                request = request.header(name, value);
            }
            let request = request.body(body);
            under_way.spawn(async move {
                sleep(Duration::from_millis(delay_ms)).await;
                request.send().await.map(|answer| answer.status())
            });
        }
        while let Some(answer) = under_way.join_next().await {
            let status = answer??;
            ensure!(status == 200, "answered {status}");
        }
        Ok(())
    }
}

fn body(number: u64, stream: u64, happened_ms: i64, delay_ms: u64) -> String {
    json!({
        "type": "feeds", "event": "started", "timestamp": happened_ms + delay_ms as i64,
        "data": {
            "feedId": Uuid::from_u128(u128::from(number)), "accountId": "ZG6NWV", "name": format!("stream-{stream}"),
            "streamId": format!("ZG6NWV/stream-{stream}"), "started": happened_ms, "active": true
        }
    })
    .to_string()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn within(&mut self, range: std::ops::Range<u64>) -> u64 {
        range.start + self.below(range.end - range.start)
    }
}
