//! Workloads that differ in a size: what it does to time and memory.

use std::fmt::Write as _;

use super::{
    Legend, escape,
    plot::{Scale, label, line, mark},
};
use crate::{
    model::{Measured, Point, Report, Row, extra},
    units::{bytes, ratio, seconds},
};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 930.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 312.0;

/// A plot of one quantity over a series.
struct Plot<'a> {
    id: &'a str,
    title: &'a str,
    about: &'a str,
    x: &'a str,
    value: fn(&Row) -> Option<f64>,
    shown: fn(f64) -> String,
    log: bool,
}

pub(super) fn sections(body: &mut String, report: &Report, legend: &Legend) {
    let mib = |value: f64| format!("{} MiB", ratio(value));
    let time = |row: &Row| Some(row.summary.median);
    let plots = [
        Plot {
            id: "first-byte",
            title: "The first byte written into a lower file",
            about: "A driver that copies the whole file climbs with its size.",
            x: "size of the file",
            value: time,
            shown: seconds,
            log: true,
        },
        Plot {
            id: "depth",
            title: "The cost of depth",
            about: "The same 2,000 files, spread over ever more layers; a fresh mount is walked and read.",
            x: "layers",
            value: time,
            shown: seconds,
            log: false,
        },
        Plot {
            id: "containers",
            title: "Memory of each container",
            about: "Resident memory of what serves a container, and what the page cache grew by, for each.",
            x: "containers of one image",
            value: |row| {
                let resident = row.extra.get(extra::RESIDENT);
                let cached = row.extra.get(extra::PAGE_CACHE);
                let both = resident.copied().unwrap_or(0.0) + cached.copied().unwrap_or(0.0);
                (resident.is_some() || cached.is_some()).then_some(both)
            },
            shown: mib,
            log: false,
        },
        Plot {
            id: "containers-start",
            title: "Starting many containers",
            about: "Until python has started in each.",
            x: "containers of one image",
            value: time,
            shown: seconds,
            log: true,
        },
    ];
    for plot in plots {
        let series = plot.id.trim_end_matches("-start");
        let points: Vec<(&Point, &Measured)> = report
            .results
            .iter()
            .filter_map(|result| Some((result.point.as_ref()?, result)))
            .filter(|(point, _)| point.series == series)
            .collect();
        if !points.is_empty() {
            section(body, &plot, &points, legend);
        }
    }
}

/// A driver's values, in the order of the axis.
fn lines<'a>(
    plot: &Plot<'_>,
    points: &[(&Point, &'a Measured)],
) -> Vec<(&'a str, Vec<(f64, f64)>)> {
    let mut lines: Vec<(&str, Vec<(f64, f64)>)> = Vec::new();
    for (point, result) in points {
        for row in &result.rows {
            let Some(value) = (plot.value)(row) else {
                continue;
            };
            match lines.iter_mut().find(|(name, _)| *name == row.driver) {
                Some((_, values)) => values.push((point.x, value)),
                None => lines.push((&row.driver, vec![(point.x, value)])),
            }
        }
    }
    for (_, values) in &mut lines {
        values.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines
}

fn section(body: &mut String, plot: &Plot<'_>, points: &[(&Point, &Measured)], legend: &Legend) {
    let lines = lines(plot, points);
    let present: Vec<&str> = lines.iter().map(|(name, _)| *name).collect();
    let _ = write!(
        body,
        "<section id=\"{}\">\n<h2>{}</h2>\n<p>{}</p>\n{}",
        plot.id,
        plot.title,
        plot.about,
        legend.html(&present)
    );
    body.push_str(&chart(plot, points, &lines, legend));
    body.push_str("</section>\n");
}

fn chart(
    plot: &Plot<'_>,
    points: &[(&Point, &Measured)],
    lines: &[(&str, Vec<(f64, f64)>)],
    legend: &Legend,
) -> String {
    let x = Scale::log(points.iter().map(|(point, _)| point.x), LEFT, RIGHT);
    let values = lines.iter().flat_map(|(_, values)| values);
    let values = values.map(|(_, value)| *value);
    let y = if plot.log {
        Scale::log(values, BOTTOM, TOP)
    } else {
        Scale::linear(values, BOTTOM, TOP)
    };
    let mut svg = format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(plot.title)
    );
    for tick in y.ticks() {
        let at = y.at(tick);
        line(&mut svg, "grid", (LEFT, at), (RIGHT, at));
        let text = (plot.shown)(tick);
        label(&mut svg, "tick", "end", (LEFT - 8.0, at + 4.0), &text);
    }
    // Every point that was measured is a tick.
    let mut ticks: Vec<&Point> = points.iter().map(|(point, _)| *point).collect();
    ticks.sort_by(|a, b| a.x.total_cmp(&b.x));
    for point in ticks {
        let at = x.at(point.x);
        line(&mut svg, "grid", (at, TOP), (at, BOTTOM));
        let text = if point.unit == "bytes" {
            bytes(point.x)
        } else {
            format!("{}", point.x)
        };
        label(&mut svg, "tick", "middle", (at, BOTTOM + 18.0), &text);
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    label(&mut svg, "axis", "middle", (middle, BOTTOM + 40.0), plot.x);
    for (name, values) in lines {
        let colour = legend.colour(name);
        let places: Vec<String> = values
            .iter()
            .map(|(a, b)| format!("{:.1},{:.1}", x.at(*a), y.at(*b)))
            .collect();
        let _ = write!(
            svg,
            "<g class=\"d{colour}\" data-driver=\"{}\"><polyline points=\"{}\"/>",
            escape(name),
            places.join(" ")
        );
        for (a, b) in values {
            let _ = write!(
                svg,
                "<g><title>{}: {}</title>{}</g>",
                escape(name),
                (plot.shown)(*b),
                mark(colour, x.at(*a), y.at(*b), 5.0)
            );
        }
        svg.push_str("</g>");
    }
    svg.push_str("</svg>\n");
    svg
}
