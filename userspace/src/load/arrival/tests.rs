//! How stamps become arrivals, and that a connection has them.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const fn micros(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

/// Wall clock at the reading, far from the beginning of time.
const WALL: Duration = Duration::from_secs(1_700_000_000);

#[test]
fn what_waited_to_be_read_arrived_before() {
    let previous = Instant::now();
    let now = previous + micros(10_000);
    let arrival = Arrival::of(WALL - micros(300), WALL, now, previous);
    assert_eq!(arrival.at, now - micros(300));
    assert_eq!(arrival.stamped, Some(now - micros(300)));
}

#[test]
fn an_old_stamp_is_told_and_not_believed() {
    let previous = Instant::now();
    let now = previous + micros(10_000);
    let arrival = Arrival::of(WALL - micros(7_000), WALL, now, previous);
    assert_eq!(arrival.at, now - BELIEVED);
    assert_eq!(arrival.stamped, Some(now - micros(7_000)));
}

#[test]
fn a_wall_clock_that_was_set_makes_nothing_arrive_later_than_now_or_before_what_came_before() {
    let previous = Instant::now();
    let now = previous + micros(400);
    let set_back = Arrival::of(WALL + Duration::from_secs(3600), WALL, now, previous);
    assert_eq!((set_back.at, set_back.stamped), (now, Some(now)));
    let set_forward = Arrival::of(WALL - Duration::from_secs(3600), WALL, now, previous);
    assert_eq!(
        (set_forward.at, set_forward.stamped),
        (previous, Some(previous))
    );
}

proptest! {
    #[test]
    fn whatever_the_clocks_say_it_arrived_between_the_one_before_and_now(
        stamp in 0_u64..u64::MAX, wall in 0_u64..u64::MAX, since_previous in 0_u64..10_000_000
    ) {
        let previous = Instant::now();
        let now = previous + micros(since_previous);
        let arrival = Arrival::of(Duration::from_nanos(stamp), Duration::from_nanos(wall), now, previous);
        prop_assert!((previous..=now).contains(&arrival.at));
        prop_assert!(arrival.stamped.is_some_and(|stamped| (previous..=arrival.at).contains(&stamped)));
        prop_assert!(now - arrival.at <= BELIEVED);
    }
}

fn local(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// The two ends of a connection, the first of which is `stamps`'.
async fn connection(stamps: &Stamps) -> (Stamped, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (near, _) = listener.accept().await.unwrap();
    (Stamped::new(near, stamps), far)
}

#[test]
fn bytes_that_wait_in_the_socket_arrived_before_they_were_read() {
    local(async {
        let stamps = Stamps::new(Clock::Kernel);
        let (mut near, mut far) = connection(&stamps).await;
        let latest = near.latest();
        let mut byte = [0];
        // The kernel begins to stamp some time after it was asked to.
        loop {
            far.write_all(b".").await.unwrap();
            near.read_exact(&mut byte).await.unwrap();
            if latest.get().stamped.is_some() {
                break;
            }
        }
        let before = Instant::now();
        far.write_all(b".").await.unwrap();
        // A packet on loopback is received before the call that sends it returns, or soon after.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let waited = Instant::now();
        near.read_exact(&mut byte).await.unwrap();
        let Arrival { at, stamped } = latest.get();
        let stamped = stamped.expect("the kernel stamps by now");
        assert!((before..=waited).contains(&stamped));
        assert!(stamped < at && at <= Instant::now());
        assert!(at >= waited - BELIEVED);
    });
}

#[test]
fn all_bytes_come_in_order_whatever_the_size_of_a_read() {
    local(async {
        let sent: Vec<u8> = (0..3 * MOST).map(|index| (index % 251) as u8).collect();
        for clock in [Clock::Kernel, Clock::Process] {
            for size in [1, 7, 4096, 2 * MOST] {
                let stamps = Stamps::new(clock);
                let (mut near, mut far) = connection(&stamps).await;
                let sending = sent.clone();
                let sender = tokio::spawn(async move {
                    far.write_all(&sending).await.unwrap();
                });
                let (mut received, mut piece) = (Vec::new(), vec![0; size]);
                loop {
                    match near.read(&mut piece).await.unwrap() {
                        0 => break,
                        length => received.extend_from_slice(&piece[..length]),
                    }
                }
                sender.await.unwrap();
                assert!(received == sent, "{clock:?} {size}");
            }
        }
    });
}

#[test]
fn without_the_kernel_everything_arrives_when_it_is_asked_for() {
    local(async {
        let (mut near, mut far) = connection(&Stamps::new(Clock::Process)).await;
        far.write_all(b".").await.unwrap();
        near.read_exact(&mut [0]).await.unwrap();
        let read = Instant::now();
        let arrival = near.latest().get();
        assert!(arrival.at >= read && arrival.stamped.is_none());
    });
}
