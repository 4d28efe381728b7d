//! Where things are: the workspace, its target directory, the cache shared by all clones of one user.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use anyhow::{Context as _, Result};

use crate::shell;

/// The directory of the workspace's `Cargo.toml`: that of the package that cargo runs, one up; without cargo, that of the
/// package as it was compiled, which is another one if the checkout was moved since.
#[must_use]
pub fn root() -> &'static Path {
    static PACKAGE: OnceLock<PathBuf> = OnceLock::new();
    let package = PACKAGE.get_or_init(|| {
        let package = env::var_os("CARGO_MANIFEST_DIR");
        package.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
    });
    package.parent().unwrap_or(Path::new("."))
}

/// The target directory, as cargo sees it (`CARGO_TARGET_DIR`, `build.target-dir` or the default).
pub fn target() -> Result<&'static Path> {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    if let Some(found) = TARGET.get() {
        return Ok(found);
    }
    let metadata = shell::capture(
        Command::new(cargo())
            .args(["metadata", "--no-deps", "--format-version=1"])
            .current_dir(root()),
    )?;
    let metadata: serde_json::Value =
        serde_json::from_str(&metadata).context("cargo metadata printed no JSON")?;
    let directory = metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target_directory")?;
    Ok(TARGET.get_or_init(|| directory.into()))
}

/// The cargo that runs us, else the one on PATH.
#[must_use]
pub fn cargo() -> PathBuf {
    env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from)
}

/// Where the BPF objects are that `evenkeel` embeds.
pub fn bpf_objects() -> Result<PathBuf> {
    Ok(target()?.join("bpf"))
}

/// Names the `evenkeel` to use.
pub const BINARY: &str = "EVENKEEL_BIN";
/// The one that this process built.
static BUILT: OnceLock<PathBuf> = OnceLock::new();

/// From here on [`evenkeel`] is this one, which was just built, unless the environment names another.
pub fn built(binary: &Path) {
    BUILT.get_or_init(|| binary.to_owned());
}

/// The `evenkeel` to use: the one that `EVENKEEL_BIN` names, else the one that this process built, else the one that was
/// built last, with either profile.
pub fn evenkeel() -> Result<PathBuf> {
    if let Some(path) = env::var_os(BINARY) {
        return Ok(path.into());
    }
    if let Some(binary) = BUILT.get() {
        return Ok(binary.clone());
    }
    let release = target()?.join("release/evenkeel");
    let quick = target()?.join("quick/evenkeel");
    let age = |binary: &Path| binary.metadata().and_then(|binary| binary.modified()).ok();
    Ok(if age(&quick) > age(&release) {
        quick
    } else {
        release
    })
}

/// What takes long to make and depends on no clone (bpf-linker, the Python environment of the tests) lives here.
#[must_use]
pub fn cache() -> PathBuf {
    env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| env::home_dir().map(|home| home.join(".cache")))
        .unwrap_or_else(env::temp_dir)
        .join("evenkeel")
}

/// Whether we may make namespaces and load BPF programs.
#[must_use]
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The file that `name` means, looked up in PATH.
#[must_use]
pub fn which(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        // Not everybody's PATH has the administrator's directories, where `ip` and `nft` are.
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}
