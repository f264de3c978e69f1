//! A profile for people.

use std::fmt::Write as _;

use super::TableProfile;

impl TableProfile {
    /// For people: a paragraph a column, then what is proposed.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let which = if self.complete { "all" } else { "the first" };
        let _ = writeln!(out, "{}: {which} {} rows, {} columns", self.name, self.rows, self.columns.len());
        for column in &self.columns {
            let _ = write!(out, "\n{}  {}", column.name, column.data_type);
            let about = if column.distinct_is_exact { "" } else { "about " };
            let _ = write!(out, ", {about}{} different", column.distinct);
            if column.nulls > 0 {
                let part = 100.0 * column.nulls as f64 / self.rows.max(1) as f64;
                let _ = write!(out, ", {} nulls ({part:.1} %)", column.nulls);
            }
            out.push('\n');
            if let (Some(min), Some(max)) = (&column.min, &column.max) {
                let _ = writeln!(out, "    {min} to {max}");
            }
            if let (Some(mean), Some(quantiles)) = (column.mean, column.quantiles) {
                let deviation =
                    column.standard_deviation.map(|own| format!(" ± {own:.4}")).unwrap_or_default();
                let shown: Vec<String> = quantiles.iter().map(|value| format!("{value}")).collect();
                let _ = writeln!(
                    out,
                    "    mean {mean:.4}{deviation}; 5 %, 25 %, 50 %, 75 %, 95 %: {}",
                    shown.join(", ")
                );
            }
            if !column.top.is_empty() {
                let shown: Vec<String> =
                    column.top.iter().map(|(value, count)| format!("{value} ({count})")).collect();
                let _ = writeln!(out, "    most often {}", shown.join(", "));
            }
            if let Some(kind) = &column.proposed_type {
                let but = match column.not_of_that_type {
                    0 => String::new(),
                    others => format!(", but for {others} of the texts"),
                };
                let _ = writeln!(out, "    proposed type {kind}{but}");
            }
            if let Some(unit) = &column.proposed_unit {
                let _ = writeln!(out, "    proposed unit {} ({})", unit.unit, unit.because);
            }
            for finding in &column.personal {
                let _ = writeln!(
                    out,
                    "    PERSONAL DATA: {} ({:.0} % of what was looked at; confidence {:.2})",
                    finding.kind.name(),
                    100.0 * finding.part,
                    finding.confidence
                );
            }
            for group in &column.near_duplicates {
                let _ = writeln!(out, "    nearly the same: {}", group.join(" | "));
            }
        }
        out.push('\n');
        for key in &self.keys {
            let _ = writeln!(out, "key candidate: {} (over {} rows)", key.columns.join(", "), key.rows);
        }
        for crs in &self.crs {
            let system = crs.crs.as_deref().unwrap_or("unclear");
            let _ =
                writeln!(out, "reference system of {}: {system} ({})", crs.columns.join(", "), crs.because);
        }
        let _ = writeln!(out, "duplicate rows: {}", self.duplicate_rows);
        if let Some((key, rows)) = &self.repeated_keys {
            let _ = writeln!(out, "rows that repeat the key {} and differ elsewhere: {rows}", key.join(", "));
        }
        out
    }
}
