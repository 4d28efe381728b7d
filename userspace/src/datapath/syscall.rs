//! The `bpf` commands that aya 0.14 does not offer: batch lookup, replacing the program of any pinned link, link
//! information, deleting from an array of maps, maps with the BTF of others, test runs that return the time. The only `unsafe` of userspace.
#![expect(
    unsafe_code,
    reason = "the bpf system call takes pointers and a union; each block argues for itself"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya::Pod;
use aya_obj::generated::{
    bpf_attr, bpf_cmd, bpf_link_info, bpf_link_type, bpf_map_info, bpf_prog_info,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Calls `bpf(2)`.
fn bpf(command: bpf_cmd, attributes: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: `attributes` is a whole `bpf_attr` whose size is passed; the kernel reads and writes no more than
    // that, and the pointers in it were set by callers below that keep what they point to alive across this call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attributes),
            size_of::<bpf_attr>(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        // All commands return a file descriptor or 0, which fit.
        Ok(i32::try_from(result).unwrap_or(i32::MAX))
    }
}

/// All zero, as the kernel wants unused fields.
fn attributes() -> bpf_attr {
    // SAFETY: a union of structs of integers, valid as all zeroes.
    unsafe { std::mem::zeroed() }
}

fn fd_number(fd: BorrowedFd<'_>) -> u32 {
    // Never negative for an open descriptor.
    fd.as_raw_fd().cast_unsigned()
}

/// A closed descriptor cannot be passed by mistake: it is owned from here on.
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the kernel just opened `fd` for us (the commands used return a new descriptor) and nobody else owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut attributes = attributes();
    // SAFETY: writing a field of a zeroed union; `path` lives until after the call.
    unsafe { &mut attributes.__bindgen_anon_4 }.pathname = path.as_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET, &mut attributes).map(owned)
}

/// Replaces the program of a link; packets see the old one or the new one.
pub(super) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = attributes();
    // SAFETY: writing fields of a zeroed union.
    let update = unsafe { &mut attributes.link_update };
    update.link_fd = fd_number(link);
    update.__bindgen_anon_1.new_prog_fd = fd_number(program);
    bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attributes).map(drop)
}

/// Detaches a link at once; closing its last descriptor and pin would do so too, but at a time of the kernel's choosing.
pub(super) fn detach_link(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attributes = attributes();
    // SAFETY: writing a field of a zeroed union.
    unsafe { &mut attributes.link_detach }.link_fd = fd_number(link);
    bpf(bpf_cmd::BPF_LINK_DETACH, &mut attributes).map(drop)
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkTarget {
    /// An interface, by index; 0 once the interface is gone.
    Interface(u32),
    /// A network namespace, by inode; 0 once the namespace is gone.
    Namespace(u32),
    /// Something that evenkeel never makes.
    Other,
}

/// Program and target of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// Program id.
    pub(super) program: u32,
    /// Target.
    pub(super) target: LinkTarget,
}

/// Asks the kernel about a link.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // SAFETY: a struct of integers and a union of such, valid as all zeroes.
    let mut info: bpf_link_info = unsafe { std::mem::zeroed() };
    let mut attributes = attributes();
    // SAFETY: writing fields of a zeroed union; `info` lives until after the call and its size is passed.
    let request = unsafe { &mut attributes.info };
    request.bpf_fd = fd_number(link);
    request.info_len = u32::try_from(size_of::<bpf_link_info>()).unwrap_or(u32::MAX);
    request.info = std::ptr::from_mut(&mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    let target = match bpf_link_type::try_from(info.type_) {
        // SAFETY (all three): `type_` says which member of the union the kernel filled; all are integers.
        Ok(bpf_link_type::BPF_LINK_TYPE_XDP) => {
            // SAFETY: as above.
            LinkTarget::Interface(unsafe { info.__bindgen_anon_1.xdp.ifindex })
        }
        Ok(bpf_link_type::BPF_LINK_TYPE_TCX) => {
            // SAFETY: as above.
            LinkTarget::Interface(unsafe { info.__bindgen_anon_1.tcx.ifindex })
        }
        Ok(bpf_link_type::BPF_LINK_TYPE_NETNS) => {
            // SAFETY: as above.
            LinkTarget::Namespace(unsafe { info.__bindgen_anon_1.netns.netns_ino })
        }
        _ => LinkTarget::Other,
    };
    Ok(LinkInfo {
        program: info.prog_id,
        target,
    })
}

