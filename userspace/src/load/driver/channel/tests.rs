use std::net::SocketAddr;

use super::*;
use crate::load::driver::target::Target;
use crate::load::random::{Purpose, generator};

fn address(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 80))
}

fn channel(balance: Balance, addresses: &Arc<Addresses>) -> Channel<()> {
    Channel::new(
        balance,
        Arc::clone(addresses),
        generator(1, Purpose::Balance, 0),
    )
}

fn made(channel: &Channel<()>) {
    let places = channel.places.borrow().clone();
    for place in places {
        channel.dialled(&place, Ok(()));
    }
}

fn failure() -> Failed {
    Failed::new(Failure::Connect, "refused")
}

/// Where requests go, of which `count` follow each other.
fn picks(channel: &Channel<()>, count: usize) -> Vec<SocketAddr> {
    let pick = |_| {
        channel
            .pick_ready()
            .expect("a connection")
            .place
            .addresses()[0]
    };
    (0..count).map(pick).collect()
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_failed_is_left_alone_for_a_second() {
    let addresses = Arc::new(Addresses::new([address(1), address(2), address(3)]));
    let channel = channel(Balance::RoundRobin, &addresses);
    made(&channel);
    let failed = channel.pick_ready().unwrap();
    channel.failed(&failed.place, failure());
    let gone = failed.place.addresses()[0];
    assert!(!picks(&channel, 30).contains(&gone));
    assert!(channel.to_make(false).is_empty() && channel.next_to_make().is_none());
    tokio::time::advance(Duration::from_millis(1001)).await;
    assert_eq!(channel.next_to_make().unwrap().addresses(), [gone]);
    assert!(channel.to_make(true).is_empty(), "it is being made");
}

#[tokio::test(start_paused = true)]
async fn when_all_connections_failed_any_is_tried_by_who_has_none() {
    let addresses = Arc::new(Addresses::new([address(1), address(2)]));
    let channel = channel(Balance::P2c, &addresses);
    assert_eq!(channel.unreachable().cause, "no address");
    let places = channel.places.borrow().clone();
    for place in &places {
        channel.dialled(place, Err(failure()));
    }
    assert_eq!(channel.unreachable(), failure());
    assert!(channel.pick_ready().is_none() && channel.pick_made().is_none());
    assert!(channel.next_to_make().is_none());
    assert!(channel.to_make(false).is_empty());
    assert_eq!(channel.to_make(true).len(), 2);
    assert!(channel.is_making());
}

#[tokio::test]
async fn connections_for_one_request_each_are_made_in_turn() {
    let addresses = Arc::new(Addresses::new([address(1), address(2), address(3)]));
    let channel = channel(Balance::RoundRobin, &addresses);
    let mut turns = Vec::new();
    for _ in 0..6 {
        let place = channel.next_to_make().unwrap();
        channel.dialled(&place, Ok(()));
        let picked = channel.pick_made().unwrap();
        assert!(Rc::ptr_eq(&picked.place, &place));
        channel.retire(&place);
        turns.push(place.addresses()[0]);
    }
    let distinct: std::collections::BTreeSet<_> = turns[..3].iter().collect();
    assert_eq!((distinct.len(), &turns[..3]), (3, &turns[3..]));
}

#[tokio::test(start_paused = true)]
async fn names_are_resolved_again_when_a_connection_fails_or_is_lost() {
    let addresses = Arc::new(Addresses::new([address(1)]));
    let channel = channel(Balance::RoundRobin, &addresses);
    let names = [Target::Name("backends.test".to_owned(), 80)];
    let next = Cell::new(1);
    let resolve = async |_: &Target| {
        next.set(next.get() + 1);
        Ok(vec![address(next.get())])
    };
    let keep = addresses.keep(&names, vec![vec![address(1)]], None, resolve);
    let asking = async {
        made(&channel);
        let picked = channel.pick_ready().unwrap();
        let place = &picked.place;
        let long = Duration::from_secs(10);
        tokio::time::sleep(long).await;
        assert_eq!(*addresses.current(), [address(1)], "nobody asked");
        channel.failed(place, failure());
        tokio::time::sleep(long).await;
        assert_eq!(*addresses.current(), [address(2)]);
        channel.lost(place);
        tokio::time::sleep(long).await;
        assert_eq!(*addresses.current(), [address(3)]);
        channel.retire(place);
        tokio::time::sleep(long).await;
        assert_eq!(*addresses.current(), [address(3)], "it was planned");
    };
    tokio::select! {
        () = keep => {}
        () = asking => {}
    }
}

#[tokio::test]
async fn p2c_goes_where_fewer_streams_are_in_flight() {
    let addresses = Arc::new(Addresses::new([address(1), address(2)]));
    let channel = channel(Balance::P2c, &addresses);
    made(&channel);
    let held: Vec<_> = (0..100).filter_map(|_| channel.pick_ready()).collect();
    let at_first = held
        .iter()
        .filter(|held| held.place.addresses()[0] == address(1))
        .count();
    assert_eq!(at_first, 50);
    drop(held);
    let places = channel.places.borrow();
    assert!(places.iter().all(|place| place.in_flight.get() == 0));
}

#[tokio::test]
async fn new_addresses_are_taken_in_and_connections_to_old_ones_kept() {
    let addresses = Arc::new(Addresses::new([address(1), address(2)]));
    for balance in [Balance::RoundRobin, Balance::Pool(2), Balance::PickFirst] {
        addresses.found(&[address(1), address(2)]);
        let channel = channel(balance, &addresses);
        let place_of = |host| {
            let places = channel.places.borrow();
            let found = places.iter().find(|place| place.may_use(address(host)));
            found.map(Rc::clone)
        };
        let kept = place_of(2).unwrap();
        addresses.found(&[address(3), address(2)]);
        channel.keep_up();
        made(&channel);
        let reached = picks(&channel, 4);
        assert!(!reached.contains(&address(1)), "{balance}");
        assert!(place_of(3).is_some() && place_of(1).is_none(), "{balance}");
        let places = channel.places.borrow();
        assert!(
            places.iter().any(|place| Rc::ptr_eq(place, &kept)),
            "{balance}"
        );
    }
}
