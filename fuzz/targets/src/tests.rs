//! The targets without a fuzzer: over the inputs that are kept, and over some thousands that are made of them.

use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
};

use forebay_log::testing::Random;

use crate::{FuzzTarget, TARGETS};

const EDITS_MAX: u64 = 4;
const RUN_BYTES_MAX: u64 = 32;

fn fuzz_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The inputs that are kept for a target, by the names of their files.
fn corpus(name: &str) -> Vec<(String, Vec<u8>)> {
    let dir = fuzz_dir().join("corpus").join(name);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let entry = entry.unwrap();
            (
                entry.file_name().into_string().unwrap(),
                fs::read(entry.path()).unwrap(),
            )
        })
        .collect();
    inputs.sort();
    inputs
}

fn names(paths: impl Iterator<Item = PathBuf>) -> Vec<String> {
    let mut names: Vec<_> = paths
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// What becomes of one of the kept inputs; the same for the same seed.
fn made(inputs: &[(String, Vec<u8>)], seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let one_of = |random: &mut Random| inputs[random.below(inputs.len() as u64) as usize].1.clone();
    let mut input = one_of(&mut random);
    for _ in 0..=random.below(EDITS_MAX) {
        let at = random.below(input.len() as u64 + 1) as usize;
        let run = at..input.len().min(at + 1 + random.below(RUN_BYTES_MAX) as usize);
        match random.below(6) {
            0 => input
                .get_mut(at)
                .into_iter()
                .for_each(|byte| *byte ^= 1 << random.below(8)),
            1 => input
                .get_mut(at)
                .into_iter()
                .for_each(|byte| *byte = random.number() as u8),
            2 => drop(input.drain(run)),
            3 => drop(input.splice(at..at, random.number().to_le_bytes())),
            4 => drop(input.splice(at..at, input[run].to_vec())),
            // It goes on as another one does.
            _ => {
                let other = one_of(&mut random);
                input.truncate(at);
                input.extend_from_slice(&other[at.min(other.len())..]);
            }
        }
    }
    input
}

fn run(target: &FuzzTarget, input: &[u8], origin: &str) {
    let held = catch_unwind(|| (target.run)(input));
    assert!(
        held.is_ok(),
        "{} fails for {origin}: \"{}\"",
        target.name,
        input.escape_ascii()
    );
}

#[test]
fn every_target_holds_for_the_inputs_that_are_kept() {
    for target in &TARGETS {
        for (file, input) in corpus(target.name) {
            run(target, &input, &file);
        }
    }
}

#[test]
fn every_target_holds_for_inputs_that_are_made_of_them() {
    for target in &TARGETS {
        let inputs = corpus(target.name);
        for seed in 0..target.made_inputs {
            run(target, &made(&inputs, seed), &format!("seed {seed}"));
        }
    }
}

#[test]
fn a_target_that_does_not_hold_is_found_and_an_input_is_what_its_seed_makes_of_it() {
    let inputs = [
        ("one".to_owned(), b"some bytes".to_vec()),
        ("other".to_owned(), Vec::new()),
    ];
    let all: Vec<_> = (0..1000).map(|seed| made(&inputs, seed)).collect();
    assert!(
        all.iter()
            .enumerate()
            .all(|(seed, input)| *input == made(&inputs, seed as u64))
    );
    let mut different = all.clone();
    different.sort();
    different.dedup();
    assert!(different.len() > 500, "{} of 1000 differ", different.len());

    let target = FuzzTarget {
        name: "short",
        made_inputs: 0,
        run: |input| assert!(input.len() < 30),
    };
    assert!(catch_unwind(|| all.iter().for_each(|input| run(&target, input, "a seed"))).is_err());
}

#[test]
fn every_target_is_one_for_libfuzzer_has_kept_inputs_and_is_in_the_table() {
    let dir = fuzz_dir();
    let of_table: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    assert!(of_table.is_sorted());
    let read = |path: &str| fs::read_to_string(dir.join(path)).unwrap();
    let paths = |path: &str| fs::read_dir(dir.join(path)).unwrap().map(|entry| entry.unwrap().path());
    assert_eq!(names(paths("fuzz_targets")), of_table);
    assert_eq!(names(paths("corpus")), of_table);
    let (manifest, table) = (read("Cargo.toml"), read("README.md"));
    let rows = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert!(rows.eq(&of_table), "the table of fuzz/README.md");
    for name in &of_table {
        let calls = format!("forebay_fuzz_targets::{name}(input)");
        assert!(read(&format!("fuzz_targets/{name}.rs")).contains(&calls), "{name}");
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        let kept: Vec<_> = corpus(name);
        assert!(!kept.is_empty(), "{name}");
    }
}
