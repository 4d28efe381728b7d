//! Programs to hooks and back.
//!
//! A pinned link of an earlier run keeps its place and gets the new program in one step (`BPF_LINK_UPDATE`), so a
//! packet runs the old program or the new one, never none. Links that no interface asks for any more are removed.
//! clsact filters, where the kernel has no tcx, are replaced by priority and handle, also in one step. The clsact qdisc
//! itself stays when they are removed: others may have come to use it.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aya::Ebpf;
use aya::programs::tc::{TcAttachOptions, qdisc_add_clsact};
use aya::programs::{LinkOrder, SchedClassifier, SkLookup, TcAttachType, TcError, Xdp};
use rustix::net::{AddressFamily, SocketType, netdevice};
use serde::{Deserialize, Serialize};

use super::load::loaded;
use super::pins::Pins;
use super::place::{
    CLSACT, NAMESPACE, STEER, TCX, XDP_GENERIC, XDP_NATIVE, attach_error, fd_link, place_filter,
    place_link, places, remove_others, remove_pin,
};
use super::syscall::LinkTarget;
use super::{DatapathError, HookChoice, InterfaceSpec, TcAttach, XdpMode};

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

/// Attaches to every interface asked for and to the network namespace, and detaches from all others.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    pins: &Pins,
    interfaces: &[InterfaceSpec],
    tc: TcAttach,
) -> Result<Vec<Attachment>, DatapathError> {
    let indexes = interfaces
        .iter()
        .map(|interface| ethernet(&interface.name))
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

/// What kind of packets the programs read: Ethernet, and the loopback's, which look alike.
const ETHERNET: [u16; 2] = [1, 772];

/// Index of an interface whose packets have an Ethernet header; an error for any other, whose packets the programs would
/// take for something else.
pub(super) fn ethernet(name: &str) -> Result<u32, DatapathError> {
    let index = index_of(name)?;
    let kind = super::neighbours::interface_kind(index);
    let kind = kind.map_err(|source| DatapathError::Netlink {
        action: "ask for an interface",
        source,
    })?;
    if ETHERNET.contains(&kind) {
        Ok(index)
    } else {
        Err(DatapathError::NotEthernet(name.to_owned()))
    }
}

/// Index of an interface of the calling thread's network namespace.
pub(super) fn index_of(name: &str) -> Result<u32, DatapathError> {
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
