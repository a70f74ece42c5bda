//! Pictures whose topic is not there, beside events whose topic is: whatever the route of the pictures may pin, and
//! whatever becomes of more, everything else is taken in and published.

use std::{collections::BTreeSet, time::Duration};

use super::{DRAINED, STOPPED};
use crate::support::{
    forebay::{Forebay, PATH, Setup, wait_until},
    http::{self, Answer},
    kafka::{self, create_topic, create_topic_named},
    sender::{sign, webhook},
    topic::read_to_end,
};

const SOON: Duration = Duration::from_secs(60);
/// More than the spool has room for.
const EVENTS: usize = 1500;
const EVENT_BYTES: usize = 16 << 10;
const LIMITS: [&str; 2] = [
    "FOREBAY__SPOOL__BYTES_MAX=16MiB",
    "FOREBAY__SERVER__BODY_BYTES_MAX=1MiB",
];
/// The segment that is written, and what the pictures pin, with what is around them.
const SPOOL_BYTES_KEPT: f64 = (10 << 20) as f64;
const PICTURE_EVERY: usize = 15;
const PICTURE_BYTES: usize = 40 << 10;
/// Half of the pictures.
const PINNED_BYTES_MAX: f64 = (2 << 20) as f64;

struct Bench {
    setup: Setup,
    brokers: String,
    events: String,
    pictures: String,
}

impl Bench {
    async fn new(when_full: &str) -> Self {
        let brokers = kafka::shared();
        let events = create_topic(&brokers, &format!("well-{when_full}"), 3, &[]).await;
        let pictures = format!("{events}-pictures");
        let routes = format!(
            r#"
            [sinks.main]
            type = "kafka"
            brokers = {:?}

            [routes.events]
            match = {{ not_kinds = ["thumbnail"] }}
            topic = "{events}"

            [routes.pictures]
            match = {{ kinds = ["thumbnail"] }}
            topic = "{pictures}"
            backlog_bytes_max = "2MiB"
            when_full = "{when_full}"
            "#,
            brokers.split(',').collect::<Vec<_>>()
        );
        Self {
            setup: Setup::publishing(&routes).environment(&LIMITS),
            brokers,
            events,
            pictures,
        }
    }

    fn post(&self, headers: &str, body: &[u8]) -> Answer {
        let headers = format!("X-Millicast-Signature: {}\r\n{headers}", sign(body));
        http::request(self.setup.public, "POST", PATH, &headers, body).expect("an answer")
    }

    fn post_event(&self, number: usize) -> Answer {
        let event = webhook(number % 50, &format!("feed-{number}"));
        let padding = format!("\"padding\":\"{}\",\"type\"", "x".repeat(EVENT_BYTES));
        self.post("", event.replacen("\"type\"", &padding, 1).as_bytes())
    }

    fn post_picture(&self, number: usize) -> Answer {
        let headers = format!(
            "Content-Type: image/jpeg\r\nX-Millicast-Timestamp: {}\r\nX-Millicast-Stream-Id: ZG6NWV/s\r\n\
             X-Millicast-Feed-Id: 369e4a86-f937-4254-bd9f-99dc484d2bd6\r\nX-Millicast-Token-Id: 1\r\n",
            1_638_463_486_489 + number as i64
        );
        let picture = [b"\xff\xd8\xff".as_slice(), &vec![number as u8; PICTURE_BYTES]].concat();
        self.post(&headers, &picture)
    }

    /// Posts everything to a route that lets its oldest go; returns how many pictures there were.
    fn post_more_than_it_may_pin(&self, forebay: &Forebay) -> usize {
        let posted = self.post_all(forebay);
        assert_eq!(posted, EVENTS / PICTURE_EVERY, "each is taken");
        self.assert_events_published(forebay, EVENTS);
        wait_until("it pins no more than it may", SOON, || {
            pinned(forebay) <= PINNED_BYTES_MAX
        });
        posted
    }

    /// Posts everything; returns how many pictures were taken. All else is.
    fn post_all(&self, forebay: &Forebay) -> usize {
        let mut taken = 0;
        for number in 0..EVENTS {
            if number % 100 == 0 {
                wait_until("what was published is given back", SOON, || {
                    forebay.metric("forebay_spool_bytes") <= SPOOL_BYTES_KEPT
                });
            }
            if number % PICTURE_EVERY == 0 {
                let answer = self.post_picture(number / PICTURE_EVERY);
                taken += usize::from(answer.code == 200);
                if answer.code != 200 {
                    assert!(answer.body.contains("\"spool_route_full\""), "{}", answer.body);
                }
            }
            let answer = self.post_event(number);
            assert_eq!(answer.code, 200, "event {number}: {}", answer.body);
        }
        taken
    }

