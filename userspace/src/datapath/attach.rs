//! Programs to hooks and back.
//!
//! A pinned link of an earlier run keeps its place and gets the new program in one step (`BPF_LINK_UPDATE`), so a
//! packet runs the old program or the new one, never none. Links that no interface asks for any more are removed.
//! clsact filters, where the kernel has no tcx, are replaced by priority and handle, also in one step.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle, qdisc_add_clsact,
};
use aya::programs::{
    LinkOrder, Program, ProgramError, ProgramInfo, SchedClassifier, SkLookup, TcAttachType,
    TcError, Xdp,
};
use rustix::net::{AddressFamily, SocketType, netdevice};
use serde::{Deserialize, Serialize};

use super::pins::Pins;
use super::syscall::{self, LinkInfo, LinkTarget};
use super::{DatapathError, HookChoice, InterfaceSpec, TcAttach, XdpMode};

/// Priority of our clsact filters. Arbitrary, but fixed: with the handle it is how a restart finds them.
const CLSACT_PRIORITY: u16 = 0x6576;
/// Handle of our clsact filters.
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

/// One program at one hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Interface name; `-` for `sk_lookup`, which belongs to the network namespace.
    pub interface: String,
    /// `xdp`, `tc ingress`, `tc egress` or `sk_lookup`.
    pub hook: String,
    /// `native` or `generic`; `tcx` or `clsact`; `netns`.
    pub mode: String,
    /// Name of the program.
    pub program: String,
    /// Kernel id of the program.
    pub program_id: u32,
}

/// A hook of an interface and the way to it. The names are those of [`Attachment`] and of the pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    hook: &'static str,
    mode: &'static str,
    pin: &'static str,
    program: &'static str,
}

const XDP_NATIVE: Place = Place {
    hook: "xdp",
    mode: "native",
    pin: "xdp-native",
    program: "ek_xdp",
};
const XDP_GENERIC: Place = Place {
    hook: "xdp",
    mode: "generic",
    pin: "xdp-generic",
    program: "ek_xdp",
};
const TCX: [(Place, TcAttachType); 2] = [
    (
        Place {
            hook: "tc ingress",
            mode: "tcx",
            pin: "tcx-ingress",
            program: "ek_ingress",
        },
        TcAttachType::Ingress,
    ),
    (
        Place {
            hook: "tc egress",
            mode: "tcx",
            pin: "tcx-egress",
            program: "ek_egress",
        },
        TcAttachType::Egress,
    ),
];
const CLSACT: [(Place, TcAttachType); 2] = [
    (
        Place {
            hook: "tc ingress",
            mode: "clsact",
            pin: "clsact-ingress",
            program: "ek_ingress",
        },
        TcAttachType::Ingress,
    ),
    (
        Place {
            hook: "tc egress",
            mode: "clsact",
            pin: "clsact-egress",
            program: "ek_egress",
        },
        TcAttachType::Egress,
    ),
];
const STEER: Place = Place {
    hook: "sk_lookup",
    mode: "netns",
    pin: "sk_lookup",
    program: "ek_steer",
};
/// What stands for the network namespace in the place of an interface.
const NAMESPACE: &str = "-";

impl Place {
    fn pin_name(self, interface: &str) -> String {
        let interface = interface.replace('%', "%25").replace('.', "%2E");
        format!("{interface}:{}", self.pin)
    }

    fn attachment(self, interface: &str, program_id: u32) -> Attachment {
        Attachment {
            interface: interface.to_owned(),
            hook: self.hook.to_owned(),
            mode: self.mode.to_owned(),
            program: self.program.to_owned(),
            program_id,
        }
    }
}

/// Attaches to every interface asked for and to the network namespace, and detaches from all others.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interfaces: &[InterfaceSpec],
    tc: TcAttach,
) -> Result<Vec<Attachment>, DatapathError> {
    let indexes = interfaces
        .iter()
        .map(|interface| index_of(&interface.name))
        .collect::<Result<Vec<_>, _>>()?;
    let mut attacher = Attacher {
        ebpf,
        pins,
        done: Vec::new(),
    };
    attacher.steer()?;
    for (interface, index) in interfaces.iter().zip(indexes) {
        attacher.tc(interface, index, tc)?;
        attacher.xdp(interface, index)?;
    }
    let done = attacher.done;
    remove_others(pins, |name| {
        done.iter().any(|kept| {
            places().any(|place| {
                place.pin_name(&kept.interface) == name
                    && place.hook == kept.hook
                    && place.mode == kept.mode
            })
        })
    })?;
    Ok(done)
}

