//! One instance per data directory.
//!
//! The lock is the kernel's (`flock` on `<data dir>/<network>/lock`), so it is gone the moment its process is,
//! however that ended. The file's content, the pid, is for the message to the next one. The file is never removed:
//! removing it would let two processes hold locks on two files of one name.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::exit::{Exit, Report};

/// The lock file's name.
const FILE: &str = "lock";
/// Nobody but the owner has business in the data directory: it holds the control socket.
const DIR_MODE: u32 = 0o700;
/// Longest pid that is read back; a longer content is not ours.
const MAX_PID_LEN: u64 = 20;

/// Holds a data directory until dropped.
#[derive(Debug)]
pub struct DirLock {
    dir: PathBuf,
    _file: File,
}

impl DirLock {
    /// Creates `dir` if need be and takes it.
    pub fn acquire(dir: &Path) -> Result<Self, Report> {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir).map_err(|e| unusable(dir, &e))?;
        let path = dir.join(FILE);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| unusable(&path, &e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(taken(dir, &mut file)),
            Err(TryLockError::Error(error)) => return Err(unusable(&path, &error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|e| unusable(&path, &e))?;
        Ok(Self { dir: dir.to_owned(), _file: file })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn taken(dir: &Path, file: &mut File) -> Report {
    let mut text = String::new();
    let pid =
        file.take(MAX_PID_LEN).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let (holder, stop) = match pid {
        Some(pid) => (format!("pid {pid}"), format!("kill {pid}")),
        None => ("another process".to_owned(), "see `rookery status`".to_owned()),
    };
    Report::new(Exit::DataDir, format!("rookery already runs in {} ({holder})", dir.display()))
        .hint(format!("stop it ({stop}), or give this one its own --data-dir"))
}

fn unusable(path: &Path, error: &std::io::Error) -> Report {
    Report::io(Exit::DataDir, format_args!("cannot use {}", path.display()), error)
        .hint("check the owner and mode of the directory, or choose another with --data-dir")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_is_refused_with_the_holder_and_free_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("a/b");
        let held = DirLock::acquire(&dir).unwrap();
        let report = DirLock::acquire(&dir).unwrap_err();
        assert_eq!(report.exit, Exit::DataDir);
        assert!(report.what.contains(&format!("pid {}", std::process::id())), "{report}");
        assert!(report.what.contains(dir.to_str().unwrap()), "{report}");
        drop(held);
        DirLock::acquire(&dir).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let report = DirLock::acquire(&file.join("below")).unwrap_err();
        assert_eq!(report.exit, Exit::DataDir);
        assert!(report.what.contains("file/below"), "{report}");
    }
}
