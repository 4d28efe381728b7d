//! What a packet of one of a million flows takes, and one of a thousand: bare acknowledgements, in turns.
//!
//! The thousand have a table of their own, so that both can take turns: a ratio of what is measured seconds apart is one of
//! moods of a shared host, too. As many packets as a turn has are sent before it and not counted, as a turn
//! would begin with what the one before left in the caches: of a thousand flows nothing, behind a turn of a million.

use super::sweep::{Payload, World};
use super::{DatapathError, Kind, Measured, Plan, Program, katran};

/// Most packets of a turn.
const TURN: u32 = 5_000;
const FEW: u32 = 1_000;
pub(super) const MANY: u32 = 1_000_000;

/// All that is measured on a thousand flows, and on the million that `many` has.
pub(super) fn compare(plan: &Plan, many: &mut World) -> Result<Vec<Measured>, DatapathError> {
    let mut few = World::new(plan, super::SIZE)?.beside_katran()?;
    few.grow(FEW)?;
    few.go_round(Payload::Request)?;
    let (mut of_few, mut of_many) = (of_few(), of_many());
    if plan.katran.is_some() {
        of_few.push(katran::flows("katran_flows_1k", FEW));
        of_many.push(katran::flows("katran_flows_1m", MANY));
    }
    let turn = plan.packets.clamp(1, TURN);
    for _ in 0..plan.rounds * (plan.packets / turn) as usize {
        for (world, cases) in [(&mut few, &mut of_few), (&mut *many, &mut of_many)] {
            for case in cases {
                world.bench.some(turn, case.program, case.kind)?;
                let mean = world.bench.some(turn, case.program, case.kind)?;
                case.times.push(mean);
            }
        }
    }
    of_few.extend(of_many);
    Ok(of_few)
}

/// The `which`-th of the flows that are busy: one of every `each` in the table, anywhere among these (Fibonacci hashing: Knuth, The
/// Art of Computer Programming, volume 3, section 6.4). Slots at equal distances would share a few sets of each cache, as
/// the busy flows of no host do.
pub(super) const fn spread(which: u32, each: u32) -> u32 {
    which * each + (which.wrapping_mul(0x9e37_79b1) >> 8) % each
}

fn of_few() -> Vec<Measured> {
    vec![
        Measured::new(
            "flows_1k",
            "ACK of one of 1,000 flows at random",
            Program::Path,
            Kind::Flows(FEW),
        ),
        Measured::new(
            "flows_1k_floor",
            "the same, only looked up",
            Program::Floor,
            Kind::Flows(FEW),
        ),
    ]
}

fn of_many() -> Vec<Measured> {
    vec![
        Measured::new(
            "flows_1m",
            "ACK of one of 1,000,000 flows at random",
            Program::Path,
            Kind::Flows(MANY),
        ),
        Measured::new(
            "flows_1m_floor",
            "the same, only looked up",
            Program::Floor,
            Kind::Flows(MANY),
        ),
        Measured::new(
            "flows_1k_of_1m",
            "ACK of one of 1,000 flows at random, with 1,000,000 in the table",
            Program::Path,
            Kind::FlowsOf(FEW, MANY),
        ),
    ]
}
