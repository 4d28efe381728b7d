//! Overrides on disk: `state.json` in the state directory. Written whole and renamed, so that a crash leaves the old
//! or the new one.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use super::desired::Overrides;

/// The file that holds the overrides.
#[derive(Clone, Debug)]
pub(super) struct Store {
    directory: PathBuf,
}

impl Store {
    pub(super) fn new(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    fn file(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    /// The stored overrides. An absent file holds none; an unreadable one too, and the second value says why: flows
    /// must be balanced even when this file is broken.
    pub(super) fn load(&self) -> (Overrides, Option<String>) {
        let file = self.file();
        let read = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Overrides::default()),
            Err(error) => Err(error),
        };
        match read {
            Ok(overrides) => (overrides, None),
            Err(error) => {
                let why = format!(
                    "{} is unreadable ({error}): changes made by the CLI are forgotten",
                    file.display()
                );
                (Overrides::default(), Some(why))
            }
        }
    }

    pub(super) fn save(&self, overrides: &Overrides) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(overrides)?;
        std::fs::rename(self.write_new(&text)?, self.file())
    }

    /// Whether [`Store::save`] could work.
    pub(super) fn probe(&self) -> io::Result<()> {
        std::fs::remove_file(self.write_new(&[])?)
    }

    /// Writes the file that is then renamed.
    fn write_new(&self, text: &[u8]) -> io::Result<PathBuf> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(&self.directory)?;
        let new = self.directory.join("state.json.new");
        std::fs::write(&new, text)?;
        Ok(new)
    }
}
