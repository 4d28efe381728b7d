//! Freeing what is over: closed flows early (the table would keep them until it is full), those that were silent for too long
//! ([`super::expire`]), and the indexes of removed services and backends once no flow refers to them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use aya::maps::{HashMap, MapData};
use evenkeel_ebpf::abi::{Flow, Tuple, flag, state};
use evenkeel_ebpf::table::Entry;
use serde::Serialize;

use super::expire::Silence;
use super::flows::{now, read};
use super::table::{FlowTable, Held};
use super::{Datapath, DatapathError, clock};

/// Scans that take no longer than this are done whenever they are asked for.
const CHEAP: Duration = Duration::from_millis(10);
/// Of longer ones, how many thousandths of a processor they may take. A full table of a million flows, both halves, is
/// gone through in some 15 ms where nothing closed.
const SHARE: u32 = 50;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SweepReport {
    /// False if nothing was closed or removed since the last sweep, or if the last one was long and not long ago:
    /// then the table was not read.
    pub scanned: bool,
    /// Flows in the table after the sweep (client -> service halves); 0 if it was not read.
    pub flows: u64,
    /// Closed flows removed, connections of the local proxy included.
    pub removed: u64,
    /// Flows closed because they were silent for too long; most of them are among the removed.
    pub expired: u64,
    /// Closed flows that are younger than `closed_hold`.
    pub held: u64,
    /// Indexes of removed services and backends that are free again.
    pub released: u64,
}

/// What the flows in the maps refer to.
#[derive(Default)]
struct References {
    backends: HashSet<u32>,
    services: HashSet<u32>,
    sources: HashSet<u16>,
}

impl Datapath {
    /// Removes flows that have been closed for `closed_hold`, their reply halves (which are the claims of the NAT
    /// ports) once they have been for `port_hold`, and frees what nothing refers to any more.
    /// Cheap when nothing closed: call it about once a second. Also sets the data path's clock.
    pub fn sweep(&mut self) -> Result<SweepReport, DatapathError> {
        let calibrated = clock::calibrate(&mut self.ebpf);
        let report = self.sweep_tables()?;
        // A clock that cannot be set is no reason to keep what is over.
        calibrated.map(|()| report)
    }

    fn sweep_tables(&mut self) -> Result<SweepReport, DatapathError> {
        if !self.sourceless.is_empty() {
            let tables = self.applied.clone();
            self.apply(&tables)?;
        }
        let turnover = self.turnover()?;
        let retired = self.retired();
        let due = self.expiry_is_due();
        let quiet = turnover == self.swept_turnover && !self.sweep_again && !retired && !due;
        let start = Instant::now();
        if quiet || self.next_scan.is_some_and(|next| start < next) {
            return Ok(SweepReport::default());
        }
        let before = |hold: Duration| {
            now().saturating_sub(u64::try_from(hold.as_nanos()).unwrap_or(u64::MAX))
        };
        let limit = before(self.options.closed_hold);
        let port_limit = before(self.options.port_hold.max(self.options.closed_hold));
        let mut report = SweepReport {
            scanned: true,
            ..SweepReport::default()
        };
        let silence = self.silence();
        if due {
            report.expired = self.expire(&silence)?;
        }
        // Of one that was moved the client's resets still go to its backend.
        let seed = self.settings.seed;
        let flows = sweep_table(&self.maps.flows, seed, |held| {
            let moved = || held.slot().value.flags & flag::MOVED != 0;
            held.state() & state::CLOSED != 0
                && held.last_seen() <= limit
                && (held.last_seen() <= port_limit || !moved())
        });
        let replies = sweep_table(&self.maps.replies, seed, |held| {
            let (bits, last_seen) = (held.state(), held.last_seen());
            if bits & state::CLOSED != 0 {
                return last_seen <= port_limit;
            }
            silence.is_long(bits, last_seen)
                && silence.ends(bits, last_seen, Some(held.slot().value.backend))
        });
        let upstreams = sweep_upstreams(&mut self.maps.upstreams, limit, &silence)?;
        report.flows = flows.kept;
        report.removed = flows.removed + upstreams.removed;
        report.held = flows.held + upstreams.held;
        self.sweep_again = flows.held + replies.held + upstreams.held > 0;
        self.swept_turnover = turnover;
        if retired {
            report.released = self.release_unreferred()?;
        }
        let took = start.elapsed();
        self.next_scan = (took > CHEAP).then(|| Instant::now() + took * (1000 / SHARE));
        Ok(report)
    }

    /// Removes the flows of a proxy that is no more: its sockets ended with its process, so they carry nothing, and as
    /// the process died without a word nothing else would close them.
    pub(super) fn forget_proxy(&mut self) -> Result<(), DatapathError> {
        self.maps.flows.remove_where(self.settings.seed, |held| {
            held.slot().value.flags & flag::LOCAL != 0
        });
        let mut ended = Vec::new();
        read(&self.maps.upstreams, "UPSTREAMS", |key, _: Flow| {
            ended.push(key);
        })?;
        for key in &ended {
            // Gone already is as good.
            let _ = self.maps.upstreams.remove(key);
        }
        Ok(())
    }

