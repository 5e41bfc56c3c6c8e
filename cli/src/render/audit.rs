//! Whether the journal can be trusted.

use pointsman_core::EnvironmentName;
use pointsman_proto::v1;

use super::{problem_line, time};

/// What was found, the journal first, and what follows from it.
pub fn audit(environment: &EnvironmentName, verified: &v1::VerifyJournalReply) -> String {
    let mut text = String::new();
    for finding in &verified.findings {
        let sign = match finding.verdict.as_str() {
            "ok" => "✔ ok     ",
            "fail" => "✖ fail   ",
            _ => "? unknown",
        };
        text.push_str(&format!("{sign} {:<12} {}\n", finding.subject, finding.what));
        if let Some(problem) = &finding.problem {
            let margin = format!("{:<9} {:<12}", "", "");
            text.push_str(&format!("{margin} {}\n", problem_line(problem)));
            for cause in &problem.causes {
                text.push_str(&format!("{margin} cause: {cause}\n"));
            }
            text.push_str(&format!("{margin} hint: {}\n", problem.hint));
        }
        if finding.subject == "journal" && verified.first_at_ms > 0 {
            let (first, last) = (time(verified.first_at_ms), time(verified.last_at_ms));
            text.push_str(&format!("{:<9} {:<12} those of {environment} from {first} to {last}\n", "", ""));
        }
    }
    let any = |verdict: &str| verified.findings.iter().any(|finding| finding.verdict == verdict);
    text.push_str(if any("fail") {
        "the journal cannot be trusted: `pointsman explain PM0703` says what to do"
    } else if any("unknown") {
        "nothing is wrong with what could be looked at, but not every agent could be asked"
    } else {
        "the journal can be trusted"
    });
    text
}
