//! Lines of an input, as long as they may be and no longer.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A line, without its end.
    Text(Bytes),
    /// A line that was longer than allowed, and was passed over.
    TooLong,
}

/// Reads lines. Holds at most one of `most` bytes.
pub(super) struct Lines<R> {
    input: R,
    most: usize,
    line: Vec<u8>,
    too_long: bool,
}

impl<R: AsyncBufRead + Unpin> Lines<R> {
    pub const fn new(input: R, most: usize) -> Self {
        Self { input, most, line: Vec::new(), too_long: false }
    }

    /// The next line; `None` at the end. Cancel-safe.
    pub async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            let chunk = self.input.fill_buf().await?;
            if chunk.is_empty() {
                let rest = !self.line.is_empty() || self.too_long;
                return Ok(rest.then(|| self.take()));
            }
            let end = chunk.iter().position(|byte| *byte == b'\n');
            let part = &chunk[..end.unwrap_or(chunk.len())];
            if self.line.len() + part.len() > self.most {
                self.too_long = true;
                self.line.clear();
            } else if !self.too_long {
                self.line.extend_from_slice(part);
            }
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                return Ok(Some(self.take()));
            }
        }
    }

    fn take(&mut self) -> Line {
        let line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) {
            return Line::TooLong;
        }
        let bytes = Bytes::from(line);
        let cut = bytes.strip_suffix(b"\r").map_or(bytes.len(), <[u8]>::len);
        Line::Text(bytes.slice(..cut))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_come_whole_and_long_ones_are_passed_over() {
        let text = b"one\r\n\ntoolong\n12345\n1234567\nlast";
        // A buffer of two bytes, so that lines come in pieces.
        let mut lines = Lines::new(tokio::io::BufReader::with_capacity(2, &text[..]), 5);
        let line = |text: &'static str| Some(Line::Text(Bytes::from_static(text.as_bytes())));
        for expected in [
            line("one"),
            line(""),
            Some(Line::TooLong),
            line("12345"),
            Some(Line::TooLong),
            line("last"),
            None,
        ] {
            assert_eq!(lines.next().await.unwrap(), expected);
        }
        assert_eq!(lines.next().await.unwrap(), None);
    }
}
