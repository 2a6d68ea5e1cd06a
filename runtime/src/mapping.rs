//! Read-only file mapping: weights are read where they lie on disk, without a copy.

use memmap2::Mmap;
use std::{fs::File, io, ops::Range, path::Path, sync::Arc};

/// Maps a file for reading.
///
/// The file must not be truncated or rewritten while the mapping lives: reading a page that is no longer there ends the
/// process with a bus error, and rewritten bytes change under the reader. Replacing the file by renaming a new one over
/// it is safe.
///
/// # Errors
/// A file that cannot be opened or mapped.
pub fn map_file(path: &Path) -> io::Result<Arc<Mmap>> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "this is a folder, not a file"));
    }
    // SAFETY: the mapping is private and read-only; that nobody truncates or rewrites the file meanwhile is the
    // documented condition of this function, as for every program that maps files.
    let map = unsafe { Mmap::map(&file)? };
    Ok(Arc::new(map))
}

/// Lets the system take back the pages that lie wholly in a range of a mapped file; they are read from the file again when
/// they are touched again.
pub fn release(file: &Mmap, range: Range<usize>) {
    const PAGE: usize = 4096;
    let (start, end) = (range.start.next_multiple_of(PAGE), range.end.min(file.len()) / PAGE * PAGE);
    #[cfg(unix)]
    if start < end {
        // SAFETY: the mapping is read-only and of a file, so the pages that come back hold the same bytes. A system that
        // refuses (its pages may be larger) keeps them, which is as well.
        let _ = unsafe { file.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
    }
    #[cfg(not(unix))]
    let _ = (start, end);
}
