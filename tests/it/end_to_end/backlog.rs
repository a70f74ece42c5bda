//! Many routes with a large backlog behind them, in the memory that the chart gives a pod.
//!
//! `FOREBAY_TEST_BACKLOG_MIB` says how large it is, `FOREBAY_TEST_BACKLOG_ROUTES` how many routes share it:
//! `docs/benchmarks.md` has what ten gigabytes and twenty routes came to.

use std::{
    env,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer as _},
};

use crate::support::{
    cgroup::MemoryGroup,
    forebay::{PATH, SECRET, Setup, wait_until},
    kafka::{self, create_topic, partitions},
    sender::webhook,
    siege::{peak_resident_bytes, post_body},
};

const MIB: u64 = 1 << 20;
/// The chart's limit.
const MEMORY_BYTES_MAX: u64 = 1024 * MIB;
/// What it may come to.
const RESIDENT_BYTES_MAX: u64 = 512 * MIB;
/// With headroom for a machine that runs other tests beside; the goal is 2 s.
const READY: Duration = Duration::from_secs(10);
const PADDING_BYTES: usize = 20_000;
const SENDERS: usize = 8;
const PARTITIONS: usize = 4;

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn path(route: usize) -> String {
    format!("{PATH}-{route}")
}

/// An endpoint and a route for each, all to one topic.
fn configuration(routes: usize, topic: &str) -> String {
    let each = (0..routes).map(|route| {
        format!(
            "[endpoints.e{route}]\npath = \"{}\"\nsecrets = [\"base64:{SECRET}\"]\n\
             [routes.r{route}]\nsink = \"main\"\ntopic = \"{topic}\"\nin_flight_bytes_max = \"16MiB\"\n\
             match = {{ endpoints = [\"e{route}\"] }}\n",
            path(route)
        )
    });
    let sink = "[sinks.main]\ntype = \"kafka\"\nbrokers = [\"127.0.0.1:1\"]\n";
    sink.to_owned() + &each.collect::<String>()
}

/// Sends `count` webhooks of some [`PADDING_BYTES`], to each endpoint in turn.
fn fill(setup: &Setup, count: usize, routes: usize) {
    let padding = "x".repeat(PADDING_BYTES);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (target, padding) = (setup.public, &padding);
            scope.spawn(move || {
                let mut stream = TcpStream::connect(target).unwrap();
                stream.set_nodelay(true).unwrap();
                for index in (sender..count).step_by(SENDERS) {
                    let body = webhook(index % 997, &index.to_string());
                    let body = format!("{},\"padding\":\"{padding}\"}}", body.strip_suffix('}').unwrap());
                    post_body(&mut stream, &path(index % routes), &body).unwrap();
                }
            });
        }
    });
}

/// How many messages the topic has.
fn messages(bootstrap: &str, topic: &str) -> u64 {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .unwrap();
    let ends = (0..partitions(bootstrap, topic)).map(|partition| {
        let marks = consumer.fetch_watermarks(topic, partition as i32, Duration::from_secs(30));
        marks.unwrap().1 as u64
    });
    ends.sum()
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "what was measured is said")]
async fn a_large_backlog_of_many_routes_leaves_in_little_memory() {
    let Some(group) = MemoryGroup::new("backlog", MEMORY_BYTES_MAX) else {
        return;
    };
    let mib = number("FOREBAY_TEST_BACKLOG_MIB", 100);
    let routes = number("FOREBAY_TEST_BACKLOG_ROUTES", 20) as usize;
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "backlog", PARTITIONS as i32, &[]).await;
    let mut setup = Setup::publishing(&configuration(routes, &topic));
    setup.env = vec![
        ("FOREBAY__SPOOL__BYTES_MAX".into(), format!("{}MiB", mib * 3 / 2 + 512)),
        ("FOREBAY__SERVER__SHUTDOWN_DEADLINE".into(), "1s".into()),
    ];
    let count = (mib * MIB) as usize / PADDING_BYTES;
    let mut forebay = setup.start();
    let begun = Instant::now();
    fill(&setup, count, routes);
    let filled = begun.elapsed();
    forebay.kill();

    setup
        .env
        .push(("FOREBAY__SINKS__MAIN__BROKERS".into(), brokers.clone()));
    let begun = Instant::now();
    let mut forebay = setup.launch_within(&group.wrapper());
    wait_until("it is ready", READY, || {
        matches!(forebay.get("/readyz"), Some((200, _)))
    });
    let ready = begun.elapsed();
    forebay.wait_until_drained(Duration::from_secs(60 + mib));
    let drained = begun.elapsed();
    let resident = peak_resident_bytes(forebay.pid());
    eprintln!(
        "{mib} MiB in {count} events, taken in within {filled:.1?}; {routes} routes: ready after {ready:.2?}, drained after {drained:.1?} \
         ({:.0} MiB/s), peak resident {} MiB",
        mib as f64 / drained.as_secs_f64(),
        resident / MIB
    );
    assert!(resident < RESIDENT_BYTES_MAX, "{} MiB", resident / MIB);
    assert_eq!(messages(&brokers, &topic), count as u64);
    assert_eq!(
        forebay.terminate(Duration::from_secs(60)).code(),
        Some(0),
        "{}",
        forebay.log()
    );
}