/// How long a program ran, in nanoseconds, and how often, since the kernel was told to measure that.
pub(super) fn run_time(program: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    // SAFETY: a struct of integers, valid as all zeroes; null pointers in it ask for nothing.
    let mut info: bpf_prog_info = unsafe { std::mem::zeroed() };
    let mut attributes = attributes();
    // SAFETY: writing fields of a zeroed union; `info` lives until after the call and its size is passed.
    let request = unsafe { &mut attributes.info };
    request.bpf_fd = fd_number(program);
    request.info_len = u32::try_from(size_of::<bpf_prog_info>()).unwrap_or(u32::MAX);
    request.info = std::ptr::from_mut(&mut info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attributes)?;
    Ok((info.run_time_ns, info.run_cnt))
}

/// Makes maps of one type, with the same sizes and BTF. Asking for the BTF takes CAP_SYS_ADMIN, making the maps CAP_BPF.
#[derive(Debug)]
pub(super) struct MapTemplate {
    info: bpf_map_info,
    types: OwnedFd,
}

impl MapTemplate {
    /// Of what `map` is.
    pub(super) fn of(map: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: a struct of integers, valid as all zeroes.
        let mut info: bpf_map_info = unsafe { std::mem::zeroed() };
        let mut question = attributes();
        // SAFETY: writing fields of a zeroed union; `info` lives until after the call and its size is passed.
        let request = unsafe { &mut question.info };
        request.bpf_fd = fd_number(map);
        request.info_len = u32::try_from(size_of::<bpf_map_info>()).unwrap_or(u32::MAX);
        request.info = std::ptr::from_mut(&mut info) as u64;
        bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut question)?;
        let mut question = attributes();
        // SAFETY: writing a field of a zeroed union.
        let wanted = unsafe { &mut question.__bindgen_anon_6 };
        wanted.__bindgen_anon_1.btf_id = info.btf_id;
        let types = bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut question).map(owned)?;
        Ok(Self { info, types })
    }

    /// Another one.
    pub(super) fn create(&self) -> io::Result<OwnedFd> {
        let mut attributes = attributes();
        // SAFETY: writing fields of a zeroed union.
        let wanted = unsafe { &mut attributes.__bindgen_anon_1 };
        wanted.map_type = self.info.type_;
        wanted.key_size = self.info.key_size;
        wanted.value_size = self.info.value_size;
        wanted.max_entries = self.info.max_entries;
        wanted.map_flags = self.info.map_flags;
        wanted.btf_fd = fd_number(self.types.as_fd());
        wanted.btf_key_type_id = self.info.btf_key_type_id;
        wanted.btf_value_type_id = self.info.btf_value_type_id;
        bpf(bpf_cmd::BPF_MAP_CREATE, &mut attributes).map(owned)
    }
}

/// Deletes `key`; used for an array of maps, where it empties the slot.
pub(super) fn delete(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    let mut attributes = attributes();
    // SAFETY: writing fields of a zeroed union; `key` lives until after the call.
    let element = unsafe { &mut attributes.__bindgen_anon_2 };
    element.map_fd = fd_number(map);
    element.key = std::ptr::from_ref(&key) as u64;
    match bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attributes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map(drop),
    }
}

/// Reads the value at `key` of a map with 4-byte keys in place: aya's `get` returns values on the stack, several
/// copies of them, which for a Maglev table is more than a thread has.
pub(super) fn lookup_into<V: Pod>(map: BorrowedFd<'_>, key: u32, value: &mut V) -> io::Result<()> {
    let mut attributes = attributes();
    // SAFETY: writing fields of a zeroed union. The map's value size is that of `V` (callers hold it as aya's typed
    // map, which checked that), any bytes are a valid `V` (`Pod`), and both live until after the call.
    let element = unsafe { &mut attributes.__bindgen_anon_2 };
    element.map_fd = fd_number(map);
    element.key = std::ptr::from_ref(&key) as u64;
    element.__bindgen_anon_1.value = std::ptr::from_mut(value) as u64;
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attributes).map(drop)
}

