//! RabbitMQ, through lapin: one connection per route, one channel per partition, as far as they are granted.
//!
//! # Lanes
//!
//! A partition's messages go through its *lane*: a channel with publisher confirms, and the one task that owns it. The
//! lane takes what waits for it, publishes all of it (mandatory, persistent), waits for *all* the confirms, and settles
//! the batch as a whole (`settlement`): lapin attaches a returned message to whichever confirm resolves next, so a
//! single confirm proves nothing. Nothing else is published on the channel until then; lanes run side by side. A key
//! has one partition, so the order of a key is the order of its lane.
//!
//! A batch has at most one message of a key, 1024 messages and a MiB. So nothing of a stream is on its way while an
//! earlier message of it may still be refused, and lanes are fast with many streams: one stream alone gets one message
//! a round trip.
//!
//! # What is refused, and the order
//!
//! - **Nacked** (a full queue with `reject-publish`, a node that fails): the message stays the next one of its stream
//!   and is published again after a pause, without end. Other lanes go on.
//! - **Returned** (no queue is bound): by default set aside as a dead letter, exactly that one; its neighbours and the
//!   session go on. With `unroutable = "hold"` it is treated as nacked. With `declare = true` it ends the session
//!   first: a queue was deleted, and the next session declares it again.
//! - **Too large**: RabbitMQ closes the channel and names the size; the message of that size is set aside, and the job
//!   replays the rest.
//! - **No answer** (a quorum queue without a majority): the lane stands while other lanes are confirmed, for five
//!   minutes at most; else the session ends after the deadline.
//! - Everything else (exchange gone, not allowed, connection lost) ends the session.
//!   The job opens the next one and replays what is not settled. lapin's own recovery is off.
//!
//! # The end of a session
//!
//! A publish that was not answered may still be on its way. So the tasks of a session are ended and its socket is shut
//! down before the next session is opened. A blocked connection is not closed in order, which would wait for as long as
//! it is blocked.

mod broker;
mod check;
mod connect;
mod encode;
mod failure;
mod lane;
mod management;
mod metrics;
mod read;
pub mod routing_key;
mod session;
pub mod settings;
mod settlement;
mod tail;
mod topology;
pub mod uri;

use std::{mem, sync::Arc, time::Duration};

use tokio::time::timeout;

pub use broker::{RabbitMq, RoutingKeys, read_queues, tail_source};
pub use check::connect_check;
pub use connect::{BrokerLink, connect};
pub use failure::{RabbitMqCause, RabbitMqFailure};
pub use metrics::RabbitMqMetrics;
pub use read::{QueueExtent, QueueOptions, QueueReadError, QueueReading};
pub use settings::{RabbitMqConfig, RabbitMqTls, Unroutable};
pub use tail::{RabbitMqSource, RabbitMqTail, RabbitMqTailError, RabbitMqTailOptions, RabbitMqTailed};
pub use topology::prepare;

use self::session::{RabbitMqSession, SessionBefore};
use forebay_broker::{
    EnqueueError, Message, MessageDestination, MessagePlace, PublishFailure, Remedy, SettledMessage, Sink, SinkLabels,
    number_of, partition::partition_of,
};

/// Whose session it is.
#[derive(Debug, Clone)]
pub struct RabbitMqNames {
    pub sink: Arc<str>,
    pub route: Arc<str>,
}

/// One route's publishing session with RabbitMQ.
pub struct RabbitMqSink {
    config: RabbitMqConfig,
    names: RabbitMqNames,
    metrics: Arc<RabbitMqMetrics>,
    /// The largest body that is accepted, until it was compared with what RabbitMQ takes.
    uncompared_bytes: Option<u64>,
    session: Option<RabbitMqSession>,
    /// What the session that ended leaves to the next one.
    before: SessionBefore,
    /// How many channels the session before was given, when it was ended by one that was too many.
    channels_max: Option<usize>,
    /// The node to begin with at the next connection: another one after each that failed.
    node: usize,
    /// What a header frame holds on this connection, in bytes.
    head_bytes_max: usize,
}

impl RabbitMqSink {
    /// A sink without a session yet: [`Sink::reopen`] opens it. `body_bytes_max`: the largest body that is accepted.
    pub fn new(
        config: &RabbitMqConfig,
        names: RabbitMqNames,
        body_bytes_max: u64,
        metrics: Arc<RabbitMqMetrics>,
    ) -> Self {
        metrics.born(&names);
        Self {
            config: config.clone(),
            names,
            metrics,
            uncompared_bytes: Some(body_bytes_max),
            session: None,
            before: SessionBefore::default(),
            channels_max: None,
            node: 0,
            head_bytes_max: 0,
        }
    }

    /// How many channels the partitions get.
    fn lanes(&self, link: &BrokerLink) -> Result<usize, RabbitMqFailure> {
        let partitions = self.config.partitions as usize;
        let of_connection = usize::from(link.configuration().channel_max()).saturating_sub(OWN_CHANNELS);
        let channels = of_connection.min(self.channels_max.unwrap_or(usize::MAX));
        if channels == 0 {
            return Err(failure::no_channel(
                &self.names.sink,
                "the connection has none beside its own",
            ));
        }
        if channels < partitions {
            tracing::warn!(
                route = %self.names.route,
                channels,
                partitions,
                "RabbitMQ grants fewer channels than there are partitions, which share them: raise channel_max, or the user's limit"
            );
        }
        Ok(partitions.min(channels))
    }

