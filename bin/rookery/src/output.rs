//! What goes to stdout: text for people, one JSON value per line for programs.
//!
//! Colours only on a terminal, and not where `NO_COLOR` is set. A reader that goes away (`| head`) ends the output
//! quietly: it has what it wanted.

use std::io::{self, ErrorKind, IsTerminal, Write};

use serde::Serialize;

use crate::exit::{Exit, Report};

/// Where a command writes its result.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// JSON instead of text.
    pub json: bool,
    /// Text may be coloured.
    pub colour: bool,
    /// Somebody looks at stdout.
    pub terminal: bool,
}

impl Output {
    /// This process's stdout.
    pub fn stdout(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { json, colour: terminal && colours_wanted(), terminal }
    }

    /// Prints a value: as JSON, or as the text that `human` makes of it.
    pub fn value<T: Serialize>(
        &self,
        value: &T,
        human: impl FnOnce(&T, &Paint) -> String,
    ) -> Result<(), Report> {
        if self.json {
            let line = serde_json::to_string(value)
                .map_err(|error| Report::bug(format!("cannot write the answer as JSON: {error}")))?;
            return self.text(&(line + "\n"));
        }
        self.text(&human(value, &Paint { on: self.colour }))
    }

    /// Prints text as it is.
    pub fn text(&self, text: &str) -> Result<(), Report> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                Err(Report::io(Exit::Failed, "cannot write to stdout", &error))
            }
            _ => Ok(()),
        }
    }
}

/// Whether the user has not asked for plain text, as no-color.org has it.
pub fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Colours text, or leaves it alone.
#[derive(Debug, Clone, Copy)]
pub struct Paint {
    /// Whether to colour.
    pub on: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// What the eye should find first.
    pub fn strong(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What is as it should be.
    pub fn good(self, text: &str) -> String {
        self.with("32", text)
    }

    /// What deserves a look.
    pub fn warn(self, text: &str) -> String {
        self.with("33", text)
    }

    /// What is wrong.
    pub fn bad(self, text: &str) -> String {
        self.with("31", text)
    }

    /// What the eye may skip.
    pub fn faint(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// How a column is aligned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A table of plain cells under a heading. Columns are as wide as their widest cell; text that a peer sent has been
/// through [`printable`].
pub fn table(paint: Paint, columns: &[(&str, Align)], rows: &[Vec<String>]) -> String {
    let width = |i: usize| {
        let cells = rows.iter().filter_map(|row| row.get(i)).map(|cell| cell.chars().count());
        cells.chain([columns[i].0.chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(columns.iter().zip(&widths));
        let padded = cells.map(|(cell, ((_, align), width))| match align {
            Align::Left => format!("{cell:<width$}"),
            Align::Right => format!("{cell:>width$}"),
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut out = paint.faint(&line(&mut columns.iter().map(|(name, _)| *name))) + "\n";
    for row in rows {
        out += &line(&mut row.iter().map(String::as_str));
        out.push('\n');
    }
    out
}

/// A list of `name  value` lines with aligned values.
pub fn fields(paint: Paint, rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{}  {value}\n", paint.faint(&format!("{name:<width$}"))))
        .collect()
}

/// Longest text of a peer that is shown.
const MAX_SHOWN: usize = 160;

/// Text that came from outside, safe for a terminal: no control characters, bounded.
pub fn printable(text: &str) -> String {
    let mut out: String =
        text.chars().take(MAX_SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        out.push_str("...");
    }
    out
}

/// Bytes that came from outside on one line, with nothing lost: what is no printable text is escaped as in a Rust
/// literal, and what is no UTF-8 as `\xNN`.
pub fn escaped(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        // A quote is escaped by the backslash right before it, and needs none here.
        out += &chunk.valid().escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out
}

/// Bytes in the unit that leaves one to three digits before the point.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Seconds in the two greatest units: `45s`, `3m 20s`, `2h 5m`, `4d 1h`.
pub fn seconds(count: u64) -> String {
    let (d, h, m, s) = (count / 86_400, count / 3_600 % 24, count / 60 % 60, count % 60);
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m {s}s"),
        (0, ..) => format!("{h}h {m}m"),
        _ => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_stay_plain_without_colour() {
        let plain = Paint { on: false };
        let text = table(
            plain,
            &[("name", Align::Left), ("n", Align::Right)],
            &[vec!["a".into(), "100".into()], vec!["longer".into(), "2".into()]],
        );
        assert_eq!(text, "name      n\na       100\nlonger    2\n");
        assert_eq!(fields(plain, &[("a", "1".into()), ("bcd", "2".into())]), "a    1\nbcd  2\n");
        assert_eq!(Paint { on: true }.bad("x"), "\x1b[31mx\x1b[0m");
    }

    #[test]
    fn a_peer_s_text_cannot_drive_the_terminal() {
        assert_eq!(printable("/x\x1b[2J\n/"), "/x?[2J?/");
        assert_eq!(printable(&"y".repeat(161)).len(), 163);
    }

    #[test]
    fn any_bytes_are_one_line_that_shows_them_all() {
        for (bytes, shown) in [
            (&b"it's \"so\"\\"[..], r#"it's "so"\\"#),
            ("gr\u{f6}\u{df}er \u{1f426}".as_bytes(), "gr\u{f6}\u{df}er \u{1f426}"),
            (b"a\nb\x1b[2J\x00", r"a\nb\u{1b}[2J\0"),
            (b"\xff\xfex", r"\xff\xfex"),
            ("\u{202e}x".as_bytes(), r"\u{202e}x"),
        ] {
            assert_eq!(escaped(bytes), shown);
        }
    }

    #[test]
    fn amounts_read_well() {
        assert_eq!([bytes(1023), bytes(1536), bytes(48 << 20)], ["1023 B", "1.5 KiB", "48.0 MiB"]);
        assert_eq!(
            [seconds(59), seconds(60), seconds(7_500), seconds(349_200)],
            ["59s", "1m 0s", "2h 5m", "4d 1h"]
        );
    }
}
