//! A checklist: for a terminal, as Markdown for a release's page, as JUnit's XML for CI.

use pointsman_proto::v1;

use super::{or, time};

/// For a terminal: a line for each point, its evidence below.
pub fn checklist(list: &v1::ChecklistReply) -> String {
    let mut text = format!("{}\n", head(list));
    for point in &list.points {
        let word = match point.verdict.as_str() {
            "passed" => "✔ passed ",
            "failed" => "✖ failed ",
            "open" => "◌ open   ",
            _ => "? no data",
        };
        text.push_str(&format!("{word} {:<16} {}\n", point.name, point.text));
        for line in &point.evidence {
            text.push_str(&format!("            {line}\n"));
        }
    }
    if let Some(open) = list.points.iter().find(|point| point.verdict == "open") {
        let (environment, release) = (&list.environment, &list.release);
        text.push_str(&format!(
            "tick what you have seen: `pointsman checklist {environment} --release {release} --tick {} --note TEXT`\n",
            open.name
        ));
    }
    text
}

fn head(list: &v1::ChecklistReply) -> String {
    let passed = list.points.iter().filter(|point| point.verdict == "passed").count();
    let (of, outcome) = (list.points.len(), or(&list.outcome, "running"));
    format!("{} release {} ({outcome}): {passed} of {of} points passed", list.environment, list.release)
}

/// As Markdown: a box for each point, ticked only where it passed.
pub fn checklist_markdown(list: &v1::ChecklistReply) -> String {
    let mut text = format!("## Post-deployment checklist\n\n{}\n\n", plain(&head(list)));
    for point in &list.points {
        let (tick, word) = match point.verdict.as_str() {
            "passed" => ("x", String::new()),
            "failed" => (" ", "**failed**: ".to_owned()),
            "open" => (" ", "open: ".to_owned()),
            _ => (" ", "no data: ".to_owned()),
        };
        let at = if point.at_ms == 0 { String::new() } else { format!(" ({})", time(point.at_ms)) };
        text.push_str(&format!("- [{tick}] {word}{}{at}\n", plain(&point.text)));
        for line in &point.evidence {
            text.push_str(&format!("  - {}\n", plain(line)));
        }
    }
    text
}

/// Text that Markdown takes as it is: evidence holds what servers said.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for c in text.chars() {
        match c {
            '<' => plain.push_str("&lt;"),
            '&' => plain.push_str("&amp;"),
            // Within code nothing can be escaped.
            '`' => plain.push('\''),
            '*' | '_' | '[' | ']' | '\\' | '|' => plain.extend(['\\', c]),
            c => plain.push(c),
        }
    }
    plain
}

/// As JUnit's XML: a failure is one, and what is not known is skipped, which CI shows as neither.
pub fn checklist_junit(list: &v1::ChecklistReply) -> String {
    let count = |verdicts: &[&str]| {
        list.points.iter().filter(|point| verdicts.contains(&point.verdict.as_str())).count()
    };
    let (tests, failures, skipped) = (list.points.len(), count(&["failed"]), count(&["no-data", "open"]));
    let name = attribute(&format!("{} {}", list.environment, list.release));
    let counts = format!("tests=\"{tests}\" failures=\"{failures}\" errors=\"0\" skipped=\"{skipped}\"");
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"{name}\" {counts}>\n"
    );
    for point in &list.points {
        let class = attribute(&format!("checklist.{}", list.environment));
        let title = attribute(&point.text);
        text.push_str(&format!("<testcase classname=\"{class}\" name=\"{title}\">"));
        let evidence = point.evidence.join("\n");
        match point.verdict.as_str() {
            "passed" => text.push_str(&format!("<system-out>{}</system-out>", attribute(&evidence))),
            "failed" => {
                let first =
                    point.evidence.iter().find(|line| line.contains("failed")).or(point.evidence.first());
                let message = attribute(first.map_or("failed", String::as_str));
                text.push_str(&format!("<failure message=\"{message}\">{}</failure>", attribute(&evidence)));
            }
            word => {
                let message = attribute(point.evidence.first().map_or(word, String::as_str));
                text.push_str(&format!("<skipped message=\"{message}\"/>"));
            }
        }
        text.push_str("</testcase>\n");
    }
    text.push_str("</testsuite>\n</testsuites>\n");
    text
}

/// Text as it may stand in XML, in an attribute too. XML 1.0 has no way to say most control characters.
fn attribute(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
