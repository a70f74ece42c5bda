//! A source file as the rules see it: its code, its literals, without what is only compiled for tests.

use std::{fs, path::Path};

/// A file of the repository.
pub struct Source {
    /// From the repository's root, with `/`.
    pub path: String,
    pub text: String,
    /// The text with comments, the contents of literals, and test items blanked. Lines stay where they are.
    pub code: String,
    /// As `code`, but with the contents of literals.
    pub code_and_literals: String,
    /// Lines that are not of a test item.
    pub lines: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Literal,
    Comment,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let parts = parts(text.as_bytes());
        let mut code = blank(text, |at| parts[at] != Part::Code);
        let mut code_and_literals = blank(text, |at| parts[at] == Part::Comment);
        let mut lines = text.lines().count();
        for (from, to) in test_items(&code) {
            lines -= code[from..to].matches('\n').count();
            let within = |at: usize| (from..to).contains(&at);
            code = blank(&code, within);
            code_and_literals = blank(&code_and_literals, within);
        }
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code,
            code_and_literals,
            lines,
        }
    }

    /// The number of the line in which the byte `at` is, from 1.
    pub fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    /// Where `word` stands in the code as a word of its own.
    pub fn words<'a>(&'a self, word: &'a str) -> impl Iterator<Item = usize> + 'a {
        words(&self.code, word)
    }
}

/// Where `word` stands in `text`, neither preceded nor followed by a character of a name.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

pub fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// All sources of the package and of the crates that it is made of, likewise.
pub fn walk_all(root: &Path) -> Vec<Source> {
    let mut sources = walk(root, "src");
    for krate in crates(root) {
        sources.extend(walk(root, &format!("{krate}/src")));
    }
    sources
}

/// The folders of the crates, from the repository's root.
pub fn crates(root: &Path) -> Vec<String> {
    let folders = fs::read_dir(root.join("crates")).expect("there are crates");
    let mut names: Vec<String> = folders
        .map(|folder| format!("crates/{}", folder.expect("a folder").file_name().to_string_lossy()))
        .collect();
    names.sort();
    names
}

/// All sources below `dir`, but those that only tests compile.
pub fn walk(root: &Path, dir: &str) -> Vec<Source> {
    let mut paths = Vec::new();
    list(root, dir, &mut paths);
    paths.retain(|path| path.ends_with(".rs"));
    paths.sort();
    let sources: Vec<Source> = paths
        .iter()
        .map(|path| Source::new(path, &fs::read_to_string(root.join(path)).expect("a source is text")))
        .collect();
    let of_tests: Vec<String> = sources.iter().flat_map(test_modules).collect();
    let only_test = |path: &str| {
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
        of_tests
            .iter()
            .any(|of_test| module == of_test || module.starts_with(&format!("{of_test}/")))
    };
    sources.into_iter().filter(|source| !only_test(&source.path)).collect()
}

/// What tools put beside the sources of an example.
const NOT_OURS: &[&str] = &["node_modules", "dist", "target", "__pycache__"];

pub fn list(root: &Path, dir: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(dir)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{dir}/{name}");
        if NOT_OURS.contains(&name.as_str()) {
            continue;
        }
        if entry.path().is_dir() {
            list(root, &path, paths);
        } else {
            paths.push(path);
        }
    }
}

/// The modules in files of their own that `source` declares for tests only, as paths without `.rs`.
pub fn test_modules(source: &Source) -> Vec<String> {
    let path = source.path.trim_end_matches(".rs");
    let dir = path
        .strip_suffix("/mod")
        .or_else(|| path.strip_suffix("/lib"))
        .unwrap_or(path);
    let code = blank(&source.text, {
        let parts = parts(source.text.as_bytes());
        move |at| parts[at] != Part::Code
    });
    test_items(&code)
        .into_iter()
        .filter_map(|(from, to)| {
            let item = code[from..to].trim_end().strip_suffix(';')?;
            let at = words(item, "mod").next()?;
            Some(format!("{dir}/{}", item[at + "mod".len()..].trim()))
        })
        .collect()
}

