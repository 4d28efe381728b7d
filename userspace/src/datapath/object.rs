//! The BPF object that was built with this binary.

use super::DatapathError;

/// The bytes that `build.rs` found; empty if the crate was built without the BPF program. Aligned, because the ELF
/// parser reads its headers in place.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/evenkeel.bpf.o"));

/// The embedded object.
pub(super) fn bytes() -> Result<&'static [u8], DatapathError> {
    if OBJECT.is_empty() {
        Err(DatapathError::NoObject)
    } else {
        Ok(OBJECT)
    }
}