    async fn create_topic(&self) {
        create_topic_named(&self.brokers, &self.pictures, 1, &[]).await;
    }

    /// The numbers of the published pictures, which are in order, each once.
    fn published_pictures(&self) -> Vec<u64> {
        let read = read_to_end(&self.brokers, &self.pictures);
        let numbers: Vec<u64> = read.iter().map(kafka::Read::sequence).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
        numbers
    }

    fn assert_events_published(&self, forebay: &Forebay, count: usize) {
        wait_until("the events are published", SOON, || forebay.published() >= count as f64);
        let read = read_to_end(&self.brokers, &self.events);
        assert_eq!(
            read.iter().map(kafka::Read::sequence).collect::<BTreeSet<_>>().len(),
            count
        );
        assert_eq!(forebay.get("/readyz").unwrap().0, 200);
    }
}

fn pinned(forebay: &Forebay) -> f64 {
    forebay.metric("forebay_route_pinned_bytes{route=\"pictures\"}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_may_pin_no_more_refuses_its_own_events_and_no_other() {
    let bench = Bench::new("refuse").await;
    let mut forebay = bench.setup.start();
    let taken = bench.post_all(&forebay);
    assert!((30..60).contains(&taken), "{taken} taken of {}", EVENTS / PICTURE_EVERY);
    bench.assert_events_published(&forebay, EVENTS);
    let before = pinned(&forebay);
    assert!(before <= PINNED_BYTES_MAX && before > PINNED_BYTES_MAX - 2.0 * PICTURE_BYTES as f64);
    assert_eq!(
        forebay.metric("forebay_route_pinned_bytes_max{route=\"pictures\"}"),
        PINNED_BYTES_MAX
    );

    forebay.kill();
    let mut forebay = bench.setup.start();
    wait_until("what it pins is counted again", SOON, || pinned(&forebay) == before);
    assert_eq!(bench.post_picture(200).code, 503);
    assert_eq!(bench.post_event(EVENTS).code, 200);

    bench.create_topic().await;
    forebay.wait_until_drained(DRAINED);
    assert_eq!(bench.published_pictures().len(), taken);
    assert_eq!(pinned(&forebay), 0.0);
    assert_eq!(bench.post_picture(201).code, 200, "there is room again");
    assert_eq!(forebay.terminate(STOPPED).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_gives_up_its_oldest_takes_all_and_publishes_the_newest() {
    let bench = Bench::new("drop_oldest").await;
    let mut forebay = bench.setup.start();
    let posted = bench.post_more_than_it_may_pin(&forebay);
    let dropped = forebay.metric("forebay_backlog_dropped_total{route=\"pictures\"}") as usize;
    assert!((30..80).contains(&dropped), "{dropped}");
    let log = forebay.log();
    assert!(log.contains("its oldest events are given up"), "{log}");
    let before = pinned(&forebay);

    forebay.kill();
    let mut forebay = bench.setup.start();
    // What was given up within half a second before is given up again, and more with it: down to nine tenths.
    let least = before.min(PINNED_BYTES_MAX * 0.9 - 2.0 * PICTURE_BYTES as f64);
    wait_until("what it pins is counted again", SOON, || {
        (least..=PINNED_BYTES_MAX + PICTURE_BYTES as f64).contains(&pinned(&forebay))
    });
    bench.create_topic().await;
    forebay.wait_until_drained(DRAINED);
    let published = bench.published_pictures();
    let again = forebay.metric("forebay_backlog_dropped_total{route=\"pictures\"}") as usize;
    let given_up = posted - published.len();
    assert!(
        given_up > 0 && given_up <= dropped + again,
        "{given_up} of {posted} are not there: {dropped}, {again}"
    );
    assert_eq!(pinned(&forebay), 0.0);
    assert_eq!(forebay.terminate(STOPPED).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_whose_oldest_go_to_the_dead_letters_loses_none() {
    let bench = Bench::new("dead_letter").await;
    let mut forebay = bench.setup.start();
    let posted = bench.post_more_than_it_may_pin(&forebay);
    let dead = forebay.metric("forebay_dead_letters_total{reason=\"backlog_full\",route=\"pictures\"}") as usize;
    assert!((30..80).contains(&dead), "{dead}");
    assert_eq!(forebay.metric("forebay_dead_letters{route=\"pictures\"}"), dead as f64);

    bench.create_topic().await;
    forebay.wait_until_drained(DRAINED);
    assert_eq!(bench.published_pictures().len() + dead, posted);
    assert_eq!(pinned(&forebay), 0.0);
    assert_eq!(forebay.terminate(STOPPED).code(), Some(0));
}
