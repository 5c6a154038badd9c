//! One measured number, and how it is printed: a JSON line on standard output and a row on standard error.

use crate::measure::Spread;

/// What a number is held against.
#[derive(Debug, Clone, Copy)]
enum Bound {
    None,
    AtMost(f64),
    AtLeast(f64),
}

/// One number.
#[derive(Debug, Clone)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    spread: Option<Spread>,
    bound: Bound,
    quoted: Option<&'static str>,
}

impl Figure {
    /// A number that was measured. Names join words by underscores; units are such as `headers/cpu_s`, `ns`, `ratio`.
    pub fn new(name: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self { name: name.into(), value, unit, spread: None, bound: Bound::None, quoted: None }
    }

    /// A number measured several times: the median is its value.
    pub fn spread(name: impl Into<String>, values: Vec<f64>, unit: &'static str) -> Self {
        let spread = Spread::of(values);
        Self { spread: Some(spread), ..Self::new(name, spread.median, unit) }
    }

    /// A number that was not measured here, and whose word it is.
    pub fn quoted(name: impl Into<String>, value: f64, unit: &'static str, source: &'static str) -> Self {
        Self { quoted: Some(source), ..Self::new(name, value, unit) }
    }

    /// With the most that it may be.
    pub fn at_most(self, bound: f64) -> Self {
        Self { bound: Bound::AtMost(bound), ..self }
    }

    /// With the least that it must be.
    pub fn at_least(self, bound: f64) -> Self {
        Self { bound: Bound::AtLeast(bound), ..self }
    }

    /// The number.
    pub fn value(&self) -> f64 {
        self.value
    }

    /// The target, and whether it is met.
    fn target(&self) -> Option<(f64, &'static str, bool)> {
        match self.bound {
            Bound::None => None,
            Bound::AtMost(most) => Some((most, "at most", self.value <= most)),
            Bound::AtLeast(least) => Some((least, "at least", self.value >= least)),
        }
    }

    /// Prints it both ways.
    pub fn print(&self, bench: &str) {
        let mut line = serde_json::json!({
            "bench": bench,
            "figure": self.name,
            "value": self.value,
            "unit": self.unit,
        });
        let mut notes = Vec::new();
        if let Some(Spread { min, max, .. }) = self.spread {
            line["min"] = min.into();
            line["max"] = max.into();
            notes.push(format!("{min:.3} .. {max:.3}"));
        }
        if let Some((bound, side, met)) = self.target() {
            line["target"] = bound.into();
            line["met"] = met.into();
            notes.push(format!("target {side} {bound}: {}", if met { "met" } else { "MISSED" }));
        }
        if let Some(source) = self.quoted {
            line["quoted"] = source.into();
            notes.push(format!("quoted: {source}"));
        }
        println!("{line}");
        eprintln!("  {:<34} {:>14.3} {:<14} {}", self.name, self.value, self.unit, notes.join("; "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_on_its_own_side_only() {
        let met = |figure: Figure| figure.target().map(|(_, _, met)| met);
        assert_eq!(met(Figure::new("cpu", 1.3, "s").at_most(1.3)), Some(true));
        assert_eq!(met(Figure::new("cpu", 1.31, "s").at_most(1.3)), Some(false));
        assert_eq!(met(Figure::new("rate", 9.0, "1/s").at_least(10.0)), Some(false));
        assert_eq!(met(Figure::new("rate", 9.0, "1/s")), None);
    }
}
