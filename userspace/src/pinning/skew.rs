//! Figures of skew.
//!
//! Loads are streams over one interval, or since load. A backend of twice the weight is *meant* to get twice the
//! streams, so every figure is taken over streams per unit of weight; with equal weights that changes nothing.
//! Backends of weight 0 are meant to get nothing and are left out. Without streams there is nothing to measure and
//! the figures are `None`, not a reassuring 1.

/// Streams that landed on one backend, and the backend's weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Streams.
    pub streams: u64,
    /// Weight of the backend.
    pub weight: u32,
}

/// Max / mean: 1 is balanced, N is fully pinned on one of N backends.
#[must_use]
pub fn hot_factor(loads: &[Load]) -> Option<f64> {
    let normal = normalised(loads)?;
    Some(normal.into_iter().fold(0.0, f64::max))
}

/// Jain's index (Jain, Chiu, Hawe, *A Quantitative Measure of Fairness*, DEC TR-301, 1984): `(sum x)^2 / (n sum x^2)`;
/// 1 is balanced, 1/N is fully pinned.
#[must_use]
pub fn fairness(loads: &[Load]) -> Option<f64> {
    let normal = normalised(loads)?;
    let sum: f64 = normal.iter().sum();
    let squares: f64 = normal.iter().map(|x| x * x).sum();
    Some(sum * sum / (normal.len() as f64 * squares))
}

/// The share of `part` in `whole`, 0 where there is nothing to share.
#[must_use]
pub fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

/// The hot factor that no balancing of *flows* can beat: a flow lands whole on one backend, so even if the heaviest
/// flow had the heaviest backend for itself, that backend's load is at least that flow's. `total` is all streams of the
/// service, those of flows that have ended and are not listed included. `None` without streams.
#[must_use]
pub fn flow_floor(streams_per_flow: &[u64], total: u64, loads: &[Load]) -> Option<f64> {
    let total = total.max(streams_per_flow.iter().sum());
    let heaviest = streams_per_flow.iter().max()?;
    let weights: u64 = loads.iter().map(|load| u64::from(load.weight)).sum();
    let widest = loads.iter().map(|load| load.weight).max()?;
    if total == 0 || widest == 0 {
        return None;
    }
    let alone = share(*heaviest, total) * weights as f64 / f64::from(widest);
    Some(alone.max(1.0))
}

/// Loads per unit of weight, as multiples of the fair load: their weighted mean is 1.
fn normalised(loads: &[Load]) -> Option<Vec<f64>> {
    let counted = || loads.iter().filter(|load| load.weight > 0);
    let total: u64 = counted().map(|load| load.streams).sum();
    let weights: u64 = counted().map(|load| u64::from(load.weight)).sum();
    if total == 0 {
        return None;
    }
    let fair = total as f64 / weights as f64;
    Some(
        counted()
            .map(|load| load.streams as f64 / (f64::from(load.weight) * fair))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::{Load, fairness, flow_floor, hot_factor, share};
    use proptest::prelude::*;

    fn equal(streams: &[u64]) -> Vec<Load> {
        streams
            .iter()
            .map(|streams| Load {
                streams: *streams,
                weight: 1,
            })
            .collect()
    }

    fn close(value: Option<f64>, expected: f64) -> bool {
        value.is_some_and(|value| (value - expected).abs() < 1e-9)
    }

    #[test]
    fn nothing_measured_is_not_balanced() {
        assert_eq!(hot_factor(&[]), None);
        assert_eq!(fairness(&equal(&[0, 0])), None);
        assert_eq!(flow_floor(&[], 0, &equal(&[0, 0])), None);
        assert!(share(0, 0).abs() < f64::EPSILON);
    }

    #[test]
    fn fully_pinned_is_n_and_one_over_n() {
        let loads = equal(&[0, 400, 0, 0]);
        assert!(close(hot_factor(&loads), 4.0));
        assert!(close(fairness(&loads), 0.25));
        assert!(close(flow_floor(&[400], 400, &loads), 4.0));
    }

    #[test]
    fn one_backend_is_always_balanced() {
        assert!(close(hot_factor(&equal(&[7])), 1.0));
        assert!(close(fairness(&equal(&[7])), 1.0));
        assert!(close(flow_floor(&[7], 7, &equal(&[7])), 1.0));
    }

    #[test]
    fn streams_in_proportion_to_weights_are_balanced() {
        let loads = [(100, 1), (200, 2), (0, 0)].map(|(streams, weight)| Load { streams, weight });
        assert!(close(hot_factor(&loads), 1.0));
        assert!(close(fairness(&loads), 1.0));
    }

    #[test]
    fn the_floor_of_many_small_flows_is_one() {
        assert!(close(flow_floor(&[1; 100], 100, &equal(&[40, 60])), 1.0));
        assert!(close(flow_floor(&[75, 25], 100, &equal(&[75, 25])), 1.5));
        // One flow is left of a thousand that carried a stream each.
        assert!(close(flow_floor(&[1], 1000, &equal(&[500, 500])), 1.0));
    }

    proptest! {
        #[test]
        fn figures_stay_in_their_ranges(streams in prop::collection::vec(0_u64..1 << 40, 1..50)) {
            let loads = equal(&streams);
            let n = streams.len() as f64;
            if let (Some(hot), Some(fair)) = (hot_factor(&loads), fairness(&loads)) {
                prop_assert!((1.0 - 1e-9..=n + 1e-9).contains(&hot), "{hot}");
                prop_assert!((1.0 / n - 1e-9..=1.0 + 1e-9).contains(&fair), "{fair}");
            } else {
                prop_assert!(streams.iter().all(|s| *s == 0));
            }
        }

        #[test]
        fn no_assignment_of_flows_beats_the_floor(
            flows in prop::collection::vec((1_u64..1000, 0_usize..5), 1..40)
        ) {
            let mut streams = [0; 5];
            for (count, backend) in &flows {
                streams[*backend] += count;
            }
            let loads = equal(&streams);
            let floor = flow_floor(&flows.iter().map(|(count, _)| *count).collect::<Vec<_>>(), 0, &loads);
            prop_assert!(hot_factor(&loads) >= floor.map(|floor| floor - 1e-9));
        }
    }
}
