//! Who is asked: addresses, and names that have addresses.
//!
//! A name stands for all its addresses. It is resolved again when a connection could not be made or was lost, at most once
//! a second, and at an interval if asked for. Clients drop connections to addresses that are gone (requests in flight
//! finish) and make those to new ones. When a name has no answer, its old addresses stay, whatever other names say. Several
//! names are resolved side by side: one whose server takes its time holds up no other.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use http::uri::Authority;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::load::Malformed;

/// An address, or a name that has addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Address(SocketAddr),
    /// A name and a port.
    Name(String, u16),
}

/// The addresses that all clients of a run see.
#[derive(Debug)]
pub(super) struct Addresses {
    current: Mutex<Arc<[SocketAddr]>>,
    /// Counts the changes, so that looking whether there was one takes no lock.
    version: AtomicU64,
    wanted: Notify,
}

/// Names are not resolved more often than this.
const PAUSE: Duration = Duration::from_secs(1);
/// Names that are resolved at once: each takes a thread until the answer is there, and a name server is not to be flooded.
const AT_ONCE: usize = 16;
/// The port of a URL that names none.
const HTTP: u16 = 80;

// === impl Target ===

impl Target {
    /// Of an authority of a URL.
    #[must_use]
    pub fn of(authority: &Authority) -> Self {
        let port = authority.port_u16().unwrap_or(HTTP);
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        match bare.parse() {
            Ok(address) => Self::Address(SocketAddr::new(address, port)),
            Err(_) => Self::Name(bare.to_owned(), port),
        }
    }

    /// The addresses that it has now.
    pub(super) async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Address(address) => Ok(vec![*address]),
            Self::Name(name, port) => {
                let found = tokio::net::lookup_host((name.as_str(), *port)).await?;
                Ok(found.collect())
            }
        }
    }
}

impl FromStr for Target {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        const ALLOWED: Malformed = Malformed("HOST:PORT, with an address or a name as HOST");
        let authority: Authority = text.parse().map_err(|_| ALLOWED)?;
        let user = authority.as_str().contains('@');
        if authority.port_u16().is_none() || authority.host().is_empty() || user {
            return Err(ALLOWED);
        }
        Ok(Self::of(&authority))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// The addresses of each of `targets`.
pub async fn resolve(targets: &[Target]) -> io::Result<Vec<Vec<SocketAddr>>> {
    resolve_by(targets, Target::resolve).await
}

/// The same, each asked for by `resolve`. Of several that have none the first is told of.
async fn resolve_by(
    targets: &[Target],
    resolve: impl AsyncFn(&Target) -> io::Result<Vec<SocketAddr>>,
) -> io::Result<Vec<Vec<SocketAddr>>> {
    let resolve = &resolve;
    let each = targets.iter().map(|target| async move {
        resolve(target)
            .await
            .map_err(|error| io::Error::new(error.kind(), format!("resolve {target}: {error}")))
    });
    let found: Vec<_> = stream::iter(each).buffered(AT_ONCE).collect().await;
    found.into_iter().collect()
}

// === impl Addresses ===

impl Addresses {
    /// Each once, in the order in which they come.
    pub(super) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Self {
        Self {
            current: Mutex::new(distinct(addresses).into()),
            version: AtomicU64::new(0),
            wanted: Notify::new(),
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Relaxed)
    }

