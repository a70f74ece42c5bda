//! A connection as actix-web sees it: a stream that hands on one request at a time.
//!
//! actix-web decodes every request that its read buffer holds, however many they are, keeps no time for a later head,
//! waits for ever for a peer that does not read its answer, and resets a connection whose peer still writes when it is
//! closed. All of this is held here, below it:
//!
//! - A head is collected here until it is complete, of [`HEAD_BYTES_MAX`] at most and within [`HEAD_DEADLINE`], and is
//!   handed on together with its own body ([`framing`]). What follows waits, mostly in the kernel, until the answer is
//!   written.
//! - Between requests a connection may be silent for so long as the server keeps connections.
//! - An answer that the peer does not read for [`WRITE_DEADLINE`] ends the connection.
//! - A connection that is closed goes on reading for a while, and throws away what comes ([`LingeringClose`]), so that
//!   the peer gets to read the answer.
//! - Where the proxy in front says by the PROXY protocol for whom it connects, that is read first.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

use super::{
    connections::OpenConnectionSet,
    framing::{self, BodyFraming, ChunkFraming, ChunkScanner},
    linger::LingeringClose,
    link::ConnectionLink,
    metrics::CloseReason,
    proxy_protocol::{self, ProxyHeader},
};

/// A head, with its empty line.
pub(crate) const HEAD_BYTES_MAX: usize = 16 * 1024;
/// From a connection's beginning, or from the first byte of a later head, to the end of the head.
pub(crate) const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// How long a peer may leave its answer unread.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
const READ_BYTES: usize = 4096;

/// A connection, guarded.
pub(crate) struct GuardedStream {
    tcp: TcpStream,
    link: Rc<ConnectionLink>,
    keep_alive: Duration,
    reading: StreamReading,
    /// What was read and not handed on.
    held: BytesMut,
    /// So many bytes of `held` belong to the request that is being handed on.
    cleared: usize,
    /// So many bytes of `held` have no end of a head in them.
    searched: usize,
    /// So many bytes of `held` are counted among the unfinished heads.
    counted: u64,
    /// When the connection began, or the first byte of the head that is being read came.
    head_since: Option<Instant>,
    /// Since when the peer reads nothing of its answer.
    blocked_since: Option<Instant>,
    lingering: Option<LingeringClose>,
    timer: Pin<Box<Sleep>>,
}

/// What comes next from the peer.
#[derive(Debug, PartialEq)]
enum StreamReading {
    /// The header of the PROXY protocol.
    ProxyHeader,
    Head,
    /// The rest of a body: so many bytes, or what its chunks say.
    Length(u64),
    Chunked(ChunkScanner),
    /// Nothing, until the request is answered.
    Answer,
    /// Nothing: the request cannot be read on, and is refused.
    Refusal,
    /// The end.
    End,
}

impl GuardedStream {
    /// `None`: there is no place for it.
    pub fn accept(
        tcp: TcpStream,
        peer: SocketAddr,
        connections: &Arc<OpenConnectionSet>,
        keep_alive: Duration,
        proxy_protocol: bool,
    ) -> Option<Self> {
        let place = connections.admit(peer.ip())?;
        let link = ConnectionLink::new(place, peer.ip());
        let now = Instant::now();
        let reading = if proxy_protocol && connections.is_trusted(peer.ip()) {
            StreamReading::ProxyHeader
        } else {
            StreamReading::Head
        };
        Some(Self {
            tcp,
            link: Rc::new(link),
            keep_alive,
            reading,
            held: BytesMut::new(),
            cleared: 0,
            searched: 0,
            counted: 0,
            head_since: Some(now),
            blocked_since: None,
            lingering: None,
            timer: Box::pin(sleep_until(now + HEAD_DEADLINE)),
        })
    }

    pub fn link(&self) -> Rc<ConnectionLink> {
        Rc::clone(&self.link)
    }

    fn connections(&self) -> &OpenConnectionSet {
        self.link.place().connections()
    }

    /// Whether the connection was told to close; if not, it wakes the task when it is.
    fn is_closing(&self, context: &Context<'_>) -> bool {
        let connection = self.link.place().connection();
        connection.register(context.waker());
        connection.is_closing()
    }

    /// Ends the connection.
    fn end(&mut self, reason: CloseReason) {
        self.connections().close_reason(reason);
        self.reading = StreamReading::End;
    }

    /// Refuses a head that actix-web does not get to see, and reads no more.
    fn refuse(&mut self, reason: CloseReason, status: &'static str) {
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        // A peer that has not read what fits into its buffer does not read this either.
        let _ = self.tcp.try_write(answer.as_bytes());
        self.end(reason);
    }

    /// Begins to hand on the request at the start of `bytes`, and returns how many of them belong to it.
    fn begin_request(&mut self, bytes: &mut [u8], head_length: usize) -> usize {
        let (head, rest) = bytes.split_at_mut(head_length);
        self.head_since = None;
        self.link.answered.set(None);
        let (body_length, reading) = match framing::take_head(head) {
            BodyFraming::Unknown => (0, StreamReading::Refusal),
            BodyFraming::Length(length) => part_of_length(length, rest),
            BodyFraming::Chunked(scanner) => self.part_of_chunks(scanner, rest),
        };
        self.go_on(reading);
        head_length + body_length
    }

