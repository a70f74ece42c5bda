//! Looks through a route's dead letters, and discards some.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{DeadLetter, DeadLetters, EventSelection};
use crate::spool::{Cursor, LogReader, OpenError, ReadError, Record};

const READ_RECORDS_MAX: usize = 256;
const READ_BYTES_MAX: usize = 1 << 20;

/// A dead letter that is kept.
#[derive(Debug)]
pub struct KeptLetter {
    /// Among those of its route.
    pub number: u64,
    pub letter: DeadLetter,
}

/// Why the dead letters of a route cannot be looked through.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the disk has no room to keep which of them are gone, so that after a crash they may be there again")]
    NotKept,
}

/// Goes through the dead letters of a route, from the oldest to what was the newest when it began.
pub struct LetterReading {
    gone: Arc<Cursor>,
    reader: LogReader,
    /// All up to here was read.
    through: u64,
    last: u64,
    read: Vec<Record>,
}

impl DeadLetters {
    /// Begins to read those of a route behind this number; `None`: it has none.
    ///
    /// # Errors
    ///
    /// Its log cannot be used.
    pub async fn read(&self, route: &str, after: u64) -> Result<Option<LetterReading>, LettersError> {
        let Some((log, gone)) = self.gone(route).await? else {
            return Ok(None);
        };
        let through = after.max(gone.position());
        let mut reader = log.reader(through + 1);
        reader.skip_settled(gone.settled());
        Ok(Some(LetterReading {
            last: log.state().head,
            gone,
            reader,
            through,
            read: Vec::new(),
        }))
    }

    /// How many of a route's dead letters are meant.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub async fn count(&self, route: &str, selection: &EventSelection) -> Result<u64, LettersError> {
        let mut count = 0;
        if let Some(mut reading) = self.read(route, 0).await? {
            while let Some(kept) = reading.next().await? {
                count += u64::from(selection.has_letter(kept.number, &kept.letter));
            }
        }
        Ok(count)
    }

    /// Gives up those that are meant, durably; returns how many they were.
    ///
    /// # Errors
    ///
    /// They cannot be read, or that they are gone cannot be kept.
    pub async fn discard(&self, route: &str, selection: &EventSelection) -> Result<u64, LettersError> {
        let mut count = 0;
        if let Some(mut reading) = self.read(route, 0).await? {
            while let Some(kept) = reading.next().await? {
                if selection.has_letter(kept.number, &kept.letter) {
                    reading.gone.settle(kept.number..=kept.number);
                    count += 1;
                }
            }
        }
        self.keep_gone(route).await?;
        Ok(count)
    }

    /// Makes durable which dead letters of a route are gone, and gives their room back with the log's next ticks: what
    /// lies between those that are there counts as gone, too, as numbers that none has.
    ///
    /// # Errors
    ///
    /// They cannot be read, or there is no room for that.
    pub async fn keep_gone(&self, route: &str) -> Result<(), LettersError> {
        let (Some(log), Some(mut reading)) = (self.log(route), self.read(route, 0).await?) else {
            return Ok(());
        };
        let mut before = reading.through;
        while let Some(record) = reading.next_record().await? {
            if record.sequence > before + 1 {
                reading.gone.settle(before + 1..=record.sequence - 1);
            }
            before = record.sequence;
        }
        if reading.last > before {
            reading.gone.settle(before + 1..=reading.last);
        }
        // Only a runtime that ends takes it away.
        match spawn_blocking(move || log.keep_cursors()).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => Err(LettersError::NotKept),
        }
    }
}

impl LetterReading {
    async fn next_record(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            if let Some(record) = self.read.pop() {
                return Ok((record.sequence <= self.last).then_some(record));
            }
            if self.through >= self.last {
                return Ok(None);
            }
            let mut read = Vec::new();
            self.through = self.reader.next(READ_RECORDS_MAX, READ_BYTES_MAX, &mut read).await?;
            read.reverse();
            self.read = read;
        }
    }

    /// The next one that can be read.
    ///
    /// # Errors
    ///
    /// The log cannot be read.
    pub async fn next(&mut self) -> Result<Option<KeptLetter>, LettersError> {
        while let Some(record) = self.next_record().await? {
            match DeadLetter::decode(&record.bytes) {
                Ok(letter) => {
                    let number = record.sequence;
                    return Ok(Some(KeptLetter { number, letter }));
                }
                Err(error) => tracing::warn!(sequence = record.sequence, %error, "a dead letter cannot be read"),
            }
        }
        Ok(None)
    }

    /// The number of the last that is read.
    pub fn last(&self) -> u64 {
        self.last
    }
}
