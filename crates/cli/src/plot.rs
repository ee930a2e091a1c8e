//! Line charts as SVG text, readable on light and dark backgrounds.

use std::fmt::Write;

/// Some lines over one x axis; y begins at 0, and x too or, where it is logarithmic, at 1.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    /// What was drawn.
    pub(crate) subtitle: String,
    pub(crate) x_label: String,
    pub(crate) y_label: String,
    /// Equal ratios of x are equally far apart.
    pub(crate) log_x: bool,
    /// Six at most have a colour of their own.
    pub(crate) series: Vec<Series>,
    /// A dashed line across, with two short lines of text beside the plane, where no line comes. What lies far above it is cut off.
    pub(crate) limit: Option<([String; 2], f64)>,
}

/// One line.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    /// (x, y), by ascending x.
    pub(crate) points: Vec<(f64, f64)>,
    /// What the legend says beside the name.
    pub(crate) remark: String,
    /// A point to be marked.
    pub(crate) mark: Option<(f64, f64)>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
/// Left, top, right and bottom of the plane.
const PLANE: [f64; 4] = [64.0, 60.0, 632.0, 356.0];
/// Ticks of an axis at most.
const TICKS: f64 = 8.0;
/// How far above the limit lines go on.
const HEADROOM: f64 = 1.15;
/// Lines that end so many times below the limit would lie flat on the axis: the limit is then only told.
const FAR_BELOW: f64 = 2.0;

