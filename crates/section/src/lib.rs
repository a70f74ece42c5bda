//! How a section of the configuration is read.
//!
//! A [`ConfigTable`] gives every key once, to a reader of [`values`] or of the caller's own; what is wrong is noted
//! with the file or the variable that it came from, and reading goes on, so that every problem is named in one go. What
//! is left over when the table is finished is unknown.
//!
//! Whoever has a section of the configuration, such as a broker, reads it so, and depends on nothing else of it.

mod problems;
mod shown;
mod table;
mod text_source;
pub mod values;

pub use config::{Value, ValueKind};

pub use problems::{ConfigProblem, ConfigProblems, FoundProblems};
pub use shown::{Shown, host_of};
pub use table::{ConfigTable, LoadContext, closest};
pub use text_source::{TextSource, TextSourceError, read_file};

/// What the name of every environment variable that is a key begins with; two underscores go down one table.
pub const ENV_PREFIX: &str = "FOREBAY__";

/// The keys of a table.
pub type ConfigTree = config::Map<String, Value>;