    pub(super) fn current(&self) -> Arc<[SocketAddr]> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current)
    }

    /// Asks for names to be resolved again.
    pub(super) fn look_again(&self) {
        self.wanted.notify_one();
    }

    /// Takes over what was found; another order is no change, and nothing found is none either.
    pub(super) fn found(&self, addresses: &[SocketAddr]) {
        let set = |addresses: &[SocketAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if !addresses.is_empty() && set(&current) != set(addresses) {
            *current = distinct(addresses.iter().copied()).into();
            self.version.fetch_add(1, Relaxed);
        }
    }

    /// Resolves `targets`, whose addresses were the `known` ones so far, by `resolve`, when asked to and every `every`, for
    /// ever.
    pub(super) async fn keep(
        &self,
        targets: &[Target],
        known: Vec<Vec<SocketAddr>>,
        every: Option<Duration>,
        resolve: impl AsyncFn(&Target) -> io::Result<Vec<SocketAddr>>,
    ) {
        if targets
            .iter()
            .all(|target| matches!(target, Target::Address(_)))
        {
            return std::future::pending().await;
        }
        let known: Vec<_> = known.into_iter().map(RefCell::new).collect();
        // Taken over as soon as it is there, not when all are.
        let look_up =
            async |target: &Target, own: &RefCell<Vec<SocketAddr>>| match resolve(target).await {
                Ok(found) if !found.is_empty() => {
                    own.replace(found);
                    let all = known.iter().map(|each| each.borrow().clone());
                    self.found(&all.collect::<Vec<_>>().concat());
                }
                Ok(_) => tracing::warn!(%target, "has no address, keeping those known so far"),
                Err(error) => {
                    tracing::warn!(%target, %error, "keeping the addresses known so far");
                }
            };
        let look_up = &look_up;
        loop {
            let last = Instant::now();
            let again = async {
                match every {
                    Some(every) => tokio::time::sleep(every).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wanted.notified() => {}
                () = again => {}
            }
            tokio::time::sleep_until(last + PAUSE).await;
            let each = targets.iter().zip(&known);
            let each = each.map(|(target, own)| async move { look_up(target, own).await });
            stream::iter(each).buffered(AT_ONCE).collect::<()>().await;
        }
    }
}

fn distinct(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut distinct = Vec::new();
    for address in addresses {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    distinct
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 80))
    }

    #[test]
    fn targets_are_addresses_or_names_with_a_port() {
        let read = |text: &str| text.parse::<Target>();
        assert_eq!(read("10.0.0.1:80"), Ok(Target::Address(address(1))));
        assert_eq!(
            read("[::1]:80"),
            Ok(Target::Address("[::1]:80".parse().unwrap()))
        );
        assert_eq!(
            read("backends.test:8080"),
            Ok(Target::Name("backends.test".to_owned(), 8080))
        );
        for text in [
            "",
            "10.0.0.1",
            "name",
            ":80",
            "a b:80",
            "me@name:80",
            "name:99999",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_stands_for_all_its_addresses_each_once() {
        let targets = [
            Target::Address(SocketAddr::from(([127, 0, 0, 1], 80))),
            Target::Name("localhost".to_owned(), 80),
        ];
        let found = Addresses::new(resolve(&targets).await.unwrap().concat()).current();
        let distinct: BTreeSet<_> = found.iter().collect();
        assert_eq!(found.len(), distinct.len(), "{found:?}");
        assert_eq!(found[0], SocketAddr::from(([127, 0, 0, 1], 80)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_an_answer_keeps_its_addresses_and_holds_up_no_other() {
        let names = ["gone.test", "moves.test"].map(|name| Target::Name(name.to_owned(), 80));
        let resolve = async |target: &Target| match target {
            Target::Name(name, _) if name == "moves.test" => Ok(vec![address(3)]),
            _ => Err(io::Error::other("no such name")),
        };
        let known = vec![vec![address(1)], vec![address(2)]];
        let addresses = Addresses::new(known.concat());
        let keep = addresses.keep(&names, known, Some(Duration::from_secs(5)), resolve);
        let over = tokio::time::timeout(Duration::from_secs(6), keep).await;
        assert!(over.is_err(), "it goes on for ever");
        assert_eq!(*addresses.current(), [address(1), address(3)]);
    }

    fn names(count: usize) -> Vec<Target> {
        let name = |number| Target::Name(format!("{number}.test"), 80);
        (0..count).map(name).collect()
    }

    #[tokio::test]
    async fn names_are_resolved_side_by_side_and_come_in_their_order() {
        // Those before the last one have no answer until that has.
        let names = names(AT_ONCE);
        let last = Notify::new();
        let resolve = async |target: &Target| {
            if *target == names[AT_ONCE - 1] {
                last.notify_waiters();
            } else {
                last.notified().await;
            }
            let Target::Name(name, _) = target else {
                return Ok(Vec::new());
            };
            let number = name.trim_end_matches(".test").parse();
            Ok(vec![address(number.map_err(io::Error::other)?)])
        };
        let found = resolve_by(&names, resolve).await.unwrap();
        let expected: Vec<_> = (0..16).map(address).collect();
        assert_eq!(found.concat(), expected);
    }

    #[tokio::test]
    async fn of_several_names_without_an_address_the_first_is_told_of() {
        let resolve = async |target: &Target| match target {
            Target::Name(name, _) if name == "0.test" => Ok(vec![address(1)]),
            _ => Err(io::Error::other("no such name")),
        };
        let error = resolve_by(&names(3), resolve).await.unwrap_err();
        assert_eq!(error.to_string(), "resolve 1.test:80: no such name");
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_whose_server_is_silent_holds_up_no_other() {
        let names = names(2);
        let resolve = async |target: &Target| match target {
            Target::Name(name, _) if name == "1.test" => Ok(vec![address(3)]),
            _ => std::future::pending().await,
        };
        let known = vec![vec![address(1)], vec![address(2)]];
        let addresses = Addresses::new(known.concat());
        let keep = addresses.keep(&names, known, Some(Duration::from_secs(5)), resolve);
        let over = tokio::time::timeout(Duration::from_secs(60), keep).await;
        assert!(over.is_err(), "it goes on for ever");
        assert_eq!(*addresses.current(), [address(1), address(3)]);
    }

    #[test]
    fn another_order_or_no_answer_changes_nothing() {
        let addresses = Addresses::new([address(1), address(2)]);
        addresses.found(&[address(2), address(1)]);
        addresses.found(&[]);
        assert_eq!(addresses.version(), 0);
        addresses.found(&[address(2), address(3)]);
        assert_eq!(addresses.version(), 1);
        assert_eq!(*addresses.current(), [address(2), address(3)]);
    }
}
