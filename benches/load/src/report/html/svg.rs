//! Shapes of a drawing as text. Colours and fonts are the style sheet's business.

use std::fmt::Write as _;

use super::looks::Shape;

/// Text as it stands in HTML and SVG, in elements and in quoted attributes.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Where a text is tied to its place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Anchor {
    fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A drawing under way.
#[derive(Clone, Debug)]
pub(super) struct Svg {
    body: String,
}

impl Svg {
    /// Of a size in its own units, with words for those who cannot see it.
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        let title = escape(title);
        let body = format!(
            "<svg viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"{title}\">"
        );
        Self { body }
    }

    /// The finished drawing.
    pub(super) fn finish(mut self) -> String {
        self.body.push_str("</svg>");
        self.body
    }

    fn write(&mut self, shape: std::fmt::Arguments<'_>) {
        self.body.write_fmt(shape).expect("a String takes all");
    }

    /// What follows belongs to a class, until [`Self::end`]; `told` is shown where the pointer is.
    pub(super) fn begin(&mut self, class: &str, told: &str) {
        self.write(format_args!("<g class=\"{}\">", escape(class)));
        if !told.is_empty() {
            self.write(format_args!("<title>{}</title>", escape(told)));
        }
    }

    /// Ends what [`Self::begin`] began.
    pub(super) fn end(&mut self) {
        self.body.push_str("</g>");
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.write(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    /// Lines from point to point.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)]) {
        self.outline("path", class, points, "");
    }

    /// What lies within points.
    pub(super) fn area(&mut self, class: &str, points: &[(f64, f64)]) {
        self.outline("path", class, points, "Z");
    }

    fn outline(&mut self, element: &str, class: &str, points: &[(f64, f64)], end: &str) {
        self.write(format_args!("<{element} class=\"{class}\" d=\""));
        for (at, (x, y)) in points.iter().enumerate() {
            let step = if at == 0 { "M" } else { "L" };
            self.write(format_args!("{step}{x:.1} {y:.1}"));
        }
        self.write(format_args!("{end}\"/>"));
    }

    /// A box, from its upper left corner.
    pub(super) fn bar(&mut self, class: &str, from: (f64, f64), size: (f64, f64)) {
        let ((x, y), (width, height)) = (from, size);
        self.write(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{height:.1}\" rx=\"2\"/>"
        ));
    }

    /// A line of text on its base line.
    pub(super) fn text(&mut self, class: &str, anchor: Anchor, at: (f64, f64), text: &str) {
        let (x, y) = at;
        self.write(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{}\">{}</text>",
            anchor.word(),
            escape(text)
        ));
    }

    /// A target's mark around a point, `size` from its middle to its edge.
    pub(super) fn mark(&mut self, shape: Shape, at: (f64, f64), size: f64) {
        let (x, y) = at;
        let corners = |corners: &[(f64, f64)]| -> Vec<(f64, f64)> {
            corners.iter().map(|(dx, dy)| (x + dx * size, y + dy * size)).collect()
        };
        let class = "mark";
        match shape {
            Shape::Circle | Shape::Ring => {
                let class = if shape == Shape::Ring { "mark ring" } else { class };
                self.write(format_args!(
                    "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{size:.1}\"/>"
                ));
            }
            Shape::Square => {
                let points = corners(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]);
                self.area(class, &points);
            }
            Shape::Triangle => {
                let points = corners(&[(0.0, -1.1), (1.05, 0.8), (-1.05, 0.8)]);
                self.area(class, &points);
            }
            Shape::Diamond => {
                let points = corners(&[(0.0, -1.2), (1.2, 0.0), (0.0, 1.2), (-1.2, 0.0)]);
                self.area(class, &points);
            }
        }
    }
}
