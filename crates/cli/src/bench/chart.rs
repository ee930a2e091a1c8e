//! Samples per second as bars, by batch and kind: an SVG document, readable on light and dark backgrounds.

use std::fmt::Write;

use super::report::{Measured, Report, Status};

const WIDTH: f64 = 800.0;
const BAR_LEFT: f64 = 330.0;
const BAR_RIGHT: f64 = 780.0;
/// Values stand between the name of a bar and the bar, where no whisker comes.
const NAME_RIGHT: f64 = 262.0;
const LINE: f64 = 22.0;
const TOP: f64 = 40.0;

/// Colours by kind (Okabe and Ito's, told apart by the colour-blind); text takes those of the reader's theme. A whisker has an edge of
/// the other colour, so that it shows on bars and beside them.
const STYLE: &str = "text { font: 13px sans-serif; fill: #222 } .head { font-weight: bold } .spread { stroke: #111; stroke-width: 1.4; fill: none } \
    .edge { stroke: #fff; stroke-width: 4; fill: none } .mha-nocache { fill: #cc79a7 } \
    .mha-replicated { fill: #d55e00 } .mha { fill: #0072b2 } .el { fill: #009e73 } .auto { fill: #e69f00 } \
    @media (prefers-color-scheme: dark) { text { fill: #ddd } .spread { stroke: #fff } .edge { stroke: #111 } }";

/// What bars stand under one head: rows that do the same for each sentence.
fn group(row: &Measured) -> String {
    let key = &row.key;
    let preset = key.preset.as_ref().map_or_else(String::new, |preset| format!("{preset}: "));
    let source = match (&key.lengths_from, key.source_length) {
        (None, Some(length)) => length.to_string(),
        (_, most) => format!("lengths of a file{}", most.map_or_else(String::new, |most| format!(", {most} at most"))),
    };
    format!("{preset}{}, {}, beams {}, source {source}, new {}", key.model, key.dtype, key.num_beams, key.new_tokens)
}

/// Lines between the bars of one batch and those of the next.
const GAP: f64 = 0.4;

fn is_next_batch(before: &Measured, row: &Measured) -> bool {
    before.key.batch_asked != row.key.batch_asked
}

/// The chart of all rows.
pub(super) fn chart(report: &Report) -> String {
    let mut groups: Vec<(String, Vec<&Measured>)> = Vec::new();
    for row in &report.rows {
        let name = group(row);
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, rows)) => rows.push(row),
            None => groups.push((name, vec![row])),
        }
    }
    // Kinds of one batch stand side by side, in the order in which the batches were first seen.
    for (_, rows) in &mut groups {
        let mut batches: Vec<&str> = Vec::new();
        for row in rows.iter() {
            if !batches.contains(&row.key.batch_asked.as_str()) {
                batches.push(&row.key.batch_asked);
            }
        }
        rows.sort_by_key(|row| batches.iter().position(|batch| *batch == row.key.batch_asked));
    }
    let gaps = |rows: &[&Measured]| rows.windows(2).filter(|pair| is_next_batch(pair[0], pair[1])).count();
    let lines: f64 = groups.iter().map(|(_, rows)| (rows.len() + 2) as f64 + GAP * gaps(rows) as f64).sum();
    let height = TOP + LINE * (lines + 1.0);
    let title = format!("Samples per second on {}", report.place.device);
    let mut svg = String::new();
    // Writing to a String cannot fail.
    let mut line = |text: std::fmt::Arguments<'_>| {
        let _ = writeln!(svg, "{text}");
    };
    line(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{}">"#,
        escape(&title)
    ));
    line(format_args!("<style>{STYLE}</style>"));
    line(format_args!(r#"<text x="10" y="24" class="head">{}</text>"#, escape(&title)));
    if report.place.software_adapter {
        line(format_args!(r#"<text x="10" y="42">software adapter: only ratios mean something</text>"#));
    }
    let mut y = TOP;
    for (name, rows) in &groups {
        y += LINE;
        line(format_args!(r#"<text x="10" y="{y}" class="head">{}</text>"#, escape(name)));
        let reach = |row: &Measured| {
            row.cost.as_ref().map_or(0.0, |cost| cost.samples_per_second.mean + cost.samples_per_second.deviation)
        };
        let longest = rows.iter().map(|row| reach(row)).fold(f64::MIN_POSITIVE, f64::max);
        let mut before: Option<&Measured> = None;
        for &row in rows {
            y += LINE;
            if before.replace(row).is_some_and(|before| is_next_batch(before, row)) {
                y += LINE * GAP;
            }
            let batch = row.cost.as_ref().map_or_else(|| row.key.batch_asked.clone(), |cost| cost.batch.to_string());
            let largest = if row.key.batch_asked == "max" && row.cost.is_some() { " (largest)" } else { "" };
            let label = format!("{}, batch {batch}{largest}", row.key.attention);
            line(format_args!(r#"<text x="{NAME_RIGHT}" y="{y}" text-anchor="end">{}</text>"#, escape(&label)));
            let Some(cost) = &row.cost else {
                let what = if row.status == Status::Oom { "OOM" } else { "error" };
                line(format_args!(r#"<text x="{}" y="{y}">{what}</text>"#, BAR_LEFT + 4.0));
                continue;
            };
            let scale = (BAR_RIGHT - BAR_LEFT) / longest;
            let (mean, deviation) = (cost.samples_per_second.mean, cost.samples_per_second.deviation);
            line(format_args!(
                r#"<rect x="{BAR_LEFT}" y="{:.1}" width="{:.1}" height="15" class="{}"/>"#,
                y - 12.0,
                mean * scale,
                escape(&row.key.attention)
            ));
            line(format_args!(
                r#"<text x="{}" y="{y}" text-anchor="end">{}</text>"#,
                BAR_LEFT - 8.0,
                super::table::number(mean)
            ));
            let [from, to] = [(mean - deviation).max(0.0), mean + deviation].map(|value| BAR_LEFT + value * scale);
            if to > from {
                let (top, middle) = (y - 8.5, y - 4.5);
                let path = format!("M{from:.1} {top:.1}v8M{to:.1} {top:.1}v8M{from:.1} {middle:.1}H{to:.1}");
                for class in ["edge", "spread"] {
                    line(format_args!(r#"<path class="{class}" d="{path}"/>"#));
                }
            }
        }
        y += LINE;
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
