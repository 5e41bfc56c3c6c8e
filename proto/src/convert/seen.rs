//! What came of checks.

use prost::Message as _;

use pointsman_core::{CheckName, CheckSeen, CheckVerdict, MAX_SEEN};

use crate::v1;

/// Bytes of checks in a problem, which travels in the headers of an answer: those may have 16 KiB, text takes a third more on
/// its way, and the problem says something itself.
const MAX_HEADER_BYTES: usize = 6 << 10;

fn to_wire(seen: &CheckSeen) -> v1::CheckSeen {
    v1::CheckSeen {
        name: seen.name.to_string(),
        verdict: seen.verdict.as_str().to_owned(),
        took_ms: seen.took_ms,
        what: seen.what.clone(),
    }
}

/// Checks that were made, for the wire.
pub fn seen_to_wire(seen: &[CheckSeen]) -> Vec<v1::CheckSeen> {
    seen.iter().take(MAX_SEEN).map(to_wire).collect()
}

/// Checks that a problem tells of, for the wire, in their order: where not all fit, those that did not pass come first.
pub(super) fn seen_to_headers(seen: &[CheckSeen]) -> Vec<v1::CheckSeen> {
    let mut left = MAX_HEADER_BYTES;
    let wire: Vec<v1::CheckSeen> = seen_to_wire(seen);
    let mut fits: Vec<bool> = vec![false; wire.len()];
    for passed in [false, true] {
        let these = seen.iter().zip(&wire).zip(&mut fits);
        for ((_, wire), fits) in
            these.filter(|((seen, _), _)| (seen.verdict == CheckVerdict::Passed) == passed)
        {
            // Its key, and its length in up to two bytes.
            let bytes = wire.encoded_len().saturating_add(3);
            *fits = bytes <= left;
            left = left.saturating_sub(if *fits { bytes } else { 0 });
        }
    }
    wire.into_iter().zip(fits).filter_map(|(wire, fits)| fits.then_some(wire)).collect()
}

/// Checks from the wire. What this version does not know is left out: it is evidence, and nothing is decided by it.
pub fn seen_from_wire(wire: &[v1::CheckSeen]) -> Vec<CheckSeen> {
    let seen = |wire: &v1::CheckSeen| {
        let name = CheckName::parse(&wire.name).ok()?;
        Some(CheckSeen::new(name, CheckVerdict::parse(&wire.verdict)?, wire.took_ms, &wire.what))
    };
    wire.iter().take(MAX_SEEN).filter_map(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use pointsman_core::{Code, Problem};

    use crate::convert::{problem_from_wire, problem_to_wire};

    fn seen(number: usize, verdict: CheckVerdict, what: &str) -> CheckSeen {
        CheckSeen::new(CheckName::parse(&format!("check-{number}")).unwrap(), verdict, 40, what)
    }

    #[test]
    fn the_one_that_failed_is_among_those_that_are_told() {
        let failing_at = |at: usize, what: &str| -> Vec<CheckSeen> {
            let verdict = |number| if number == at { CheckVerdict::Failed } else { CheckVerdict::Passed };
            (0..128).map(|number| seen(number, verdict(number), what)).collect()
        };
        // What checks mostly say fits for all of them, in their order.
        let short = failing_at(100, "200 in 40 ms");
        let told = |seen: Vec<CheckSeen>| {
            let problem = Problem::new(Code::CheckFailed, "check `check-100` failed").with_checks(seen);
            let wire = problem_to_wire(&problem);
            assert!(wire.encoded_len() < 7 << 10, "{} bytes", wire.encoded_len());
            problem_from_wire(wire).unwrap().checks
        };
        assert_eq!(told(short.clone()), short);
        let long = failing_at(100, &"é".repeat(160));
        let told = told(long.clone());
        assert!(told.contains(&long[100]) && told.len() > 10, "{}", told.len());
    }
}
