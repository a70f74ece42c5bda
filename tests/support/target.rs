//! What Cargo built beside the program that runs, and Forebay's binary in particular.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::SystemTime,
};

use super::ROOT;

/// The variable that names another binary than the one beside the tests.
const BINARY: &str = "FOREBAY_TEST_BINARY";

/// Where Cargo puts what it builds in the profile of this program: `target/<profile>`.
pub fn profile_dir() -> &'static Path {
    static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
        let program = env::current_exe().expect("the path of this program");
        // target/<profile>/deps/<program>
        program.ancestors().nth(2).expect("a directory of Cargo's").to_owned()
    });
    &DIR
}

/// Where tests keep what they build themselves.
pub fn tmp_dir() -> PathBuf {
    profile_dir().parent().expect("a directory of Cargo's").join("tmp")
}

/// Builds an example of Forebay's, in the profile of this program.
pub fn example(name: &str) -> PathBuf {
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--quiet", "--locked", "--example", name]);
    if profile_dir().ends_with("release") {
        command.arg("--release");
    }
    let status = command.current_dir(ROOT).status().expect("cargo starts");
    assert!(status.success(), "the example {name} does not build");
    profile_dir().join("examples").join(name)
}

/// Forebay's binary: that of `FOREBAY_TEST_BINARY`, else the one beside this program, if no source is newer.
pub fn binary() -> &'static Path {
    static FOUND: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        if let Some(path) = env::var_os(BINARY) {
            return Ok(path.into());
        }
        let path = profile_dir().join("forebay");
        match check_fresh(&path, Path::new(ROOT)) {
            Ok(()) => Ok(path),
            Err(problem) => Err(format!(
                "{problem}: `cargo build`, or a `cargo test` with `--test whitebox` in it, builds it, with `--release` \
                 for tests in that profile; {BINARY} names another"
            )),
        }
    });
    FOUND.as_deref().unwrap_or_else(|problem| panic!("{problem}"))
}

/// Whether a binary is there, and newer than the sources of the repository at `root` that it is made of.
fn check_fresh(binary: &Path, root: &Path) -> Result<(), String> {
    let built = modified(binary).ok_or_else(|| format!("{} is not there", binary.display()))?;
    let crates = entries(&root.join("crates")).map(|package| package.join("src"));
    let newer = crates
        .chain([root.join("src")])
        .find_map(|dir| newer_source(&dir, built));
    match newer {
        None => Ok(()),
        Some(source) => Err(format!("{} is older than {}", binary.display(), source.display())),
    }
}

/// A source below `dir` that changed after `built`, of those that not only tests compile.
fn newer_source(dir: &Path, built: SystemTime) -> Option<PathBuf> {
    entries(dir).find_map(|path| match path.file_stem()?.to_str()? {
        "tests" | "testing" => None,
        _ if path.is_dir() => newer_source(&path, built),
        _ => modified(&path).is_none_or(|changed| changed > built).then_some(path),
    })
}

fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.map(|entry| entry.expect("a directory can be read").path())
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_binary_is_stale_when_one_of_its_sources_is_newer() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let write = |name: &str, seconds: u64| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = fs::File::create(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
                .unwrap();
            path
        };
        let binary = root.join("forebay");
        assert!(
            check_fresh(&binary, root)
                .unwrap_err()
                .ends_with("forebay is not there")
        );
        write("forebay", 10);
        write("src/old.rs", 9);
        write("src/job/tests.rs", 11);
        write("crates/log/src/tests/sim.rs", 11);
        assert_eq!(check_fresh(&binary, root), Ok(()));
        for name in ["src/job/mod.rs", "crates/log/src/lib.rs"] {
            let newer = write(name, 11);
            let problem = check_fresh(&binary, root).unwrap_err();
            assert!(
                problem.ends_with(&format!("is older than {}", newer.display())),
                "{problem}"
            );
            write(name, 9);
        }
    }
}