    fn retired(&self) -> bool {
        self.indexes.services.occupied().any(|(.., live)| !live)
            || self.indexes.backends.occupied().any(|(.., live)| !live)
    }

    /// Frees retired indexes and NAT sources that no flow refers to; gives the number of indexes freed.
    pub(super) fn release_unreferred(&mut self) -> Result<u64, DatapathError> {
        let used = self.references()?;
        let backends: Vec<u32> = self
            .indexes
            .backends
            .occupied()
            .filter(|(index, id, live)| {
                // While its successor (same backend, other forwarding) lives, its counters are part of that one's.
                let succeeded = || {
                    self.indexes
                        .backends
                        .occupied()
                        .any(|(other, other_id, live)| {
                            live && other != *index
                                && other_id.service == id.service
                                && other_id.address == id.address
                        })
                };
                !live && !used.backends.contains(index) && !succeeded()
            })
            .map(|(index, ..)| index)
            .collect();
        let freed: HashSet<u32> = backends.iter().copied().collect();
        let services: Vec<u32> = self
            .indexes
            .services
            .occupied()
            .filter(|(index, _, live)| {
                let mut backends = self.indexes.backends.occupied();
                !live
                    && !used.services.contains(index)
                    && backends
                        .all(|(backend, id, _)| id.service != *index || freed.contains(&backend))
            })
            .map(|(index, ..)| index)
            .collect();
        if !backends.is_empty() || !services.is_empty() {
            self.release(&backends, &services)?;
        }
        self.release_sources(&used.sources)?;
        Ok((backends.len() + services.len()) as u64)
    }

    fn release_sources(&mut self, used: &HashSet<u16>) -> Result<(), DatapathError> {
        let mut kept: HashSet<usize> = used.iter().map(|index| usize::from(*index)).collect();
        for (index, ..) in self.indexes.backends.occupied() {
            let backend = self
                .maps
                .backends
                .get(&index, 0)
                .map_err(DatapathError::map("BACKENDS"))?;
            let first = usize::from(backend.nat_first);
            kept.extend(first..first + usize::from(backend.nat_count));
        }
        let old = self.indexes.sources.clone();
        self.indexes.sources.reclaim(|index| kept.contains(&index));
        for (index, source) in self.indexes.sources.changes(&old) {
            self.maps
                .nat_sources
                .set(index, source, 0)
                .map_err(DatapathError::map("NAT_SOURCES"))?;
        }
        Ok(())
    }

    fn references(&self) -> Result<References, DatapathError> {
        let mut used = References::default();
        let mut note = |_: Tuple, flow: Flow| {
            used.services.insert(flow.service.into());
            if flow.flags & flag::LOCAL == 0 {
                used.backends.insert(flow.backend);
                used.sources.insert(flow.nat_source);
            }
        };
        self.maps.flows.read(&mut note);
        read(&self.maps.upstreams, "UPSTREAMS", note)?;
        self.maps.replies.read(|_, reply| {
            used.services.insert(reply.service);
            used.backends.insert(reply.backend);
            used.sources.insert(reply.nat_source);
        });
        Ok(used)
    }
}

/// Whether an entry with this state and time closed before `limit`.
fn ended(state: u8, last_seen: u64, limit: u64) -> bool {
    state & state::CLOSED != 0 && last_seen <= limit
}

#[derive(Default)]
struct Swept {
    kept: u64,
    held: u64,
    removed: u64,
}

impl Swept {
    fn keep(&mut self, state: u8) {
        self.kept += 1;
        self.held += u64::from(state & state::CLOSED != 0);
    }
}

/// Removes what is `over`.
fn sweep_table<V: aya::Pod + Entry>(
    table: &FlowTable<V>,
    seed: u64,
    over: impl Fn(&Held<'_, V>) -> bool,
) -> Swept {
    let mut swept = Swept::default();
    let removed = table.remove_where(seed, |held| {
        let over = over(held);
        if !over {
            swept.keep(held.state());
        }
        over
    });
    Swept { removed, ..swept }
}

fn sweep_upstreams(
    map: &mut HashMap<MapData, Tuple, Flow>,
    limit: u64,
    silence: &Silence,
) -> Result<Swept, DatapathError> {
    let mut swept = Swept::default();
    let is_silent = |flow: &Flow| flow.flags & flag::SILENT != 0;
    let over = |flow: &Flow| {
        // Of a check of a backend that is gone nothing else tells that it is over.
        let given_up = || is_silent(flow) && silence.is_long(flow.state, flow.last_seen);
        ended(flow.state, flow.last_seen, limit) || given_up()
    };
    let mut found = Vec::new();
    read(map, "UPSTREAMS", |key, flow: Flow| {
        if over(&flow) {
            found.push(key);
        } else if !is_silent(&flow) {
            // Checks come and go all the time, and are no reason to look again soon.
            swept.keep(flow.state);
        }
    })?;
    for key in found {
        // A new connection may have taken the entry over since it was read; look again right before removing it.
        if map.get(&key, 0).is_ok_and(|flow| over(&flow)) && map.remove(&key).is_ok() {
            swept.removed += 1;
        }
    }
    Ok(swept)
}
