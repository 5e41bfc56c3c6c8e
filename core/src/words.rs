//! Words that several parts say to people.

use std::fmt::Display;

/// A number with its word: `1 check`, `2 checks`, `0 tries`.
pub fn several<N: Display + PartialEq + From<u8>>(number: N, one: &str, many: &str) -> String {
    let word = if number == N::from(1) { one } else { many };
    format!("{number} {word}")
}

/// Bytes: `812 B`, `4.2 MB`.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{}.{} kB", count / 1_000, count % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{} MB", count / 1_000_000, count % 1_000_000 / 100_000),
        _ => format!("{}.{} GB", count / 1_000_000_000, count % 1_000_000_000 / 100_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_many() {
        let said = [0_usize, 1, 2].map(|number| several(number, "try", "tries"));
        assert_eq!(said, ["0 tries", "1 try", "2 tries"]);
    }
}