/// Detaches from everywhere.
pub(super) fn detach_all(pins: &Pins) -> Result<(), DatapathError> {
    remove_others(pins, |_| false)
}

fn places() -> impl Iterator<Item = Place> {
    [XDP_NATIVE, XDP_GENERIC, STEER]
        .into_iter()
        .chain(TCX.map(|(place, _)| place))
        .chain(CLSACT.map(|(place, _)| place))
}

struct Attacher<'a> {
    ebpf: &'a mut Ebpf,
    pins: &'a Pins,
    done: Vec<Attachment>,
}

impl Attacher<'_> {
    /// `sk_lookup`, in the network namespace of the calling thread.
    fn steer(&mut self) -> Result<(), DatapathError> {
        let path = "/proc/thread-self/ns/net";
        let (namespace, inode) = File::open(path)
            .and_then(|file| file.metadata().map(|metadata| (file, metadata.ino())))
            .map_err(|source| DatapathError::System {
                action: "opening the network namespace",
                source,
            })?;
        // The kernel reports the same inode in 32 bits (nsfs inodes are 32 bits wide).
        let target = LinkTarget::Namespace(u32::try_from(inode).unwrap_or(0));
        let program: &mut SkLookup = loaded(self.ebpf, STEER.program)?;
        let info = place_link(self.pins, STEER, NAMESPACE, target, program, |program| {
            let link = program.attach(&namespace)?;
            Ok(program.take_link(link)?.into())
        })?;
        self.done.push(STEER.attachment(NAMESPACE, info.program));
        Ok(())
    }

    fn tc(
        &mut self,
        interface: &InterfaceSpec,
        index: u32,
        tc: TcAttach,
    ) -> Result<(), DatapathError> {
        let use_tcx = tc == TcAttach::Auto
            && SchedClassifier::query_tcx(&interface.name, TcAttachType::Ingress).is_ok();
        if !use_tcx {
            match qdisc_add_clsact(&interface.name) {
                Ok(()) => {}
                Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
                }
                Err(error) => {
                    return Err(attach_error("the clsact qdisc", &interface.name)(
                        error.into(),
                    ));
                }
            }
        }
        for (place, direction) in if use_tcx { TCX } else { CLSACT } {
            let program: &mut SchedClassifier = loaded(self.ebpf, place.program)?;
            let id = if use_tcx {
                let target = LinkTarget::Interface(index);
                place_link(
                    self.pins,
                    place,
                    &interface.name,
                    target,
                    program,
                    |program| {
                        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
                        let link =
                            program.attach_with_options(&interface.name, direction, options)?;
                        fd_link(program.take_link(link)?)
                    },
                )?
                .program
            } else {
                place_filter(self.pins, place, &interface.name, direction, program)?
            };
            self.done.push(place.attachment(&interface.name, id));
        }
        Ok(())
    }

    fn xdp(&mut self, interface: &InterfaceSpec, index: u32) -> Result<(), DatapathError> {
        let (place, flags) = match interface.xdp_mode {
            XdpMode::Native => (XDP_NATIVE, aya::programs::XdpMode::Driver),
            XdpMode::Generic => (XDP_GENERIC, aya::programs::XdpMode::Skb),
        };
        match interface.hook {
            HookChoice::Tc => return Ok(()),
            HookChoice::Auto if !is_physical(&interface.name) => return Ok(()),
            HookChoice::Auto | HookChoice::Xdp => {}
        }
        // An interface takes one XDP program in one mode: the other mode has to go first. TC carries on meanwhile.
        let other = if place == XDP_NATIVE {
            XDP_GENERIC
        } else {
            XDP_NATIVE
        };
        remove_pin(&self.pins.link(&other.pin_name(&interface.name)))?;
        let program: &mut Xdp = loaded(self.ebpf, place.program)?;
        let target = LinkTarget::Interface(index);
        let result = place_link(
            self.pins,
            place,
            &interface.name,
            target,
            program,
            |program| {
                let link = program.attach_to_if_index(index, flags)?;
                // Where the kernel refuses a link, aya falls back to an attachment that ends with the process; ours must
                // not. Dropping it detaches it.
                fd_link(program.take_link(link)?)
            },
        );
        match result {
            Ok(info) => self
                .done
                .push(place.attachment(&interface.name, info.program)),
            Err(DatapathError::Attach { source, .. }) if interface.hook == HookChoice::Auto => {
                tracing::info!(interface = interface.name, reason = %source, "no native XDP here: attached to TC only");
            }
            Err(DatapathError::Attach { source, .. }) if place == XDP_NATIVE => {
                return Err(DatapathError::NativeXdp {
                    interface: interface.name.clone(),
                    source,
                });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Loads the program unless it is, and gives it in its type.
fn loaded<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, DatapathError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
    P: Loadable,
{
    let refused = |source| match source {
        ProgramError::LoadError { io_error, .. }
            if io_error.kind() == io::ErrorKind::PermissionDenied
                && !super::capabilities::sufficient() =>
        {
            DatapathError::NotPermitted
        }
        source => DatapathError::Program {
            name,
            source: Box::new(source),
        },
    };
    let program = ebpf.program_mut(name).ok_or(DatapathError::Missing(name))?;
    let program: &mut P = program.try_into().map_err(refused)?;
    match program.load() {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(program),
        Err(error) => Err(refused(error)),
    }
}

/// What the three kinds of programs have in common.
trait Loadable {
    fn load(&mut self) -> Result<(), ProgramError>;
    fn descriptor(&self) -> Result<BorrowedFd<'_>, ProgramError>;
    fn id(&self) -> Result<ProgramInfo, ProgramError>;
    fn pin_at(&mut self, path: &Path) -> Result<(), aya::pin::PinError>;
}

macro_rules! loadable {
    ($($program:ty),*) => {$(
        impl Loadable for $program {
            fn load(&mut self) -> Result<(), ProgramError> {
                <$program>::load(self)
            }
            fn descriptor(&self) -> Result<BorrowedFd<'_>, ProgramError> {
                Ok(self.fd()?.as_fd())
            }
            fn id(&self) -> Result<ProgramInfo, ProgramError> {
                self.info()
            }
            fn pin_at(&mut self, path: &Path) -> Result<(), aya::pin::PinError> {
                self.pin(path)
            }
        }
    )*};
}
loadable!(Xdp, SchedClassifier, SkLookup);

/// Puts `program` into the pinned link, or makes and pins a link.
fn place_link<P: Loadable>(
    pins: &Pins,
    place: Place,
    interface: &str,
    target: LinkTarget,
    program: &mut P,
    create: impl FnOnce(&mut P) -> Result<FdLink, ProgramError>,
) -> Result<LinkInfo, DatapathError> {
    let failed = attach_error(place.program, interface);
    let path = pins.link(&place.pin_name(interface));
    if path.exists() {
        let wrong = |call| {
            let object = path.display().to_string();
            move |source| DatapathError::Bpf {
                call,
                object,
                source,
            }
        };
        let link = syscall::open_pin(&path).map_err(wrong("BPF_OBJ_GET"))?;
        let found = syscall::link_info(link.as_fd()).map_err(wrong("BPF_OBJ_GET_INFO_BY_FD"))?;
        if found.target == target {
            let descriptor = program.descriptor().map_err(&failed)?;
            syscall::update_link(link.as_fd(), descriptor).map_err(wrong("BPF_LINK_UPDATE"))?;
            return syscall::link_info(link.as_fd()).map_err(wrong("BPF_OBJ_GET_INFO_BY_FD"));
        }
        if !matches!(
            found.target,
            LinkTarget::Interface(0) | LinkTarget::Namespace(0)
        ) {
            return Err(DatapathError::OtherTarget(path));
        }
        // The interface or namespace went away and another of that name came.
        remove_pin(&path)?;
    }
    let link = create(program).map_err(failed)?;
    let _pinned = link.pin(&path).map_err(|source| DatapathError::PinLink {
        path: path.clone(),
        source: Box::new(source),
    })?;
    let object = path.display().to_string();
    syscall::open_pin(&path)
        .and_then(|link| syscall::link_info(link.as_fd()))
        .map_err(|source| DatapathError::Bpf {
            call: "BPF_OBJ_GET_INFO_BY_FD",
            object,
            source,
        })
}

/// Puts `program` into our clsact filter, or makes one; gives the program's id.
fn place_filter(
    pins: &Pins,
    place: Place,
    interface: &str,
    direction: TcAttachType,
    program: &mut SchedClassifier,
) -> Result<u32, DatapathError> {
    let failed = attach_error(place.program, interface);
    let path = pins.link(&place.pin_name(interface));
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: CLSACT_PRIORITY,
        handle: CLSACT_HANDLE,
        classid: None,
    });
    let existing = our_filter(interface, direction).map_err(|source| failed(source.into()))?;
    let id = match program.attach_to_link(existing) {
        Ok(id) => id,
        Err(_) => program
            .attach_with_options(interface, direction, options)
            .map_err(&failed)?,
    };
    // The filter outlives the process; dropping the handle would detach it.
    std::mem::forget(program.take_link(id).map_err(&failed)?);
    remove_pin(&path)?;
    program
        .pin_at(&path)
        .map_err(|source| DatapathError::PinLink {
            path: path.clone(),
            source: Box::new(source),
        })?;
    Ok(program.id().map_err(failed)?.id())
}

