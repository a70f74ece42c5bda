//! Routes that publish the same events to the same place.

use super::{LEAST, SECRET, load, problems};

/// Two endpoints, two clusters and two exchanges; routes come behind.
fn with_routes(routes: &str) -> String {
    let more = format!(
        r#"
        [endpoints.beta]
        path = "/millicast/beta"
        account = "BETA"
        secrets = ["base64:{SECRET}"]

        [sinks.same]
        type = "kafka"
        brokers = ["other:9092", "localhost:9092"]

        [sinks.elsewhere]
        type = "kafka"
        brokers = ["elsewhere:9092"]

        [sinks.rabbit]
        type = "rabbitmq"
        uri = "amqp://localhost"
        exchange = "forebay"

        [sinks.hare]
        type = "rabbitmq"
        uri = "amqp://localhost"
        exchange = "hare"

        [routes.rest]
        discard = true

        {routes}
        "#
    );
    format!("{LEAST}{more}")
}

fn pair(one: &str, other: &str) -> String {
    let sink = |route: &str| if route.contains("sink") { "" } else { "sink = \"main\"" };
    with_routes(&format!(
        "[routes.a]\n{one}\n{}\n[routes.b]\n{other}\n{}\n",
        sink(one),
        sink(other)
    ))
}

#[test]
fn routes_that_publish_the_same_events_to_the_same_place_are_a_mistake() {
    for (one, other, what) in [
        (
            "topic = \"t\"",
            "topic = \"t\"\nmatch = { kinds = [\"feeds\"] }",
            "feeds of acme, beta",
        ),
        (
            "topic = \"t\"\nmatch = { not_kinds = [\"thumbnail\"] }",
            "topic = \"t\"\nmatch = { kinds = [\"feeds\", \"thumbnail\", \"media\"], endpoints = [\"beta\"] }",
            "feeds, media of beta",
        ),
        (
            "topic = \"t.{kind}\"\nmatch = { kinds = [\"feeds\", \"media\"] }",
            "topic = \"t.feeds\"",
            "feeds of acme, beta",
        ),
        (
            "topic = \"{endpoint}.x\"\nmatch = { kinds = [\"media\"] }",
            "topic = \"acme.x\"",
            "media of acme",
        ),
        (
            "topic = \"{account}.x\"\nmatch = { kinds = [\"media\"] }",
            "topic = \"BETA.x\"",
            "media of beta",
        ),
        (
            "topic = \"{account}\"\nmatch = { kinds = [\"media\"] }",
            "topic = \"{account}\"\nsink = \"same\"",
            "media of acme, beta",
        ),
        (
            "sink = \"rabbit\"\nmatch = { kinds = [\"media\"] }",
            "sink = \"rabbit\"\nmatch = { not_kinds = [\"feeds\"] }",
            "media of acme, beta",
        ),
        (
            "topic = \"t\"\nmatch = { not_kinds = [\"feeds\", \"media\", \"recordings\", \"thumbnail\", \"transcoder\", \"viewerconnection\", \"unreadable\"] }",
            "topic = \"t\"\nmatch = { endpoints = [\"acme\"] }",
            "kinds that are not known of acme",
        ),
    ] {
        let text = pair(one, other);
        let expected = format!(
            "forebay.toml: routes.b: publishes to the same place as routes.a what both match ({what}): each of these events would be there twice. \
             Narrow the match of one of them, or say on one that it is meant: `overlap = true`"
        );
        assert_eq!(problems(&text, &[]), [expected], "{one} {other}");
        for (one, other) in [
            (format!("{one}\noverlap = true"), other.to_owned()),
            (one.to_owned(), format!("{other}\noverlap = true")),
        ] {
            assert!(load(&pair(&one, &other), &[]).is_ok(), "{one} {other}");
        }
    }
}

#[test]
fn routes_that_share_no_event_or_no_place_do_not_overlap() {
    for (one, other) in [
        (
            "topic = \"t\"\nmatch = { kinds = [\"feeds\"] }",
            "topic = \"t\"\nmatch = { kinds = [\"media\"] }",
        ),
        (
            "topic = \"t\"\nmatch = { kinds = [\"feeds\"] }",
            "topic = \"t\"\nmatch = { not_kinds = [\"feeds\"] }",
        ),
        (
            "topic = \"t\"\nmatch = { endpoints = [\"acme\"] }",
            "topic = \"t\"\nmatch = { not_endpoints = [\"acme\"] }",
        ),
        ("topic = \"t\"", "topic = \"u\""),
        ("topic = \"t\"", "topic = \"t\"\nsink = \"elsewhere\""),
        ("topic = \"a.{account}\"", "topic = \"b.{account}\""),
        (
            "topic = \"x.{kind}\"\nmatch = { kinds = [\"media\"] }",
            "topic = \"x.feeds\"",
        ),
        ("sink = \"rabbit\"", "sink = \"hare\""),
        ("sink = \"rabbit\"", "topic = \"t\""),
        ("topic = \"t\"\ndiscard = true", "topic = \"t\""),
    ] {
        let config = load(&pair(one, other), &[]).unwrap();
        let warned = config.warnings.iter().any(|warning| warning.contains("routes.a"));
        assert!(!warned, "{one} {other}: {:?}", config.warnings);
    }
    // What no route wants is nobody else's.
    let text = with_routes(
        "[routes.a]\nsink = \"main\"\ntopic = \"t\"\nmatch = { kinds = [\"feeds\"] }\n[routes.unrouted]\nsink = \"main\"\ntopic = \"t\"\n",
    );
    assert!(load(&text, &[]).is_ok());
}

#[test]
fn topics_that_are_equal_for_some_accounts_alone_are_a_warning() {
    let one = "topic = \"{account}\"\nmatch = { kinds = [\"feeds\"], endpoints = [\"acme\"] }";
    let config = load(&pair(one, "topic = \"all\""), &[]).unwrap();
    let expected = "routes.b: can publish to the same topic as routes.a what both match (feeds of acme): for some accounts or names of events, each \
                    of these is there twice";
    assert!(
        config.warnings.iter().any(|warning| warning == expected),
        "{:?}",
        config.warnings
    );
}
