//! The names of types: what a search, a stack trace and a review have to go by.

use std::collections::BTreeMap;

use super::source::{Source, is_name};

/// Of the types, how many may have a name of one word, and of the names, how many may stand in several modules: both in
/// percent.
pub const ONE_WORD_MAX: usize = 30;
pub const IN_SEVERAL_MODULES_MAX: usize = 5;

const KEYWORDS: [&str; 5] = ["struct", "enum", "trait", "type", "union"];

/// The types that items of sources declare, by name, with the files.
pub fn types(sources: &[Source]) -> BTreeMap<String, Vec<&str>> {
    let mut types: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for source in sources.iter().filter(|source| !source.path.contains("/tests")) {
        for line in source.code.lines() {
            if let Some(name) = declared(line) {
                types.entry(name.to_owned()).or_default().push(&source.path);
            }
        }
    }
    types
}

/// The type that an item at the outermost level declares.
fn declared(line: &str) -> Option<&str> {
    let item = match line.strip_prefix("pub") {
        Some(rest) if rest.starts_with('(') => rest.split_once(") ")?.1,
        Some(rest) => rest.strip_prefix(' ')?,
        None => line,
    };
    let (keyword, rest) = item.split_once(' ')?;
    let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
    (KEYWORDS.contains(&keyword) && end > 0).then(|| &rest[..end])
}

/// Whether it has no second word.
fn is_one_word(name: &str) -> bool {
    name.chars().filter(|c| c.is_uppercase()).count() < 2
}

/// The share of types whose name is one word, and of names that stand in several modules, in percent, rounded up.
pub fn shares(types: &BTreeMap<String, Vec<&str>>) -> (usize, usize) {
    let declared: usize = types.values().map(Vec::len).sum();
    let one_word = types.iter().filter(|(name, _)| is_one_word(name));
    let one_word: usize = one_word.map(|(_, files)| files.len()).sum();
    let several = types.values().filter(|files| files.len() > 1).count();
    let share = |part: usize, of: usize| (100 * part).div_ceil(of.max(1));
    (share(one_word, declared), share(several, types.len()))
}
