//! The routes that the spool has had, kept in its directory: so a route whose cursor is gone is told from one that is
//! new.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::{config::RouteConfig, spool::CursorStart};

const FILE: &str = "routes.json";

/// The names of the routes at the last start.
pub(super) struct KnownRoutes {
    path: PathBuf,
    /// `None` when nothing whole was kept.
    kept: Option<BTreeSet<String>>,
}

/// Where the names are kept.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// The names that are kept in the directory of a spool, if there are any.
pub fn names(dir: &Path) -> Option<BTreeSet<String>> {
    KnownRoutes::read(dir).ok()?.kept
}

impl KnownRoutes {
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let path = path(dir);
        let kept = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path, kept })
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.contains(name))
    }

    /// Where a route begins that has no cursor: as it is configured where it is certainly new, else at the oldest
    /// record, for repeats are better than a gap.
    pub(super) fn start(&self, route: &RouteConfig) -> CursorStart {
        match &self.kept {
            Some(kept) if !kept.contains(&route.name) => route.start,
            _ => CursorStart::Oldest,
        }
    }

    /// Keeps the names, once each route has its cursor.
    pub(super) fn save(&mut self, routes: &[RouteConfig]) -> io::Result<()> {
        let names: BTreeSet<_> = routes.iter().map(|route| route.name.clone()).collect();
        if self.kept.as_ref() == Some(&names) {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&names).expect("names always serialize");
        super::kept_file::write_if_there_is_room(&self.path, &text)?;
        self.kept = Some(names);
        Ok(())
    }
}
