//! Medians, and how sure they are.

/// The middle one of `values`; 0 of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// So many values at least make an interval that holds the true median 95 times in 100.
pub const SURE: usize = 6;

/// The median of `values` between the ends of an interval that holds the true median at least 95 times in 100: the order
/// statistics that a binomial distribution puts there (Hollander, Wolfe & Chicken, Nonparametric Statistical Methods,
/// section 3.6). It assumes nothing of how the values are distributed. Fewer than [`SURE`] values cannot be that sure:
/// the interval is then all of them, the widest there is, and as sure as [`coverage`] says. `None` of nothing.
#[must_use]
pub fn interval(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (first, last) = (*sorted.first()?, *sorted.last()?);
    let outside = outside(sorted.len());
    let low = sorted.get(outside).copied().unwrap_or(first);
    let high = sorted
        .get(sorted.len() - 1 - outside)
        .copied()
        .unwrap_or(last);
    Some((low, median(values), high))
}

/// How often the [`interval`] of `count` values holds the true median, as a share: it does not where all that was not
/// left out lies on one side of it.
#[must_use]
pub fn coverage(count: usize) -> f64 {
    let mut missed = 0.0;
    // P(exactly 0 of count lie below), then by the ratio of neighbours.
    let mut exactly = 0.5_f64.powf(count as f64);
    for below in 0..=outside(count) {
        missed += exactly;
        exactly *= (count - below) as f64 / (below + 1) as f64;
    }
    (1.0 - 2.0 * missed).max(0.0)
}

/// How many of `count` sorted values can be left out at either end with the true median still inside 95 times in 100:
/// the largest `k` for which P(at most `k` of `count` lie below the median) is at most 2.5 %.
fn outside(count: usize) -> usize {
    let mut at_most = 0.0;
    // P(exactly 0 of count), then by the ratio of neighbours.
    let mut exactly = 0.5_f64.powf(count as f64);
    let mut left_out = 0_usize;
    for below in 0..count {
        at_most += exactly;
        if at_most > 0.025 {
            break;
        }
        left_out = below;
        exactly *= (count - below) as f64 / (below + 1) as f64;
    }
    left_out
}

/// How often `differences` would be as far above zero as these if they only scattered about it: Student's t-test, one
/// side. 1 of fewer than two, and where nothing differs.
#[must_use]
pub fn chance(differences: &[f64]) -> f64 {
    let count = differences.len() as f64;
    if differences.len() < 2 {
        return 1.0;
    }
    let mean = differences.iter().sum::<f64>() / count;
    let squares: f64 = differences.iter().map(|it| (it - mean).powi(2)).sum();
    let t = mean / (squares / (count - 1.0) / count).sqrt();
    if t.is_nan() {
        return 1.0;
    }
    above(t, differences.len() - 1)
}

/// P(more than `t`) of Student's distribution with so many degrees of `freedom`, by its finite sums (Abramowitz & Stegun,
/// Handbook of Mathematical Functions, 26.7.3 and 26.7.4).
fn above(t: f64, freedom: usize) -> f64 {
    let odd = freedom % 2;
    let angle = (t / (freedom as f64).sqrt()).atan();
    let (sine, cosine) = angle.sin_cos();
    let mut sum = 0.0;
    let mut term = if odd == 1 { cosine } else { 1.0 };
    for power in (odd..freedom.saturating_sub(1)).step_by(2) {
        sum += term;
        term *= cosine * cosine * (power + 1) as f64 / (power + 2) as f64;
    }
    let within = if odd == 1 {
        (angle + sine * sum) * std::f64::consts::FRAC_2_PI
    } else {
        sine * sum
    };
    (1.0 - within) / 2.0
}

/// Busiest over mean: 1 is balanced, the number of `loads` is all on one. 1 of nothing.
#[must_use]
pub fn hot_factor(loads: &[f64]) -> f64 {
    let sum: f64 = loads.iter().sum();
    let most = loads.iter().copied().fold(0.0, f64::max);
    if sum > 0.0 {
        most * loads.len() as f64 / sum
    } else {
        1.0
    }
}

/// Jain's index: 1 is balanced, 1 over the number of `loads` is all on one. 1 of nothing.
#[must_use]
pub fn fairness(loads: &[f64]) -> f64 {
    let sum: f64 = loads.iter().sum();
    let squares: f64 = loads.iter().map(|load| load * load).sum();
    if squares > 0.0 {
        sum * sum / (squares * loads.len() as f64)
    } else {
        1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn intervals_are_those_of_the_sign_test() {
        // As tables of the sign test have them: the 95 % interval goes from the k-th smallest to the k-th largest.
        let kth = |count: usize| outside(count) + 1;
        assert_eq!(
            [5, 6, 8, 9, 10, 15, 20, 30].map(kth),
            [1, 1, 1, 2, 2, 4, 6, 10]
        );
    }

    #[test]
    fn intervals_are_as_sure_as_is_said() {
        assert_eq!(
            [1, 2, 3, 4, 5].map(coverage),
            [0.0, 0.5, 0.75, 0.875, 0.9375]
        );
        assert_eq!(coverage(0), 0.0);
        assert!((SURE..100).all(|count| coverage(count) >= 0.95));
    }

    #[test]
    fn chance_is_that_of_students_tables() {
        for (freedom, t) in [(1, 6.314), (2, 2.920), (3, 2.353), (5, 2.015), (10, 1.812)] {
            assert!((above(t, freedom) - 0.05).abs() < 1e-4, "{freedom}");
            assert!((above(-t, freedom) - 0.95).abs() < 1e-4, "{freedom}");
        }
        assert!((above(6.869, 5) - 0.0005).abs() < 1e-5);
        // Mean 3, standard error 1 / sqrt(3): t is 5.196 with 2 degrees of freedom.
        assert!((chance(&[2.0, 3.0, 4.0]) - above(5.196, 2)).abs() < 1e-5);
        assert_eq!(chance(&[5.0]), 1.0);
        assert_eq!(chance(&[0.0, 0.0]), 1.0);
        assert_eq!(chance(&[5.0, 5.0]), 0.0);
    }

    #[test]
    fn balanced_is_one_and_pinned_is_the_number_of_backends() {
        assert_eq!(hot_factor(&[3.0, 3.0]), 1.0);
        assert_eq!(hot_factor(&[4.0, 0.0, 0.0, 0.0]), 4.0);
        assert_eq!(fairness(&[3.0, 3.0]), 1.0);
        assert_eq!(fairness(&[4.0, 0.0, 0.0, 0.0]), 0.25);
        assert_eq!((hot_factor(&[]), fairness(&[0.0])), (1.0, 1.0));
    }

    #[test]
    fn an_interval_holds_its_median() {
        let values: Vec<f64> = (1..=9).map(f64::from).collect();
        assert_eq!(interval(&values), Some((2.0, 5.0, 8.0)));
        assert_eq!(interval(&[7.0]), Some((7.0, 7.0, 7.0)));
        assert_eq!(interval(&[]), None);
    }
}
