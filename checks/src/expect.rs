//! What an answer must be.

use regex::Regex;
use serde_json::Value;

use crate::answer::{Answer, HIDDEN};
use crate::extract::Extract;
use crate::json_path::JsonPath;
use crate::page;
use crate::template::{JsonTemplate, Template, Values};

/// Expectations on one answer. All of them must hold.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// Statuses that will do; empty: any of 200 to 299.
    pub status: Vec<u16>,
    /// Header fields, by lower-case name, and a text that each must contain.
    pub headers: Vec<(String, Template)>,
    /// A text that the body must contain.
    pub body: Option<Template>,
    /// A pattern that the body must match somewhere.
    pub regex: Option<Regex>,
    /// Values in a JSON body, by place.
    pub json: Vec<(JsonPath, JsonTemplate)>,
    /// Parts of the answer that must be exactly a text.
    pub equals: Vec<(Extract, Template)>,
    /// An element that the page must have, by CSS selector.
    pub html: Option<String>,
    /// How long the answer may take, in milliseconds.
    pub within_ms: Option<u64>,
}

impl Expect {
    /// Says what is wrong with an answer, if anything is.
    pub fn judge(&self, answer: &Answer, values: &Values) -> Result<(), String> {
        self.judge_status(answer)?;
        if let Some(within) = self.within_ms.filter(|within| answer.took_ms > *within) {
            return Err(format!("took {} ms, expected at most {within} ms", answer.took_ms));
        }
        for (name, wanted) in &self.headers {
            let wanted = wanted.render(values, str::to_owned)?;
            let found = answer.header(name).ok_or_else(|| format!("there is no header `{name}`"))?;
            if !answer.header_values(name).any(|found| found.contains(&wanted)) {
                let found = answer.shown_header(name, found);
                return Err(format!("expected header `{name}` with `{wanted}`, got {found}"));
            }
        }
        if let Some(wanted) = &self.body {
            let wanted = wanted.render(values, str::to_owned)?;
            if !contains(&answer.body, wanted.as_bytes()) {
                let (length, begins) = (answer.body.len(), answer.excerpt());
                return Err(format!(
                    "expected a body with `{wanted}`, got {length} bytes without it: {begins}"
                ));
            }
        }
        if let Some(wanted) = self.regex.as_ref().filter(|wanted| !wanted.is_match(&answer.text())) {
            return Err(format!("expected a body that matches `{wanted}`, got {}", answer.excerpt()));
        }
        self.judge_json(answer, values)?;
        for (part, wanted) in &self.equals {
            let (wanted, found) = (wanted.render(values, str::to_owned)?, part.take(answer)?);
            if found != wanted && !part.any_is(answer, &wanted) {
                let found = part.shown(answer, &found);
                return Err(format!("expected `{wanted}` at `{part}`, got {found}"));
            }
        }
        match &self.html {
            Some(wanted) if !page::has(&answer.text(), wanted)? => {
                Err(format!("expected a page with an element `{wanted}`, got {}", answer.excerpt()))
            }
            _ => Ok(()),
        }
    }

    fn judge_status(&self, answer: &Answer) -> Result<(), String> {
        let found = answer.status;
        let will_do = match self.status.as_slice() {
            [] => (200..300).contains(&found),
            wanted => wanted.contains(&found),
        };
        if will_do {
            return Ok(());
        }
        let wanted = match self.status.as_slice() {
            [] => "2xx".to_owned(),
            wanted => wanted.iter().map(u16::to_string).collect::<Vec<_>>().join(" or "),
        };
        Err(format!("expected status {wanted}, got {found}: {}", answer.excerpt()))
    }

    fn judge_json(&self, answer: &Answer, values: &Values) -> Result<(), String> {
        if self.json.is_empty() {
            return Ok(());
        }
        let body = answer.json()?;
        for (place, wanted) in &self.json {
            let wanted = wanted.render(values)?;
            let found = place.find(&body).unwrap_or(&Value::Null);
            if *found != wanted {
                let found = if answer.private { HIDDEN.to_owned() } else { found.to_string() };
                return Err(format!("expected {wanted} at `{}`, got {found}", place.as_str()));
            }
        }
        Ok(())
    }
}