/// Text and grid take the colours of the reader's theme; the lines' colours (Okabe and Ito's, told apart by the colour-blind) show on both.
const STYLE: &str = "
text { font: 13px sans-serif; fill: #222 }
.grid { stroke: #888; stroke-opacity: .3 } .axis { stroke: #444 }
.limit { stroke: #222; stroke-dasharray: 6 4; fill: none }
.line { fill: none; stroke-width: 2.2 }
.s0 { stroke: #d55e00; color: #d55e00 } .s1 { stroke: #0072b2; color: #0072b2 } .s2 { stroke: #009e73; color: #009e73 }
.s3 { stroke: #cc79a7; color: #cc79a7 } .s4 { stroke: #e69f00; color: #e69f00 } .s5 { stroke: #56b4e9; color: #56b4e9 }
.mark { fill: currentColor }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .axis { stroke: #bbb } .limit { stroke: #ddd } .s1 { stroke: #4aa3df; color: #4aa3df }
}
";

impl Chart {
    /// The chart as an SVG document.
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let largest = |values: &mut dyn Iterator<Item = f64>| values.filter(|v| v.is_finite()).fold(0.0, f64::max);
        let x_end = largest(&mut points().map(|p| p.0));
        let highest = largest(&mut points().map(|p| p.1));
        let y_end = match &self.limit {
            Some((_, limit)) if highest * FAR_BELOW >= *limit => limit * HEADROOM,
            Some(_) => highest * HEADROOM,
            None => highest,
        };
        let (x_end, y_end) = (if x_end > 0.0 { x_end } else { 1.0 }, if y_end > 0.0 { y_end } else { 1.0 });
        let [left, top, right, bottom] = PLANE;
        // A logarithmic axis needs some way to go.
        let x_end = if self.log_x { x_end.max(2.0) } else { x_end };
        let part = |value: f64| if self.log_x { value.max(1.0).ln() / x_end.ln() } else { value / x_end };
        let x = |value: f64| left + (right - left) * part(value);
        let y = |value: f64| bottom - (bottom - top) * value / y_end;

        let mut svg = String::new();
        // Writing to a String cannot fail.
        let mut line = |text: std::fmt::Arguments<'_>| {
            let _ = writeln!(svg, "{text}");
        };
        line(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{}">"#,
            escape(&self.title)
        ));
        line(format_args!("<style>{STYLE}</style>"));
        line(format_args!(r#"<text x="{left}" y="22" style="font-weight: bold">{}</text>"#, escape(&self.title)));
        line(format_args!(r#"<text x="{left}" y="42">{}</text>"#, escape(&self.subtitle)));
        for value in ticks(y_end) {
            let at = y(value);
            line(format_args!(r#"<path class="grid" d="M{left} {at:.1}H{right}"/>"#));
            line(format_args!(
                r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{}</text>"#,
                left - 8.0,
                at + 4.5,
                number(value)
            ));
        }
        for value in if self.log_x { log_ticks(x_end) } else { ticks(x_end) } {
            let at = x(value);
            line(format_args!(r#"<path class="grid" d="M{at:.1} {top}V{bottom}"/>"#));
            line(format_args!(
                r#"<text x="{at:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
                bottom + 18.0,
                number(value)
            ));
        }
        line(format_args!(r#"<path class="axis" fill="none" d="M{left} {top}V{bottom}H{right}"/>"#));
        line(format_args!(
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">{}</text>"#,
            (left + right) / 2.0,
            bottom + 38.0,
            escape(&self.x_label)
        ));
        line(format_args!(
            r#"<text transform="translate(16 {:.1}) rotate(-90)" text-anchor="middle">{}</text>"#,
            (top + bottom) / 2.0,
            escape(&self.y_label)
        ));
        for (n, series) in self.series.iter().enumerate() {
            let path: Vec<String> =
                cut(&series.points, y_end).iter().map(|p| format!("{:.1} {:.1}", x(p.0), y(p.1))).collect();
            if !path.is_empty() {
                line(format_args!(r#"<path class="line s{}" d="M{}"/>"#, n % 6, path.join("L")));
            }
        }
        if let Some((texts, limit)) = &self.limit {
            let at = y(*limit).max(top);
            if *limit <= y_end {
                line(format_args!(r#"<path class="limit" d="M{left} {at:.1}H{right}"/>"#));
            } else {
                let (x, y) = (right + 8.0, at + 36.5);
                line(format_args!(r#"<text x="{x:.1}" y="{y:.1}">(above)</text>"#));
            }
            for (text, down) in texts.iter().zip([0.0, 16.0]) {
                let (x, y) = (right + 8.0, at + 4.5 + down);
                line(format_args!(r#"<text x="{x:.1}" y="{y:.1}">{}</text>"#, escape(text)));
            }
        }
        for (n, series) in self.series.iter().enumerate() {
            let Some((at, value)) = &series.mark else { continue };
            let (x, y) = (x(*at), y(*value));
            line(format_args!(r#"<circle class="mark s{}" cx="{x:.1}" cy="{y:.1}" r="4"/>"#, n % 6));
        }
        let mut at = left;
        for (n, series) in self.series.iter().enumerate() {
            let legend = bottom + 64.0;
            line(format_args!(r#"<path class="line s{}" d="M{at:.1} {:.1}h24"/>"#, n % 6, legend - 4.5));
            let text = format!("{}{}", series.name, series.remark);
            line(format_args!(r#"<text x="{:.1}" y="{legend:.1}">{}</text>"#, at + 30.0, escape(&text)));
            at += 54.0 + 7.5 * text.chars().count() as f64;
        }
        line(format_args!("</svg>"));
        svg
    }
}

/// The points up to where the line first leaves the plane, which it meets at its edge.
fn cut(points: &[(f64, f64)], y_end: f64) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for point in points {
        if point.1 <= y_end {
            kept.push(*point);
            continue;
        }
        if let Some(last) = kept.last().copied() {
            let part = (y_end - last.1) / (point.1 - last.1);
            kept.push((last.0 + part * (point.0 - last.0), y_end));
        }
        break;
    }
    kept
}

/// Round values from 0 to `end`: steps of 1, 2 or 5 times a power of ten, eight at most.
fn ticks(end: f64) -> Vec<f64> {
    let rough = end / TICKS;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough * (1.0 - 1e-9));
    let step = step.unwrap_or(10.0 * power);
    (0..=(end / step * (1.0 + 1e-9)) as usize).map(|i| i as f64 * step).collect()
}

/// 1, 2, 5, 10, 20 and so on up to `end`; fewer of each power of ten where there are many powers.
fn log_ticks(end: f64) -> Vec<f64> {
    let powers = end.log10().floor().max(0.0) as i32;
    let steps: &[f64] = match powers {
        0..3 => &[1.0, 2.0, 5.0],
        3..5 => &[1.0, 3.0],
        _ => &[1.0],
    };
    let all = (0..=powers).flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
    all.filter(|value| *value <= end * (1.0 + 1e-9)).collect()
}

fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    match text.trim_end_matches('0').trim_end_matches('.') {
        "" | "-0" => "0".to_owned(),
        text => text.to_owned(),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks(18.4), [0.0, 5.0, 10.0, 15.0]);
        assert_eq!(ticks(8.0), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(
            ticks(0.03).iter().map(|t| number(*t)).collect::<Vec<_>>(),
            ["0", "0.005", "0.01", "0.015", "0.02", "0.025", "0.03"]
        );
        assert_eq!(ticks(320.0).len(), 7);
        assert_eq!(log_ticks(60.0), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        assert_eq!(log_ticks(2500.0), [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]);
        assert_eq!(log_ticks(3e6).len(), 7);
        assert_eq!(number(1500.0), "1500");
    }

    #[test]
    fn lines_end_where_they_leave_the_plane() {
        assert_eq!(cut(&[(0.0, 0.0), (2.0, 4.0), (4.0, 8.0)], 6.0), [(0.0, 0.0), (2.0, 4.0), (3.0, 6.0)]);
        assert_eq!(cut(&[(0.0, 7.0)], 6.0), []);
        assert_eq!(cut(&[(0.0, 1.0)], 6.0), [(0.0, 1.0)]);
    }

    #[test]
    fn the_document_has_lines_limit_and_legend() {
        let series = |name: &str, factor: f64| Series {
            name: name.to_owned(),
            points: (1..=4).map(|x| (f64::from(x), f64::from(x) * factor)).collect(),
            remark: if name == "mha" { ": 2 <at most>".to_owned() } else { String::new() },
            mark: (name == "mha").then_some((2.0, 16.0)),
        };
        let chart = Chart {
            title: "A <b> & \"c\"".to_owned(),
            subtitle: "bart in f16, 4 beams".to_owned(),
            x_label: "batch".to_owned(),
            y_label: "GiB".to_owned(),
            series: vec![series("mha", 8.0), series("el", 1.0)],
            log_x: false,
            limit: Some((["limit".to_owned(), "16 GiB".to_owned()], 16.0)),
        };
        let svg = chart.svg();
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("A &lt;b&gt; &amp; &quot;c&quot;") && !svg.contains("<b>"), "{svg}");
        assert!(svg.contains("prefers-color-scheme: dark") && svg.contains(">16 GiB</text>"), "{svg}");
        // mha leaves the plane, which ends at 18.4, between its second and its third point: x = 2 + 2.4 / 8.
        let lines: Vec<&str> = svg.lines().filter(|line| line.contains("class=\"line s0\"")).collect();
        let [left, top, right, bottom] = PLANE;
        let end = left + (right - left) * 2.3 / 4.0;
        assert!(lines[0].contains(&format!("L{end:.1} {top:.1}\"")), "{lines:?}");
        assert!(svg.contains(">bart in f16, 4 beams</text>"), "{svg}");
        // The limit is named beside the plane, and the largest batch lies on it.
        let at = bottom - (bottom - top) / HEADROOM;
        assert!(svg.contains(&format!(r#"<text x="{:.1}" y="{:.1}">limit</text>"#, right + 8.0, at + 4.5)), "{svg}");
        let middle = (left + right) / 2.0;
        assert!(svg.contains(&format!(r#"<circle class="mark s0" cx="{middle:.1}" cy="{at:.1}" r="4"/>"#)), "{svg}");
        assert!(svg.contains(">mha: 2 &lt;at most&gt;</text>") && svg.matches("<circle").count() == 1, "{svg}");
        // On a logarithmic axis 2 lies half way to 4, and 1 at the left edge.
        let log = Chart { log_x: true, ..chart.clone() }.svg();
        assert!(
            log.contains(&format!(r#"cx="{middle:.1}" cy="{at:.1}""#)) && log.contains(&format!("M{left:.1} ")),
            "{log}"
        );
        assert!(svg.contains(">el</text>") && svg.contains("class=\"limit\"") && !svg.contains("(above)"), "{svg}");
        // A limit far above everything does not press the lines on the axis.
        let far = Chart { limit: Some((["limit".to_owned(), "1 TiB".to_owned()], 1024.0)), ..chart.clone() }.svg();
        assert!(far.contains(">(above)</text>") && !far.contains("class=\"limit\""), "{far}");
        // Nothing to draw is drawn as an empty plane.
        let empty = Chart { series: Vec::new(), limit: None, ..chart };
        assert!(!empty.svg().contains("NaN"));
    }
}
