//! What every user of the machine can read and should not: a configuration with secrets in it, the records of the
//! spool.
//!
//! The bits of the group are left alone: in Kubernetes a pod reads its volumes by them (`fsGroup`).

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use forebay_section::FoundProblems;

use super::{Config, SecretSource};

const OTHERS_READ: u32 = 0o004;
const OTHERS_ENTER: u32 = 0o001;
/// Files of the spool that are looked at: it may have very many.
const FILES_MAX: usize = 10_000;

/// A line for each thing that others can read.
pub(super) fn warnings(config: &Config, file: &str, found: &FoundProblems) -> Vec<String> {
    let mut warnings = Vec::new();
    let keys = inline_secrets(config, found);
    if !keys.is_empty() && is_readable_by_others(Path::new(file), Path::new("/")) {
        warnings.push(format!(
            "{file}: every user of this machine can read it, and it holds secrets ({}): chmod o-rwx {file}, or name them by \
             env: or file:",
            keys.join(", ")
        ));
    }
    let dir = &config.spool.dir;
    if let Some(file) = readable_by_others_below(dir, Path::new("/")) {
        warnings.push(format!(
            "spool.dir: every user of this machine can read {}, and so what was taken in: chmod -R o-rwx {}",
            file.display(),
            dir.display()
        ));
    }
    warnings
}

/// The keys of the file, and not of the environment, that hold a secret as it is.
fn inline_secrets(config: &Config, found: &FoundProblems) -> Vec<String> {
    let mut keys = Vec::new();
    for endpoint in &config.endpoints {
        if endpoint.secrets.iter().any(|s| matches!(s, SecretSource::Inline(_))) {
            keys.push(format!("endpoints.{}.secrets", endpoint.name));
        }
    }
    for sink in &config.sinks {
        let secret = sink.settings.inline_secrets();
        keys.extend(secret.into_iter().map(|key| format!("sinks.{}.{key}", sink.name)));
    }
    keys.retain(|key| !found.is_of_environment(key));
    keys
}

/// Whether whoever is in `root` can read a file: its own mode and those of all directories between allow it.
fn is_readable_by_others(file: &Path, root: &Path) -> bool {
    let Ok(file) = file.canonicalize() else { return false };
    has_bits(&file, OTHERS_READ) && is_reached_by_others(&file, root)
}

fn is_reached_by_others(path: &Path, root: &Path) -> bool {
    path.ancestors()
        .skip(1)
        .take_while(|dir| *dir != root)
        .all(|dir| has_bits(dir, OTHERS_ENTER))
}

/// A file below `dir` that whoever is in `root` can read.
fn readable_by_others_below(dir: &Path, root: &Path) -> Option<PathBuf> {
    let dir = dir.canonicalize().ok()?;
    if !is_reached_by_others(&dir, root) {
        return None;
    }
    let mut dirs = vec![dir];
    let mut left = FILES_MAX;
    while let Some(dir) = dirs.pop() {
        if !has_bits(&dir, OTHERS_ENTER) {
            continue;
        }
        for entry in fs::read_dir(dir).ok()?.flatten() {
            left = left.checked_sub(1)?;
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(path),
                Ok(kind) if kind.is_file() && has_bits(&path, OTHERS_READ) => return Some(path),
                _ => {}
            }
        }
    }
    None
}

fn has_bits(path: &Path, bits: u32) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & bits == bits)
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};

    use super::*;

    #[test]
    fn a_file_is_readable_by_others_when_it_and_all_above_it_are() {
        for (outer, inner, file, readable) in [
            (0o755, 0o755, 0o644, true),
            (0o711, 0o711, 0o604, true),
            // As a volume of Kubernetes is: the group is the pod's.
            (0o2775, 0o2700, 0o644, false),
            (0o2770, 0o755, 0o644, false),
            (0o755, 0o755, 0o660, false),
            (0o755, 0o755, 0o640, false),
        ] {
            let root = tempfile::tempdir().unwrap();
            let root = root.path().canonicalize().unwrap();
            let dir = root.join("outer");
            let path = dir.join("inner/file");
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            set_permissions(&path, Permissions::from_mode(file)).unwrap();
            set_permissions(path.parent().unwrap(), Permissions::from_mode(inner)).unwrap();
            set_permissions(&dir, Permissions::from_mode(outer)).unwrap();
            let modes = format!("{outer:o} {inner:o} {file:o}");
            assert_eq!(is_readable_by_others(&path, &root), readable, "{modes}");
            assert_eq!(readable_by_others_below(&dir, &root).is_some(), readable, "{modes}");
        }
    }

    #[test]
    fn what_is_not_there_is_read_by_nobody() {
        assert!(!is_readable_by_others(Path::new("/not/there"), Path::new("/")));
        assert_eq!(readable_by_others_below(Path::new("/not/there"), Path::new("/")), None);
    }
}
