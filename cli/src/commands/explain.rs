//! `explain`: the page of an error code, from the program itself.

use pointsman_core::{Code, Problem};

use crate::exit::Exit;
use crate::out::Out;

include!(concat!(env!("OUT_DIR"), "/error_pages.rs"));

/// Prints the page of a code.
pub fn explain(code: &str, out: &Out) -> Result<Exit, Problem> {
    let page = PAGES.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)).map(|(_, page)| *page);
    let page = page.ok_or_else(|| {
        Problem::new(Code::UsageWrong, format!("there is no error code `{}`", pointsman_core::clean(code)))
            .hint("codes look like `PM0401`; all of them are in docs/errors/README.md")
    })?;
    if out.json() {
        out.document(serde_json::json!({ "kind": "page", "code": code.to_uppercase(), "page": page }));
    } else {
        out.result(page);
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let pages: BTreeSet<&str> = PAGES.iter().map(|(code, _)| *code).collect();
        let codes: BTreeSet<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(pages, codes);
    }

    #[test]
    fn a_page_begins_with_its_code_and_title() {
        for (code, page) in PAGES {
            let title = Code::parse(code).unwrap().title();
            assert!(page.starts_with(&format!("# {code}: {title}\n")), "{code}");
            assert!(page.contains("## What to do"), "{code}");
        }
    }
}
