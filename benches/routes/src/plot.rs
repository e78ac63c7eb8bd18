//! Cost against number of users, as a picture.

use std::collections::BTreeMap;

use plotters::prelude::*;

use crate::failure::Failure;
use crate::measure::Measured;

const SIZE: (u32, u32) = (960, 720);

/// What is drawn: name, and the figure of a case.
type Panel = (&'static str, fn(&Measured) -> f64);

const PANELS: [Panel; 4] = [
    ("single look-up, ns", |case| case.single_ns.median),
    ("list of 1,000, ns per UID", |case| case.list_ns.median),
    ("bytes per route", |case| case.bytes_per_route),
    ("million routes added per CPU second", |case| case.builds_per_second / 1e6),
];

/// Readable for those who see red and green alike (Okabe and Ito, *Color Universal Design*, 2008).
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];

/// The picture of some cases, as SVG.
pub(crate) fn of(all: &[Measured]) -> Result<String, Failure> {
    let mut svg = String::new();
    draw(all, &mut svg).map_err(|error| Failure::Plot(error.to_string()))?;
    Ok(svg)
}

fn draw(all: &[Measured], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut lines: BTreeMap<String, Vec<&Measured>> = BTreeMap::new();
    for case in all {
        let name = format!("{}, {} gateways", case.layout, case.gateways);
        lines.entry(name).or_default().push(case);
    }
    let users = |case: &Measured| case.users as f64;
    let bound = |least: fn(f64, f64) -> f64, start: f64| all.iter().map(users).fold(start, least);
    let across = bound(f64::min, f64::MAX)..bound(f64::max, 0.0) * 1.01;
    for (panel, (name, figure)) in area.split_evenly((2, 2)).iter().zip(PANELS) {
        let highest = all.iter().map(figure).fold(0.0, f64::max);
        let mut chart = ChartBuilder::on(panel)
            .caption(name, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(across.clone().log_scale(), 0.0..highest * 1.1)?;
        let power = |users: &f64| format!("{users:.0e}");
        chart.configure_mesh().x_desc("users").x_label_formatter(&power).draw()?;
        for ((name, cases), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
            let points = cases.iter().map(|case| (users(case), figure(case)));
            let line = LineSeries::new(points, colour.stroke_width(2)).point_size(3);
            let key = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
            chart.draw_series(line)?.label(name).legend(key);
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).draw()?;
    }
    area.present()?;
    Ok(())
}