    fn go_on(&mut self, reading: StreamReading) {
        if reading == StreamReading::Refusal {
            self.head_since = Some(Instant::now());
        }
        self.reading = reading;
    }

    /// How many of `bytes` belong to a chunked body, and what comes after them.
    fn part_of_chunks(&self, mut scanner: ChunkScanner, bytes: &[u8]) -> (usize, StreamReading) {
        match scanner.scan(bytes) {
            ChunkFraming::More => (bytes.len(), StreamReading::Chunked(scanner)),
            ChunkFraming::End(length) => (length, StreamReading::Answer),
            ChunkFraming::Malformed(at) => {
                self.link.chunks_malformed.set(true);
                // actix-web gets to see what is wrong, and that the body ends there.
                (at + 1, StreamReading::End)
            }
        }
    }

    /// Looks for a request at the start of what is held.
    fn search_held(&mut self) {
        if let Some(head_length) = framing::head_length(&self.held, self.searched) {
            if head_length > HEAD_BYTES_MAX {
                self.refuse(CloseReason::HeadTooLarge, "431 Request Header Fields Too Large");
                return;
            }
            let mut held = std::mem::take(&mut self.held);
            self.cleared = self.begin_request(&mut held, head_length);
            self.held = held;
            self.searched = 0;
        } else if self.held.len() >= HEAD_BYTES_MAX {
            self.refuse(CloseReason::HeadTooLarge, "431 Request Header Fields Too Large");
        } else {
            self.searched = self.held.len();
            self.head_since.get_or_insert_with(Instant::now);
        }
    }

    /// Counts what is held among the unfinished heads.
    fn count_held(&mut self) {
        let held = self.held.len() as u64;
        let before = std::mem::replace(&mut self.counted, held);
        if held > before {
            self.connections().add_head_bytes(held - before);
        } else if held < before {
            self.connections().remove_head_bytes(before - held);
        }
    }

    /// Reads more of what must be complete before it is handed on. `Ready(0)`: the peer has ended.
    fn poll_hold(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut bytes = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.tcp).poll_read(context, &mut buffer))?;
        self.held.extend_from_slice(buffer.filled());
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_proxy_header(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match proxy_protocol::parse(&self.held) {
                ProxyHeader::Complete { length, source } => {
                    self.held.advance(length);
                    if let Some(source) = source {
                        self.link.peer.set(source);
                    }
                    self.reading = StreamReading::Head;
                    if !self.held.is_empty() {
                        self.search_held();
                    }
                    self.count_held();
                    return Poll::Ready(Ok(()));
                }
                ProxyHeader::Malformed => {
                    self.end(CloseReason::ProxyHeader);
                    return Poll::Ready(Ok(()));
                }
                ProxyHeader::Incomplete => {}
            }
            if ready!(self.poll_hold(context))? == 0 {
                self.reading = StreamReading::End;
                return Poll::Ready(Ok(()));
            }
            self.count_held();
        }
    }

    /// Reads a head, with what of its body comes with it. Nothing is handed on, and it is not pending: it is held, or
    /// refused.
    fn poll_head(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.held.is_empty() {
            let read = ready!(self.poll_hold(context))?;
            if read == 0 {
                self.reading = StreamReading::End;
            } else {
                self.search_held();
                self.count_held();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(context, buffer))?;
        let bytes = &mut buffer.filled_mut()[before..];
        if bytes.is_empty() {
            self.reading = StreamReading::End;
            return Poll::Ready(Ok(()));
        }
        // Most requests come in one piece, which stays where actix-web wants it.
        let taken = match framing::head_length(bytes, 0) {
            Some(head_length) if head_length <= HEAD_BYTES_MAX => self.begin_request(bytes, head_length),
            _ => 0,
        };
        self.hold_after(buffer, before + taken);
        if taken == 0 {
            self.search_held();
            self.count_held();
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what is behind the first `keep` bytes of the buffer back.
    fn hold_after(&mut self, buffer: &mut ReadBuf<'_>, keep: usize) {
        let filled = buffer.filled();
        if filled.len() > keep {
            self.held.extend_from_slice(&filled[keep..]);
            buffer.set_filled(keep);
            self.count_held();
        }
    }

    /// Reads more of a body.
    fn poll_body(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.tcp).poll_read(context, buffer))?;
        let bytes = &buffer.filled()[before..];
        if bytes.is_empty() {
            self.reading = StreamReading::End;
            return Poll::Ready(Ok(()));
        }
        let (taken, reading) = match std::mem::replace(&mut self.reading, StreamReading::End) {
            StreamReading::Length(length) => part_of_length(length, bytes),
            StreamReading::Chunked(scanner) => self.part_of_chunks(scanner, bytes),
            other => unreachable!("a body is read in {other:?}"),
        };
        self.go_on(reading);
        self.hold_after(buffer, before + taken);
        Poll::Ready(Ok(()))
    }

    /// Whether the next request may be handed on. If not, the task is woken when it may and there is one.
    fn may_read_on(&mut self, context: &mut Context<'_>) -> bool {
        if self.link.answered.get().is_some() && self.blocked_since.is_none() {
            self.reading = StreamReading::Head;
            if !self.held.is_empty() {
                self.search_held();
                self.count_held();
            }
            return true;
        }
        // Mostly nothing more is there before the answer is read, and then what comes wakes the task.
        if !self.held.is_empty() || self.tcp.poll_read_ready(context).is_ready() {
            self.link.reader.replace(Some(context.waker().clone()));
        }
        false
    }

    /// When the connection is over if nothing happens; `None`: others see to that.
    fn deadline(&self) -> Option<(Instant, CloseReason)> {
        if let Some(since) = self.blocked_since {
            return Some((since + WRITE_DEADLINE, CloseReason::AnswerUnread));
        }
        match (&self.reading, self.head_since) {
            (StreamReading::ProxyHeader, Some(since)) => Some((since + HEAD_DEADLINE, CloseReason::ProxyHeader)),
            (StreamReading::Head | StreamReading::Refusal, Some(since)) => {
                Some((since + HEAD_DEADLINE, CloseReason::HeadDeadline))
            }
            (StreamReading::Head, None) => {
                let answered = self.link.answered.get()?;
                Some((answered + self.keep_alive, CloseReason::Idle))
            }
            _ => None,
        }
    }

    /// Why the connection is over, if its time is. If not, the task is woken when that is to be asked again.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Option<CloseReason> {
        loop {
            let now = Instant::now();
            // While a request is in hand, its connection is looked at again after the time that it may then be idle.
            let again = match self.deadline() {
                Some((deadline, reason)) if now >= deadline => return Some(reason),
                Some((deadline, _)) => deadline,
                None => now + self.keep_alive,
            };
            if self.timer.is_elapsed() || self.timer.deadline() > again {
                self.timer.as_mut().reset(again);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return None;
            }
        }
    }

    /// Ends the connection whose time is over.
    fn expire(&mut self, reason: CloseReason) -> io::Result<()> {
        match reason {
            CloseReason::AnswerUnread => {
                self.end(reason);
                return Err(io::ErrorKind::TimedOut.into());
            }
            CloseReason::HeadDeadline if self.reading == StreamReading::Head && !self.held.is_empty() => {
                self.refuse(reason, "408 Request Timeout");
            }
            _ => self.end(reason),
        }
        Ok(())
    }
}

