//! What is put away of a release's visitors with every second: whose it is, how far they were heard, and what their judge
//! knows. The three belong together: a second is either in all of it, or in none and heard again.

use std::collections::BTreeMap;

use pointsman_core::ports::{Mark, Position};
use pointsman_core::signal::{Probed, Probes};
use pointsman_core::{HostName, Plan};

/// The form in which it is put away.
const FORM: u8 = 2;
/// The form of before it was known how far visitors had been heard, and what was asked by others.
const WITHOUT_POSITION: u8 = 1;
/// Longest name of an agent's life that is put away: its start and its process take about 20 characters.
const LONGEST_LIFE: usize = 64;

/// Whose visitors they are, so that nobody takes up the judge of another release, or one that a person has replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whose {
    judge: u32,
    release: [u8; 32],
}

impl Whose {
    /// The visitors of a release, as its judge number so and so knows them.
    pub fn of(plan: &Plan, judge: u32) -> Self {
        let text = format!("{}\n{}\n{}", plan.environment, plan.release, plan.created_at.0);
        Self { judge, release: *blake3::hash(text.as_bytes()).as_bytes() }
    }
}

/// What was put away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    /// Whose it is.
    pub whose: Whose,
    /// How far they were heard; unknown where nothing was, and to an older coordinator.
    pub position: Option<Position>,
    /// What was asked meanwhile by no visitor: the judge knows nothing of it.
    pub probed: Probed,
    /// What the judge knows, as it writes it itself.
    pub judge: &'a [u8],
}

impl<'a> Kept<'a> {
    /// The bytes that are put away.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![FORM];
        bytes.extend_from_slice(&self.whose.judge.to_le_bytes());
        bytes.extend_from_slice(&self.whose.release);
        let marks: Vec<_> = self.position.iter().flat_map(|position| &position.read).filter(fits).collect();
        let number = self.position.as_ref().map_or(0, |position| position.number);
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&u32::try_from(marks.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (host, Mark { life, number, ahead_s }) in marks {
            for text in [host.as_str(), life] {
                bytes.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
                bytes.extend_from_slice(text.as_bytes());
            }
            bytes.extend_from_slice(&number.to_le_bytes());
            bytes.extend_from_slice(&ahead_s.to_le_bytes());
        }
        let Probed { new, old } = self.probed;
        for number in [new.requests, new.failures, old.requests, old.failures] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(self.judge);
        bytes
    }

    /// Reads what was put away, by this coordinator or an older one. None if it is neither.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let [form] = array(&mut rest)?;
        let whose = Whose { judge: u32::from_le_bytes(array(&mut rest)?), release: array(&mut rest)? };
        let (position, probed) = match form {
            FORM => (position(&mut rest)?, Probed { new: probes(&mut rest)?, old: probes(&mut rest)? }),
            WITHOUT_POSITION => (None, Probed::default()),
            _ => return None,
        };
        Some(Self { whose, position, probed, judge: rest })
    }
}

/// What does not fit is no life of an agent of ours: it is read from where it is then.
fn fits((_, mark): &(&HostName, &Mark)) -> bool {
    mark.life.len() <= LONGEST_LIFE
}

/// How far visitors were heard; nothing where the number says that nothing was.
fn position(rest: &mut &[u8]) -> Option<Option<Position>> {
    let number = u64::from_le_bytes(array(rest)?);
    let mut read = BTreeMap::new();
    for _ in 0..u32::from_le_bytes(array(rest)?) {
        let host = HostName::parse(text(rest)?).ok()?;
        let life = text(rest)?.to_owned();
        let (number, ahead_s) = (u64::from_le_bytes(array(rest)?), i64::from_le_bytes(array(rest)?));
        read.insert(host, Mark { life, number, ahead_s });
    }
    Some((number > 0).then_some(Position { number, read }))
}

fn probes(rest: &mut &[u8]) -> Option<Probes> {
    Some(Probes { requests: u64::from_le_bytes(array(rest)?), failures: u64::from_le_bytes(array(rest)?) })
}

fn array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let [length] = array(rest)?;
    let (text, tail) = rest.split_at_checked(length.into())?;
    *rest = tail;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(position: Option<Position>) -> Kept<'static> {
        let probed =
            Probed { new: Probes { requests: 7, failures: 1 }, old: Probes { requests: 6, failures: 0 } };
        Kept { whose: Whose { judge: 3, release: [9; 32] }, position, probed, judge: &[1, 2, 3, 4] }
    }

    fn position() -> Position {
        let mark = |number| Mark { life: "19f-2a".to_owned(), number, ahead_s: -3 };
        let read = [("lb1", 40), ("lb2", 39)].map(|(host, number)| (host.parse().unwrap(), mark(number)));
        Position { number: 1_700_000_000, read: read.into() }
    }

    #[test]
    fn what_is_put_away_comes_back() {
        for position in [None, Some(position())] {
            let kept = kept(position);
            assert_eq!(Kept::parse(&kept.to_bytes()), Some(kept));
        }
        let mut strange = position();
        strange.read.values_mut().next().unwrap().life = "x".repeat(LONGEST_LIFE + 1);
        let bytes = kept(Some(strange)).to_bytes();
        let read = Kept::parse(&bytes).unwrap().position.unwrap().read;
        assert_eq!(read.keys().map(HostName::as_str).collect::<Vec<_>>(), ["lb2"]);
    }

    #[test]
    fn what_an_older_coordinator_put_away_is_read() {
        let mut bytes = vec![WITHOUT_POSITION];
        bytes.extend_from_slice(&3u32.to_le_bytes());
        bytes.extend_from_slice(&[9; 32]);
        bytes.extend_from_slice(&[1, 2, 3, 4]);
        assert_eq!(Kept::parse(&bytes), Some(Kept { probed: Probed::default(), ..kept(None) }));
    }

    #[test]
    fn bytes_that_were_spoilt_are_no_panic() {
        let whole = kept(Some(position())).to_bytes();
        for at in 0..whole.len() {
            // What is missing from the judge its own reader finds out.
            assert!(Kept::parse(&whole[..at]).is_none_or(|kept| kept.judge.len() < 4), "{at}");
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                let mut spoilt = whole.clone();
                spoilt[at] = byte;
                Kept::parse(&spoilt);
            }
        }
    }
}
