//! One place of one program: a pinned link, or a clsact filter of ours.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use aya::programs::links::FdLink;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};

use super::DatapathError;
use super::attach::Attachment;
use super::load::Loadable;
use super::pins::Pins;
use super::syscall::{self, LinkInfo, LinkTarget};

/// Priority of our clsact filters. Arbitrary, but fixed: with the handle it is how a restart finds them.
pub(super) const CLSACT_PRIORITY: u16 = 0x6576;
/// Handle of our clsact filters.
pub(super) const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 1);

/// A hook of an interface and the way to it. The names are those of [`Attachment`] and of the pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) hook: &'static str,
    pub(super) mode: &'static str,
    pin: &'static str,
    pub(super) program: &'static str,
}

pub(super) const XDP_NATIVE: Place = Place {
    hook: "xdp",
    mode: "native",
    pin: "xdp-native",
    program: "ek_xdp",
};
pub(super) const XDP_GENERIC: Place = Place {
    hook: "xdp",
    mode: "generic",
    pin: "xdp-generic",
    program: "ek_xdp",
};
pub(super) const TCX: [(Place, TcAttachType); 2] = [
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
pub(super) const CLSACT: [(Place, TcAttachType); 2] = [
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
pub(super) const STEER: Place = Place {
    hook: "sk_lookup",
    mode: "netns",
    pin: "sk_lookup",
    program: "ek_steer",
};
/// What stands for the network namespace in the place of an interface.
pub(super) const NAMESPACE: &str = "-";

impl Place {
    pub(super) fn pin_name(self, interface: &str) -> String {
        let interface = interface.replace('%', "%25").replace('.', "%2E");
        format!("{interface}:{}", self.pin)
    }

    pub(super) fn attachment(self, interface: &str, program_id: u32) -> Attachment {
        Attachment {
            interface: interface.to_owned(),
            hook: self.hook.to_owned(),
            mode: self.mode.to_owned(),
            program: self.program.to_owned(),
            program_id,
        }
    }
}

/// Puts `program` into the pinned link, or makes and pins a link.
pub(super) fn place_link<P: Loadable>(
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
pub(super) fn place_filter(
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

pub(super) fn our_filter(
    interface: &str,
    direction: TcAttachType,
) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, direction, CLSACT_PRIORITY, CLSACT_HANDLE, None)
}

/// A link that can be pinned, or why there is none.
pub(super) fn fd_link<L>(link: L) -> Result<FdLink, ProgramError>
where
    FdLink: TryFrom<L, Error = aya::programs::links::LinkError>,
{
    FdLink::try_from(link)
        .map_err(|error| ProgramError::IOError(io::Error::other(error.to_string())))
}

/// Removes the pins that `keep` does not name, and with them what they attach.
pub(super) fn remove_others(pins: &Pins, keep: impl Fn(&str) -> bool) -> Result<(), DatapathError> {
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
pub(super) fn remove_pin(path: &Path) -> Result<(), DatapathError> {
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

pub(super) fn attach_error(
    program: &'static str,
    target: &str,
) -> impl Fn(ProgramError) -> DatapathError {
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

/// All that there are.
pub(super) fn places() -> impl Iterator<Item = Place> {
    [XDP_NATIVE, XDP_GENERIC, STEER]
        .into_iter()
        .chain(TCX.map(|(place, _)| place))
        .chain(CLSACT.map(|(place, _)| place))
}
