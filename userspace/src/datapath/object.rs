//! The BPF objects that were built with this binary.

use super::DatapathError;

/// The bytes that `build.rs` found; empty if the crate was built without the BPF programs. Aligned, because the ELF
/// parser reads its headers in place.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/evenkeel.bpf.o"));

/// The object of `evenkeel observe`, likewise.
static WATCH: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/watch.bpf.o"));

/// The data path.
pub(super) fn bytes() -> Result<&'static [u8], DatapathError> {
    built(OBJECT)
}

/// The observing programs.
pub(super) fn watch() -> Result<&'static [u8], DatapathError> {
    built(WATCH)
}

fn built(object: &'static [u8]) -> Result<&'static [u8], DatapathError> {
    if object.is_empty() {
        Err(DatapathError::NoObject)
    } else {
        Ok(object)
    }
}

#[cfg(test)]
mod stack;
