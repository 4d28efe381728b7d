//! Clients of several connections, addresses and threads.

use super::*;

#[test]
fn each_policy_spreads_requests_as_it_says() {
    local(async {
        let (one, two) = (
            Backend::start("one", Duration::ZERO).await,
            Backend::start("two", Duration::ZERO).await,
        );
        for (balance, least, connections) in [
            (Balance::PickFirst, 0, 4),
            // Nobody waits for the second connection once the first is made, so that one may get a little more.
            (Balance::RoundRobin, 400, 8),
            (Balance::Pool(3), 250, 12),
            (Balance::P2c, 400, 8),
        ] {
            let mut plan = plan(one.address, Kind::Http2, &[1; 4], Budget::Requests(1000));
            plan.addresses.push(vec![two.address]);
            plan.targets.push(Target::Address(two.address));
            plan.balance = balance;
            let report = run(&plan).await;
            assert_eq!(
                (report.ok, report.connections),
                (1000, connections),
                "{balance}"
            );
            let fewer =
                ["one", "two"].map(|name| report.per_backend.get(name).copied().unwrap_or(0));
            assert!(
                fewer.into_iter().min() >= Some(least),
                "{balance}: {fewer:?}"
            );
            let listed: u64 = report.per_connection.iter().map(|each| each.ok).sum();
            assert_eq!(
                listed, 1000,
                "{balance}: every answer came over a connection"
            );
        }
    });
}

#[test]
fn requests_go_where_a_backend_answers() {
    local(async {
        let unused = nobody();
        let unused_address = unused.local_addr().unwrap();
        for kind in [Kind::Http2, Kind::Http1 { keep_alive: true }] {
            for balance in [
                Balance::PickFirst,
                Balance::RoundRobin,
                Balance::Pool(2),
                Balance::P2c,
            ] {
                let backend = Backend::start("b", Duration::ZERO).await;
                let mut plan = plan(unused_address, kind, &[1; 2], Budget::Requests(100));
                plan.addresses.push(vec![backend.address]);
                plan.targets.push(Target::Address(backend.address));
                plan.balance = balance;
                let report = run(&plan).await;
                assert_eq!(
                    (report.ok, report.failed),
                    (100, 0),
                    "{balance}: {:?}",
                    report.causes
                );
            }
        }
    });
}

#[test]
fn a_name_stands_for_a_backend_at_any_of_its_addresses() {
    local(async {
        // `localhost` may have an IPv6 address first, where nobody listens.
        let backend = Backend::start("b", Duration::ZERO).await;
        let name = Target::Name("localhost".to_owned(), backend.address.port());
        let mut plan = plan(backend.address, Kind::Http2, &[1], Budget::Requests(10));
        plan.addresses = driver::resolve(std::slice::from_ref(&name)).await.unwrap();
        plan.targets = vec![name];
        assert_eq!(run(&plan).await.ok, 10);
    });
}

#[test]
fn threads_share_the_clients_and_their_counts_add_up() {
    local(async {
        let backend = Backend::start("b", Duration::ZERO).await;
        for schedule in [None, Some(Schedule::Poisson(5000.0))] {
            let mut plan = plan(
                backend.address,
                Kind::Http2,
                &[5, 1, 1],
                Budget::Requests(700),
            );
            plan.threads = 2;
            plan.schedule = schedule;
            let report = run(&plan).await;
            assert_eq!((report.ok, report.failed), (700, 0), "{:?}", report.causes);
            assert_eq!((report.connections, report.per_backend["b"]), (3, 700));
            let mut clients: Vec<usize> = report
                .per_connection
                .iter()
                .map(|each| each.client)
                .collect();
            clients.sort_unstable();
            assert_eq!(clients, [0, 1, 2]);
        }
        assert_eq!(backend.stop().await.requests, 1400);
    });
}
