//! Whole watches as an independent implementation judges them: `judge.json`, by `judge.py` beside it, matched to 1e-9. It goes
//! by the definitions; the judge has a recursion. What is compared is what decides, through the judge's own door.

use pointsman_core::verdict::{
    Counts, Finding, Judge, Judgement, Latency, Metric, Params, Reason, Tick, Verdict,
};
use serde_json::Value;

const WATCHES: &str = include_str!("judge.json");

fn counts([requests, errors, over_limit, over_baseline]: [u32; 4]) -> Counts {
    Counts { requests, errors, timed: requests, over_limit, over_baseline, ..Counts::default() }
}

fn tick(row: &Value) -> Tick {
    let (number, new, old): (u64, [u32; 4], [u32; 4]) = {
        let mut row = row.as_array().unwrap().iter().map(|number| number.as_u64().unwrap());
        let number = row.next().unwrap();
        let mut slot = || std::array::from_fn(|_| u32::try_from(row.next().unwrap()).unwrap());
        (number, slot(), slot())
    };
    Tick { number, new: counts(new), old: counts(old), latency: Latency::Known }
}

/// Relative to 1e-9; above 1e6 the logarithms are compared, as with the other vectors.
fn same(what: &str, found: f64, expected: f64) {
    let (found, expected) =
        if expected.abs() > 1e6 { (found.log10(), expected.log10()) } else { (found, expected) };
    assert!((found - expected).abs() <= 1e-9 * expected.abs(), "{what}: {found} is not {expected}");
}

fn compare(what: &str, found: &Finding, expected: &Value) {
    let number = |field: &str| expected[field].as_f64().unwrap();
    same(&format!("{what}, over the limit"), found.over_limit, number("over_limit"));
    same(&format!("{what}, worse than the old slot"), found.worse_than_old, number("worse_than_old"));
    same(&format!("{what}, the old slot"), found.old_over_limit, number("old_over_limit"));
    assert_eq!(found.both_sick, expected["both_sick"], "{what}, both sick");
}

/// A verdict on what is bad: rollback or hold.
fn against(judgement: &Judgement) -> Option<Verdict> {
    let against =
        matches!(judgement.reason, Reason::WorseThanOld(_) | Reason::OverLimit(_) | Reason::BothSick(_));
    against.then(|| judgement.verdict())
}

#[test]
fn every_number_that_decides_is_what_an_independent_implementation_finds() {
    let watches: Vec<Value> = serde_json::from_str(WATCHES).unwrap();
    let mut verdicts = Vec::new();
    for watch in &watches {
        let name = watch["name"].as_str().unwrap();
        let mut judge = Judge::new(Params::default());
        let mut first = Value::Null;
        let mut expected = watch["expect"].as_array().unwrap().iter().peekable();
        for row in watch["ticks"].as_array().unwrap() {
            let judgement = judge.step(&tick(row));
            if let (Some(verdict), true) = (against(&judgement), first.is_null()) {
                first = serde_json::json!([verdict.as_str(), row[0]]);
            }
            if let Some(known) = expected.next_if(|known| known["tick"] == row[0]) {
                for (metric, field) in [(Metric::Errors, "errors"), (Metric::Slowness, "slowness")] {
                    let what = format!("{name}, tick {}, {field}", row[0]);
                    compare(&what, judgement.finding(metric), &known[field]);
                }
            }
        }
        assert_eq!(expected.next(), None, "{name}");
        assert_eq!(first, watch["first"], "{name}");
        verdicts.push(first[0].as_str().map(str::to_owned));
    }
    for verdict in [Some("rollback".to_owned()), Some("hold".to_owned()), None] {
        assert!(verdicts.contains(&verdict), "no watch ends with {verdict:?}");
    }
}