fn our_filter(interface: &str, direction: TcAttachType) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None)
}

/// A link that can be pinned, or why there is none.
fn fd_link<L>(link: L) -> Result<FdLink, ProgramError>
where
    FdLink: TryFrom<L, Error = aya::programs::links::LinkError>,
{
    FdLink::try_from(link)
        .map_err(|error| ProgramError::IOError(io::Error::other(error.to_string())))
}

/// Removes the pins that `keep` does not name, and with them what they attach.
fn remove_others(pins: &Pins, keep: impl Fn(&str) -> bool) -> Result<(), DatapathError> {
    for name in pins.links()? {
        if keep(&name) {
            continue;
        }
        for (place, direction) in CLSACT {
            if let Some(interface) = name.strip_suffix(&format!(":{}", place.pin)) {
                let interface = interface.replace("%2E", ".").replace("%25", "%");
                // Gone with its interface, or by somebody else's hand: all the same.
                drop(our_filter(&interface, direction));
            }
        }
        remove_pin(&pins.link(&name))?;
    }
    Ok(())
}

/// Removes a pin, and detaches first if it is a link's: the next program may want its place right away.
fn remove_pin(path: &Path) -> Result<(), DatapathError> {
    if let Ok(object) = syscall::open_pin(path) {
        // Refused for what is no link (a program, see the module's head of `pins`) and for links whose interface is
        // gone; neither needs it.
        let _ = syscall::detach_link(object.as_fd());
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(DatapathError::Pin {
            action: "remove",
            path: path.to_path_buf(),
            source,
        }),
        _ => Ok(()),
    }
}

fn attach_error(program: &'static str, target: &str) -> impl Fn(ProgramError) -> DatapathError {
    let target = if target == NAMESPACE {
        "the network namespace"
    } else {
        target
    };
    move |source| DatapathError::Attach {
        program,
        target: target.to_owned(),
        source: Box::new(source),
    }
}

/// Index of an interface of the calling thread's network namespace.
fn index_of(name: &str) -> Result<u32, DatapathError> {
    let system = |errno: rustix::io::Errno| DatapathError::System {
        action: "asking for an interface",
        source: errno.into(),
    };
    let socket =
        rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(system)?;
    match netdevice::name_to_index(&socket, name) {
        Ok(index) => Ok(index),
        Err(rustix::io::Errno::NODEV) => {
            let known = super::neighbours::interfaces().unwrap_or_default();
            Err(DatapathError::NoInterface {
                name: name.to_owned(),
                known,
            })
        }
        Err(errno) => Err(system(errno)),
    }
}

/// Whether a driver of a real (or virtio) device stands behind the interface: veth, bridges and the like have no
/// device, and TC is the better hook there.
fn is_physical(name: &str) -> bool {
    Path::new("/sys/class/net")
        .join(name)
        .join("device")
        .exists()
}
