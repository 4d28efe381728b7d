//! The pin directory.
//!
//! ```text
//! <pin_dir>/v<ABI_VERSION>/            locked by the process that uses it
//!     maps/FLOWS, maps/REPLIES, ...    one file a map
//!     links/steer:sk_lookup            in our network namespace
//!     links/<interface>:xdp-native     or xdp-generic
//!     links/<interface>:tcx-ingress    and tcx-egress
//!     links/<interface>:clsact-ingress and clsact-egress, before Linux 6.6
//! ```
//! The clsact files are pins of programs, not of links: the filter itself belongs to the interface, the file says that
//! it is ours. bpffs refuses names with a dot, so an interface's dots are written as `%2E`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use aya::maps::MapInfo;
use evenkeel_ebpf::abi::ABI_VERSION;
use rustix::fs::{FlockOperation, flock, statfs};
use rustix::mount::{MountFlags, mount};

use super::maps::{NAMES, sizes};
use super::{DatapathError, Options};

/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Where a bpffs normally is.
pub(super) const DEFAULT_BPFFS: &str = "/sys/fs/bpf";

/// An open, locked pin directory.
#[derive(Debug)]
pub(super) struct Pins {
    root: PathBuf,
    directory: PathBuf,
    /// Held as long as this lives.
    #[expect(dead_code, reason = "closing the file releases the lock")]
    lock: File,
}

impl Pins {
    /// Creates the directories where missing and locks them against a second process.
    pub(super) fn open(options: &Options) -> Result<Self, DatapathError> {
        let root = options.pin_dir.clone();
        ensure_bpffs(&root)?;
        let directory = root.join(format!("v{ABI_VERSION}"));
        for part in ["maps", "links"] {
            let path = directory.join(part);
            fs::create_dir_all(&path).map_err(pin_error("create", &path))?;
        }
        let lock = lock(&directory)?;
        Ok(Self {
            root,
            directory,
            lock,
        })
    }

    /// Detaches and removes what daemons of other versions left; their flows end, as this one cannot read them.
    pub(super) fn remove_other_versions(&self) -> Result<(), DatapathError> {
        let entries = fs::read_dir(&self.root).map_err(pin_error("read", &self.root))?;
        for entry in entries {
            let path = entry.map_err(pin_error("read", &self.root))?.path();
            let version = path
                .file_name()
                .and_then(|name| name.to_str()?.strip_prefix('v'));
            if path == self.directory || version.is_none_or(|digits| digits.parse::<u32>().is_err())
            {
                continue;
            }
            tracing::warn!(directory = %path.display(), "replacing the data path of another version: its flows end");
            let other = Self {
                root: self.root.clone(),
                lock: lock(&path)?,
                directory: path,
            };
            super::attach::detach_all(&other)?;
            remove_tree(&other.directory)?;
        }
        Ok(())
    }

