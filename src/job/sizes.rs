//! How much a route has in hand: what a simulator sets lower, so that a run of some hundred records meets every edge.

/// The sizes of one process.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouteSizes {
    /// Records taken from the spool at a time.
    pub read_records_max: usize,
    pub read_bytes_max: usize,
    /// Records of all lanes that are deferred, before nothing more is read: some 6 MiB with what the window knows of
    /// them.
    pub deferred_records_max: usize,
    /// Of those, read again at a time.
    pub deferred_read_records_max: usize,
    pub deferred_read_bytes_max: usize,
    /// Credit for looking ahead: what a deferred record costs is 1.
    pub credit_max: usize,
    /// With so many records that are to be dead letters and cannot be, a route reads no further.
    pub stuck_max: usize,
    /// With so many of one lane, such as that of a partition without a queue, the lane has no room for more.
    pub stuck_of_lane_max: usize,
    /// Of those, tried again at a time.
    pub stuck_again_max: usize,
    /// Read again for the dead letters at a time: less than a reader may always hold.
    pub refused_bytes_max: usize,
}

const SIZES: RouteSizes = RouteSizes {
    read_records_max: 512,
    read_bytes_max: 4 << 20,
    deferred_records_max: 1 << 16,
    deferred_read_records_max: 512,
    deferred_read_bytes_max: 1 << 20,
    credit_max: 4096,
    stuck_max: 4096,
    stuck_of_lane_max: 64,
    stuck_again_max: 256,
    refused_bytes_max: 512 << 10,
};

#[cfg(test)]
thread_local! {
    static OF_THREAD: std::cell::Cell<RouteSizes> = const { std::cell::Cell::new(SIZES) };
}

impl RouteSizes {
    /// Those of this process, or of the simulator that the thread runs.
    pub(super) fn now() -> Self {
        #[cfg(test)]
        return OF_THREAD.get();
        #[cfg(not(test))]
        SIZES
    }

    /// Of this thread from now on.
    #[cfg(test)]
    pub(super) fn set(self) {
        OF_THREAD.set(self);
    }
}
