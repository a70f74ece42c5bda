//! How much is read at a time: what a simulator sets lower, so that a run of some hundred records meets every edge.

use std::time::Duration;

/// The sizes of one process.
#[derive(Debug, Clone, Copy)]
pub struct ReadSizes {
    /// Read at a time, and kept by a scan.
    pub chunk_bytes: usize,
    /// Small records are read from disk so many at a time, also for an owner who takes them one by one.
    pub ahead_records: usize,
    pub ahead_bytes: usize,
    /// A read that found so much that its owner does not want returns.
    pub passed_bytes_max: usize,
    /// A reader may always hold this much, so that one that holds much, and does not move, stops no other.
    pub reader_bytes_min: usize,
    /// A read from disk is made by the runtime itself after so long, and not by a thread: only for a simulator.
    pub simulated_read: Option<Duration>,
}

const SIZES: ReadSizes = ReadSizes {
    chunk_bytes: 256 << 10,
    ahead_records: 128,
    ahead_bytes: 64 << 10,
    passed_bytes_max: 4 << 20,
    reader_bytes_min: 1 << 20,
    simulated_read: None,
};

#[cfg(any(test, feature = "testing"))]
thread_local! {
    static OF_THREAD: std::cell::Cell<ReadSizes> = const { std::cell::Cell::new(SIZES) };
}

impl ReadSizes {
    /// Those of this process, or of the simulator that the thread runs.
    pub fn now() -> Self {
        #[cfg(any(test, feature = "testing"))]
        return OF_THREAD.get();
        #[cfg(not(any(test, feature = "testing")))]
        SIZES
    }

    /// Of this thread from now on.
    #[cfg(any(test, feature = "testing"))]
    pub fn set(self) {
        OF_THREAD.set(self);
    }
}
