//! What a connection's stream and the requests that it carries know of each other.

use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
    rc::Rc,
    task::Waker,
};

use tokio::time::Instant;

use super::connections::ConnectionPlace;

/// A connection, for its stream and for the requests that it carries.
pub(crate) struct ConnectionLink {
    place: ConnectionPlace,
    /// The peer's address, or that for which a trusted proxy connects.
    pub(super) peer: Cell<IpAddr>,
    /// When the last request was answered; none while one is in hand.
    pub(super) answered: Cell<Option<Instant>>,
    /// To be woken when the request is answered: more is there already.
    pub(super) reader: RefCell<Option<Waker>>,
    pub(super) chunks_malformed: Cell<bool>,
}

/// A request is in hand until this is dropped.
pub(crate) struct RequestInHand(Rc<ConnectionLink>);

impl ConnectionLink {
    pub(super) fn new(place: ConnectionPlace, peer: IpAddr) -> Self {
        Self {
            place,
            peer: Cell::new(peer),
            answered: Cell::new(None),
            reader: RefCell::new(None),
            chunks_malformed: Cell::new(false),
        }
    }

    pub fn peer(&self) -> IpAddr {
        self.peer.get()
    }

    pub fn place(&self) -> &ConnectionPlace {
        &self.place
    }

    /// Whether the body of the request in hand was cut off at what is no chunk.
    pub fn chunks_are_malformed(&self) -> bool {
        self.chunks_malformed.get()
    }

    /// The next request is not handed on before the returned value is dropped.
    pub fn answering(self: &Rc<Self>) -> RequestInHand {
        self.place.busy();
        RequestInHand(Rc::clone(self))
    }
}

impl Drop for RequestInHand {
    fn drop(&mut self) {
        let Self(link) = self;
        link.place.idle();
        link.answered.set(Some(Instant::now()));
        if let Some(waker) = link.reader.take() {
            waker.wake();
        }
    }
}
