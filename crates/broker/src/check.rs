//! What a check of a sink finds, whichever broker it talks to.

/// How a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingLevel {
    /// All is well with this.
    Good,
    /// It works, and can lose or hold back something.
    Warning,
    /// It does not work.
    Problem,
}

/// One thing that a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckFinding {
    pub level: FindingLevel,
    /// Names the thing, the cause and the cure.
    pub text: String,
}

impl CheckFinding {
    pub fn new(level: FindingLevel, text: impl Into<String>) -> Self {
        Self {
            level,
            text: text.into(),
        }
    }
}
