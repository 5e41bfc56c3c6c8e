//! From byte offsets to the lines and columns that people see.

use squawk_line_index::{LineIndex, TextSize, WideEncoding};

/// Lines and columns of one text.
pub(crate) struct Places(LineIndex);

impl Places {
    /// Indexes a text.
    pub(crate) fn of(text: &str) -> Self {
        Self(LineIndex::new(text))
    }

    /// Line and column in characters, both from 1, of a byte offset. An offset that is none is the start.
    pub(crate) fn at(&self, offset: usize) -> (u32, u32) {
        self.zero_based(offset).map_or((1, 1), |(line, column)| (line + 1, column + 1))
    }

    fn zero_based(&self, offset: usize) -> Option<(u32, u32)> {
        let place = self.0.try_line_col(TextSize::from(u32::try_from(offset).ok()?))?;
        let wide = self.0.to_wide(WideEncoding::Utf32, place)?;
        Some((wide.line, wide.col))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters() {
        let places = Places::of("ab\nä€x\r\nz");
        assert_eq!(places.at(0), (1, 1));
        assert_eq!(places.at(3), (2, 1));
        assert_eq!(places.at(8), (2, 3), "two characters of 2 and 3 bytes before it");
        assert_eq!(places.at(11), (3, 1));
        assert_eq!(places.at(4), (1, 1), "inside of a character");
        assert_eq!(places.at(999), (1, 1));
    }
}
