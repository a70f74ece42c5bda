//! A table of the configuration, out of which every key is taken once; what is left over is unknown.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

use crate::{ConfigTree, FoundProblems, TextSource};

/// What a configuration is loaded from, and where what is wrong with it gathers.
#[derive(Debug, Clone, Copy)]
pub struct LoadContext<'a> {
    /// The file, as messages name it.
    pub file: &'a str,
    pub found: &'a FoundProblems,
    /// The environment by whose variables sources of texts are read.
    pub env: &'a BTreeMap<&'a str, &'a str>,
}

impl LoadContext<'_> {
    /// A variable of the environment.
    pub fn variable(&self, name: &str) -> Option<String> {
        self.env.get(name).map(|value| (*value).to_owned())
    }
}

/// A table, whose keys are taken one by one.
pub struct ConfigTable<'a> {
    key: String,
    context: LoadContext<'a>,
    values: BTreeMap<String, Value>,
    known: Vec<&'static str>,
}

impl<'a> ConfigTable<'a> {
    /// The table that holds all others.
    pub fn new(tree: ConfigTree, context: LoadContext<'a>) -> Self {
        Self::below(String::new(), tree, context)
    }

    fn below(key: String, tree: ConfigTree, context: LoadContext<'a>) -> Self {
        Self {
            key,
            context,
            values: tree.into_iter().collect(),
            known: Vec::new(),
        }
    }

    /// The full name of the key `name`.
    pub fn key(&self, name: &str) -> String {
        match self.key.as_str() {
            "" => name.to_owned(),
            key => format!("{key}.{name}"),
        }
    }

    /// A problem of the key `name` of the file.
    pub fn problem(&self, name: &str, text: impl Into<String>) {
        let key = if name.is_empty() {
            self.key.clone()
        } else {
            self.key(name)
        };
        self.context.found.add_to(self.context.file, &key, text);
    }

    /// The value of `name`, if it is there and right. What is wrong with it is noted.
    pub fn take<T>(&mut self, name: &'static str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let value = self.raw(name)?;
        if let Some(variable) = value.origin() {
            self.context.found.set_by(self.key(name), variable);
        }
        match read(&value) {
            Ok(read) => Some(read),
            Err(text) => {
                self.context
                    .found
                    .add(value.origin().unwrap_or(self.context.file), &self.key(name), text);
                None
            }
        }
    }

    /// The value of `name`, else `default`.
    pub fn take_or<T>(&mut self, name: &'static str, default: T, read: impl FnOnce(&Value) -> Result<T, String>) -> T {
        self.take(name, read).unwrap_or(default)
    }

    /// The value of `name`, which must be there.
    pub fn require<T>(&mut self, name: &'static str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        if !self.has(name) {
            self.know(name);
            self.problem(name, "missing");
            return None;
        }
        self.take(name, read)
    }

    pub fn has(&self, name: &str) -> bool {
        self.values
            .get(name)
            .is_some_and(|value| !matches!(value.kind, ValueKind::Nil))
    }

    /// The table `name`; empty when it is not there.
    pub fn table(&mut self, name: &'static str) -> ConfigTable<'a> {
        let tree = self.take(name, tree).unwrap_or_default();
        ConfigTable::below(self.key(name), tree, self.context)
    }

    /// The table `name`, if it is there.
    pub fn optional_table(&mut self, name: &'static str) -> Option<ConfigTable<'a>> {
        let tree = self.take(name, tree)?;
        Some(ConfigTable::below(self.key(name), tree, self.context))
    }

    /// The tables within `name`, by the names that the user gave them.
    pub fn tables(&mut self, name: &'static str) -> Vec<(String, ConfigTable<'a>)> {
        let all = self.table(name);
        let mut tables = Vec::new();
        for (name, value) in &all.values {
            let key = all.key(name);
            match tree(value) {
                Ok(tree) => tables.push((name.clone(), ConfigTable::below(key, tree, self.context))),
                Err(text) => self
                    .context
                    .found
                    .add(value.origin().unwrap_or(self.context.file), &key, text),
            }
        }
        tables
    }

    /// What a source holds.
    ///
    /// # Errors
    ///
    /// Names the source, and why it cannot be read.
    pub fn read(&self, source: &TextSource) -> Result<String, String> {
        source
            .read_with(|name| self.context.variable(name))
            .map_err(|error| error.to_string())
    }

    /// Takes everything that is left, by dotted names, however the file nests them.
    pub fn leaves(&mut self) -> Vec<(String, Value)> {
        let mut leaves = Vec::new();
        let mut rest: Vec<(String, Value)> = std::mem::take(&mut self.values).into_iter().collect();
        while let Some((name, value)) = rest.pop() {
            if let ValueKind::Table(below) = value.kind {
                let below = below.into_iter();
                rest.extend(below.map(|(below, value)| (format!("{name}.{below}"), value)));
                continue;
            }
            if let Some(variable) = value.origin() {
                self.context.found.set_by(self.key(&name), variable);
            }
            leaves.push((name, value));
        }
        leaves.sort_by(|a, b| a.0.cmp(&b.0));
        leaves
    }

    /// Notes every key that nobody took.
    pub fn finish(self) {
        for (name, value) in &self.values {
            let origin = value.origin().unwrap_or(self.context.file);
            let text = match closest(name, self.known.iter().copied()) {
                Some(meant) => format!("unknown key; did you mean {meant}"),
                None => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            self.context.found.add(origin, &self.key(name), text);
        }
    }

    fn know(&mut self, name: &'static str) {
        self.known.push(name);
        self.context.found.know(self.key(name));
    }

    fn raw(&mut self, name: &'static str) -> Option<Value> {
        self.know(name);
        let value = self.values.remove(name)?;
        (!matches!(value.kind, ValueKind::Nil)).then_some(value)
    }
}

fn tree(value: &Value) -> Result<ConfigTree, String> {
    match &value.kind {
        ValueKind::Table(table) => Ok(table.clone()),
        ValueKind::Nil => Ok(ConfigTree::new()),
        other => Err(format!("expected a table, found {}", crate::values::kind(other))),
    }
}

/// The one of `names` that `name` was probably meant to be.
pub fn closest<'n>(name: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    names
        .map(|known| (strsim::jaro_winkler(&name.to_lowercase(), &known.to_lowercase()), known))
        .filter(|(similarity, _)| *similarity >= 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
