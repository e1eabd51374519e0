//! Scales, axes and marks.

use std::fmt::Write as _;

/// Where a value lies on a plot, in its units of length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    log: bool,
}

impl Scale {
    /// Powers of ten are equally far apart. Holds `values`, which are positive, and a margin; at
    /// least a factor of two.
    pub(super) fn log(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = range(values.filter(|v| *v > 0.0)).unwrap_or((0.5, 2.0));
        let middle = (low * high).sqrt();
        Self {
            low: (low / 1.15).min(middle / 1.5),
            high: (high * 1.15).max(middle * 1.5),
            from,
            to,
            log: true,
        }
    }

    /// From 0.
    pub(super) fn linear(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let high = range(values).map_or(1.0, |(_, high)| high);
        Self {
            low: 0.0,
            high: if high > 0.0 { high * 1.08 } else { 1.0 },
            from,
            to,
            log: false,
        }
    }

    /// Where `value` is drawn; what lies outside, at the edge.
    pub(super) fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.low, self.high);
        let part = if self.log {
            (value / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + part * (self.to - self.from)
    }

    /// Values to be written at the axis.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.log {
            self.log_ticks()
        } else {
            self.linear_ticks()
        }
    }

    fn log_ticks(&self) -> Vec<f64> {
        let decades = (self.high / self.low).log10();
        let steps: &[f64] = match decades {
            d if d < 1.5 => &[1.0, 1.5, 2.0, 3.0, 5.0, 7.0],
            d if d < 3.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let mut ticks = Vec::new();
        let (first, last) = (self.low.log10().floor(), self.high.log10().ceil());
        let mut power = first;
        while power <= last {
            let values = steps.iter().map(|step| step * 10_f64.powf(power));
            ticks.extend(values.filter(|v| (self.low..=self.high).contains(v)));
            power += 1.0;
        }
        // Of very many decades every other, or every third.
        let every = ticks.len().div_ceil(9);
        ticks.into_iter().step_by(every.max(1)).collect()
    }

    fn linear_ticks(&self) -> Vec<f64> {
        let rough = self.high / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|n| n * power)
            .find(|step| *step >= rough)
            .unwrap_or(rough);
        let mut ticks = Vec::new();
        let mut value = 0.0;
        while value <= self.high {
            ticks.push(value);
            value += step;
        }
        ticks
    }
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| {
        let (low, high) = range.unwrap_or((v, v));
        Some((low.min(v), high.max(v)))
    })
}

/// A mark around a point: each colour has a shape of its own, for who sees colours alike.
pub(super) fn mark(colour: usize, x: f64, y: f64, r: f64) -> String {
    let polygon = |corners: &[(f64, f64)]| {
        let points: Vec<String> = corners
            .iter()
            .map(|(dx, dy)| format!("{:.1},{:.1}", x + dx * r, y + dy * r))
            .collect();
        format!("<polygon points=\"{}\"/>", points.join(" "))
    };
    match colour {
        0 => polygon(&[(-0.25, -1.2), (0.25, -1.2), (0.25, 1.2), (-0.25, 1.2)]),
        2 => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
        3 => polygon(&[(0.0, -1.15), (1.1, 0.85), (-1.1, 0.85)]),
        4 => polygon(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]),
        5 => polygon(&[(0.0, 1.15), (1.1, -0.85), (-1.1, -0.85)]),
        6 => polygon(&[(-1.2, -0.4), (1.2, -0.4), (1.2, 0.4), (-1.2, 0.4)]),
        7 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r:.1}\" class=\"hollow\"/>"),
        _ => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r:.1}\"/>"),
    }
}

/// A line of the grid, or of a scale.
pub(super) fn line(svg: &mut String, class: &str, (x1, y1): (f64, f64), (x2, y2): (f64, f64)) {
    let _ = write!(
        svg,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

/// Text that is escaped already; `anchor` is `start`, `middle` or `end`.
pub(super) fn label(svg: &mut String, class: &str, anchor: &str, (x, y): (f64, f64), text: &str) {
    let _ = write!(
        svg,
        "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logarithmic_scale_has_equal_ratios_equally_far_apart() {
        let scale = Scale::log([0.01, 100.0].into_iter(), 0.0, 100.0);
        let step = scale.at(1.0) - scale.at(0.1);
        assert!((scale.at(10.0) - scale.at(1.0) - step).abs() < 1e-9);
        assert!(scale.at(0.01) > 0.0 && scale.at(100.0) < 100.0);
        assert_eq!(scale.at(1e9), 100.0);
        let ticks = scale.ticks();
        assert!(ticks.len() >= 3 && ticks.iter().any(|t| (t - 1.0).abs() < 1e-9));
    }

    #[test]
    fn scales_of_nothing_and_of_one_value_are_scales() {
        for values in [vec![], vec![3.0], vec![0.0], vec![f64::NAN]] {
            for scale in [
                Scale::log(values.iter().copied(), 0.0, 10.0),
                Scale::linear(values.iter().copied(), 10.0, 0.0),
            ] {
                assert!(scale.at(3.0).is_finite(), "{values:?}");
                assert!((1..20).contains(&scale.ticks().len()), "{values:?}");
            }
        }
    }

    #[test]
    fn a_linear_scale_begins_at_zero_and_may_run_upwards() {
        let scale = Scale::linear([50.0].into_iter(), 100.0, 0.0);
        assert_eq!(scale.at(0.0), 100.0);
        assert!(scale.at(50.0) > 0.0 && scale.at(50.0) < 10.0);
    }

    #[test]
    fn every_colour_has_a_mark_of_its_own() {
        let mut marks: Vec<String> = (0..8).map(|n| mark(n, 5.0, 5.0, 4.0)).collect();
        marks.sort();
        marks.dedup();
        assert_eq!(marks.len(), 8);
    }
}
