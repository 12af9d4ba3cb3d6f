//! Line charts as SVG, drawn by hand: two pictures are no reason for a library.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::Result;
use order_tracker::client::load::Latency;

use crate::report::{Kind, Report, Row};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// Told apart by people who see few colours too.
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];

/// A curve and its name.
struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

struct Chart {
    title: String,
    across: &'static str,
    up: &'static str,
    /// Logarithmic: across, up.
    log: (bool, bool),
    curves: Vec<Curve>,
}

/// Draws both charts into a folder.
pub(crate) fn draw(report: &Report, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let open = |pick: fn(&Row) -> f64| {
        let rows = report.rows.iter();
        rows.filter_map(
            move |row| if let Kind::Open(rate) = row.kind { Some((rate, pick(row))) } else { None },
        )
    };
    let curve =
        |name: &str, pick: fn(&Row) -> f64| Curve { name: name.to_owned(), points: open(pick).collect() };
    let load = Chart {
        title: format!("POST /orders: latency against load ({})", report.stack),
        across: "orders a second, sent on time",
        up: "milliseconds from due to answered",
        log: (false, true),
        curves: vec![
            curve("p99.9", |row| latency(row).p999),
            curve("p99", |row| latency(row).p99),
            curve("p50", |row| latency(row).p50),
        ],
    };
    fs::write(folder.join("latency-against-load.svg"), load.svg())?;

    let mut curves: Vec<Curve> = Vec::new();
    for row in &report.rows {
        let Kind::Stored(stored) = row.kind else { continue };
        let name = row.name.split(" at ").next().unwrap_or(&row.name);
        let point = (stored as f64, row.rate);
        match curves.iter_mut().find(|curve| curve.name == name) {
            Some(curve) => curve.points.push(point),
            None => curves.push(Curve { name: name.to_owned(), points: vec![point] }),
        }
    }
    let growth = Chart {
        title: format!("Rate against stored orders ({})", report.stack),
        across: "orders stored",
        up: "answers a second",
        log: (true, false),
        curves,
    };
    fs::write(folder.join("rate-against-stored-orders.svg"), growth.svg())?;
    Ok(())
}

fn latency(row: &Row) -> Latency {
    row.latency_ms.unwrap_or_default()
}

/// Where marks stand on an axis that ends at `max`.
fn marks(min: f64, max: f64, log: bool) -> Vec<f64> {
    if log {
        let (from, to) = (min.log10().floor(), max.log10().ceil());
        let steps = std::iter::successors(Some(from), |step| Some(step + 1.0));
        return steps.take_while(|step| *step <= to).map(|step| 10_f64.powf(step)).collect();
    }
    let rough = max / 5.0;
    let unit = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|n| n * unit).find(|step| *step >= rough);
    let step = step.unwrap_or(rough);
    std::iter::successors(Some(0.0), |at| Some(at + step)).take_while(|at| *at < max + step).collect()
}

/// From a value to its share of an axis.
fn place(value: f64, marks: &[f64], log: bool) -> f64 {
    let (first, last) = (marks.first().copied().unwrap_or(0.0), marks.last().copied().unwrap_or(1.0));
    let scale = |value: f64| if log { value.max(first).log10() } else { value };
    // A single mark would leave no length.
    (scale(value) - scale(first)) / (scale(last) - scale(first)).max(f64::EPSILON)
}

impl Chart {
    fn marks(&self) -> (Vec<f64>, Vec<f64>) {
        let all = || self.curves.iter().flat_map(|curve| &curve.points);
        let range = |values: Vec<f64>, log| {
            let min = values.iter().copied().fold(f64::INFINITY, f64::min);
            let max = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
            marks(min.min(max).max(1e-3), max.max(1e-3), log)
        };
        (
            range(all().map(|(x, _)| *x).collect(), self.log.0),
            range(all().map(|(_, y)| *y).collect(), self.log.1),
        )
    }

    fn svg(&self) -> String {
        let (across, up) = self.marks();
        let x = |value| LEFT + place(value, &across, self.log.0) * (WIDTH - LEFT - RIGHT);
        let y = |value| HEIGHT - BOTTOM - place(value, &up, self.log.1) * (HEIGHT - TOP - BOTTOM);
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">\n<title>{0}</title>\n\
             <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{0}</text>\n",
            self.title
        );
        for mark in &across {
            let at = x(*mark);
            let _ = writeln!(
                svg,
                "<line x1=\"{at:.1}\" y1=\"{TOP}\" x2=\"{at:.1}\" y2=\"{bottom}\" stroke=\"#eee\"/>\
                 <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{mark}</text>",
                bottom + 18.0
            );
        }
        for mark in &up {
            let at = y(*mark);
            let _ = writeln!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{at:.1}\" x2=\"{right}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{mark}</text>",
                LEFT - 8.0,
                at + 4.0
            );
        }
        let (middle, half) = (f64::midpoint(LEFT, right), f64::midpoint(TOP, bottom));
        let _ = writeln!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\n\
             <text transform=\"translate(16 {half:.1}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
            HEIGHT - 12.0,
            self.across,
            self.up
        );
        for (curve, colour) in self.curves.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<String> =
                curve.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px), y(*py))).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            );
            for (px, py) in &curve.points {
                let _ = writeln!(
                    svg,
                    "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                    x(*px),
                    y(*py)
                );
            }
        }
        // Where curves end at one place their names would lie on each other.
        let mut ends: Vec<_> = self.curves.iter().zip(COLOURS.iter().cycle()).collect();
        let end = |curve: &Curve| curve.points.last().map_or((LEFT, bottom), |(px, py)| (x(*px), y(*py)));
        ends.sort_by(|(one, _), (other, _)| end(one).1.total_cmp(&end(other).1));
        let mut free = TOP;
        for (curve, colour) in ends {
            let (px, py) = end(curve);
            let at = py.max(free);
            free = at + 14.0;
            let _ = writeln!(
                svg,
                "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>",
                px + 8.0,
                at + 4.0,
                curve.name
            );
        }
        svg.push_str("</svg>\n");
        svg
    }
}
