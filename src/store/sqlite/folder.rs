//! The data folder: whose it is, and that nobody else may look into it.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tracing::{info, warn};

use super::OpenError;

/// The database's file inside the data folder. `SQLite` makes the others beside it with the same rights.
const DATABASE: &str = "orders.db";
const LOCK: &str = "lock";
/// What is ours in the folder.
const OURS: [&str; 5] = [DATABASE, "orders.db-wal", "orders.db-shm", "orders.db-journal", LOCK];
/// What a file system keeps in its own root.
const SYSTEMS: &str = "lost+found";
/// Names and addresses stand there: nobody but the owner needs them.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Everybody may write there, by intention.
const SHARED: u32 = 0o1000;
/// All that group and others may do.
const OTHERS: u32 = 0o077;

/// The database's file in this folder.
pub(super) fn database(folder: &Path) -> PathBuf {
    folder.join(DATABASE)
}

/// Fails unless it is there.
pub(super) fn must_hold_a_database(folder: &Path) -> Result<(), OpenError> {
    if database(folder).is_file() {
        return Ok(());
    }
    let error = io::Error::new(io::ErrorKind::NotFound, format!("there is no {DATABASE}"));
    Err(OpenError::Folder { folder: folder.to_owned(), error })
}

/// Makes the folder and the database's file if they are missing, for the owner only, and narrows what is there.
/// The lock keeps a second process out for as long as it is held.
pub(super) fn take(folder: &Path) -> Result<File, OpenError> {
    let failed = |error| OpenError::Folder { folder: folder.to_owned(), error };
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(failed)?;
    let lock = open(&folder.join(LOCK)).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(folder.to_owned())),
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    open(&database(folder)).map_err(failed)?;
    if is_ours_alone(folder).unwrap_or(false) {
        narrow(folder, FOLDER_MODE);
    }
    for name in OURS {
        narrow(&folder.join(name), FILE_MODE);
    }
    Ok(lock)
}

fn open(file: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(file)
}

/// Whether nobody keeps anything else there: `DATA_DIR=.` or `/tmp` must not shut others out.
fn is_ours_alone(folder: &Path) -> io::Result<bool> {
    let mut names = folder.read_dir()?.map(|entry| Ok(entry?.file_name()));
    names.try_fold(true, |ours, name: io::Result<_>| {
        let name = name?;
        Ok(ours && (name == SYSTEMS || OURS.iter().any(|known| name == *known)))
    })
}

/// Takes from others what they may do with a file of ours.
fn narrow(path: &Path, mode: u32) {
    let Ok(found) = path.symlink_metadata() else { return };
    let rights = found.permissions().mode() & 0o7777;
    if found.is_symlink() || rights & OTHERS == 0 || rights & SHARED != 0 {
        return;
    }
    let path_shown = path.display();
    match std::fs::set_permissions(path, Permissions::from_mode(rights & mode)) {
        Ok(()) => info!("{path_shown} could be looked into by others ({rights:04o}); now only its owner can"),
        Err(error) => warn!(%error, "{path_shown} can be looked into by others ({rights:04o})"),
    }
}
