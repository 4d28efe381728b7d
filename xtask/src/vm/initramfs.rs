//! The file system of the guest: busybox, `evenkeel` and what it is linked with, `ip`, `ethtool`, three kernel modules,
//! and the script that is its first process.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::version::Kernel;
use crate::{shell, workspace};

/// The first process; see there.
const INIT: &str = include_str!("guest.sh");
/// Its daemon's configuration.
const CONFIG: &str = include_str!("guest.toml");
/// Modules that evenkeel or the guest's network needs, where the kernel has them not built in.
const MODULES: [&str; 3] = ["veth", "sch_ingress", "cls_bpf"];
/// Directories that something is mounted on, or written to.
const DIRECTORIES: [&str; 12] = [
    "bin", "dev", "etc", "modules", "opt", "proc", "root", "run", "sys", "tmp", "usr", "var",
];

/// Makes the initramfs of `kernel`, unpacked in `unpacked`, with `evenkeel` in it.
pub(super) fn make(
    kernel: &Kernel,
    unpacked: &Path,
    evenkeel: &Path,
    cache: &Path,
) -> Result<PathBuf> {
    let root = cache.join("root").join(&kernel.release);
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for directory in DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    install(&program("busybox")?, &root.join("bin/busybox"))?;
    for name in ["ip", "ethtool"] {
        add_program(&program(name)?, &root.join("opt").join(name), &root)?;
    }
    let binary = root.join("opt/evenkeel");
    add_program(evenkeel, &binary, &root)?;
    // A debug build is ten times as large as what of it runs, and all of it would be unpacked by an emulated processor.
    shell::capture(Command::new("strip").arg(&binary))?;
    add_modules(kernel, unpacked, &root)?;
    fs::write(root.join("etc/evenkeel.toml"), CONFIG)?;
    fs::write(root.join("init"), INIT)?;
    fs::set_permissions(root.join("init"), fs::Permissions::from_mode(0o755))?;
    let archive = cache.join(format!("{}.cpio", kernel.release));
    pack(&root, &archive)?;
    fs::remove_dir_all(&root)?;
    Ok(archive)
}

fn program(name: &str) -> Result<PathBuf> {
    workspace::which(name).with_context(|| format!("there is no program {name}"))
}

fn install(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// A program, and the libraries it is linked with where it looks for them.
fn add_program(from: &Path, to: &Path, root: &Path) -> Result<()> {
    install(from, to)?;
    for library in libraries(&shell::capture(Command::new("ldd").arg(from))?) {
        let inside = root.join(library.strip_prefix("/").unwrap_or(&library));
        if !inside.exists() {
            install(&library, &inside)?;
        }
    }
    Ok(())
}

/// The files that `ldd` names.
fn libraries(listing: &str) -> Vec<PathBuf> {
    listing
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

fn add_modules(kernel: &Kernel, unpacked: &Path, root: &Path) -> Result<()> {
    // Since Debian 13 packages have nothing outside of /usr.
    let trees =
        ["lib", "usr/lib"].map(|it| unpacked.join(it).join("modules").join(&kernel.release));
    let Some(tree) = trees.iter().find(|it| it.is_dir()) else {
        bail!("the package of Linux {} has no modules", kernel.release);
    };
    let built_in = fs::read_to_string(tree.join("modules.builtin")).unwrap_or_default();
    for module in MODULES {
        let file = format!("{module}.ko");
        if built_in
            .lines()
            .any(|line| line.ends_with(&format!("/{file}")))
        {
            continue;
        }
        let compressed = format!("{file}.xz");
        let found = find(&tree.join("kernel"), &[&file, &compressed])?
            .with_context(|| format!("Linux {} has no module {module}", kernel.release))?;
        let inside = root
            .join("modules")
            .join(found.file_name().unwrap_or_default());
        install(&found, &inside)?;
        if inside.extension().is_some_and(|it| it == "xz") {
            shell::capture(Command::new("xz").arg("--decompress").arg(&inside))?;
        }
    }
    Ok(())
}

/// The first file below `directory` that has one of `names`.
fn find(directory: &Path, names: &[&str]) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if let Some(found) = find(&entry.path(), names)? {
                return Ok(Some(found));
            }
        } else if names.iter().any(|name| entry.file_name() == *name) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

/// Packs `root` in the format that kernels take; not compressed, since unpacking is emulated.
fn pack(root: &Path, archive: &Path) -> Result<()> {
    let mut names = Vec::new();
    list(root, Path::new("."), &mut names)?;
    let mut cpio = Command::new("cpio");
    cpio.args(["--create", "--quiet", "--format=newc", "--owner=0:0"])
        .arg("--file")
        .arg(archive)
        .current_dir(root);
    shell::feed(&mut cpio, &names.join("\n"))
}

/// All names below `directory` of `root`, each directory before what is in it.
fn list(root: &Path, directory: &Path, names: &mut Vec<String>) -> Result<()> {
    names.push(directory.display().to_string());
    for entry in fs::read_dir(root.join(directory))? {
        let entry = entry?;
        let name = directory.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &name, names)?;
        } else {
            names.push(name.display().to_string());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_that_ldd_names_is_taken() {
        let listing = "\tlinux-vdso.so.1 (0x00007ffd1b5f2000)\n\
                       \tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f3a)\n\
                       \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f39)\n\
                       \t/lib64/ld-linux-x86-64.so.2 (0x00007f3b)\n";
        let expected = [
            "/lib/x86_64-linux-gnu/libgcc_s.so.1",
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(libraries(listing), expected.map(PathBuf::from));
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
