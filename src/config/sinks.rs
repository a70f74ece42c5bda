//! `[sinks.<name>]`: each is read by its broker.

use forebay_section::ConfigTable;

use super::{
    SinkConfig,
    load::{ConfigLoader, NamedSection},
    values,
};
use crate::sink::{self, RegisteredBroker};

/// A sink as far as it could be read.
pub(super) struct DeclaredSink {
    /// `None` when its type is missing or wrong.
    pub broker: Option<&'static dyn RegisteredBroker>,
    /// `None` when something in it is not right.
    pub sink: Option<SinkConfig>,
}

impl ConfigLoader<'_> {
    pub(super) fn sinks(&mut self, root: &mut ConfigTable<'_>) -> Vec<NamedSection<DeclaredSink>> {
        let types: Vec<_> = (sink::brokers().iter())
            .map(|broker| (broker.name(), *broker))
            .collect();
        let sinks = self.named(root, "sinks", |_, name, mut table| {
            let broker = table.require("type", values::word(&types));
            // Of another type, the other keys say nothing that could be checked.
            let settings = broker.and_then(|broker| broker.read_settings(table));
            let name = name.to_owned();
            Some(DeclaredSink {
                broker,
                sink: settings.map(|settings| SinkConfig { name, settings }),
            })
        });
        if sinks.is_empty() {
            let needed = sink::brokers().iter().map(|broker| broker.required_keys());
            let needed = needed.collect::<Vec<_>>().join(" or ");
            let text = format!("missing: at least one sink, [sinks.<name>] with type and {needed}");
            self.context.found.add(self.context.file, "sinks", text);
        }
        sinks
    }
}
