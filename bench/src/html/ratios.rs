//! Every workload's ratios to the reference, on one logarithmic axis.

use std::fmt::Write as _;

use super::{
    Legend, escape,
    plot::{Scale, label, line, mark},
};
use crate::{
    model::{Measured, Report},
    units::{ratio, seconds, short_ratio},
};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 940.0;
const TOP: f64 = 26.0;
const ROW: f64 = 26.0;

pub(super) fn section(body: &mut String, report: &Report, legend: &Legend) {
    let results: Vec<&Measured> = report
        .results
        .iter()
        .filter(|result| result.rows.iter().any(|row| row.ratio.is_some()))
        .collect();
    body.push_str("<section id=\"ratios\">\n<h2>Time, as a ratio to the reference</h2>\n");
    if results.is_empty() {
        body.push_str("<p>Nothing was measured beside a reference.</p>\n</section>\n");
        return;
    }
    let mut present: Vec<&str> = Vec::new();
    for row in results.iter().flat_map(|result| &result.rows) {
        if row.ratio.is_some() && !present.contains(&row.driver.as_str()) {
            present.push(&row.driver);
        }
    }
    let _ = writeln!(
        body,
        "<p>Left of the line at 1 is faster than the reference, which is {} unless the row says \
         otherwise. Bars are 95 % confidence intervals; the small triangle is the floor.</p>",
        escape(&report.reference)
    );
    body.push_str(&legend.html(&present));
    body.push_str(&chart(&results, report, legend));
    body.push_str("</section>\n");
}

fn chart(results: &[&Measured], report: &Report, legend: &Legend) -> String {
    let values = results.iter().flat_map(|result| {
        let ratios = result.rows.iter().filter_map(|row| row.ratio.as_ref());
        ratios
            .flat_map(|r| [r.value, r.low, r.high])
            .chain(result.floor)
    });
    let scale = Scale::log(values.chain([1.0]), LEFT, RIGHT);
    let height = TOP + ROW * results.len() as f64 + 10.0;
    let mut svg = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" \
         aria-label=\"Ratios of every workload to the reference\">"
    );
    let bottom = height - 10.0;
    for tick in scale.ticks() {
        let x = scale.at(tick);
        line(&mut svg, "grid", (x, TOP), (x, bottom));
        label(
            &mut svg,
            "tick",
            "middle",
            (x, TOP - 8.0),
            &short_ratio(tick),
        );
    }
    let one = scale.at(1.0);
    line(&mut svg, "one", (one, TOP), (one, bottom));
    for (n, result) in results.iter().enumerate() {
        let y = TOP + ROW * (n as f64 + 0.5);
        workload(&mut svg, result, report, legend, &scale, y);
    }
    svg.push_str("</svg>\n");
    svg
}

fn workload(
    svg: &mut String,
    result: &Measured,
    report: &Report,
    legend: &Legend,
    scale: &Scale,
    y: f64,
) {
    let name = escape(&result.workload);
    let named = if result.reference == report.reference {
        name.clone()
    } else {
        format!("{name} *")
    };
    let _ = write!(
        svg,
        "<g class=\"row\" data-workload=\"{name}\"><title>{}, to {}</title>",
        escape(&result.about),
        escape(&result.reference)
    );
    label(svg, "name", "end", (LEFT - 12.0, y + 4.0), &named);
    line(svg, "rule", (LEFT, y), (RIGHT, y));
    svg.push_str("</g>");
    if let Some(floor) = result.floor {
        let x = scale.at(floor);
        let _ = write!(
            svg,
            "<polygon class=\"floor\" points=\"{:.1},{:.1} {:.1},{:.1} {x:.1},{:.1}\"><title>floor {}</title></polygon>",
            x - 4.5,
            y + 12.0,
            x + 4.5,
            y + 12.0,
            y + 5.0,
            short_ratio(floor)
        );
    }
    for row in &result.rows {
        let Some(r) = &row.ratio else { continue };
        let colour = legend.colour(&row.driver);
        let _ = write!(
            svg,
            "<g class=\"d{colour}\"><title>{}: {} ({} to {}), {}</title>",
            escape(&row.driver),
            ratio(r.value),
            ratio(r.low),
            ratio(r.high),
            seconds(row.summary.median)
        );
        line(svg, "interval", (scale.at(r.low), y), (scale.at(r.high), y));
        svg.push_str(&mark(colour, scale.at(r.value), y, 5.0));
        svg.push_str("</g>");
    }
}