/// Moves the calling thread into a new network namespace, which goes away with the thread.
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: of the things that can be unshared only file descriptors and memory concern the safety of other code;
    // a network namespace changes what later system calls of this thread see.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// What a program did with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TestRun {
    /// Its return value.
    pub(super) verdict: u32,
    /// How long it ran.
    pub(super) nanoseconds: u32,
}

/// Runs a program once on `frame`; what it makes of the frame is thrown away.
pub(super) fn test_run(program: BorrowedFd<'_>, frame: &[u8]) -> io::Result<TestRun> {
    let mut attributes = attributes();
    // SAFETY: writing fields of a zeroed union; `frame` lives until after the call and its length is passed. No
    // output buffer is given, so the kernel writes nothing but the attributes.
    let test = unsafe { &mut attributes.test };
    test.prog_fd = fd_number(program);
    test.data_in = frame.as_ptr() as u64;
    test.data_size_in = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    test.repeat = 1;
    bpf(bpf_cmd::BPF_PROG_TEST_RUN, &mut attributes)?;
    // SAFETY: the kernel filled these; integers either way.
    let test = unsafe { &attributes.test };
    Ok(TestRun {
        verdict: test.retval,
        nanoseconds: test.duration,
    })
}

/// Entries asked for at once in a table that turns out to hold many: large enough that the system call's cost vanishes,
/// small enough to stay in cache.
const BATCH: usize = 4096;
/// Entries asked for first: the room for a whole batch costs more than reading a small table.
const FIRST_BATCH: usize = 256;

/// Reads a whole hash map or array with `BPF_MAP_LOOKUP_BATCH` (7 x faster than walking its keys one by one). Entries that
/// change meanwhile may be missed or, where the map is an LRU, seen as they were when their bucket was copied.
pub(super) fn read_all<K: Pod + Default, V: Pod + Default>(
    map: &impl AsFd,
    mut each: impl FnMut(K, V),
) -> io::Result<()> {
    let mut size = FIRST_BATCH;
    let mut keys = vec![K::default(); size];
    let mut values = vec![V::default(); size];
    // For hash maps the position is a bucket number, for arrays an index.
    let mut position = 0_u32;
    let mut started = false;
    loop {
        let mut next = 0_u32;
        let mut attributes = attributes();
        // SAFETY: writing fields of a zeroed union. `keys` and `values` hold `size` elements each, of the key and
        // value size of the map (checked when the map was opened), and `count` tells the kernel so; `position` and
        // `next` are the 4 bytes that both kinds of map use; all live until after the call.
        let batch = unsafe { &mut attributes.batch };
        batch.map_fd = fd_number(map.as_fd());
        batch.in_batch = if started {
            std::ptr::from_ref(&position) as u64
        } else {
            0
        };
        batch.out_batch = std::ptr::from_mut(&mut next) as u64;
        batch.keys = keys.as_mut_ptr() as u64;
        batch.values = values.as_mut_ptr() as u64;
        batch.count = u32::try_from(size).unwrap_or(u32::MAX);
        let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attributes);
        // SAFETY: the kernel wrote the number of entries it copied; an integer either way.
        let count = unsafe { attributes.batch.count } as usize;
        let done = match result {
            Ok(_) => false,
            // The end; the last entries came with it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            // One bucket holds more than fits: nothing was copied, try again with more room.
            Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                size *= 2;
                keys.resize(size, K::default());
                values.resize(size, V::default());
                continue;
            }
            Err(error) => return Err(error),
        };
        for (key, value) in keys.iter().zip(&values).take(count) {
            each(*key, *value);
        }
        if done {
            return Ok(());
        }
        position = next;
        started = true;
        if size < BATCH {
            size *= 2;
            keys.resize(size, K::default());
            values.resize(size, V::default());
        }
    }
}
