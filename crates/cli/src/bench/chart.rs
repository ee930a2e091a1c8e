//! Samples per second as bars, by kind and batch: an SVG document, readable on light and dark backgrounds.

use std::fmt::Write;

use super::report::{Measured, Report, Status};

const WIDTH: f64 = 760.0;
const BAR_LEFT: f64 = 210.0;
const BAR_RIGHT: f64 = 640.0;
const LINE: f64 = 22.0;
const TOP: f64 = 40.0;

/// Colours by kind (Okabe and Ito's, told apart by the colour-blind); text takes those of the reader's theme.
const STYLE: &str = "text { font: 13px sans-serif; fill: #222 } .head { font-weight: bold } .spread { stroke: #222 } .mha-nocache { fill: #cc79a7 } \
    .mha-replicated { fill: #d55e00 } .mha { fill: #0072b2 } .el { fill: #009e73 } .auto { fill: #e69f00 } \
    @media (prefers-color-scheme: dark) { text { fill: #ddd } .spread { stroke: #ddd } }";

/// What bars stand together: rows that do the same for each sentence.
fn group(row: &Measured) -> String {
    let key = &row.key;
    let preset = key.preset.as_ref().map_or_else(String::new, |preset| format!("{preset}: "));
    let source = match (&key.lengths_from, key.source_length) {
        (None, Some(length)) => length.to_string(),
        (_, most) => format!("lengths of a file{}", most.map_or_else(String::new, |most| format!(", {most} at most"))),
    };
    format!("{preset}{}, {}, beams {}, source {source}, new {}", key.model, key.dtype, key.num_beams, key.new_tokens)
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
    let lines: usize = groups.iter().map(|(_, rows)| rows.len() + 2).sum();
    let height = TOP + LINE * (lines as f64 + 1.0);
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
        let rate = |row: &Measured| row.cost.as_ref().map_or(0.0, |cost| cost.samples_per_second.mean);
        let longest = rows.iter().map(|row| rate(row)).fold(f64::MIN_POSITIVE, f64::max);
        for row in rows {
            y += LINE;
            let batch = row.cost.as_ref().map_or_else(|| row.key.batch_asked.clone(), |cost| cost.batch.to_string());
            let largest = if row.key.batch_asked == "max" && row.cost.is_some() { " (largest)" } else { "" };
            let label = format!("{}, batch {batch}{largest}", row.key.attention);
            line(format_args!(r#"<text x="{}" y="{y}" text-anchor="end">{}</text>"#, BAR_LEFT - 8.0, escape(&label)));
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
            let (from, to) = ((mean - deviation).max(0.0) * scale, (mean + deviation) * scale);
            line(format_args!(r#"<path class="spread" d="M{:.1} {:.1}h{:.1}"/>"#, BAR_LEFT + from, y - 4.5, to - from));
            let end = BAR_LEFT + to.max(mean * scale);
            line(format_args!(r#"<text x="{:.1}" y="{y}">{}</text>"#, end + 6.0, super::table::number(mean)));
        }
        y += LINE;
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