/// What stands before an item that only tests compile; the second one, of tests of any crate.
const TEST_ATTRIBUTES: [&str; 2] = ["#[cfg(test)]", "#[cfg(any(test, feature = "];

/// The items that only tests compile, from the attribute to the end.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    let mut from = 0;
    let next = |from: usize| {
        let rest = &code[from..];
        let found = TEST_ATTRIBUTES.iter().filter_map(|attribute| rest.find(attribute));
        found.min().map(|at| from + at)
    };
    while let Some(at) = next(from) {
        let end = match code[at..].find(['{', ';']) {
            Some(open) if code.as_bytes()[at + open] == b'{' => close(code, at + open),
            Some(semicolon) => at + semicolon + 1,
            None => code.len(),
        };
        items.push((at, end));
        from = end;
    }
    items
}

/// The end of the block that opens at `open`.
pub fn close(code: &str, open: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(open) {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    code.len()
}

fn blank(text: &str, blanked: impl Fn(usize) -> bool) -> String {
    let bytes = text
        .bytes()
        .enumerate()
        .map(|(at, byte)| if byte != b'\n' && blanked(at) { b' ' } else { byte });
    String::from_utf8(bytes.collect()).expect("whole characters are blanked")
}

/// What each byte belongs to. The quotes of a literal count as code, its contents do not.
fn parts(text: &[u8]) -> Vec<Part> {
    let mut parts = vec![Part::Code; text.len()];
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (part, from, to) = if rest.starts_with(b"//") {
            (Part::Comment, at, at + until(rest, b"\n"))
        } else if rest.starts_with(b"/*") {
            (Part::Comment, at, at + block_comment(rest))
        } else if let Some((open, close)) = raw_string(text, at) {
            (Part::Literal, at + open, at + open + until(&rest[open..], &close))
        } else if rest[0] == b'"' {
            (Part::Literal, at + 1, at + quoted(rest, b'"'))
        } else if let Some(end) = character(rest) {
            (Part::Literal, at + 1, at + end)
        } else {
            at += 1;
            continue;
        };
        parts[from..to].fill(part);
        at = match part {
            Part::Literal => to + 1,
            _ => to,
        };
    }
    parts
}

fn until(text: &[u8], end: &[u8]) -> usize {
    text.windows(end.len())
        .position(|window| window == end)
        .unwrap_or(text.len())
}

fn block_comment(text: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at + 1 < text.len() {
        match &text[at..at + 2] {
            b"/*" => depth += 1,
            b"*/" => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// Where the quote ends that opens at the first byte.
fn quoted(text: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < text.len() && text[at] != quote {
        at += if text[at] == b'\\' { 2 } else { 1 };
    }
    at.min(text.len())
}

/// The length of a raw string's opening and what closes it, if one opens at `at`.
fn raw_string(text: &[u8], at: usize) -> Option<(usize, Vec<u8>)> {
    let preceded = at > 0 && is_name(char::from(text[at - 1])) && text[at - 1] != b'b' && text[at - 1] != b'c';
    if text[at] != b'r' || preceded {
        return None;
    }
    let hashes = text[at + 1..].iter().take_while(|&&byte| byte == b'#').count();
    if text.get(at + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    Some((hashes + 2, close))
}

/// Where the character literal ends that opens at the first byte. A lifetime is none.
fn character(text: &[u8]) -> Option<usize> {
    if text[0] != b'\'' {
        return None;
    }
    if text.get(1) == Some(&b'\\') {
        return Some(quoted(text, b'\''));
    }
    let end = (2..=5).find(|&at| text.get(at) == Some(&b'\''))?;
    let one = std::str::from_utf8(&text[1..end]).is_ok_and(|inside| inside.chars().count() == 1);
    one.then_some(end)
}