/// How many of `bytes` belong to a body of which `length` bytes are to come, and what comes after them.
fn part_of_length(length: u64, bytes: &[u8]) -> (usize, StreamReading) {
    let part = length.min(bytes.len() as u64);
    let reading = match length - part {
        0 => StreamReading::Answer,
        left => StreamReading::Length(left),
    };
    (part as usize, reading)
}

impl AsyncRead for GuardedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_closing(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        loop {
            if this.cleared > 0 {
                let part = this.cleared.min(buffer.remaining());
                buffer.put_slice(&this.held[..part]);
                this.held.advance(part);
                this.cleared -= part;
                if this.held.is_empty() {
                    this.held = BytesMut::new();
                }
                this.count_held();
            }
            if buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            let polled = match &this.reading {
                StreamReading::ProxyHeader => this.poll_proxy_header(context),
                StreamReading::Head => this.poll_head(context, buffer),
                StreamReading::Length(_) | StreamReading::Chunked(_) => this.poll_body(context, buffer),
                StreamReading::Answer => {
                    if this.may_read_on(context) {
                        continue;
                    }
                    Poll::Pending
                }
                StreamReading::Refusal => Poll::Pending,
                StreamReading::End => return Poll::Ready(Ok(())),
            };
            match polled {
                Poll::Ready(result) => result?,
                Poll::Pending => match this.poll_deadline(context) {
                    Some(reason) => this.expire(reason)?,
                    None => return Poll::Pending,
                },
            }
        }
    }
}

impl AsyncWrite for GuardedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if this.is_closing(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        let polled = Pin::new(&mut this.tcp).poll_write(context, bytes);
        if polled.is_ready() {
            if this.blocked_since.take().is_some() {
                // What may be read on is looked at again.
                context.waker().wake_by_ref();
            }
            return polled;
        }
        this.blocked_since.get_or_insert_with(Instant::now);
        match this.poll_deadline(context) {
            Some(reason) => Poll::Ready(this.expire(reason).and(Ok(0))),
            None => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_closing(context) {
            return Poll::Ready(Ok(()));
        }
        let stopping = this.connections().is_stopping();
        let lingering = match &mut this.lingering {
            Some(lingering) => lingering,
            none => {
                ready!(Pin::new(&mut this.tcp).poll_shutdown(context))?;
                none.insert(LingeringClose::begin())
            }
        };
        let lingers = lingering.poll(&mut this.tcp, this.timer.as_mut(), stopping, context);
        lingers.map(Ok)
    }
}

impl Drop for GuardedStream {
    fn drop(&mut self) {
        self.connections().remove_head_bytes(self.counted);
    }
}
