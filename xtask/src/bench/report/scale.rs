//! From figures to places on an axis, and which figures to write beside it.

use crate::bench::{number::number, result::Axis};

/// Steps of a linear axis aimed for.
const STEPS: f64 = 5.0;

/// From here on figures are written in millions, which leaves room beside an axis.
const MILLION: f64 = 1e6;

/// An axis of a plot.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scale {
    /// Equal distances are equal differences.
    Linear { low: f64, high: f64, step: f64 },
    /// Equal distances are equal ratios.
    Logarithmic { low: f64, high: f64 },
    /// Names, one slot each.
    Categories { count: f64 },
}

impl Scale {
    /// The scale that shows all of `values`; a linear one begins at `from` if nothing lies below it.
    pub(super) fn new(
        axis: &Axis,
        values: impl Iterator<Item = f64> + Clone,
        from: Option<f64>,
    ) -> Self {
        if !axis.categories.is_empty() {
            return Self::Categories {
                count: axis.categories.len() as f64,
            };
        }
        let least = |values: &mut dyn Iterator<Item = f64>| values.reduce(f64::min);
        let highest = values.clone().reduce(f64::max).unwrap_or(1.0);
        if axis.logarithmic {
            // What is not above zero has no place here, and is not drawn.
            let lowest = least(&mut values.filter(|value| *value > 0.0)).unwrap_or(1.0);
            let (low, high) = (round(lowest, false), round(highest.max(lowest), true));
            return Self::Logarithmic {
                low,
                high: if high > low { high } else { low * 10.0 },
            };
        }
        let lowest = least(&mut values.clone()).unwrap_or(0.0);
        let low = from.map_or(lowest, |from| from.min(lowest));
        let span = if highest > low {
            highest - low
        } else {
            low.abs().max(1.0)
        };
        let step = nice(span / STEPS);
        Self::Linear {
            low: (low / step).floor() * step,
            high: ((low + span) / step - 1e-9).ceil() * step,
            step,
        }
    }

    /// Where `value` lies: 0 at the axis' beginning, 1 at its end. `None` for what it cannot show.
    pub(super) fn place(&self, value: f64) -> Option<f64> {
        let place = match self {
            Self::Linear { low, high, .. } => (value - low) / (high - low),
            Self::Logarithmic { low, high } if value > 0.0 => {
                (value / low).ln() / (high / low).ln()
            }
            Self::Logarithmic { .. } => return None,
            Self::Categories { count } => (value + 0.5) / count,
        };
        place.is_finite().then(|| place.clamp(0.0, 1.0))
    }

    /// Where to draw a line across, and what to write beside it.
    pub(super) fn ticks(&self) -> Vec<(f64, String)> {
        match *self {
            Self::Categories { .. } => Vec::new(),
            Self::Linear { low, high, step } => {
                let digits = digits(step);
                let count = ((high - low) / step).round() as usize;
                (0..=count)
                    .map(|index| low + step * index as f64)
                    .map(|value| match high.abs().max(low.abs()) >= MILLION {
                        true => (value, brief(value)),
                        false => (value, number(value, digits)),
                    })
                    .collect()
            }
            Self::Logarithmic { low, high } => {
                let decades = (high / low).log10();
                // Within a few decades 2 and 5 help; over many, even the decades have to be thinned out.
                let factors: &[f64] = if decades < 3.0 {
                    &[1.0, 2.0, 5.0]
                } else {
                    &[1.0]
                };
                let every = (decades / 8.0).ceil().max(1.0) as i32;
                let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
                (first..=last)
                    .filter(|exponent| (exponent - first) % every == 0)
                    .flat_map(|exponent| {
                        factors
                            .iter()
                            .map(move |factor| factor * 10_f64.powi(exponent))
                    })
                    .filter(|value| (low * 0.999..=high * 1.001).contains(value))
                    .map(|value| (value, brief(value)))
                    .collect()
            }
        }
    }
}

/// Three digits that count: `12,300`, `1.25`, `0.004`, and from a million on `1.25 M`.
pub(super) fn brief(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return number(value, 0);
    }
    if value.abs() >= MILLION {
        return format!("{} M", brief(value / MILLION));
    }
    let exponent = value.abs().log10().floor();
    let digits = (2.0 - exponent).clamp(0.0, 9.0) as usize;
    let text = number(value, digits);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// 1, 2 or 5 times a power of ten, at least `step`.
fn nice(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= step * 0.999);
    factor.unwrap_or(10.0) * power
}

/// The nearest 1, 2 or 5 times a power of ten above or below `value`.
fn round(value: f64, up: bool) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0];
    let found = if up {
        factors
            .into_iter()
            .find(|factor| factor * power >= value * 0.999)
    } else {
        factors
            .into_iter()
            .rev()
            .find(|factor| factor * power <= value * 1.001)
    };
    found.unwrap_or(1.0) * power
}

/// Digits after the point that tell multiples of `step` apart.
fn digits(step: f64) -> usize {
    (-step.log10().floor()).clamp(0.0, 9.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(logarithmic: bool, values: &[f64], from: Option<f64>) -> Vec<String> {
        let axis = Axis {
            logarithmic,
            ..Axis::default()
        };
        let scale = Scale::new(&axis, values.iter().copied(), from);
        scale.ticks().into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_are_round_and_cover_the_figures() {
        assert_eq!(
            labels(false, &[1.0, 9.7], Some(0.0)),
            ["0", "2", "4", "6", "8", "10"]
        );
        assert_eq!(
            labels(false, &[0.13, 0.42], Some(0.0)),
            ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5"]
        );
        assert_eq!(
            labels(true, &[1.0, 1000.0], None),
            ["1", "10", "100", "1,000"]
        );
        assert_eq!(
            labels(true, &[0.3, 4.0], None),
            ["0.2", "0.5", "1", "2", "5"]
        );
    }

    #[test]
    fn no_figures_at_all_and_equal_figures_still_make_an_axis() {
        for logarithmic in [false, true] {
            for values in [&[][..], &[0.0], &[7.0, 7.0], &[-3.0]] {
                let axis = Axis {
                    logarithmic,
                    ..Axis::default()
                };
                let scale = Scale::new(&axis, values.iter().copied(), Some(0.0));
                let ticks = scale.ticks();
                assert!(ticks.len() >= 2, "{scale:?}");
                for (value, _) in ticks {
                    assert!(scale.place(value).is_some(), "{scale:?} {value}");
                }
            }
        }
    }

    #[test]
    fn what_a_logarithm_cannot_show_has_no_place() {
        let axis = Axis {
            logarithmic: true,
            ..Axis::default()
        };
        let scale = Scale::new(&axis, [0.0, 1.0, 100.0].into_iter(), None);
        assert_eq!(scale.place(0.0), None);
        assert_eq!(scale.place(10.0), Some(0.5));
    }

    #[test]
    fn three_digits_count() {
        assert_eq!(
            [0.0, 12_345.6, 1.2501, 0.004, 10.0, 2.5e6].map(brief),
            ["0", "12,346", "1.25", "0.004", "10", "2.5 M"]
        );
    }
}
