//! Everything that is wrong with a configuration, told at once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// One mistake: where it stands, which key it is, what is wrong and how it goes right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigProblem {
    /// The file, or the environment variable.
    pub origin: String,
    /// The key with its tables, `spool.bytes_max`; empty when it is about the file as a whole.
    pub key: String,
    pub text: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.origin, self.text),
            key => write!(f, "{}: {key}: {}", self.origin, self.text),
        }
    }
}

/// All mistakes of a configuration, sorted; at least one. Shows a line for each, then how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblems(Vec<ConfigProblem>);

impl ConfigProblems {
    pub fn iter(&self) -> impl Iterator<Item = &ConfigProblem> {
        self.0.iter()
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        match self.0.len() {
            1 => f.write_str("1 problem"),
            n => write!(f, "{n} problems"),
        }
    }
}

impl std::error::Error for ConfigProblems {}

/// Where the problems of one load gather.
#[derive(Debug, Default)]
pub struct FoundProblems {
    problems: RefCell<Vec<ConfigProblem>>,
    /// By key, which environment variable set it.
    variables: RefCell<BTreeMap<String, String>>,
    /// Every key that was looked for.
    known: RefCell<BTreeSet<String>>,
}

impl FoundProblems {
    /// Remembers that the environment variable `name` set `key`.
    pub fn set_by(&self, key: String, name: &str) {
        self.variables.borrow_mut().insert(key, name.to_owned());
    }

    /// Remembers that there is such a key.
    pub fn know(&self, key: String) {
        self.known.borrow_mut().insert(key);
    }

    pub fn known_keys(&self) -> BTreeSet<String> {
        self.known.borrow().clone()
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.problems.borrow().is_empty()
    }

    /// Whether the environment set `key`.
    pub fn is_of_environment(&self, key: &str) -> bool {
        self.variables.borrow().contains_key(key)
    }

    /// A problem of `key`, wherever it was set: by the environment, else in `file`.
    pub fn add_to(&self, file: &str, key: &str, text: impl Into<String>) {
        let variable = self.variables.borrow().get(key).cloned();
        self.add(variable.as_deref().unwrap_or(file), key, text);
    }

    pub fn add(&self, origin: &str, key: &str, text: impl Into<String>) {
        self.problems.borrow_mut().push(ConfigProblem {
            origin: on_one_line(origin),
            key: on_one_line(key),
            text: on_one_line(&text.into()),
        });
    }

    /// `value` when nothing was found.
    ///
    /// # Errors
    ///
    /// All that was found.
    pub fn or<T>(self, value: Option<T>) -> Result<T, ConfigProblems> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems.dedup();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(ConfigProblems(problems)),
        }
    }
}

/// A text of which the user's part may have line breaks, and whatever else moves a terminal's cursor: escaped.
fn on_one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_whatever_is_in_it() {
        let found = FoundProblems::default();
        found.add("a\nfile", "a.\u{85}key", "a\ttext \u{1b}[2J of two\r\nlines, \"é\"");
        let problems = found.or(Some(())).expect_err("there is one");
        assert_eq!(
            problems.to_string(),
            "a\\nfile: a.\\u{85}key: a\\ttext \\u{1b}[2J of two\\r\\nlines, \"é\"\n1 problem"
        );
    }
}
