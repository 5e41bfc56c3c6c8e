//! Whether the journal is what was written: its own chain, and its end against what the agents have acted on. Nothing
//! in the file itself shows that its end was cut off; the agents know.

use pointsman_core::receipt::{self, Fence};
use pointsman_core::{EnvironmentName, Problem};
use pointsman_proto::{convert, v1};

use crate::journal::{JournalStore, Verification};
use crate::office::Office;

/// Digits of a hash that are shown: enough to compare by eye.
const SHOWN_BYTES: usize = 6;

/// Verifies the whole journal, and asks the agents of one environment what they have acted on. An error means that the
/// journal could not be looked at.
pub async fn audit(office: &Office, journal: &JournalStore) -> Result<v1::VerifyJournalReply, Problem> {
    // The agents first: what they know by then must be in what is read after it.
    let agents = office.look().await;
    let verified = journal.verify().await?;
    let (first_at_ms, last_at_ms) = moments(journal, &office.environment().name).await;
    let mut findings = vec![of_journal(&verified)];
    for agent in &agents {
        findings.push(of_agent(agent, journal, verified.entries).await);
    }
    Ok(v1::VerifyJournalReply {
        entries: verified.entries,
        head_hash: verified.head.hash.to_vec(),
        first_at_ms,
        last_at_ms,
        findings,
    })
}

/// When the environment's first and last entries were written; 0 where that cannot be read.
async fn moments(journal: &JournalStore, environment: &EnvironmentName) -> (u64, u64) {
    let span = journal.span(environment).await.ok().flatten();
    span.map_or((0, 0), |(first, last)| (first.0, last.0))
}

fn finding(subject: &str, verdict: &str, what: String, problem: Option<&Problem>) -> v1::Finding {
    v1::Finding {
        subject: subject.to_owned(),
        verdict: verdict.to_owned(),
        what,
        problem: problem.map(convert::problem_to_wire),
        ..Default::default()
    }
}

/// The journal by itself, in words.
pub fn of_journal(verified: &Verification) -> v1::Finding {
    let entries = verified.entries;
    match &verified.first_problem {
        Some(problem) => {
            let what = format!("cannot be trusted: only its first {entries} entries are what was written");
            finding("journal", "fail", what, Some(problem))
        }
        None if entries == 0 => finding("journal", "ok", "holds no entries yet".to_owned(), None),
        None => {
            let hash = verified.head.hash.iter().take(SHOWN_BYTES);
            let hash: String = hash.map(|byte| format!("{byte:02x}")).collect();
            let what = format!("{entries} entries, each as it was written; the last is {hash}");
            finding("journal", "ok", what, None)
        }
    }
}

/// What an agent has acted on, against the journal.
async fn of_agent(agent: &v1::AgentStatus, journal: &JournalStore, whole: u64) -> v1::Finding {
    let (host, seq) = (&agent.host, agent.head_seq);
    let Ok(head_hash) = <[u8; 32]>::try_from(agent.head_hash.as_slice()) else {
        let problem = agent.problem.clone().and_then(convert::problem_from_wire);
        let what = if problem.is_some() { "cannot be asked" } else { "does not say what it has acted on" };
        return finding(host, "unknown", what.to_owned(), problem.as_ref());
    };
    if seq == 0 {
        return finding(host, "ok", "has acted on nothing yet".to_owned(), None);
    }
    let known = match journal.hash_of(seq).await {
        Ok(known) => known,
        Err(problem) => return finding(host, "unknown", "cannot be compared".to_owned(), Some(&problem)),
    };
    let fence = Fence { head_seq: seq, head_hash, ..Fence::default() };
    match receipt::journal_holds(&fence, known) {
        Err(problem) => {
            let what = match known {
                Some(_) => format!("knows another entry {seq} than this journal has"),
                None => format!("knows entry {seq} that this journal does not have"),
            };
            finding(host, "fail", what, Some(&problem))
        }
        Ok(()) if seq <= whole => finding(host, "ok", format!("agrees up to entry {seq}"), None),
        Ok(()) => {
            let what = format!("knows entry {seq} as it stands here; what is wrong lies before it");
            finding(host, "unknown", what, None)
        }
    }
}

/// The journal by itself, for the terminal of the coordinator's own machine.
pub fn text(found: &v1::Finding) -> String {
    let sign = if found.verdict == "ok" { "✔ ok     " } else { "✖ fail   " };
    let mut text = format!("{sign} {:<12} {}\n", found.subject, found.what);
    if let Some(problem) = &found.problem {
        let margin = format!("{:<9} {:<12}", "", "");
        text.push_str(&format!("{margin} [{}] {}\n", problem.code, problem.message));
        for cause in &problem.causes {
            text.push_str(&format!("{margin} cause: {cause}\n"));
        }
        text.push_str(&format!("{margin} hint: {}\n", problem.hint));
    }
    text
}