    /// Logs, once, that RabbitMQ may take less than what a body can become. AMQP does not tell what it takes: the
    /// management API is asked, beside everything else, where the configuration names it.
    fn compare_sizes(&mut self) {
        let Some(body_bytes_max) = self.uncompared_bytes.take_if(|_| self.config.management.is_some()) else {
            return;
        };
        let (config, names) = (self.config.clone(), self.names.clone());
        tokio::spawn(async move {
            if let Some(text) = check::takes_less(&names.sink, &config, body_bytes_max).await {
                tracing::warn!(route = %names.route, "{text}");
            }
        });
    }

    async fn open(&mut self) -> Result<RabbitMqSession, RabbitMqFailure> {
        let purpose = format!("forebay sink {} route {}", self.names.sink, self.names.route);
        let link = connect(&self.config, &self.names.sink, &purpose, self.node).await?;
        let lanes = self.lanes(&link)?;
        topology::ensure(&link, &self.config).await?;
        self.head_bytes_max = match link.configuration().frame_max() as usize {
            0 => usize::MAX,
            frame => frame - FRAME_OVERHEAD_BYTES,
        };
        tracing::info!(route = %self.names.route, node = %link.node, "connected to RabbitMQ");
        self.compare_sizes();
        Ok(RabbitMqSession::new(
            link,
            &self.config,
            self.names.clone(),
            self.metrics.clone(),
            mem::take(&mut self.before),
            lanes,
        ))
    }
}

/// What a connection takes for itself: AMQP's channel 0.
const OWN_CHANNELS: usize = 1;
/// Type, channel, size and end of a frame.
const FRAME_OVERHEAD_BYTES: usize = 8;

fn no_session() -> RabbitMqFailure {
    failure::failure(Remedy::Retry, RabbitMqCause::Other, "no session with RabbitMQ yet")
}

impl Sink for RabbitMqSink {
    async fn reopen(&mut self) -> Result<(), PublishFailure> {
        if let Some(old) = self.session.take() {
            self.before = old.shared.leave();
            self.channels_max = old.shared.channels_granted().map(|granted| granted.max(1));
            old.close().await;
            self.node += 1;
        }
        match self.open().await {
            Ok(session) => {
                self.session = Some(session);
                Ok(())
            }
            Err(failure) => {
                self.node += 1;
                Err(failure.into())
            }
        }
    }

    fn place(&self, _: &str, key: &str) -> MessagePlace {
        let partition = partition_of(key.as_bytes(), self.config.partitions) as usize;
        let lanes = self.session.as_ref().map_or(usize::MAX, RabbitMqSession::lanes);
        MessagePlace {
            lane: (partition % lanes) as u64,
            // A partition's queue gets every routing key.
            stream: number_of(key),
        }
    }

    fn destination(&self, message: &Message) -> MessageDestination {
        let partition = partition_of(message.key.as_bytes(), self.config.partitions);
        let key = routing_key::with_partition(partition, &message.address);
        let exchange = &self.config.exchange;
        MessageDestination {
            name: exchange.clone(),
            attributes: vec![
                ("messaging.system", "rabbitmq".to_owned()),
                ("messaging.destination.name", format!("{exchange}:{key}")),
                ("messaging.rabbitmq.destination.routing_key", key),
            ],
        }
    }

    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError> {
        let session = self
            .session
            .as_mut()
            .ok_or_else(|| EnqueueError::Failed(no_session().into()))?;
        let head_bytes = encode::head_bytes(&message);
        if head_bytes > self.head_bytes_max {
            let refused = failure::headers_too_large(&self.names.sink, head_bytes, self.head_bytes_max);
            return Err(EnqueueError::Failed(refused.into()));
        }
        if session.shared.is_over() {
            // `settle` has something to tell first.
            return Err(EnqueueError::Full(Box::new(message)));
        }
        session.send(message).map_err(EnqueueError::Full)
    }

    async fn settle(&mut self, settled: &mut Vec<SettledMessage>) -> Result<(), PublishFailure> {
        let session = self.session.as_mut().ok_or_else(no_session)?;
        loop {
            let before = settled.len();
            if let Some(over) = session.shared.drain_settled(settled) {
                return Err(over.into());
            }
            if settled.len() > before {
                return Ok(());
            }
            // The wait ends for what nobody tells: a task that panicked. Shorter than the job's own tick, which cancels
            // it.
            if timeout(Duration::from_millis(250), session.shared.changed.notified())
                .await
                .is_err()
                && let Some(failure) = session.failed()
            {
                session.shared.end(failure);
            }
        }
    }

    fn trouble(&self) -> Option<PublishFailure> {
        self.session.as_ref()?.shared.trouble().map(Into::into)
    }

    fn labels(&self) -> SinkLabels {
        SinkLabels::from_causes(&RabbitMqCause::ALL, &RabbitMqCause::OF_A_MESSAGE)
    }
}

impl Drop for RabbitMqSink {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.abandon();
        }
    }
}
