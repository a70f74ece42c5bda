//! The replica's name, kept in the spool's directory: sequence numbers belong to it.

use std::{fs, io, path::Path};

const FILE: &str = "replica";

/// The configured name, else the one that the directory holds, else the host's; kept in the directory.
pub(super) fn name(dir: &Path, configured: Option<&str>) -> io::Result<String> {
    let path = dir.join(FILE);
    let kept = kept(&path)?;
    let name = match (configured, &kept) {
        (Some(configured), _) => configured.to_owned(),
        (None, Some(kept)) => kept.clone(),
        (None, None) => hostname::get()?.to_string_lossy().into_owned(),
    };
    if kept.as_ref() != Some(&name) {
        if let Some(kept) = kept {
            tracing::warn!(kept, name, "the replica has a new name; its sequence numbers go on");
        }
        super::kept_file::write_if_there_is_room(&path, name.as_bytes())?;
    }
    Ok(name)
}

/// The name that [`name`] will give, as far as it is known before the directory is taken.
pub(super) fn expected(dir: &Path, configured: Option<&str>) -> String {
    let configured = configured.map(str::to_owned);
    configured
        .or_else(|| kept(&dir.join(FILE)).ok().flatten())
        .unwrap_or_default()
}

fn kept(path: &Path) -> io::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text.trim().to_owned()).filter(|name| !name.is_empty())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_stays_with_the_directory_unless_it_is_configured() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(name(dir.path(), Some("forebay-7")).unwrap(), "forebay-7");
        assert_eq!(name(dir.path(), None).unwrap(), "forebay-7");
        assert_eq!(name(dir.path(), Some("forebay-8")).unwrap(), "forebay-8");
        assert_eq!(name(dir.path(), None).unwrap(), "forebay-8");
    }

    #[test]
    fn a_new_directory_takes_the_hosts_name() {
        let dir = tempfile::tempdir().unwrap();
        let host = hostname::get().unwrap().to_string_lossy().into_owned();
        assert_eq!(name(dir.path(), None).unwrap(), host);
    }
}
