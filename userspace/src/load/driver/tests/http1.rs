//! HTTP/1.1 against addresses that do not answer.

use super::*;

const KEEP_ALIVE: Kind = Kind::Http1 { keep_alive: true };
const ONE_EACH: Kind = Kind::Http1 { keep_alive: false };

fn open_loop_of(kind: Kind, schedule: &str, balance: Balance) -> Plan {
    let mut plan = open_loop(schedule);
    plan.kind = kind;
    plan.balance = balance;
    plan
}

#[test]
fn no_request_waits_for_an_address_that_does_not_answer_while_another_does() {
    // As over HTTP/2: one that closes is tried at the start and after each second of rest.
    for (fault, dials) in [(Fault::Silent, 1), (Fault::Closes, 3)] {
        for balance in [Balance::RoundRobin, Balance::P2c, Balance::Pool(2)] {
            let plan = open_loop_of(KEEP_ALIVE, "const:100", balance);
            // The members of a pool try all addresses, and take a closed connection for a made one.
            if matches!((fault, balance), (Fault::Closes, Balance::Pool(_))) {
                continue;
            }
            let (report, dialled) = run_with_broken(&plan, fault, Duration::MAX);
            let living = (addresses()[1].to_string(), 300);
            assert_eq!(report.per_backend, [living].into(), "{balance}");
            assert_eq!((report.failed, report.retried), (0, 0), "{balance}");
            assert!(about(report.latency.max, 0), "{balance}");
            assert_eq!(dialled, dials, "{balance}");
        }
    }
}

#[test]
fn a_connection_for_one_request_that_is_not_made_gets_another_at_its_side() {
    for (fault, wait, dials) in [(Fault::Silent, 250, 1), (Fault::Closes, 0, 3)] {
        let plan = open_loop_of(ONE_EACH, "const:100", Balance::RoundRobin);
        let (report, dialled) = run_with_broken(&plan, fault, Duration::MAX);
        let living = (addresses()[1].to_string(), 300);
        assert_eq!(report.per_backend, [living].into());
        assert_eq!((report.failed, report.retried), (0, 0));
        assert!(about(report.latency.max, wait), "{:?}", report.latency);
        assert_eq!(dialled, dials);
    }
}

#[test]
fn an_address_that_comes_to_itself_gets_its_turns_again() {
    // Given up at 2 s, left alone until 3 s, then there: half of the last second's hundred.
    for kind in [KEEP_ALIVE, ONE_EACH] {
        let plan = open_loop_of(kind, "step:100@4s", Balance::RoundRobin);
        let (report, _) = run_with_broken(&plan, Fault::Silent, Duration::from_millis(2500));
        let [late, living] = addresses().map(|address| report.per_backend[&address.to_string()]);
        assert!((49..=50).contains(&late), "{kind:?}: {late}");
        assert_eq!((late + living, report.failed), (400, 0), "{kind:?}");
    }
}

#[test]
fn each_connection_for_one_request_goes_to_the_next_address() {
    let plan = open_loop_of(ONE_EACH, "const:100", Balance::RoundRobin);
    let never = Duration::ZERO;
    let (report, dialled) = run_with_broken(&plan, Fault::Silent, never);
    let each = addresses().map(|address| (address.to_string(), 150));
    assert_eq!(report.per_backend, each.into());
    assert_eq!((report.connections, dialled), (300, 150));
}

#[test]
fn pick_first_tries_its_addresses_one_after_the_other() {
    for kind in [KEEP_ALIVE, ONE_EACH] {
        let plan = open_loop_of(kind, "const:1", Balance::PickFirst);
        let (report, _) = run_with_broken(&plan, Fault::Silent, Duration::MAX);
        let second = (addresses()[1].to_string(), 3);
        assert_eq!(report.per_backend, [second].into(), "{kind:?}");
        assert_eq!(report.failed, 0, "{kind:?}");
    }
}

#[test]
fn a_client_that_reaches_nobody_says_so() {
    for kind in [KEEP_ALIVE, ONE_EACH] {
        for fault in [Fault::Silent, Fault::Closes] {
            let mut plan = open_loop_of(kind, "const:1", Balance::PickFirst);
            plan.addresses = vec![vec![addresses()[0]]];
            let (report, _) = run_against(&plan, |backends| {
                backends.broken = Some((addresses()[0], fault, Duration::MAX));
            });
            let causes = &report.causes;
            assert_eq!(
                report.failures,
                [(crate::load::driver::Failure::Connect, 3)].into(),
                "{kind:?}: {causes:?}"
            );
        }
    }
}