fn contains(body: &[u8], wanted: &[u8]) -> bool {
    body.windows(wanted.len().max(1)).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer {
            status: 200,
            headers: vec![("content-type".to_owned(), "application/json; charset=utf-8".to_owned())],
            body: body.as_bytes().to_vec(),
            took_ms: 40,
            ..Answer::default()
        }
    }

    fn wrong(expect: Expect, answer: &Answer) -> String {
        expect.judge(answer, &Values::new()).unwrap_err()
    }

    #[test]
    fn what_holds_holds() {
        let expect = Expect {
            status: vec![200, 204],
            headers: vec![("content-type".to_owned(), Template::parse("json").unwrap())],
            body: Some(Template::parse("{{word}}").unwrap()),
            regex: Some(Regex::new("\"n\": *3").unwrap()),
            json: vec![(
                JsonPath::parse("$.n").unwrap(),
                JsonTemplate::parse(&serde_json::json!(3)).unwrap(),
            )],
            equals: vec![(Extract::parse("json:$.w").unwrap(), Template::parse("{{word}}").unwrap())],
            html: None,
            within_ms: Some(40),
        };
        let values = Values::from([("word".to_owned(), "hi".to_owned())]);
        assert_eq!(expect.judge(&answer(r#"{"n":3,"w":"hi"}"#), &values), Ok(()));
    }

    #[test]
    fn what_does_not_is_said_with_both_sides() {
        let found = answer(r#"{"n":4}"#);
        let said = wrong(Expect { status: vec![204], ..Expect::default() }, &found);
        assert_eq!(said, "expected status 204, got 200: `{\"n\":4}`");
        let failed = Answer { status: 500, ..Answer::default() };
        assert_eq!(wrong(Expect::default(), &failed), "expected status 2xx, got 500: an empty body");
        assert_eq!(
            wrong(Expect { within_ms: Some(39), ..Expect::default() }, &found),
            "took 40 ms, expected at most 39 ms"
        );
        let json = (JsonPath::parse("/n").unwrap(), JsonTemplate::parse(&serde_json::json!(3)).unwrap());
        assert_eq!(
            wrong(Expect { json: vec![json], ..Expect::default() }, &found),
            "expected 3 at `/n`, got 4"
        );
        let equals = (Extract::parse("json:$.n").unwrap(), Template::parse("r1").unwrap());
        assert_eq!(
            wrong(Expect { equals: vec![equals], ..Expect::default() }, &found),
            "expected `r1` at `json:$.n`, got `4`"
        );
        let html = Expect { html: Some("div#app".to_owned()), ..Expect::default() };
        assert!(wrong(html, &found).contains("an element `div#app`"));
        let body = Expect { body: Some(Template::parse("yes").unwrap()), ..Expect::default() };
        assert!(wrong(body, &found).contains("got 7 bytes without it"));
    }

    #[test]
    fn what_a_private_exchange_answers_and_whatever_cookie_is_set_is_not_repeated() {
        let found = |private| Answer {
            headers: vec![
                ("set-cookie".to_owned(), "session=hunter2; HttpOnly".to_owned()),
                ("location".to_owned(), "/in?code=hunter2".to_owned()),
            ],
            private,
            ..answer(r#"{"token":"hunter2"}"#)
        };
        let text = |text: &str| Template::parse(text).unwrap();
        let header =
            |name: &str| Expect { headers: vec![(name.to_owned(), text("no"))], ..Expect::default() };
        let equals = |part: &str| Expect {
            equals: vec![(Extract::parse(part).unwrap(), text("no"))],
            ..Expect::default()
        };
        let json =
            (JsonPath::parse("$.token").unwrap(), JsonTemplate::parse(&serde_json::json!("no")).unwrap());
        let json = Expect { json: vec![json], ..Expect::default() };
        let cookies = [header("set-cookie"), equals("cookie:session"), equals("header:set-cookie")];
        let others =
            [header("location"), equals("json:$.token"), equals("regex:hunter."), equals("body"), json];
        for expect in &cookies {
            let said = wrong(expect.clone(), &found(false));
            assert!(said.ends_with("got something else, not shown"), "{said}");
        }
        for expect in cookies.into_iter().chain(others) {
            let said = wrong(expect.clone(), &found(true));
            assert!(said.starts_with("expected") && !said.contains("hunter2"), "{said}");
            let open = wrong(expect, &found(false));
            assert!(open.contains("hunter2") || open.contains("not shown"), "{open}");
        }
    }

    #[test]
    fn any_header_field_of_a_name_will_do() {
        let set = |value: &str| ("set-cookie".to_owned(), value.to_owned());
        let found = Answer {
            headers: vec![set("csrf=1"), set("session=2; HttpOnly"), set("lang=de")],
            ..answer("{}")
        };
        let text = |text: &str| Template::parse(text).unwrap();
        let has = |wanted: &str| Expect {
            headers: vec![("set-cookie".to_owned(), text(wanted))],
            ..Expect::default()
        };
        let is = |wanted: &str| Expect {
            equals: vec![(Extract::parse("header:set-cookie").unwrap(), text(wanted))],
            ..Expect::default()
        };
        for good in [has("csrf="), has("session="), has("lang="), is("csrf=1"), is("lang=de")] {
            assert_eq!(good.judge(&found, &Values::new()), Ok(()));
        }
        for bad in [has("token="), is("session=")] {
            assert!(bad.judge(&found, &Values::new()).is_err());
        }
    }
}
