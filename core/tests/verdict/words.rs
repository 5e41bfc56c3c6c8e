//! What operators read, as one reviewed text: `golden/verdict_words.txt`. `UPDATE_GOLDEN=1 cargo test -p pointsman-core
//! --test verdict` writes it anew, for review.

use std::fmt::Write as _;

use pointsman_core::SlotName;
use pointsman_core::verdict::{Bounds, Choices, Counts, Excused, Judgement, Latency, Tick};

use crate::{judge, repeat, singly, slot, tick};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/verdict_words.txt");

fn samples() -> Vec<(&'static str, Judgement)> {
    let (good, old) = (slot(50, 0, 0), slot(48, 0, 1));
    let none = Counts::default();
    let mut samples = Vec::new();

    let mut watch = judge(singly());
    samples.push(("after three seconds", repeat(&mut watch, 1, 3, good, old)));
    samples.push(("a minute without a failure", repeat(&mut watch, 4, 60, good, good)));
    samples.push(("then four seconds of failures", repeat(&mut watch, 61, 64, slot(50, 40, 0), old)));
    samples.push(("and a fifth", repeat(&mut watch, 65, 65, slot(50, 40, 0), old)));

    let mut watch = judge(singly());
    samples.push(("8 % of errors from the start", repeat(&mut watch, 1, 8, slot(51, 4, 0), old)));

    let mut watch = judge(Choices { errors: Bounds { limit: 0.05, ..Bounds::ERRORS }, ..singly() });
    let worse = repeat(&mut watch, 1, 300, slot(500, 9, 0), slot(500, 1, 0));
    samples.push(("within a limit of 5 %, but far worse than the old slot", worse));

    let mut watch = judge(singly());
    samples
        .push(("slow, and the old slot is not", repeat(&mut watch, 1, 12, slot(50, 0, 5), slot(50, 0, 0))));

    let mut watch = judge(singly());
    samples.push(("the database is down", repeat(&mut watch, 1, 20, slot(50, 30, 0), slot(48, 31, 0))));

    let excused = Excused { errors: 0.06, over_limit: 0.0 };
    let mut watch = judge(Choices { excused, ..singly() });
    let as_before = repeat(&mut watch, 1, 120, slot(100, 3, 0), none);
    samples.push(("3 % of errors, as before the switch of everybody", as_before));

    let mut watch = judge(singly());
    samples.push(("no traffic", repeat(&mut watch, 1, 100, none, none)));
    samples.push(("no traffic for half an hour", repeat(&mut watch, 101, 1_800, none, none)));

    let mut watch = judge(Choices::default());
    samples.push((
        "two minutes at 5 requests a second",
        repeat(&mut watch, 1, 120, slot(5, 0, 0), slot(5, 0, 0)),
    ));
    samples.push(("half an hour of it", repeat(&mut watch, 121, 1_800, slot(5, 0, 0), slot(5, 0, 0))));

    let mut watch = judge(singly());
    samples
        .push(("as bad as the limit allows", repeat(&mut watch, 1, 120, slot(100, 1, 0), slot(100, 1, 0))));

    let mut watch = judge(singly());
    let unknown = |number| Tick { latency: Latency::Unknown, ..tick(number, slot(50, 0, 0), slot(50, 0, 0)) };
    let blind = (1..=90).map(|number| watch.step(&unknown(number))).last().unwrap();
    samples.push(("log lines are lost", blind));

    let mut watch = judge(singly());
    repeat(&mut watch, 1, 9, good, old);
    samples.push(("a tick that cannot be", watch.step(&tick(10, slot(5, 6, 0), old))));
    samples.push(("a counter that began anew", repeat(&mut watch, 1, 9, good, old)));
    repeat(&mut watch, 1, 9, good, old);
    repeat(&mut watch, 1, 9, good, old);
    samples.push(("for half a minute", repeat(&mut watch, 1, 9, good, old)));
    samples
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a golden file is compared with the disk, or written to it")]
fn what_operators_read() {
    let (new, old) = (SlotName::parse("green").unwrap(), SlotName::parse("blue").unwrap());
    let mut text = String::new();
    for (name, judgement) in samples() {
        let told = judgement.told(&new, &old);
        writeln!(text, "{name}\n  {}: {told}", judgement.verdict()).unwrap();
    }
    if std::env::var("UPDATE_GOLDEN").is_ok_and(|value| value == "1") {
        std::fs::write(GOLDEN, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(GOLDEN).unwrap_or_default());
}
