//! Interfaces come and go while the data path is attached, and what they can do changes.
//!
//! * One that was made anew under its name (a driver that was loaded again, a bridge that was made again) is attached to
//!   again.
//! * XDP sends by an interface only if that takes its frames: what is sent to any other vanishes, and no counter moves. From
//!   6.3 on the kernel says which do. Before, those where our own program is in the driver are taken to; that leaves out
//!   some that do, whose packets TC forwards (`pass_not_by_xdp`).

use std::collections::HashSet;

use evenkeel_ebpf::abi::MAX_XDP_PORTS;

use super::attach::{self, index_of};
use super::place::XDP_NATIVE;
use super::{Datapath, DatapathError, neighbours, xdp_features};

impl Datapath {
    /// Attaches to interfaces that were made anew, and finds out where XDP may send. Call it every few seconds.
    ///
    /// # Errors
    /// Where an interface is gone: it is attached to once it is back.
    pub fn tend_interfaces(&mut self) -> Result<(), DatapathError> {
        let attached = self.attach_again();
        self.find_ports()?;
        attached
    }

    fn attach_again(&mut self) -> Result<(), DatapathError> {
        let indexes = self.interface_indexes();
        if indexes != self.attached_to {
            let present: Vec<_> = self
                .options
                .interfaces
                .iter()
                .zip(&indexes)
                .filter(|(_, index)| index.is_some())
                .map(|(interface, _)| interface.clone())
                .collect();
            let tc = self.options.tc_attach;
            self.attachments = attach::attach_all(&mut self.ebpf, &self.pins, &present, tc)?;
            self.attached_to = indexes;
            tracing::info!("interfaces changed: attached again");
        }
        let interfaces = self.options.interfaces.iter();
        let mut gone = interfaces
            .zip(&self.attached_to)
            .filter(|(_, at)| at.is_none());
        match gone.next() {
            // Says which ones there are.
            Some((interface, _)) => index_of(&interface.name).map(drop),
            None => Ok(()),
        }
    }

    /// The index of each interface of the options; none where it does not exist.
    pub(super) fn interface_indexes(&self) -> Vec<Option<u32>> {
        let interfaces = self.options.interfaces.iter();
        interfaces.map(|it| index_of(&it.name).ok()).collect()
    }

    /// Fills `XDP_PORTS`.
    pub(super) fn find_ports(&mut self) -> Result<(), DatapathError> {
        let natively = |name: &str| {
            self.attachments.iter().any(|it| {
                it.interface == name && it.hook == XDP_NATIVE.hook && it.mode == XDP_NATIVE.mode
            })
        };
        if !self.attachments.iter().any(|it| it.hook == XDP_NATIVE.hook) {
            return Ok(());
        }
        let failed = |source| DatapathError::Netlink {
            action: "ask for interfaces",
            source,
        };
        let mut taking = HashSet::new();
        for name in neighbours::interfaces().map_err(failed)? {
            // One that is gone by now takes nothing.
            let Ok(index) = index_of(&name) else {
                continue;
            };
            let takes = match xdp_features::of_interface(index) {
                Ok(Some(features)) => features.takes_frames(),
                Ok(None) | Err(_) => natively(&name),
            };
            if takes {
                taking.insert(index);
            }
        }
        let wrong = || DatapathError::map("XDP_PORTS");
        let known: HashSet<u32> = self.maps.xdp_ports.keys().filter_map(Result::ok).collect();
        for index in known.difference(&taking) {
            // Gone already is as good.
            let _ = self.maps.xdp_ports.remove(index);
        }
        // What has no room TC forwards (`pass_not_by_xdp`).
        let room = (MAX_XDP_PORTS as usize).saturating_sub(taking.intersection(&known).count());
        for index in taking.difference(&known).take(room) {
            self.maps.xdp_ports.insert(index, 1, 0).map_err(wrong())?;
        }
        Ok(())
    }
}
