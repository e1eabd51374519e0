//! The same as numbers.

use std::fmt::Write as _;

use super::{Legend, badge, escape, plot};
use crate::{
    model::{Measured, Report, Row},
    table,
    units::{ratio, seconds, short_ratio},
};

/// The reference's time and everyone's ratio, for workloads in a tree.
pub(super) fn matrix(body: &mut String, report: &Report, legend: &Legend) {
    let results: Vec<&Measured> = report
        .results
        .iter()
        .filter(|result| result.reference == report.reference && !result.rows.is_empty())
        .collect();
    let measured = |name: &&String| {
        **name != report.reference && results.iter().any(|result| result.row(name).is_some())
    };
    let drivers: Vec<&String> = legend.names.iter().filter(measured).collect();
    body.push_str("<section id=\"matrix\">\n<h2>All ratios</h2>\n<div class=\"wide\">\n<table>\n<thead><tr><th>workload</th>");
    let _ = write!(body, "<th>{}</th>", escape(&report.reference));
    for name in &drivers {
        let colour = legend.colour(name);
        let mark = plot::mark(colour, 6.0, 6.0, 4.0);
        let _ = write!(
            body,
            "<th><svg width=\"12\" height=\"12\" class=\"d{colour}\" aria-hidden=\"true\">{mark}</svg> {}</th>",
            escape(name)
        );
    }
    body.push_str("<th>floor</th></tr></thead>\n<tbody>\n");
    for result in results {
        let base = result.row(&report.reference);
        let base = base.map_or_else(|| "-".to_owned(), |row| seconds(row.summary.median));
        let _ = write!(
            body,
            "<tr data-workload=\"{0}\"><th title=\"{1}\">{0}</th><td>{base}</td>",
            escape(&result.workload),
            escape(&result.about)
        );
        for name in &drivers {
            let row = result.row(name);
            let cell = row.and_then(|row| row.ratio.as_ref());
            let cell = cell.map_or_else(|| "-".to_owned(), |r| ratio(r.value));
            let verdict = row.and_then(|row| result.verdict(row));
            let verdict = verdict.map_or_else(String::new, badge);
            let _ = write!(body, "<td>{cell} {verdict}</td>");
        }
        let floor = result.floor.map_or_else(String::new, short_ratio);
        let _ = writeln!(body, "<td>{floor}</td></tr>");
    }
    body.push_str("</tbody>\n</table>\n</div>\n</section>\n");
}

/// Everything that was measured of each workload.
pub(super) fn details(body: &mut String, report: &Report) {
    body.push_str("<section id=\"details\">\n<h2>Each workload</h2>\n");
    for result in &report.results {
        let _ = write!(
            body,
            "<details><summary><b>{}</b> {}</summary>\n<div class=\"wide\">\n<table>\n<thead><tr><th>driver</th><th>median</th>\
             <th>least</th><th>most</th><th>to {}</th><th>95 %</th><th class=\"text\">messages</th><th class=\"text\">space and memory</th></tr></thead>\n<tbody>\n",
            escape(&result.workload),
            escape(&result.about),
            escape(&result.reference)
        );
        for row in &result.rows {
            detail(body, row);
        }
        body.push_str("</tbody>\n</table>\n</div>\n");
        for left in &result.left_out {
            let what = if left.failed { "failed" } else { "left out" };
            let _ = writeln!(
                body,
                "<p class=\"fine\">{what}: {}: {}</p>",
                escape(&left.driver),
                escape(&left.why)
            );
        }
        body.push_str("</details>\n");
    }
    body.push_str("</section>\n");
}

fn detail(body: &mut String, row: &Row) {
    let s = &row.summary;
    let (value, interval) = row.ratio.as_ref().map_or_else(Default::default, |r| {
        (
            ratio(r.value),
            format!("{} to {}", ratio(r.low), ratio(r.high)),
        )
    });
    let mut messages: Vec<(&String, &u64)> = row.messages.iter().collect();
    messages.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let messages: Vec<String> = messages
        .iter()
        .map(|(name, count)| format!("{count} {}", escape(name)))
        .collect();
    let _ = writeln!(
        body,
        "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{value}</td><td>{interval}</td><td class=\"text\">{}</td><td class=\"text\">{}</td></tr>",
        escape(&row.driver),
        seconds(s.median),
        seconds(s.min),
        seconds(s.max),
        messages.join(", "),
        escape(&table::extras(row).join(", "))
    );
}
