//! Embeds the BPF objects that `cargo xtask build` made. Without them the crate still builds (so that `cargo build`,
//! clippy and rust-analyzer need no BPF tools); loading them then fails with one clear error.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Where the data path's object comes from if it is not below the target directory; others lie beside it.
const OVERRIDE: &str = "EVENKEEL_BPF_OBJECT";
/// The data path's object.
const DATAPATH: &str = "evenkeel.bpf.o";
/// The object of `evenkeel observe`.
const WATCH: &str = "watch.bpf.o";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed={OVERRIDE}");
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    let object = match env::var_os(OVERRIDE) {
        Some(path) => PathBuf::from(path),
        None => target_dir(&out_dir).join("bpf").join(DATAPATH),
    };
    fs::write(out_dir.join(DATAPATH), bytes(&object)?)?;
    fs::write(out_dir.join(WATCH), bytes(&object.with_file_name(WATCH))?)
}

/// The object's bytes; none where it was not built.
fn bytes(object: &Path) -> io::Result<Vec<u8>> {
    match fs::read(object) {
        Ok(bytes) => {
            println!("cargo::rerun-if-changed={}", object.display());
            Ok(bytes)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            println!("cargo::warning=built without a BPF object: run `cargo xtask build`");
            // Watching a missing file would rebuild the crate every time; its directory changes when it appears.
            if let Some(directory) = object.parent() {
                fs::create_dir_all(directory)?;
                println!("cargo::rerun-if-changed={}", directory.display());
            }
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

/// The workspace's target directory: `<target>/[<triple>/]<profile>/build/<package>/out` is what cargo calls
/// `OUT_DIR`, and cargo marks the target directory (and each triple's) with `CACHEDIR.TAG`; the outermost one is it.
fn target_dir(out_dir: &Path) -> PathBuf {
    out_dir
        .ancestors()
        .filter(|directory| directory.join("CACHEDIR.TAG").exists())
        .last()
        .map_or_else(|| PathBuf::from("../target"), Path::to_path_buf)
}
