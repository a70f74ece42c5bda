//! What is said of dependencies is so: their licences are those that `deny.toml` allows, and `SECURITY.md` names the C
//! libraries that are compiled in.

use std::{collections::BTreeSet, fs};

use super::{cargo_tree, root};

/// A C library by its name, and the crate that has it.
const C_LIBRARIES: [(&str, &str); 11] = [
    ("librdkafka", "rdkafka-sys"),
    ("OpenSSL", "openssl-src"),
    ("mimalloc", "libmimalloc-sys"),
    ("zlib", "libz-sys"),
    ("zstd", "zstd-sys"),
    ("curl", "curl-sys"),
    ("lz4", "lz4-sys"),
    ("SQLite", "libsqlite3-sys"),
    ("libgit2", "libgit2-sys"),
    ("Cyrus SASL", "sasl2-sys"),
    ("nghttp2", "libnghttp2-sys"),
];

/// The texts in the list `allow` of `deny.toml`.
fn allowed() -> BTreeSet<String> {
    let text = fs::read_to_string(root().join("deny.toml")).unwrap();
    let licences = text.split_once("[licenses]").unwrap().1;
    let list = licences.split_once("allow = [").unwrap().1.split(']').next().unwrap();
    list.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether an SPDX expression can be met by the licences that are allowed. `/` is an old way to write `OR`.
fn is_met(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = expression.split_whitespace().collect();
    let (met, rest) = any_of(&words, allowed);
    assert!(rest.is_empty(), "{expression}");
    met
}

fn any_of<'w, 'a>(words: &'w [&'a str], allowed: &BTreeSet<String>) -> (bool, &'w [&'a str]) {
    let (mut met, mut rest) = all_of(words, allowed);
    while let ["OR", after @ ..] = rest {
        let (other, after) = all_of(after, allowed);
        met |= other;
        rest = after;
    }
    (met, rest)
}

fn all_of<'w, 'a>(words: &'w [&'a str], allowed: &BTreeSet<String>) -> (bool, &'w [&'a str]) {
    let (mut met, mut rest) = one(words, allowed);
    while let ["AND", after @ ..] = rest {
        let (other, after) = one(after, allowed);
        met &= other;
        rest = after;
    }
    (met, rest)
}

fn one<'w, 'a>(words: &'w [&'a str], allowed: &BTreeSet<String>) -> (bool, &'w [&'a str]) {
    match words {
        ["(", inside @ ..] => {
            let (met, rest) = any_of(inside, allowed);
            assert_eq!(rest.first(), Some(&")"), "{words:?}");
            (met, &rest[1..])
        }
        [licence, "WITH", exception, rest @ ..] => (allowed.contains(&format!("{licence} WITH {exception}")), rest),
        [licence, rest @ ..] => (allowed.contains(*licence), rest),
        [] => panic!("an expression that ends too early"),
    }
}

#[test]
fn every_licence_is_one_that_is_allowed() {
    let allowed = allowed();
    assert!(allowed.contains("MIT") && allowed.len() > 5, "{allowed:?}");
    let some: BTreeSet<String> = ["MIT".to_owned(), "Apache-2.0 WITH LLVM-exception".to_owned()].into();
    for (expression, met) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("GPL-3.0-only/MIT", true),
        ("MIT AND Unicode-3.0", false),
        ("(GPL-3.0-only OR MIT) AND Apache-2.0 WITH LLVM-exception", true),
        ("MIT AND (GPL-3.0-only OR Zlib)", false),
    ] {
        assert_eq!(is_met(expression, &some), met, "{expression}");
    }

    let tree = cargo_tree(&[
        "--workspace",
        "--edges",
        "normal,build,dev",
        "--prefix",
        "none",
        "--no-dedupe",
        "--format",
        "{p}|{l}",
    ]);
    let crates: BTreeSet<(&str, &str)> = tree.lines().filter_map(|line| line.split_once('|')).collect();
    assert!(crates.len() > 200, "{} crates", crates.len());
    let refused: Vec<_> = crates
        .iter()
        .filter(|(_, licence)| !is_met(licence, &allowed))
        .collect();
    assert!(refused.is_empty(), "deny.toml does not allow {refused:?}");
}

#[test]
fn the_c_libraries_that_are_compiled_in_are_named() {
    let tree = cargo_tree(&["--prefix", "none", "--format", "{p}"]);
    let crates: BTreeSet<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    let text = fs::read_to_string(root().join("SECURITY.md")).unwrap();
    let section = text.split_once("## Dependencies").unwrap().1;
    for (library, name) in C_LIBRARIES {
        assert_eq!(
            section.contains(library),
            crates.contains(name),
            "{library}, of {name}, in SECURITY.md"
        );
    }
    // `linux-raw-sys` has no library: constants alone.
    let known: BTreeSet<&str> = C_LIBRARIES
        .iter()
        .map(|(_, name)| *name)
        .chain(["linux-raw-sys", "openssl-sys"])
        .collect();
    let unknown: Vec<_> = crates
        .iter()
        .filter(|name| name.ends_with("-sys") && !known.contains(*name))
        .collect();
    assert!(unknown.is_empty(), "which libraries do {unknown:?} have?");
}
