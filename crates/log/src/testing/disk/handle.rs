//! An open file of the fake disk.

use std::io;

use super::{DiskState, FakeDisk, UnsyncedWrite, eio, enomem, enospc, unreadable};
use crate::file_system::File;

pub(super) struct FakeFile {
    pub disk: FakeDisk,
    pub file: usize,
    pub boot: u64,
}

impl FakeFile {
    fn state(&self) -> io::Result<parking_lot::MutexGuard<'_, DiskState>> {
        let state = self.disk.state.lock();
        match state.boot == self.boot {
            true => Ok(state),
            false => Err(io::Error::other("a handle from before the restart")),
        }
    }
}

impl File for FakeFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.contents[self.file].live.len() as u64)
    }

    fn pread(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state()?;
        if state.call("read failed")? {
            return Err(enomem());
        }
        state.after()?;
        let content = &state.contents[self.file];
        let place = offset as usize..offset as usize + buffer.len();
        if content
            .bad
            .iter()
            .any(|bad| bad.start < place.end && bad.end > place.start)
        {
            state.fire("unreadable sector met");
            return Err(unreadable());
        }
        let content = &content.live;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        buffer[..read].copy_from_slice(&rest[..read]);
        state.read_bytes += read;
        Ok(read)
    }

    fn pwrite(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.state()?;
        let short_of = state.behaviour.short_of;
        let fails = state.call("write failed")? || short_of.is_some();
        let mut bytes = bytes.to_vec();
        if fails {
            let part = state.random.below(bytes.len() as u64 + 1) as usize;
            bytes.truncate(part);
        }
        let offset = offset as usize;
        state.write(self.file, UnsyncedWrite::Bytes { offset, bytes });
        if let Some(errno) = short_of {
            return Err(io::Error::from_raw_os_error(errno));
        }
        if fails {
            return Err(if state.random.one_in(2) { enospc() } else { eio() });
        }
        state.after()
    }

    /// A sync that fails leaves the pages clean: what they hold is read, and never written.
    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        if state.sync_call()? {
            state.fail_sync(self.file);
            return Err(if state.random.one_in(4) { enospc() } else { eio() });
        }
        state.after()?;
        state.sync(self.file);
        Ok(())
    }

    fn born(&self) -> io::Result<Option<u64>> {
        Ok(Some(self.file as u64 + 1))
    }

    fn forget_cached(&self) -> io::Result<bool> {
        let mut state = self.state()?;
        if !state.forgets {
            return Ok(false);
        }
        if state.call("forgetting failed")? {
            return Err(eio());
        }
        state.after()?;
        // Only what is clean can be forgotten.
        state.sync(self.file);
        let content = &mut state.contents[self.file];
        if !content.void.is_empty() {
            state.fire("pages forgotten that the disk does not have");
        }
        state.contents[self.file].forget();
        Ok(true)
    }

    /// Pages of zeros take none.
    fn allocated(&self) -> io::Result<u64> {
        let state = self.state()?;
        let pages = state.contents[self.file].live.chunks(4096);
        Ok(pages
            .filter(|page| page.iter().any(|byte| *byte != 0))
            .map(|page| page.len() as u64)
            .sum())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        if state.call("punch failed")? {
            return Err(eio());
        }
        let (offset, bytes) = (offset as usize, vec![0; len as usize]);
        state.write(self.file, UnsyncedWrite::Bytes { offset, bytes });
        state.after()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        if state.call("truncate failed")? {
            return Err(eio());
        }
        state.write(self.file, UnsyncedWrite::Len(len as usize));
        state.after()
    }
}
