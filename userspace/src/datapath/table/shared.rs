//! The memory of an array map, mapped into this process: words that the programs change meanwhile.

use std::io;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use aya::maps::MapData;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The memory of an array map (`BPF_F_MMAPABLE`, Linux 5.5).
pub(super) struct Shared {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: shared memory of atomics, valid until dropped; which thread does that makes no difference.
unsafe impl Send for Shared {}
// SAFETY: as above; `&Shared` gives nothing but `&[AtomicU64]`.
unsafe impl Sync for Shared {}

impl Shared {
    /// Maps `map`, whose values are whole words.
    pub(super) fn open(map: &MapData) -> io::Result<Self> {
        let info = map.info().map_err(io::Error::other)?;
        let bytes = info.max_entries() as usize * info.value_size() as usize;
        // SAFETY: a new mapping at a place of the kernel's choice aliases nothing of ours.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map.fd().as_fd(),
                0,
            )
        }?;
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            start,
            words: bytes / size_of::<u64>(),
        })
    }
}

impl Deref for Shared {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: page-aligned memory of that many words, mapped until this is dropped; all that is ever done to it,
        // here and in the kernel, are accesses that atomics allow for.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and nothing borrows from it any more. It cannot fail for a whole mapping.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}