    /// Path of a map's pin.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join("maps").join(name)
    }

    /// Path of a link's pin.
    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.directory.join("links").join(name)
    }

    /// Names of the links pinned.
    pub(super) fn links(&self) -> Result<Vec<String>, DatapathError> {
        let path = self.directory.join("links");
        let list = || -> io::Result<Vec<String>> {
            fs::read_dir(&path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect()
        };
        let mut names = list().map_err(pin_error("read", &path))?;
        names.sort();
        Ok(names)
    }

    /// Whether maps of an earlier run are there.
    pub(super) fn populated(&self) -> bool {
        self.map(NAMES[0]).exists()
    }

    /// Compares every pinned map with what the object (whose sizes `wanted` gives) and the options need: reusing a
    /// map of another shape would make programs and userspace read garbage.
    pub(super) fn check(&self, wanted: &[MapShape]) -> Result<(), DatapathError> {
        for shape in wanted {
            let path = self.map(shape.name);
            if !path.exists() {
                continue;
            }
            let info = MapInfo::from_pin(&path).map_err(DatapathError::map(shape.name))?;
            let found = [
                ("type", info.map_type().map_or(u32::MAX, |kind| kind as u32)),
                ("key size", info.key_size()),
                ("value size", info.value_size()),
                ("max_entries", info.max_entries()),
            ];
            let needed = [
                shape.kind,
                shape.key_size,
                shape.value_size,
                shape.max_entries,
            ];
            for ((property, found), needed) in found.into_iter().zip(needed) {
                if found != needed {
                    return Err(DatapathError::PinnedMapDiffers {
                        map: shape.name,
                        property,
                        found: found.to_string(),
                        wanted: needed.to_string(),
                        directory: self.directory.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// Removes every pin and the directories, so that nothing stays behind.
    pub(super) fn remove(self) -> Result<(), DatapathError> {
        remove_tree(&self.directory)?;
        // The parent stays if it holds pins of another version.
        match fs::remove_dir(&self.root) {
            Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                Err(pin_error("remove", &self.root)(error))
            }
            _ => Ok(()),
        }
    }
}

/// What a map must look like.
pub(super) struct MapShape {
    name: &'static str,
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// The shapes that `object` and `options` ask for.
pub(super) fn shapes(object: &[u8], options: &Options) -> Result<Vec<MapShape>, DatapathError> {
    let parsed = aya_obj::Object::parse(object)
        .map_err(|error| DatapathError::Load(Box::new(error.into())))?;
    let sizes = sizes(options);
    NAMES
        .iter()
        .map(|&name| {
            let map = parsed.maps.get(name).ok_or(DatapathError::Missing(name))?;
            Ok(MapShape {
                name,
                kind: map.map_type(),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries: sizes
                    .get(name)
                    .copied()
                    .unwrap_or_else(|| map.max_entries()),
            })
        })
        .collect()
}

/// Takes a directory for this process alone.
fn lock(directory: &Path) -> Result<File, DatapathError> {
    let file = File::open(directory).map_err(pin_error("open", directory))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DatapathError::InUse(directory.to_path_buf())),
        Err(errno) => Err(pin_error("lock", directory)(errno.into())),
    }
}

/// Makes a closure that names the action and the path.
fn pin_error(action: &'static str, path: &Path) -> impl Fn(io::Error) -> DatapathError {
    move |source| DatapathError::Pin {
        action,
        path: path.to_path_buf(),
        source,
    }
}

/// Checks that `directory` is (or will be, once created) on a bpffs; mounts the default one if it is missing.
fn ensure_bpffs(directory: &Path) -> Result<(), DatapathError> {
    if is_bpffs(directory) {
        return Ok(());
    }
    let default = Path::new(DEFAULT_BPFFS);
    if directory.starts_with(default) && default.is_dir() {
        return mount(
            "bpf",
            default,
            "bpf",
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
            None,
        )
        .map_err(|errno| match errno {
            rustix::io::Errno::PERM => DatapathError::NotPermitted,
            errno => pin_error("mount a bpffs on", default)(errno.into()),
        });
    }
    Err(DatapathError::NotBpffs(directory.to_path_buf()))
}

/// Whether the nearest directory that exists is on a bpffs.
pub(super) fn is_bpffs(directory: &Path) -> bool {
    directory
        .ancestors()
        .find(|path| path.exists())
        .and_then(|path| statfs(path).ok())
        // The type's width and sign differ between architectures; the magic number fits in 32 bits everywhere.
        .is_some_and(|found| u64::try_from(found.f_type).unwrap_or(0) & 0xffff_ffff == BPF_FS_MAGIC)
}

fn remove_tree(directory: &Path) -> Result<(), DatapathError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result.map_err(pin_error("read", directory))?,
    };
    for entry in entries {
        let path = entry.map_err(pin_error("read", directory))?.path();
        if path.is_dir() {
            remove_tree(&path)?;
        } else {
            fs::remove_file(&path).map_err(pin_error("remove", &path))?;
        }
    }
    fs::remove_dir(directory).map_err(pin_error("remove", directory))
}
