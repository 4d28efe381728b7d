//! `cargo xtask build`: the BPF objects, then the `evenkeel` that embeds them; in two profiles, see [`quick`].
//!
//! An object is the same bytes in whatever directory it is built: paths are remapped, debug information other than
//! BTF is stripped. They are built again only if their sources, the lock file or the toolchain changed.

use std::{
    env,
    ffi::OsString,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    setup::{self, BpfTools, Route, Toolchain},
    shell, workspace,
};

/// The binaries of the `ebpf` package, and the objects that are made of them.
const PROGRAMS: [(&str, &str); 2] = [
    ("evenkeel-bpf", "evenkeel.bpf.o"),
    ("evenkeel-watch-bpf", "watch.bpf.o"),
];
/// Where the unstripped objects land below the BPF target directory.
const OUTPUT: &str = "bpfel-unknown-none/release";

/// Builds everything; returns the `evenkeel` binary: the release, which is what is measured and installed.
pub fn run(route: Route) -> Result<PathBuf> {
    bpf(route)?;
    binary("evenkeel", "evenkeel", "release")
}

/// The same for those who wait: the demo and the tests. Without the optimization of all crates as one, which takes longer
/// than all else together.
pub fn quick() -> Result<PathBuf> {
    bpf(Route::Any)?;
    binary("evenkeel", "evenkeel", "quick")
}

/// Builds `bench-peer`, which only benchmarks need; returns the binary.
pub fn bench_peer() -> Result<PathBuf> {
    binary("bench-peer", "bench-peer", "peer")
}

/// Builds the binary of a package with a profile of the workspace.
fn binary(package: &str, name: &str, profile: &str) -> Result<PathBuf> {
    let mut build = Command::new(workspace::cargo());
    build.current_dir(workspace::root()).args([
        "build",
        "--quiet",
        "--profile",
        profile,
        "--package",
        package,
    ]);
    shell::quietly(&format!("building {name}"), &mut build)?;
    let binary = workspace::target()?.join(profile).join(name);
    if !binary.is_file() {
        bail!("cargo built no {}", binary.display());
    }
    if name == "evenkeel" {
        workspace::built(&binary);
    }
    Ok(binary)
}

/// Builds the BPF objects, unless those that are there are up to date; gives the directory that they are in.
pub fn bpf(route: Route) -> Result<PathBuf> {
    let directory = workspace::bpf_objects()?;
    let stamp = directory.join("evenkeel.bpf.stamp");
    let sources = fingerprint(&format!("{route:?}"))?;
    let all_there = PROGRAMS
        .iter()
        .all(|(_, object)| directory.join(object).is_file());
    if all_there && fs::read_to_string(&stamp).is_ok_and(|have| have == sources) {
        return Ok(directory);
    }
    let tools = setup::bpf_tools(route)?;
    let linked = compile(&tools)?;
    for (program, object) in PROGRAMS {
        install(&linked.join(program), &directory.join(object))?;
    }
    fs::write(&stamp, sources)?;
    Ok(directory)
}

/// Strips what was linked and puts it into its place.
fn install(linked: &Path, object: &Path) -> Result<()> {
    // Two runs at once each have a file of their own: neither may put into place what the other has half written.
    let partial = object.with_extension(format!("{}.partial", std::process::id()));
    fs::copy(linked, &partial)?;
    strip(&partial)?;
    // Renamed into place whole, and only if it differs: `evenkeel` is compiled again when the object's date changes.
    if fs::read(object).ok() != Some(fs::read(&partial)?) {
        fs::rename(&partial, object)?;
    } else {
        fs::remove_file(&partial)?;
    }
    Ok(())
}

/// Compiles with the first toolchain that can.
fn compile(tools: &BpfTools) -> Result<PathBuf> {
    let mut failures = Vec::new();
    for toolchain in &tools.toolchains {
        let target = workspace::target()?.join("bpf");
        let mut build = toolchain.cargo_build();
        build
            .current_dir(workspace::root().join("ebpf"))
            .args(["--quiet", "--bins"])
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain, &tools.linker));
        match shell::quietly(
            &format!("building the BPF programs with {toolchain}"),
            &mut build,
        ) {
            Ok(()) => return Ok(target.join(OUTPUT)),
            Err(error) => failures.push(error),
        }
    }
    let failures: Vec<String> = failures.iter().map(|error| format!("{error:#}")).collect();
    Err(anyhow!(failures.join("\n\nand with the other toolchain: ")))
        .context("the BPF programs do not build")
}

/// Compiler flags, in cargo's encoding that allows spaces in paths.
fn flags(toolchain: &Toolchain, linker: &Path) -> OsString {
    let mut flags = OsString::new();
    let mut push = |parts: &[&OsString]| {
        if !flags.is_empty() {
            flags.push("\x1f");
        }
        for part in parts {
            flags.push(part);
        }
    };
    let word = |text: &str| OsString::from(text);
    push(&[&word("-Clinker="), &linker.into()]);
    push(&[&word("-Clink-arg=--btf")]);
    push(&[&word("-Cdebuginfo=2")]);
    // Instructions on 32 bits, in every kernel since 5.3 (092ed0968bb6): without them each is followed by two shifts.
    push(&[&word("-Ctarget-cpu=v3")]);
    // bpf-linker asks LLVM for a call where memory is cleared or copied, and the function called does it byte by byte: a
    // tenth of what a SYN cost, and half of what a packet did that is none of ours. Without this, LLVM writes words in place.
    push(&[&word("-Clink-arg=--disable-expand-memcpy-in-order")]);
    for (from, to) in [
        (Some(workspace::root().to_owned()), "evenkeel"),
        (cargo_home(), "cargo"),
        (Some(toolchain.sysroot().to_owned()), "rust"),
    ] {
        if let Some(from) = from {
            push(&[
                &word("--remap-path-prefix="),
                &from.into(),
                &word("="),
                &word(to),
            ]);
        }
    }
    flags
}

fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// Takes the DWARF out of `object` and leaves BTF; kept as it is where no LLVM tool is found: larger, but it works.
fn strip(object: &Path) -> Result<()> {
    let names = ["llvm-strip-22", "llvm-strip-21", "llvm-strip"];
    let directories = [
        "/usr/lib/llvm-22/bin/llvm-strip",
        "/usr/lib/llvm-21/bin/llvm-strip",
    ];
    let tool = names
        .iter()
        .find_map(|name| workspace::which(name))
        .or_else(|| {
            directories
                .iter()
                .map(PathBuf::from)
                .find(|path| path.is_file())
        });
    match tool {
        Some(tool) => shell::capture(Command::new(tool).arg("--strip-debug").arg(object)).map(drop),
        None => Ok(()),
    }
}

/// A digest of all that the objects are made of.
fn fingerprint(route: &str) -> Result<String> {
    let root = workspace::root();
    let mut files = vec![root.join("Cargo.toml"), root.join("Cargo.lock")];
    // The flags.
    files.push(root.join("xtask/src/build.rs"));
    gather(&root.join("ebpf"), &mut files)?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    route.hash(&mut hasher);
    for file in files {
        file.strip_prefix(root)?.hash(&mut hasher);
        fs::read(&file)
            .with_context(|| format!("cannot read {}", file.display()))?
            .hash(&mut hasher);
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn gather(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            // Tests run on the host and are no part of an object.
            if entry.file_name() != "tests" {
                gather(&entry.path(), files)?;
            }
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}
