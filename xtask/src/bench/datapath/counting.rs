//! What counting streams adds to a packet: claimed of one flow, and of whichever size of whatever table it is that it adds
//! most at. A claim of a size that was chosen beforehand would leave the worst one unsaid.

use super::{
    super::result::{Claim, Measured},
    FLOWS, Report, Size, Sweep, UPLOAD, at_most,
};
use crate::term::thousands;

/// Most nanoseconds that counting may add to a packet with payload.
const GOAL: f64 = 30.0;

/// The claims, sweep by sweep.
pub(super) fn claims(report: &Report) -> Vec<Claim> {
    let claims = report.sweeps.iter().flat_map(|sweep| {
        let of_flows = sweep.name == FLOWS || sweep.name == UPLOAD;
        let one = sweep.points.first().filter(|_| of_flows);
        let one = one.map(|point| claim(sweep, point, ""));
        let worst = (sweep.points.len() > 1).then(|| worst(sweep)).flatten();
        let worst = worst.map(|point| claim(sweep, point, ", where it adds most"));
        one.into_iter().chain(worst)
    });
    claims.collect()
}

/// The size with the highest median.
fn worst(sweep: &Sweep) -> Option<&Size> {
    let median = |point: &&Size| Measured::of(&point.counting()).map_or(f64::NAN, |it| it.median);
    sweep
        .points
        .iter()
        .max_by(|a, b| median(a).total_cmp(&median(b)))
}

fn claim(sweep: &Sweep, point: &Size, why: &str) -> Claim {
    let (packet, unit) = match sweep.name.as_str() {
        UPLOAD => ("a segment of an upload", "flows"),
        name => ("a gRPC request", name),
    };
    let unit = if point.size == 1 {
        unit.trim_end_matches('s')
    } else {
        unit
    };
    let size = thousands(point.size.into());
    let text =
        format!("Counting the streams of {packet}, {size} {unit}{why}: at most {GOAL:.0} ns more");
    at_most(text, &point.counting(), GOAL, "ns")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(size: u32, adds: f64) -> Size {
        Size {
            size,
            pass: vec![100.0; 5],
            counted: vec![150.0 + adds; 5],
            uncounted: vec![150.0; 5],
            opening: Vec::new(),
        }
    }

    #[test]
    fn the_size_at_which_counting_adds_most_is_claimed_wherever_it_is() {
        let report = Report {
            packets: 1,
            pass: 100.0,
            cases: Vec::new(),
            sweeps: vec![Sweep {
                name: "flows".to_owned(),
                about: String::new(),
                points: vec![point(1, 20.0), point(10_000, 41.0), point(1_000_000, 29.0)],
            }],
        };
        let claims = claims(&report);
        let said: Vec<(&str, bool)> = claims
            .iter()
            .map(|claim| (claim.text.as_str(), claim.holds))
            .collect();
        assert_eq!(
            said,
            [
                (
                    "Counting the streams of a gRPC request, 1 flow: at most 30 ns more",
                    true
                ),
                (
                    "Counting the streams of a gRPC request, 10,000 flows, where it adds most: at most 30 ns more",
                    false
                ),
            ]
        );
    }
}
