//! Closed loops of both clients against the same servers, in turns.

use super::super::super::{
    Context,
    result::{Claim, Measured},
};
use super::super::{
    contest::{Contestant, rounds},
    h2load::Load,
};
use super::{Client, ECHO, FINITE, NGHTTPD};

/// How far throughput may be off, as a share.
const GOAL_RATE: f64 = 0.05;
/// Rounds of a race in a full run. The host has fast and slow quarters of a second: of 100 ratios to h2load the middle half went from 0.95
/// to 1.12, and their median is found by many short rounds rather than by few long ones: with 41 rounds of 80,000 requests the interval
/// of 10 x 10 was 0.82 to 1.62 on a busy host.
const ROUNDS: usize = 81;
/// The same with one connection, where client and server wait for each other and are woken late by turns: of 1 x 100 the interval of the
/// median was 0.93 to 1.23 after 20 rounds of a second, 0.94 to 1.04 after 80 of a quarter of one, which take as long.
const MANY: usize = 121;
/// In a quick run one in so many rounds.
const QUICK: usize = 16;

/// A closed load against one server.
pub(super) struct Race {
    pub(super) label: &'static str,
    pub(super) url: String,
    pub(super) load: Load,
    pub(super) rounds: usize,
    pub(super) clients: [Contestant<Client>; 2],
}

/// A closed loop on a thread that may sleep.
const EVENKEEL: Client = Client::Evenkeel {
    spin: false,
    rate: None,
};

/// All of them.
pub(super) fn races(context: &Context) -> Vec<Race> {
    let nghttpd = format!("http://127.0.0.1:{NGHTTPD}/index.html");
    let few = rounds(context);
    let race = |label, url: &String, shape, requests: u32, most: usize| Race {
        label,
        url: url.clone(),
        load: Load::new(shape, context.choose(requests, requests / 2)),
        rounds: context.choose(most, few.max(most / QUICK)),
        clients: [
            Contestant::new("evenkeel load", Ok(EVENKEEL)),
            Contestant::new("h2load", Ok(Client::H2load)),
        ],
    };
    // A path that both write as one byte (RFC 7541 appendix A): any other one h2load spells out in each request, and evenkeel load
    // does not, which the server pays for; with `/evenkeel/bytes/5` it made 1.08 x as many requests against the echo backend, with this path 1.03.
    let [echo, finite] = [ECHO, FINITE].map(|port| format!("http://127.0.0.1:{port}/"));
    // A tenth of a second or more, of which connecting is a small part.
    vec![
        race(
            "nghttpd, 1 connection x 1 stream",
            &nghttpd,
            (1, 1),
            1_000,
            MANY,
        ),
        race("nghttpd, 1 x 100", &nghttpd, (1, 100), 30_000, MANY),
        race("nghttpd, 10 x 10", &nghttpd, (10, 10), 40_000, ROUNDS),
        // Making 100 connections takes 3 ms longer than h2load takes: a hundredth of so many requests, and a quarter of 1,000.
        race("nghttpd, 100 x 10", &nghttpd, (100, 10), 80_000, ROUNDS),
        race("evenkeel echo, 10 x 10", &echo, (10, 10), 40_000, ROUNDS),
        race(
            "echo of 8,000 requests/s, 10 x 10",
            &finite,
            (10, 10),
            4_000,
            // The server's capacity is the figure, and both find it within a hundredth.
            few,
        ),
    ]
}

// === impl Race ===

impl Race {
    pub(super) fn claim(&self) -> Claim {
        let text = format!(
            "{}: throughput within {:.0} % of h2load's",
            self.label,
            GOAL_RATE * 100.0
        );
        let [ours, theirs] = &self.clients;
        match Measured::of(&ours.ratios(theirs, 0)) {
            Some(ratio) => Claim::new(
                text,
                format!(
                    "{:.3} x ({:.3} to {:.3})",
                    ratio.median, ratio.low, ratio.high
                ),
                (ratio.median - 1.0).abs() <= GOAL_RATE,
            ),
            None => Claim::new(text, "not measured: one of the two is missing", false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::contestant;
    use super::*;

    #[test]
    fn throughput_agrees_when_it_is_neither_much_less_nor_much_more() {
        for (ours, agrees) in [(95.1, true), (94.9, false), (104.9, true), (105.1, false)] {
            let race = Race {
                label: "server",
                url: String::new(),
                load: Load::new((1, 1), 1),
                rounds: 3,
                clients: [
                    contestant("evenkeel load", &[ours; 3]),
                    contestant("h2load", &[100.0; 3]),
                ],
            };
            assert_eq!(race.claim().holds, agrees, "{ours}");
        }
    }
}
