//! Results, as a table for people and as JSON for programs.

use serde::Serialize;

use crate::{
    machine::Machine,
    stats::{Summary, seconds},
};

/// One driver in one workload.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) driver: String,
    pub(crate) summary: Summary,
    /// Median over the reference's median; none for the reference itself.
    pub(crate) ratio: Option<f64>,
}

/// What ours is to reach.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Target {
    /// At most this many times the reference.
    pub(crate) ratio: f64,
}

/// A further figure of a workload that is no time.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// At most this, in the same unit.
    pub(crate) at_most: Option<f64>,
}

/// What came out of one workload. The first row is ours, the second the reference.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) workload: &'static str,
    pub(crate) about: &'static str,
    pub(crate) rows: Vec<Row>,
    pub(crate) target: Target,
    pub(crate) figures: Vec<Figure>,
    /// What could not be measured, and why.
    pub(crate) left_out: Vec<String>,
}

impl Measured {
    /// Puts the samples of each driver together; the ratio is to the driver named `reference`.
    pub(crate) fn new(
        (workload, about): (&'static str, &'static str),
        samples: Vec<(String, Vec<f64>)>,
        reference: &str,
        target: f64,
    ) -> Self {
        let summed: Vec<(String, Summary)> = samples
            .into_iter()
            .filter_map(|(driver, samples)| Some((driver, Summary::of(samples)?)))
            .collect();
        let base = summed
            .iter()
            .find(|(driver, _)| driver == reference)
            .map(|(_, s)| s.median);
        let rows = summed
            .into_iter()
            .map(|(driver, summary)| Row {
                ratio: base
                    .filter(|_| driver != reference)
                    .map(|base| summary.median / base),
                driver,
                summary,
            })
            .collect();
        Self {
            workload,
            about,
            rows,
            target: Target { ratio: target },
            figures: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// Whether ours holds its targets; `None` if the reference could not be measured.
    pub(crate) fn holds(&self) -> Option<bool> {
        let ratio = self.rows.first()?.ratio?;
        let figures = self
            .figures
            .iter()
            .all(|f| f.at_most.is_none_or(|most| f.value <= most));
        Some(ratio <= self.target.ratio && figures)
    }
}

/// Everything of one run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    rounds: u32,
    warnings: Vec<String>,
    results: Vec<Measured>,
}

impl Report {
    /// Adds to the warnings what the results show of noise.
    pub(crate) fn new(
        machine: Machine,
        rounds: u32,
        mut warnings: Vec<String>,
        results: Vec<Measured>,
    ) -> Self {
        for result in &results {
            for row in result.rows.iter().filter(|row| row.summary.is_noisy()) {
                warnings.push(format!(
                    "noisy: {} of {} (see the spread)",
                    result.workload, row.driver
                ));
            }
            warnings.extend(
                result
                    .left_out
                    .iter()
                    .map(|why| format!("{}: {why}", result.workload)),
            );
        }
        Self {
            machine,
            rounds,
            warnings,
            results,
        }
    }

    /// Whether a target was missed, or could not be judged.
    pub(crate) fn missed(&self) -> bool {
        self.results
            .iter()
            .any(|result| result.holds() != Some(true))
    }

    /// For people.
    pub(crate) fn print_table(&self, colour: bool) {
        let paint = |text: &str, sgr: &str| {
            if colour {
                format!("\x1b[{sgr}m{text}\x1b[0m")
            } else {
                text.to_owned()
            }
        };
        println!("{}", self.machine);
        println!("medians of {} interleaved rounds", self.rounds);
        for result in &self.results {
            println!("\n{}  {}", paint(result.workload, "1"), result.about);
            for row in &result.rows {
                println!(
                    "  {:22} {:>10}   {:>10} - {:<10} {}",
                    row.driver,
                    seconds(row.summary.median),
                    seconds(row.summary.min),
                    seconds(row.summary.max),
                    row.ratio
                        .map_or_else(|| "reference".to_owned(), |r| format!("{r:.2} x")),
                );
            }
            for figure in &result.figures {
                let most = figure
                    .at_most
                    .map_or_else(String::new, |most| format!("  (at most {most})"));
                println!(
                    "  {}: {:.1} {}{most}",
                    figure.what, figure.value, figure.unit
                );
            }
            let verdict = match result.holds() {
                Some(true) => paint("holds", "32"),
                Some(false) => paint("missed", "31;1"),
                None => "cannot be judged".to_owned(),
            };
            println!(
                "  target: at most {:.2} x the reference: {verdict}",
                result.target.ratio
            );
        }
        for warning in &self.warnings {
            println!("\n{} {warning}", paint("warning:", "33"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(ours: f64) -> Measured {
        let samples = vec![
            ("ours".to_owned(), vec![ours]),
            ("theirs".to_owned(), vec![2.0]),
        ];
        Measured::new(("w", ""), samples, "theirs", 1.5)
    }

    #[test]
    fn a_target_is_a_ratio_to_the_reference() {
        assert_eq!(measured(3.0).holds(), Some(true));
        assert_eq!(measured(3.1).holds(), Some(false));
        assert_eq!(measured(3.0).rows[1].ratio, None);
    }

    #[test]
    fn a_figure_above_its_bound_misses_too_and_no_reference_is_no_verdict() {
        let mut with = measured(1.0);
        with.figures.push(Figure {
            what: String::new(),
            value: 9.0,
            unit: "MiB",
            at_most: Some(8.0),
        });
        assert_eq!(with.holds(), Some(false));
        let alone = Measured::new(
            ("w", ""),
            vec![("ours".to_owned(), vec![1.0])],
            "theirs",
            1.5,
        );
        assert_eq!(alone.holds(), None);
    }
}
