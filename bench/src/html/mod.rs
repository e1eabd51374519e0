//! A run as one page: HTML with inline SVG, no script, nothing from elsewhere.

mod plot;
mod ratios;
mod series;
mod tables;

use std::fmt::Write as _;

use crate::{
    model::{Bound, Report, Verdict},
    units::ratio,
};

const STYLE: &str = include_str!("style.css");

/// The whole page.
pub(crate) fn page(report: &Report) -> String {
    let legend = Legend::of(report);
    let mut body = String::new();
    header(&mut body, report);
    figures(&mut body, report);
    ratios::section(&mut body, report, &legend);
    series::sections(&mut body, report, &legend);
    tables::matrix(&mut body, report, &legend);
    tables::details(&mut body, report);
    warnings(&mut body, report);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Copy-on-write, measured: {}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(&report.machine.date)
    )
}

/// The drivers, each with a colour and a mark of its own.
pub(crate) struct Legend {
    names: Vec<String>,
}

/// Colours, and so marks, that there are (`style.css`).
const COLOURS: usize = 8;

impl Legend {
    fn of(report: &Report) -> Self {
        let mut names: Vec<String> = report.drivers().into_iter().map(str::to_owned).collect();
        // What everything is compared with, then ours, whatever else is there.
        let subject = report.subject().map(str::to_owned);
        names.sort_by_key(|name| {
            (
                *name != report.reference,
                Some(name.as_str()) != subject.as_deref(),
            )
        });
        Self { names }
    }

    /// The number of a driver's colour.
    fn colour(&self, driver: &str) -> usize {
        let at = self.names.iter().position(|name| name == driver);
        at.unwrap_or(0) % COLOURS
    }

    /// The names among `present`, with their marks.
    fn html(&self, present: &[&str]) -> String {
        let mut html = String::from("<p class=\"legend\">");
        for name in self.names.iter().filter(|n| present.contains(&n.as_str())) {
            let colour = self.colour(name);
            let mark = plot::mark(colour, 7.0, 7.0, 4.5);
            let _ = write!(
                html,
                "<span><svg width=\"14\" height=\"14\" class=\"d{colour}\" aria-hidden=\"true\">{mark}</svg>{}</span>",
                escape(name)
            );
        }
        html.push_str("</p>\n");
        html
    }
}

fn header(body: &mut String, report: &Report) {
    let who = if report.rootless {
        "an ordinary user"
    } else {
        "root"
    };
    let versions: Vec<String> = report
        .machine
        .versions
        .iter()
        .map(|(name, version)| {
            // fuse-overlayfs has its version in its name.
            if name.ends_with(version.as_str()) {
                name.clone()
            } else {
                format!("{name} {version}")
            }
        })
        .collect();
    let _ = write!(
        body,
        "<header>\n<h1>Copy-on-write, measured</h1>\n<p id=\"machine\">{}</p>\n\
         <p class=\"fine\">{} · medians of {} interleaved rounds, run by {who} · smaller is better · {}</p>\n</header>\n",
        escape(&report.machine.to_string()),
        escape(&report.machine.date),
        report.rounds,
        escape(&versions.join(", "))
    );
}

fn figures(body: &mut String, report: &Report) {
    if report.figures.is_empty() {
        return;
    }
    body.push_str("<section id=\"figures\" class=\"cards\">\n");
    for figure in &report.figures {
        let value = if figure.unit == "x" {
            format!("{} ×", ratio(figure.value))
        } else {
            format!("{:.1} {}", figure.value, escape(&figure.unit))
        };
        let bound = match figure.bound {
            Some(Bound::AtMost(most)) => format!("at most {most}"),
            Some(Bound::AtLeast(least)) => format!("at least {least}"),
            None => String::new(),
        };
        let _ = writeln!(
            body,
            "<div class=\"card\"><strong>{value}</strong><span>{}</span><small>{bound} {}</small></div>",
            escape(&figure.what),
            figure.verdict().map_or_else(String::new, badge)
        );
    }
    body.push_str("</section>\n");
}

fn warnings(body: &mut String, report: &Report) {
    body.push_str("<section id=\"warnings\">\n<h2>What to mind</h2>\n");
    if report.warnings.is_empty() {
        body.push_str("<p>Nothing disturbed this run that could be seen.</p>\n");
    } else {
        body.push_str("<ul>\n");
        for warning in &report.warnings {
            let _ = writeln!(body, "<li>{}</li>", escape(warning));
        }
        body.push_str("</ul>\n");
    }
    body.push_str("</section>\n");
}

/// Whether a floor was reached, to look at.
fn badge(verdict: Verdict) -> String {
    match verdict {
        Verdict::Hit => "<b class=\"hit\">hit</b>",
        Verdict::Miss => "<b class=\"miss\">miss</b>",
    }
    .to_owned()
}

/// Text as it goes into elements and attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::report;

    #[test]
    fn the_page_has_every_plot_and_nothing_from_elsewhere() {
        let page = page(&report());
        for id in [
            "machine",
            "figures",
            "ratios",
            "first-byte",
            "depth",
            "containers",
            "matrix",
            "details",
            "warnings",
        ] {
            assert_eq!(page.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
        for outside in ["http:", "https:", "src=", "<script", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn what_programs_and_machines_say_is_text() {
        let page = page(&report());
        assert!(page.contains("a &lt;processor&gt; &amp; more"));
        assert!(page.contains("it is &lt;not&gt; there"));
        assert!(page.contains("noisy &lt;here&gt;"));
        assert!(!page.contains("<processor>") && !page.contains("<here>"));
    }

    #[test]
    fn an_empty_run_is_a_page_too() {
        let mut report = report();
        report.results.clear();
        report.figures.clear();
        report.warnings.clear();
        let page = page(&report);
        assert!(page.contains("Nothing disturbed") && page.ends_with("</html>\n"));
    }
}
