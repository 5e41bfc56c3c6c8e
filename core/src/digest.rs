//! Digests: identity by content. This crate carries and shows them; computing them is an effect of others.

use std::fmt;

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected 64 digits of `0-9a-f`")]
pub struct InvalidDigest(String);

fn parse_hex(text: &str) -> Result<[u8; 32], InvalidDigest> {
    let invalid = || InvalidDigest(crate::name::shown(text));
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err(invalid());
    }
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        let pair = text.get(2 * i..2 * i + 2).ok_or_else(invalid)?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| invalid())?;
    }
    Ok(bytes)
}

fn hex_digit(half: u8) -> char {
    char::from_digit(u32::from(half), 16).unwrap_or('?')
}

macro_rules! digest {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type([u8; 32]);

        impl $type {
            /// Wraps the 32 bytes of a computed digest.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// Parses 64 lower-case hexadecimal digits.
            pub fn parse(text: &str) -> Result<Self, InvalidDigest> {
                parse_hex(text).map(Self)
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The first twelve hexadecimal digits: enough for people to tell digests apart.
            pub fn short(&self) -> String {
                self.to_string().chars().take(12).collect()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let digits = self.0.iter().flat_map(|byte| [hex_digit(byte >> 4), hex_digit(byte & 0x0f)]);
                let mut text = String::with_capacity(64);
                text.extend(digits);
                f.write_str(&text)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($type), self.short())
            }
        }

        impl std::str::FromStr for $type {
            type Err = InvalidDigest;
            fn from_str(text: &str) -> Result<Self, InvalidDigest> {
                Self::parse(text)
            }
        }
    };
}

digest!(
    /// Names an artifact: BLAKE3 of the canonical bytes of its manifest.
    ArtifactDigest
);
digest!(
    /// Names the content of one file, or the target of one symbolic link: BLAKE3 of its bytes.
    ContentHash
);
digest!(
    /// Names what an order asks for: SHA-256 over its fields, without attempt, epoch and deadline.
    OrderDigest
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_there_and_back() {
        let text = "0123456789abcdef".repeat(4);
        assert_eq!(ArtifactDigest::parse(&text).unwrap().to_string(), text);
        for bad in ["", "abc", &"G".repeat(64), &"A".repeat(64), &"é".repeat(32), &"0".repeat(65)] {
            assert!(ArtifactDigest::parse(bad).is_err(), "{bad}");
        }
    }
}
